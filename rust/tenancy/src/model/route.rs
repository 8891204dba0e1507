// SPDX-License-Identifier: MIT OR Apache-2.0
//! Selects the tenant for a request: the most specific host, and within it the longest path prefix that ends at a `/`
//! boundary.
//!
//! ```text
//!   Host: a.shop.example:80      exact   "a.shop.example"  ──> prefixes ─┐ none?
//!                                suffix  "shop.example"    ──> prefixes ─┤ none?     the longest suffix first
//!                                        "example"         ──> prefixes ─┤ none?
//!                                any                           prefixes ─┴> the default tenant
//! ```
//!
//! The prefixes of one host pattern form a tree of path segments with a hash table in every node. A look-up walks the
//! request's segments until one has no node, so its cost depends on the request alone: it is the same with 1 and with
//! 10,000 tenants. It allocates nothing, and its work is bounded by the request's length.

use std::collections::HashMap;

use crate::config::TenantConfig;
use crate::config::values::HostPattern;

/// The position of a tenant in [`crate::Config::tenants`].
pub(crate) type TenantIndex = usize;

/// The longest host name (RFC 1035, 2.3.4); a longer name matches no host pattern.
const HOST_BYTES: usize = 253;

/// An immutable table from hosts and paths to tenants.
#[derive(Debug, Default)]
pub(crate) struct Router {
    nodes: Vec<Node>,
    exact: HashMap<Box<[u8]>, NodeIndex>,
    suffixes: HashMap<Box<[u8]>, NodeIndex>,
    /// The largest number of labels in a suffix pattern. A host's longer suffixes need no look-up, however many labels
    /// it has.
    suffix_labels: usize,
    any: Option<NodeIndex>,
    default: Option<TenantIndex>,
}

/// The position of a node in [`Router::nodes`].
type NodeIndex = usize;

/// A path prefix. The root of each tree stands for `/`.
#[derive(Debug, Default)]
struct Node {
    tenant: Option<TenantIndex>,
    children: HashMap<Box<[u8]>, NodeIndex>,
}

impl Router {
    /// Builds the table. The configuration guarantees that no two routes are equal and that at most one tenant is the
    /// default.
    pub(crate) fn new(tenants: &[TenantConfig]) -> Self {
        let mut router = Self::default();
        for (tenant, config) in tenants.iter().enumerate() {
            for route in &config.routes {
                let root = router.root(&route.host);
                let node = router.descend(root, route.path.as_str().as_bytes());
                router.nodes[node].tenant = Some(tenant);
            }
            if config.is_default {
                router.default = Some(tenant);
            }
        }
        router
    }

    /// The tree of a host pattern.
    fn root(&mut self, host: &HostPattern) -> NodeIndex {
        let nodes = &mut self.nodes;
        match host {
            HostPattern::Any => *self.any.get_or_insert_with(|| add(nodes)),
            HostPattern::Exact(name) => *self.exact.entry(name.as_bytes().into()).or_insert_with(|| add(nodes)),
            HostPattern::Suffix(name) => {
                self.suffix_labels = self.suffix_labels.max(labels(name.as_bytes()));
                *self.suffixes.entry(name.as_bytes().into()).or_insert_with(|| add(nodes))
            }
        }
    }

    fn descend(&mut self, root: NodeIndex, path: &[u8]) -> NodeIndex {
        let mut at = root;
        for segment in segments(path) {
            at = match self.nodes[at].children.get(segment) {
                Some(&child) => child,
                None => {
                    let child = add(&mut self.nodes);
                    self.nodes[at].children.insert(segment.into(), child);
                    child
                }
            };
        }
        at
    }

    /// The tenant for a request: `host` as in its header, empty if there is none; `path` as the client sent it, without
    /// the query.
    pub(crate) fn find(&self, host: &[u8], path: &[u8]) -> Option<TenantIndex> {
        self.claimed(host, path).or(self.default)
    }

    /// Whether there is a default tenant.
    pub(crate) fn has_default(&self) -> bool {
        self.default.is_some()
    }

    #[cfg(test)]
    fn claims(&self, host: &[u8], path: &[u8]) -> bool {
        self.claimed(host, path).is_some()
    }

    /// The tenant that has a route for this host and path, not counting the default tenant.
    pub(crate) fn claimed(&self, host: &[u8], path: &[u8]) -> Option<TenantIndex> {
        self.claimed_by_host(host, path).or_else(|| self.longest_prefix(self.any?, path))
    }

