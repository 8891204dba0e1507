// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly new`: projects that are run from anywhere, and built when something changes. `tests/e2e/test_guide.py` builds
//! and serves one of each language.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use support::*;

/// A project in `folder`.
fn new(folder: &Path, language: &str) {
    let output = mayfly().current_dir(folder).args(["new", "shop", "--lang", language]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_project_is_checked_and_measured_from_any_directory() {
    let folder = tempfile::tempdir().unwrap();
    new(folder.path(), "c");
    fs::create_dir(folder.path().join("shop/build")).unwrap();
    fs::copy(tenant("hello"), folder.path().join("shop/build/shop")).unwrap();
    for directory in [folder.path(), &folder.path().join("shop"), Path::new("/")] {
        let file = folder.path().join("shop/mayfly.json");
        let output = mayfly().current_dir(directory).arg("check").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}: {}", directory.display(), stderr(&output));
        let bench = ["--tenant", "shop", "--requests", "100", "--seconds", "1", "--json"];
        let output =
            mayfly().current_dir(directory).args(["bench", "--config"]).arg(&file).args(bench).output().unwrap();
        assert!(output.status.success(), "{}: {}", directory.display(), stderr(&output));
    }
}

#[test]
fn a_runtime_in_a_home_does_not_make_the_home_visible() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().canonicalize().unwrap();
    fs::create_dir_all(home.join(".local/bin")).unwrap();
    fs::write(home.join(".netrc"), "secret").unwrap();
    for (program, is_mounted) in [("node", false), (".local/bin/node", true)] {
        let program = home.join(program);
        fs::write(&program, b"\x7fELF").unwrap();
        let made = mayfly()
            .current_dir(&home)
            .env("HOME", &home)
            .env("PATH", program.parent().unwrap())
            .args(["new", &format!("shop-{is_mounted}"), "--lang", "js"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
        let text = fs::read_to_string(home.join(format!("shop-{is_mounted}/mayfly.json"))).unwrap();
        assert!(text.contains(&format!("\"program\": {program:?}")), "{text}");
        let mount = |directory: &Path| format!("{{ \"host\": {directory:?} }}");
        assert!(!text.contains(&mount(&home)) && !text.contains(&mount(&home.join(".local"))), "{text}");
        assert_eq!(text.contains(&mount(&home.join(".local/bin"))), is_mounted, "{text}");
        assert_eq!(stderr(&made).contains("is not mounted"), !is_mounted, "{}", stderr(&made));
    }
}

#[test]
fn cargo_decides_whether_a_project_in_rust_is_built_again() {
    let folder = tempfile::tempdir().unwrap();
    new(folder.path(), "rust");
    let project = folder.path().join("shop");
    // A cargo that counts its calls, and whose program changes when told.
    let cargo = folder.path().join("cargo");
    let built = "build/cargo/x86_64-unknown-linux-gnu/release";
    let script = format!("#!/bin/sh\necho >>calls; mkdir -p {built}; cat src/* >{built}/shop\n");
    fs::write(&cargo, script).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::join_paths(
        std::iter::once(folder.path().to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let make = || {
        assert!(Command::new("make").current_dir(&project).env("PATH", &path).status().unwrap().success());
        let program = project.join("build/shop");
        (fs::read(&program).unwrap(), fs::metadata(&program).unwrap().modified().unwrap())
    };
    let first = make();
    assert_eq!(make(), first, "what has not changed stays");
    fs::write(project.join("src/page.rs"), "// A module.").unwrap();
    assert_ne!(make().0, first.0);
    assert_eq!(fs::read(project.join("calls")).unwrap().len(), 3);
}
