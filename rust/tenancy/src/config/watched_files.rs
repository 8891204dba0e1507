// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files besides its program that a tenant is booted anew for when they change: scripts, templates, what its `watch`
//! names.
//!
//! What is compared is each file's identity, size and times, not its content: the files are the tenant's own, may be
//! many, and a boot too many changes nothing. The walk is bounded, follows no symbolic link to a directory, and passes
//! over directories whose names begin with a dot.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use mayfly_files::{FileStamp, waiting_for};

use crate::config::TenantConfig;

/// Most directories of a tenant.
pub(crate) const DIRECTORIES_MAX: usize = 256;
/// Most files and directories of a tenant.
const ENTRIES_MAX: usize = 16_384;

/// What a tenant's `watch` comes to at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WatchedFiles {
    /// Directories in which every name counts, with those below them.
    pub directories: Vec<PathBuf>,
    /// What `watch` names itself, be it there or not.
    pub named: Vec<PathBuf>,
    /// Whether there is more than is watched: too many directories, or too many files.
    pub is_cut: bool,
    digest: u64,
}

impl TenantConfig {
    /// Looks at the files that the tenant's `watch` names, which takes as long as the disk takes.
    #[must_use]
    pub fn watched_files(&self) -> WatchedFiles {
        let mut found = WatchedFiles { named: self.watch.clone(), ..WatchedFiles::default() };
        let mut hasher = DefaultHasher::new();
        let mut entries = 0;
        // A stack, whose order is that of the names: the digest does not depend on the directory's.
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
    /// Differs when a file has come, gone or changed.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}

/// Unless it is to be passed over.
fn is_plain_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// What is in a directory, the last name first; nothing if it cannot be read.
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
        // What is passed over, and what stays.
        fs::write(app.join(".git/index"), "x").unwrap();
        std::os::unix::fs::symlink("/", app.join("root")).unwrap();
        let with_link = config.watched_files();
        assert_eq!(with_link.directories.len(), 4, "no link is followed to a directory: {with_link:?}");
        assert_eq!(config.watched_files(), with_link);
    }

    #[test]
    fn a_file_may_come_later_and_others_do_not_count() {
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
    fn without_watch_nothing_is_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let found = config(root.path(), "").watched_files();
        assert!(found.named.is_empty() && found.directories.is_empty() && !found.is_cut);
    }
}
