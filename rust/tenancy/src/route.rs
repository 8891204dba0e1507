// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which tenant answers a path: the longest configured prefix that ends at a `/` boundary.
//!
//! The prefixes form a tree of path segments with a hash table in every node. A
//! look-up walks the request's segments until one has no node, so its cost
//! depends on the request's path alone: it is the same with 1 and with 10,000
//! tenants. It allocates nothing.

use std::collections::HashMap;

/// The position of a tenant in [`crate::Config::tenants`].
pub(crate) type TenantIndex = usize;

/// An immutable table from path prefixes to tenants.
#[derive(Debug)]
pub(crate) struct Router {
    /// Node 0 stands for `/`.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    tenant: Option<TenantIndex>,
    children: HashMap<Box<[u8]>, usize>,
}

impl Router {
    /// Builds the table. Every prefix is a valid [`crate::RoutePath`]; where two are equal the later one wins.
    pub(crate) fn new<'a>(prefixes: impl IntoIterator<Item = &'a str>) -> Self {
        let mut router = Self { nodes: vec![Node::default()] };
        for (tenant, prefix) in prefixes.into_iter().enumerate() {
            let mut at = 0;
            for segment in segments(prefix.as_bytes()) {
                at = router.child(at, segment);
            }
            router.nodes[at].tenant = Some(tenant);
        }
        router
    }

    fn child(&mut self, parent: usize, segment: &[u8]) -> usize {
        if let Some(&child) = self.nodes[parent].children.get(segment) {
            return child;
        }
        self.nodes.push(Node::default());
        let child = self.nodes.len() - 1;
        self.nodes[parent].children.insert(segment.into(), child);
        child
    }

    /// The tenant for `path`, which is as the client sent it, without the query.
    pub(crate) fn find(&self, path: &[u8]) -> Option<TenantIndex> {
        let mut node = &self.nodes[0];
        let mut found = node.tenant;
        for segment in segments(path) {
            match node.children.get(segment) {
                Some(&child) => node = &self.nodes[child],
                None => break,
            }
            found = node.tenant.or(found);
        }
        found
    }
}

/// What lies between the slashes. `/` has no segment, nor has a path that does not start with a slash
/// (`*`, or nothing); `/a/` has `a` and an empty one, which no prefix has.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let rest = path.strip_prefix(b"/").unwrap_or_default();
    (!rest.is_empty()).then(|| rest.split(|&byte| byte == b'/')).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::Router;
    use proptest::prelude::*;

    #[test]
    fn the_longest_prefix_at_a_slash_wins() {
        let router = Router::new(["/", "/a", "/a/b", "/ab"]);
        for (path, tenant) in [
            ("/", 0),
            ("/x", 0),
            ("/a", 1),
            ("/a/", 1),
            ("/a//b", 1),
            ("/a/x", 1),
            ("/a/b", 2),
            ("/a/b/c/d", 2),
            ("/a/bc", 1),
            ("/ab", 3),
            ("/abc", 0),
            ("//a", 0),
            ("", 0),
            ("*", 0),
        ] {
            assert_eq!(router.find(path.as_bytes()), Some(tenant), "{path}");
        }
    }

    #[test]
    fn without_a_root_tenant_other_paths_have_none() {
        let router = Router::new(["/a/b"]);
        assert_eq!(router.find(b"/a/b"), Some(0));
        for path in ["/", "/a", "/a/", "/a/bb", "/b", "", "a/b"] {
            assert_eq!(router.find(path.as_bytes()), None, "{path}");
        }
    }

    /// What the documentation promises, said in the plainest way.
    fn model(prefixes: &[String], path: &str) -> Option<usize> {
        (0..prefixes.len())
            .filter(|&tenant| {
                let prefix = &prefixes[tenant];
                prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"))
            })
            .max_by_key(|&tenant| prefixes[tenant].len())
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_model(
            prefixes in prop::collection::hash_set("(/[ab]{1,2}){1,4}|/", 0..24),
            paths in prop::collection::vec("(/[ab]{0,2}){1,6}", 1..24),
        ) {
            let prefixes: Vec<String> = prefixes.into_iter().collect();
            let router = Router::new(prefixes.iter().map(String::as_str));
            for path in paths {
                prop_assert_eq!(router.find(path.as_bytes()), model(&prefixes, &path), "{} among {:?}", path, prefixes);
            }
        }

        #[test]
        fn any_bytes_are_a_path(path in prop::collection::vec(any::<u8>(), 0..64)) {
            Router::new(["/a", "/b/c"]).find(&path);
        }
    }
}
