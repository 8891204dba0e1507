// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds a runtime on this host, and the folders that a program needs of it.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Directories that every project sees.
const MOUNTED: [&str; 3] = ["/lib", "/lib64", "/usr"];
/// Where the users' homes are, and root's.
const HOMES: &str = "/home";
const ROOTS_HOME: &str = "/root";
/// What an installation has beside its `bin`.
const LIBRARIES: [&str; 2] = ["lib", "lib64"];
const ELF: &[u8] = b"\x7fELF";

/// A runtime, and the directories that a program must see beside those that every project sees.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runtime {
    pub(super) program: String,
    pub(super) mounts: Vec<String>,
    /// The directory of the runtime, if it would have to be mounted and must not be.
    pub(super) private: Option<PathBuf>,
    /// It was not found, and `program` is where distributions have it.
    pub(super) is_missing: bool,
}

impl Runtime {
    /// The first program of that name in `path`, the variable PATH. What version managers have there stands for the
    /// program and cannot be run as one: scripts, and links to a program of another name. They are passed over.
    ///
    /// No directory is mounted that contains one of `private`: the home and the project.
    pub(super) fn find(name: &str, path: &OsStr, private: &[&Path]) -> Self {
        let found = std::env::split_paths(path).filter(|directory| directory.is_absolute()).find_map(|directory| {
            let file = directory.join(name);
            let place = file.canonicalize().ok().filter(|place| is_named(place, name) && is_elf(place))?;
            Some((file.to_str()?.to_owned(), place))
        });
        let Some((program, place)) = found else {
            return Self { program: format!("/usr/bin/{name}"), is_missing: true, ..Self::default() };
        };
        let needed = if MOUNTED.iter().any(|mounted| place.starts_with(mounted)) { Vec::new() } else { needed(&place) };
        let (hidden, mounted): (Vec<_>, Vec<_>) =
            needed.into_iter().partition(|directory| is_private(directory, private));
        let mounts = mounted.iter().filter_map(|directory| directory.to_str().map(str::to_owned)).collect();
        Self { program, mounts, private: hidden.into_iter().next(), is_missing: false }
    }
}

/// Whether a program is the one of that name, or a version of it: `python3.12` is `python3`.
fn is_named(place: &Path, name: &str) -> bool {
    let family = name.trim_end_matches(|last: char| last.is_ascii_digit());
    place.file_name().and_then(OsStr::to_str).is_some_and(|file| file.starts_with(family))
}

fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    mayfly_files::open(file).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok() && magic == ELF)
}

/// The directories that a runtime needs, of which `place` is the program, links resolved: the program's own, and of what
/// is installed beside it the shared libraries or, if there are none, those of this version. Whatever else lies there is
/// not the runtime's: the directory around `bin` can be a home, or `~/.local`.
fn needed(place: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(file)) = (place.parent(), place.file_name()) else {
        return Vec::new();
    };
    let around = directory.parent().filter(|_| directory.ends_with("bin"));
    let libraries = around.into_iter().flat_map(|around| {
        LIBRARIES.iter().filter_map(move |name| {
            let all = around.join(name);
            if has_shared_libraries(&all) { Some(all) } else { Some(all.join(file)).filter(|own| own.is_dir()) }
        })
    });
    let already = |directory: &PathBuf| !MOUNTED.iter().any(|mounted| directory.starts_with(mounted));
    std::iter::once(directory.to_owned()).chain(libraries).filter(already).collect()
}

/// Whether files in `directory` itself are called as shared libraries are.
fn has_shared_libraries(directory: &Path) -> bool {
    let is_one = |name: &str| name.ends_with(".so") || name.contains(".so.");
    std::fs::read_dir(directory)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_one)))
}

