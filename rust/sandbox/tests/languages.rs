// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that use the SDKs of languages other than C, dynamically linked, as whole workers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Kept, call, patient, text};
use mayfly_sandbox::{Host, Limits, MountPoint, Mounts, Program, Snapshot, Worker};

/// Boots a program that sees this machine's libraries and, at `/tenants`, the built tenants.
fn boot(executable: &Path, args: &[&str]) -> Snapshot {
    let built = common::tenant("hello").parent().unwrap().parent().unwrap().to_owned();
    let own = ["/lib", "/lib64", "/usr/lib", "/usr/bin"].map(|path| (path.to_owned(), PathBuf::from(path)));
    let points: Vec<_> = [("/tenants".to_owned(), built)]
        .into_iter()
        .chain(own)
        .filter(|(_, host)| host.is_dir())
        .map(|(guest, host)| MountPoint { guest, host, access: mayfly_sandbox::MountAccess::ReadOnly })
        .collect();
    let mut program = Program::load(executable).expect("`make tenants` builds it");
    executable.to_str().unwrap().clone_into(&mut program.name);
    program.args = args.iter().map(ToString::to_string).collect();
    program.mounts = Mounts::open(&points).unwrap();
    let log = Arc::new(Kept::default());
    let limits = Limits { boot_memory_bytes: 1 << 30, ..patient() };
    let host = Host::open().expect("these tests need an engine");
    Snapshot::boot(&host, &program, &limits, Arc::clone(&log) as _).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&log.0.lock().unwrap()));
    })
}

/// What every sample by an SDK does. Returns the exits of one `/` and one `/random` in the steady state.
fn serves(snapshot: &Snapshot) -> [u64; 2] {
    let mut worker = Worker::fork(snapshot).unwrap();
    let mut exits = [0; 2];
    let mut drawn = BTreeSet::new();
    for _ in 0..3 {
        let (stats, response) = call(&mut worker, "/", b"").unwrap();
        assert_eq!((response.status, response.body), (200, b"Hello World!".to_vec()));
        exits[0] = stats.exits;
        let (stats, response) = call(&mut worker, "/random", b"").unwrap();
        exits[1] = stats.exits;
        drawn.insert(response.body);
    }
    assert_eq!(drawn.len(), 3, "{drawn:?}");
    let echo = text(&mut worker, "/echo?a=b");
    assert!(echo.contains("POST") && echo.contains("a=b"), "{echo}");

    let fields = |field: &str| -> BTreeSet<String> {
        let of = |page: &Vec<u8>| {
            let page = String::from_utf8(page.clone()).unwrap();
            page.split(field).nth(1).unwrap().split(',').next().unwrap().to_owned()
        };
        drawn.iter().map(of).collect()
    };
    assert_eq!((fields("\"random\"").len(), fields("\"uuid\"").len()), (3, 3), "{drawn:?}");
    exits
}

fn has_whole_system() -> bool {
    std::env::var_os("MAYFLY_LANE").is_none_or(|lane| lane != "svm")
}

#[test]
fn python_serves_with_one_exit() {
    if !has_whole_system() {
        return;
    }
    let python = Path::new("/usr/bin/python3").canonicalize().unwrap();
    let exits = serves(&boot(&python, &["-I", "-B", "/tenants/python/sdk.py"]));
    assert_eq!(exits[0], 1);
}

#[test]
fn rust_serves_with_one_exit() {
    if !has_whole_system() {
        return;
    }
    let program = common::tenant("rust").parent().unwrap().join("bin/sdk");
    let exits = serves(&boot(&program, &[]));
    assert_eq!(exits[0], 1);
}