    fn claimed_by_host(&self, host: &[u8], path: &[u8]) -> Option<TenantIndex> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return None;
        }
        let mut buffer = [0; HOST_BYTES];
        let name = host_name(host, &mut buffer)?;
        let in_tree = |root: Option<&NodeIndex>| self.longest_prefix(*root?, path);
        in_tree(self.exact.get(name))
            .or_else(|| suffixes(name, self.suffix_labels).find_map(|suffix| in_tree(self.suffixes.get(suffix))))
    }

    fn longest_prefix(&self, root: NodeIndex, path: &[u8]) -> Option<TenantIndex> {
        let mut node = &self.nodes[root];
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

fn add(nodes: &mut Vec<Node>) -> NodeIndex {
    nodes.push(Node::default());
    nodes.len() - 1
}

/// The segments between the slashes. `/` has none, nor has a path that does not start with a slash (`*`, or empty).
/// `/a/` has `a` and an empty segment, which no prefix has.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let rest = path.strip_prefix(b"/").unwrap_or_default();
    (!rest.is_empty()).then(|| rest.split(|&byte| byte == b'/')).into_iter().flatten()
}

/// The name or address in a `Host` header, in lower case, without the port and a final dot (RFC 9110, 7.2). `None` if
/// there is none, or if no route can match it.
fn host_name<'a>(host: &[u8], buffer: &'a mut [u8; HOST_BYTES]) -> Option<&'a [u8]> {
    let end = match host.first()? {
        b'[' => host.iter().position(|&byte| byte == b']')? + 1,
        _ => host.iter().position(|&byte| byte == b':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    if let Some((colon, digits)) = port.split_first()
        && (*colon != b':' || !digits.iter().all(u8::is_ascii_digit))
    {
        return None;
    }
    let name = name.strip_suffix(b".").unwrap_or(name);
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    Some(lower)
}

fn labels(name: &[u8]) -> usize {
    name.split(|&byte| byte == b'.').count()
}

/// The part after each of the name's dots, longest first, if it has at most `most` labels.
fn suffixes(name: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    // Each skipped dot removes one label.
    let too_long = labels(name).saturating_sub(most + 1);
    name.iter().enumerate().filter(|(_, byte)| **byte == b'.').skip(too_long).map(|(dot, _)| &name[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::config::Route;
    use proptest::prelude::*;

    /// A router for tenants that are each given as a space-separated list of routes such as `shop.example/a */b`; the
    /// word `default` marks the default tenant.
    fn router(tenants: &[&str]) -> Router {
        Router::new(&configs(tenants))
    }

    fn configs(tenants: &[&str]) -> Vec<TenantConfig> {
        let template = r#"{"tenants": [{"name": "a", "program": "p", "path": "/"}]}"#;
        let template = Config::from_json(template).unwrap().tenants.remove(0);
        let tenant = |routes: &&str| TenantConfig {
            is_default: routes.split_whitespace().any(|route| route == "default"),
            routes: routes.split_whitespace().filter(|route| *route != "default").map(route).collect(),
            ..template.clone()
        };
        tenants.iter().map(tenant).collect()
    }

    fn route(text: &str) -> Route {
        let (host, path) = text.split_at(text.find('/').unwrap());
        let host = if host.is_empty() { HostPattern::Any } else { host.try_into().unwrap() };
        Route { host, path: path.to_owned().try_into().unwrap() }
    }

    #[test]
    fn the_longest_prefix_at_a_slash_wins() {
        let router = router(&["/", "/a", "/a/b", "/ab"]);
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
            assert_eq!(router.find(b"", path.as_bytes()), Some(tenant), "{path}");
        }
    }

    #[test]
    fn without_a_root_tenant_other_paths_have_none() {
        let router = router(&["/a/b"]);
        assert_eq!(router.find(b"x", b"/a/b"), Some(0));
        for path in ["/", "/a", "/a/", "/a/bb", "/b", "", "a/b"] {
            assert_eq!(router.find(b"x", path.as_bytes()), None, "{path}");
            assert!(!router.claims(b"x", path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn the_most_specific_host_with_a_path_wins() {
        let router = router(&[
            "shop.example/",
            "*.shop.example/",
            "*.example/",
            "a.shop.example/a /b",
            "/",
            "*.b.shop.example/",
        ]);
        for (host, path, tenant) in [
            ("shop.example", "/", 0),
            ("SHOP.Example", "/x", 0),
            ("shop.example.", "/", 0),
            ("shop.example:8080", "/", 0),
            ("shop.example.:", "/", 0),
            ("b.shop.example", "/", 1),
            ("x.y.shop.example", "/", 1),
            ("x.b.shop.example", "/", 5),
            ("a.shop.example", "/a/x", 3),
            ("a.shop.example", "/", 1), // Its own host has no such path: the next pattern applies.
            ("other.example", "/", 2),
            ("example", "/", 4), // A suffix pattern does not match the suffix itself.
            (".example", "/", 2),
            ("shopexample", "/", 4),
            ("shop.example", "/b", 0),
            ("example", "/b", 3),
            ("", "/", 4),
            ("shop.example:x", "/", 4),
            ("shop.example:80:80", "/", 4),
            ("[::1]", "/", 4),
        ] {
            assert_eq!(router.find(host.as_bytes(), path.as_bytes()), Some(tenant), "{host} {path}");
        }
    }

    #[test]
    fn addresses_are_hosts() {
        let router = router(&["[::1]/", "127.0.0.1/"]);
        for (host, tenant) in [
            ("[::1]", Some(0)),
            ("[::1]:80", Some(0)),
            ("[::1]80", None),
            ("[::1", None),
            ("[::2]", None),
            ("::1", None),
            ("127.0.0.1:80", Some(1)),
            ("[127.0.0.1]", None),
        ] {
            assert_eq!(router.find(host.as_bytes(), b"/"), tenant, "{host}");
        }
    }

    #[test]
    fn the_default_tenant_gets_what_no_route_matches() {
        let router = router(&["default", "shop.example/a", "default-is-a-name.example/"]);
        for (host, path, tenant, claimed) in [
            ("shop.example", "/a", 1, true),
            ("shop.example", "/", 0, false),
            ("", "", 0, false),
            ("x", "/a", 0, false),
        ] {
            assert_eq!(router.find(host.as_bytes(), path.as_bytes()), Some(tenant), "{host} {path}");
            assert_eq!(router.claims(host.as_bytes(), path.as_bytes()), claimed, "{host} {path}");
        }
    }

    #[test]
    fn a_host_of_many_labels_costs_no_more_look_ups_than_suffixes_have_labels() {
        let name = ["a"; 125].join(".");
        assert_eq!(suffixes(name.as_bytes(), 3).collect::<Vec<_>>(), [&b"a.a.a"[..], b"a.a", b"a"]);
        assert_eq!(suffixes(b"a.b", 3).collect::<Vec<_>>(), [b"b"]);
        assert_eq!(suffixes(b"a.b", 2).collect::<Vec<_>>(), [b"b"]);
        assert_eq!(suffixes(b"a", 2).count() + suffixes(b"", 2).count() + suffixes(b"a.b", 0).count(), 0);
        let long = format!("{name}.aa");
        assert!(long.len() <= HOST_BYTES && router(&["*.aa/"]).claims(long.as_bytes(), b"/"));
        assert!(!router(&["*.aa/"]).claims(format!("a.{long}").as_bytes(), b"/"));
    }

    /// The documented rule in its simplest form: how specific the route is for the request, if it matches.
    fn fit(route: &Route, host: &str, path: &str) -> Option<(usize, usize, usize)> {
        let host = host.split(':').next().unwrap().to_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let prefix = route.path.as_str();
        let has_path = prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"));
        let host = match &route.host {
            HostPattern::Any => Some((0, 0)),
            HostPattern::Exact(name) => (host == name).then_some((2, 0)),
            HostPattern::Suffix(name) => host.ends_with(&format!(".{name}")).then_some((1, name.len())),
        };
        host.filter(|_| has_path).map(|(kind, length)| (kind, length, prefix.len()))
    }

    fn model(tenants: &[TenantConfig], host: &str, path: &str) -> Option<usize> {
        let routes = tenants
            .iter()
            .enumerate()
            .flat_map(|(tenant, config)| config.routes.iter().map(move |route| (tenant, route)));
        let fitting = routes.filter_map(|(tenant, route)| Some((fit(route, host, path)?, tenant)));
        fitting.max().map(|(_, tenant)| tenant)
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_model(
            routes in prop::collection::hash_set(r"((\*\.)?[ab](\.[ab]){0,3})?((/[ab]{1,2}){1,3}|/)", 0..40),
            default in prop::option::of(0..3_usize),
            requests in prop::collection::vec((r"|[abAB](\.[abAB]){0,5}\.?(:80)?", r"(/[ab]{0,2}){1,5}"), 1..40),
        ) {
            // Three tenants share the routes.
            let mut tenants = [String::new(), String::new(), String::new()];
            for (number, route) in routes.iter().enumerate() {
                tenants[number % 3] += &format!("{route} ");
            }
            if let Some(tenant) = default {
                tenants[tenant] += "default";
            }
            let tenants = configs(&tenants.each_ref().map(String::as_str));
            let router = Router::new(&tenants);
            for (host, path) in requests {
                let expected = model(&tenants, &host, &path);
                prop_assert_eq!(router.claims(host.as_bytes(), path.as_bytes()), expected.is_some());
                prop_assert_eq!(router.find(host.as_bytes(), path.as_bytes()), expected.or(default), "{} {} among {:?}", host, path, routes);
            }
        }

        #[test]
        fn any_bytes_are_a_host_and_a_path(
            host in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'.'), Just(b':'), Just(b'['), Just(b']')], 0..300),
            path in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            router(&["/a", "/b/c", "*.a.b/", "a/", "[::1]/"]).find(&host, &path);
        }
    }
}
