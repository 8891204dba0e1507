// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gives this build a number by what it is made of: a snapshot in a file is read by the build that wrote it, and by no
//! other, since what a process is in memory is the form that it has in the file.
#![allow(clippy::disallowed_methods, reason = "it reads the sources that it builds")]

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    let floors = Path::new("..");
    let mut files = vec![floors.join("../Cargo.lock")];
    for floor in ["files", "machine", "kvm", "linux", "sandbox"] {
        for part in ["src", "Cargo.toml", "build.rs"] {
            collect(&floors.join(floor).join(part), &mut files);
        }
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        // A file that is missing, as the lock of a package may be, is as good a difference as any.
        (file.strip_prefix(floors).unwrap_or(&file), fs::read(&file).ok()).hash(&mut hasher);
    }
    println!("cargo::rustc-env=MAYFLY_BUILD={}", hasher.finish());
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if let Ok(entries) = fs::read_dir(path) {
        // A file that is new in it.
        println!("cargo::rerun-if-changed={}", path.display());
        entries.flatten().for_each(|entry| collect(&entry.path(), files));
    } else if path.is_file() {
        files.push(path.to_owned());
    }
}
