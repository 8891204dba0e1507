// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files other than its program whose changes make a tenant boot again: scripts, templates, everything that its `watch`
//! names.
//!
//! Each file's identity, size and times are compared, not its content: the files are the tenant's own, there may be
//! many, and a superfluous boot does no harm. The walk is bounded, follows no symbolic link to a directory, and skips
//! directories whose names begin with a dot.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use mayfly_files::{FileStamp, waiting_for};

use crate::config::TenantConfig;

/// Most directories watched for a tenant.
pub(crate) const DIRECTORIES_MAX: usize = 256;
/// Most files and directories watched for a tenant.
const ENTRIES_MAX: usize = 16_384;

/// The files that a tenant's `watch` refers to at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WatchedFiles {
    /// Directories of which every entry is watched, including those below them.
    pub directories: Vec<PathBuf>,
    /// The paths in `watch` itself, whether they exist or not.
    pub named: Vec<PathBuf>,
    /// Whether some files are not watched, because there are too many directories or files.
    pub is_cut: bool,
    digest: u64,
}

impl TenantConfig {
    /// Walks the files that the tenant's `watch` names. Blocks on the file system.
    #[must_use]
    pub fn watched_files(&self) -> WatchedFiles {
        let mut found = WatchedFiles { named: self.watch.clone(), ..WatchedFiles::default() };
        let mut hasher = DefaultHasher::new();
        let mut entries = 0;
        // A stack in the order of the names, so that the digest does not depend on the directory's order.
        let mut left: Vec<PathBuf> = self.watch.iter().rev().cloned().collect();
        while let Some(path) = left.pop() {
            entries += 1;
            if entries > ENTRIES_MAX {
                found.is_cut = true;
                break;
            }
            let is_directory =
                waiting_for(
                    &path,
                    || {
                        if found.named.contains(&path) { path.is_dir() } else { is_plain_directory(&path) }
                    },
                );
            path.hash(&mut hasher);
            if !is_directory {
                FileStamp::of(&path).ok().hash(&mut hasher);
            } else if found.directories.len() == DIRECTORIES_MAX {
                found.is_cut = true;
            } else {
                left.extend(waiting_for(&path, || entries_of(&path)));
                found.directories.push(path);
            }
        }
        found.digest = hasher.finish();
        found
    }
}

impl WatchedFiles {
    /// Changes when a file is added, removed or changed.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}

/// Whether this is a directory, and not a symbolic link to one.
fn is_plain_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// The entries of a directory, in descending order; none if it cannot be read.
fn entries_of(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let is_hidden = |entry: &fs::DirEntry| {
        entry.file_name().as_encoded_bytes().starts_with(b".") && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    let mut paths: Vec<PathBuf> =
        entries.flatten().take(ENTRIES_MAX + 1).filter(|entry| !is_hidden(entry)).map(|entry| entry.path()).collect();
    paths.sort_unstable_by(|a, b| b.cmp(a));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config(root: &Path, watch: &str) -> TenantConfig {
        let text = format!(
            r#"{{"root": {root:?}, "tenants": [{{"name": "a", "program": "p", "path": "/",
               "mounts": [{{"host": "app", "at": "/srv/app"}}]{watch}}}]}}"#
        );
        Config::from_json(&text).unwrap().tenants.remove(0)
    }

    #[test]
    fn every_change_below_a_directory_shows() {
        let root = tempfile::tempdir().unwrap();
        let app = root.path().join("app");
        fs::create_dir_all(app.join("lib/deep")).unwrap();
        fs::create_dir_all(app.join(".git")).unwrap();
        fs::write(app.join("main.js"), "1").unwrap();
        let config = config(root.path(), r#", "watch": ["/srv/app"]"#);
        let mut seen = vec![config.watched_files().digest()];
        assert_eq!(config.watched_files().directories, [app.clone(), app.join("lib"), app.join("lib/deep")]);
        let changes: [&dyn Fn(); 5] = [
            &|| fs::write(app.join("main.js"), "22").unwrap(),
            &|| fs::write(app.join("lib/deep/new.js"), "").unwrap(),
            &|| fs::rename(app.join("lib/deep/new.js"), app.join("lib/new.js")).unwrap(),
            &|| fs::create_dir(app.join("empty")).unwrap(),
            &|| fs::remove_file(app.join("main.js")).unwrap(),
        ];
        for change in changes {
            change();
            let now = config.watched_files();
            assert!(!seen.contains(&now.digest()) && !now.is_cut);
            seen.push(now.digest());
        }
        // Skipped directories and links.
        fs::write(app.join(".git/index"), "x").unwrap();
        std::os::unix::fs::symlink("/", app.join("root")).unwrap();
        let with_link = config.watched_files();
        assert_eq!(with_link.directories.len(), 4, "no link is followed to a directory: {with_link:?}");
        assert_eq!(config.watched_files(), with_link);
    }

    #[test]
    fn a_file_may_appear_later_and_others_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        let app = root.path().join("app");
        fs::create_dir(&app).unwrap();
        let config = config(root.path(), r#", "watch": ["/srv/app/main.js"]"#);
        let none = config.watched_files();
        assert_eq!((none.named.as_slice(), none.directories.len()), ([app.join("main.js")].as_slice(), 0));
        fs::write(app.join("other.js"), "").unwrap();
        assert_eq!(config.watched_files(), none);
        fs::write(app.join("main.js"), "").unwrap();
        assert_ne!(config.watched_files(), none);
    }

    #[test]
    fn a_large_tree_is_cut() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..DIRECTORIES_MAX + 10 {
            fs::create_dir_all(root.path().join(format!("app/{number}"))).unwrap();
        }
        let found = config(root.path(), r#", "watch": ["/srv/app"]"#).watched_files();
        assert!(found.is_cut);
        assert_eq!(found.directories.len(), DIRECTORIES_MAX);
    }

    #[test]
    fn without_watch_no_files_are_walked() {
        let root = tempfile::tempdir().unwrap();
        let found = config(root.path(), "").watched_files();
        assert!(found.named.is_empty() && found.directories.is_empty() && !found.is_cut);
    }
}