/// Whether a directory has more than a runtime in it: it contains one of `private`, or is a home.
fn is_private(directory: &Path, private: &[&Path]) -> bool {
    let is_home = directory == Path::new(ROOTS_HOME) || directory.parent() == Some(Path::new(HOMES));
    // A home that is elsewhere has hidden files; so may a folder of libraries.
    let has_hidden = || {
        let is_installed = ["bin"].iter().chain(&LIBRARIES).any(|name| directory.ends_with(name));
        let is_hidden = |entry: std::fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        !is_installed && std::fs::read_dir(directory).is_ok_and(|entries| entries.flatten().any(is_hidden))
    };
    is_home || private.iter().any(|inner| inner.starts_with(directory)) || has_hidden()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const PROGRAM: &[u8] = b"\x7fELF...";

    /// A folder for made-up layouts.
    struct Layout {
        _folder: tempfile::TempDir,
        root: PathBuf,
    }

    impl Layout {
        fn new(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let layout = Self { root: folder.path().canonicalize().unwrap(), _folder: folder };
            files.iter().for_each(|file| layout.file(file, PROGRAM));
            layout
        }

        fn at(&self, path: &str) -> PathBuf {
            self.root.join(path)
        }

        fn file(&self, path: &str, content: &[u8]) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            fs::write(self.at(path), content).unwrap();
        }

        fn link(&self, path: &str, to: &str) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            symlink(self.at(to), self.at(path)).unwrap();
        }

        /// The runtime by that PATH, for a user whose home is `home`, in which `shop` is the project.
        fn find(&self, name: &str, path: &[&str]) -> Runtime {
            let path = std::env::join_paths(path.iter().map(|directory| self.at(directory))).unwrap();
            Runtime::find(name, &path, &[&self.at("home"), &self.at("home/shop")])
        }

        fn mounts(&self, name: &str, path: &str) -> Vec<String> {
            let found = self.find(name, &[path]);
            assert_eq!((found.is_missing, found.private), (false, None), "{path}");
            let below = |mount: &String| mount.strip_prefix(self.root.to_str().unwrap()).unwrap().to_owned();
            found.mounts.iter().map(below).collect()
        }
    }

    #[test]
    fn what_stands_for_a_runtime_is_passed_over() {
        let layout = Layout::new(&["opt/node/bin/node", "home/.local/bin/mise"]);
        layout.file("shims/node", b"#!/bin/sh\n");
        layout.file("empty/node", b"");
        layout.link("mise/shims/node", "home/.local/bin/mise");
        let found = layout.find("node", &["shims", "none", "empty", "mise/shims", "opt/node/bin"]);
        assert_eq!(found.program, layout.at("opt/node/bin/node").to_str().unwrap());
        assert!(!found.is_missing);
        let expected = Runtime { program: "/usr/bin/deno".into(), is_missing: true, ..Runtime::default() };
        assert_eq!(layout.find("deno", &["shims"]), expected);
        assert_eq!(layout.find("node", &["mise/shims"]).mounts, [""; 0]);
        assert!(Runtime::find("node", OsStr::new("relative:"), &[]).is_missing);
    }

    #[test]
    fn the_folders_of_a_runtime_are_mounted_and_nothing_around_them() {
        let layout = Layout::new(&[
            "home/.bashrc",
            "home/.nvm/versions/node/v20/bin/node",
            "home/.nvm/versions/node/v20/lib/node_modules/npm/package.json",
            "home/.pyenv/versions/3.12.1/bin/python3.12",
            "home/.pyenv/versions/3.12.1/lib/python3.12/os.py",
            "home/.pyenv/versions/3.11.2/bin/python3.11",
            "home/.pyenv/versions/3.11.2/lib/libpython3.11.so.1.0",
            "home/.pyenv/versions/3.11.2/lib/python3.11/os.py",
            "home/.local/bin/node",
            "home/.local/bin/python3.10",
            "home/.local/lib/python3.10/os.py",
            "home/.local/lib/python3.9/site-packages/token.py",
            "home/.local/share/keyrings/login.keyring",
            "home/bin/node",
            "home/shop/.env",
            "opt/node",
        ]);
        layout.link("home/.pyenv/versions/3.12.1/bin/python3", "home/.pyenv/versions/3.12.1/bin/python3.12");
        layout.link("home/.pyenv/versions/3.11.2/bin/python3", "home/.pyenv/versions/3.11.2/bin/python3.11");
        layout.link("home/.local/bin/python3", "home/.local/bin/python3.10");
        layout.link("home/shop/.venv/bin/python3", "home/.local/bin/python3.10");
        for (name, path, expected) in [
            ("node", "home/.nvm/versions/node/v20/bin", &["/home/.nvm/versions/node/v20/bin"][..]),
            (
                "python3",
                "home/.pyenv/versions/3.12.1/bin",
                &["/home/.pyenv/versions/3.12.1/bin", "/home/.pyenv/versions/3.12.1/lib/python3.12"],
            ),
            (
                "python3",
                "home/.pyenv/versions/3.11.2/bin",
                &["/home/.pyenv/versions/3.11.2/bin", "/home/.pyenv/versions/3.11.2/lib"],
            ),
            ("node", "home/.local/bin", &["/home/.local/bin"]),
            ("python3", "home/.local/bin", &["/home/.local/bin", "/home/.local/lib/python3.10"]),
            ("python3", "home/shop/.venv/bin", &["/home/.local/bin", "/home/.local/lib/python3.10"]),
            ("node", "home/bin", &["/home/bin"]),
            ("node", "opt", &["/opt"]),
        ] {
            assert_eq!(layout.mounts(name, path), expected, "{name} in {path}");
        }
    }

    #[test]
    fn no_home_and_no_folder_around_one_or_a_project_is_mounted() {
        let layout = Layout::new(&["node", "home/node", "home/shop/node", "other/node", "other/.ssh/key", "bin/node"]);
        for path in ["", "home", "home/shop", "other"] {
            let found = layout.find("node", &[path]);
            assert_eq!(found.mounts, [""; 0], "{path}");
            assert_eq!(found.private, Some(layout.at(path)), "{path}");
        }
        assert_eq!(layout.mounts("node", "bin"), ["/bin"]);
        for directory in ["/", "/root", "/home", "/home/ada"] {
            let homes = ["/root", "/home/ada"].map(Path::new);
            assert!(is_private(Path::new(directory), &homes), "{directory}");
        }
        assert!(is_private(Path::new("/home/bob"), &[]), "another user's");
    }
}
