// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds a runtime on this host.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Directories that every project sees.
const MOUNTED: [&str; 3] = ["/lib", "/lib64", "/usr"];
const ELF: &[u8] = b"\x7fELF";

/// A runtime, and the directory that a program must see beside those that every project sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Runtime {
    pub(super) program: String,
    pub(super) mount: Option<String>,
    /// It was not found, and `program` is where distributions have it.
    pub(super) is_missing: bool,
}

impl Runtime {
    /// The first program of that name in `path`, the variable PATH. Version managers have scripts there, which stand
    /// for the program and cannot be run as one: they are passed over.
    pub(super) fn find(name: &str, path: &OsStr) -> Self {
        let found = std::env::split_paths(path).filter(|directory| directory.is_absolute()).find_map(|directory| {
            let file = directory.join(name);
            is_elf(&file).then(|| file.to_str().map(str::to_owned)).flatten()
        });
        match found {
            Some(program) => Self { mount: mount(Path::new(&program)), program, is_missing: false },
            None => Self { program: format!("/usr/bin/{name}"), mount: None, is_missing: true },
        }
    }
}

fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    mayfly_files::open(file).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok() && magic == ELF)
}

/// The installation that a program outside of the mounted directories belongs to: what contains its `bin`. A link's
/// target counts, since the program's libraries are beside that.
fn mount(program: &Path) -> Option<String> {
    let place = program.canonicalize().ok()?;
    if MOUNTED.iter().any(|mounted| place.starts_with(mounted)) {
        return None;
    }
    let directory = place.parent()?;
    let installation: PathBuf = match directory.parent() {
        Some(parent) if directory.ends_with("bin") && parent != Path::new("/") => parent.to_owned(),
        _ => directory.to_owned(),
    };
    installation.to_str().filter(|path| *path != "/").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn scripts_that_stand_for_a_runtime_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for (directory, content) in [("shims", &b"#!/bin/sh\n"[..]), ("opt/node/bin", b"\x7fELF..."), ("empty", b"")] {
            fs::create_dir_all(root.join(directory)).unwrap();
            fs::write(root.join(directory).join("node"), content).unwrap();
        }
        let path =
            std::env::join_paths(["shims", "none", "empty", "opt/node/bin"].map(|name| root.join(name))).unwrap();
        let found = Runtime::find("node", &path);
        assert_eq!(found.program, root.join("opt/node/bin/node").to_str().unwrap());
        assert_eq!(found.mount.as_deref(), root.join("opt/node").to_str());
        assert!(!found.is_missing);
        let expected = Runtime { program: "/usr/bin/deno".into(), mount: None, is_missing: true };
        assert_eq!(Runtime::find("deno", &path), expected);
        assert!(Runtime::find("node", OsStr::new("relative:")).is_missing);
    }
}
