// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's files that a tenant's program sees, and its own name.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use mayfly_tenancy::{Config, LoopPool, Outcome, TenantState};
use serde_json::{Value, json};
use support::*;

/// A directory with `bin/view`, a dynamic program, and `data/file`.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["bin", "data"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    fs::write(directory.path().join("data/file"), "the host's").unwrap();
    let output = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-pie", "-fPIE", "-D_GNU_SOURCE", "-I"])
        .arg(here.join("../../tenants/sdk"))
        .arg("-o")
        .arg(directory.path().join("bin/view"))
        .arg(here.join("tests/programs/view.c"))
        .output()
        .expect("cc is needed to build a test program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    directory
}

fn view(directory: &Path, mounts: &Value) -> Value {
    json!({
        "root": directory,
        "defaults": {"mounts": [{"host": "/lib"}, {"host": "/lib64"}, {"host": "/usr/lib"}], "limits": {"inline_budget_us": 1_000_000}},
        "tenants": [{"name": "view", "path": "/", "program": "bin/view", "mounts": mounts}],
    })
}

fn show(pool: &mut LoopPool, target: &'static str) -> (u16, String) {
    let response = get(pool, target);
    (response.status, String::from_utf8(response.body).unwrap())
}

fn ok(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

const MISSING: (u16, String) = (404, String::new());

#[test]
fn a_program_sees_its_mounts_and_nothing_else() {
    let directory = directory();
    let file = directory.path().join("data/file");
    let mounts = json!([{"host": "data", "at": "/ro"}, {"host": "data", "at": "/deep/er/rw", "writable": true}]);
    let server = start_with(view(directory.path(), &mounts));
    let mut pool = server.loop_pool();
    assert_eq!(show(&mut pool, "/ro/file"), ok("the host's"));
    assert_eq!(show(&mut pool, "/deep/er/rw/file"), ok("the host's"));
    for hidden in ["/root", "/data/file", "/bin/view", "/ro/../../../etc/shadow", "/etc/os-release"] {
        assert_eq!(show(&mut pool, hidden), MISSING, "{hidden}");
    }
    assert_eq!(show(&mut pool, "/ro/file?mine"), MISSING, "the mount is read-only");
    // Writes are private to the request.
    assert_eq!(show(&mut pool, "/deep/er/rw/file?my"), ok("mye host's"));
    assert_eq!(show(&mut pool, "/deep/er/rw/new?x"), ok("x"));
    assert_eq!(show(&mut pool, "/deep/er/rw/file"), ok("the host's"));
    assert_eq!(show(&mut pool, "/deep/er/rw/new"), MISSING);
    assert_eq!(fs::read_to_string(file).unwrap(), "the host's");
    assert_eq!(fs::read_dir(directory.path().join("data")).unwrap().count(), 1);
}

/// Whether the file system is in memory: tmpfs, ramfs.
fn is_in_memory(path: &Path) -> bool {
    let kind = rustix::fs::statfs(path).unwrap().f_type;
    [0x0102_1994, 0x8584_58f6].contains(&(kind & 0xffff_ffff))
}

/// Checks that a request that needs a file which is not in memory is served off the loop.
fn is_served_off_the_loop(target: &'static str) {
    let directory = directory();
    let file = fs::File::open(directory.path().join("data/file")).unwrap();
    file.sync_all().unwrap();
    let server = start_with(view(directory.path(), &json!([{"host": "data", "at": "/ro"}])));
    let mut pool = server.loop_pool();
    // Warm-up: the worker is here, and the file names are in memory.
    let expected = show(&mut pool, target);
    assert_eq!(expected.0, 200, "{expected:?}");
    let mut left = false;
    for _ in 0..100 {
        wait_until("a worker comes back to the loop", || {
            let mut response = Response::default();
            let served = pool.call(&request("/argv0"), &mut response);
            served == Outcome::Done && response.status == 200
        });
        // The kernel may keep pages that it is using.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut response = Response::default();
        if pool.call(&request(target), &mut response) == Outcome::Later {
            let (sender, receiver) = mpsc::channel();
            pool.call_later(&request(target), Box::new(Later { response, sender }));
            response = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
            left = true;
        }
        assert_eq!((response.status, String::from_utf8(response.body).unwrap()), expected);
        if left {
            break;
        }
    }
    assert_eq!(left, !is_in_memory(directory.path()));
    // The file is in memory now, and served on the loop if the file system can tell.
    let mut byte = [0];
    let now = rustix::io::ReadWriteFlags::NOWAIT;
    let can_tell = rustix::io::preadv2(&file, &mut [std::io::IoSliceMut::new(&mut byte)], 0, now).is_ok();
    if can_tell || is_in_memory(directory.path()) {
        wait_until("a file in memory is served on the loop", || {
            pool.call(&request(target), &mut Response::default()) == Outcome::Done
        });
    }
}

#[test]
fn a_file_that_is_not_in_memory_is_read_off_the_loop() {
    is_served_off_the_loop("/ro/file");
}

#[test]
fn an_argument_of_a_storage_program_that_is_not_in_memory_is_read_off_the_loop() {
    is_served_off_the_loop("/peer");
}

#[test]
fn a_program_in_a_mount_finds_itself() {
    let directory = directory();
    let server = start_with(view(directory.path(), &json!([{"host": "bin", "at": "/app"}])));
    let mut pool = server.loop_pool();
    assert_eq!(show(&mut pool, "/exe"), ok("/app/view\x7fELF"));
    assert_eq!(show(&mut pool, "/argv0"), ok("/app/view"));

    let server = start_with(view(directory.path(), &json!([])));
    let mut pool = server.loop_pool();
    assert_eq!(show(&mut pool, "/argv0"), ok("view"), "outside of its mounts it has no directory");
}

#[test]
fn a_missing_mount_fails_only_its_tenant() {
    let directory = directory();
    let mut config = view(directory.path(), &json!([{"host": "gone", "at": "/gone"}]));
    config["tenants"].as_array_mut().unwrap().push(json!({"name": "other", "path": "/other", "program": "bin/view"}));
    let server = start_with(config.clone());
    let mut pool = server.loop_pool();
    let response = get(&mut pool, "/");
    assert_eq!(response.error(), (503, "unavailable".to_owned()));
    assert!(response.reason().contains("/gone") && response.reason().contains("cannot open"), "{}", response.reason());
    assert!(matches!(report(&server, "other").state, TenantState::Ready { .. }));
    // After a change of the configuration it is there, with a new generation.
    config["tenants"][0]["mounts"] = json!([{"host": "data", "at": "/gone"}]);
    let applied = server.apply(Config::from_value(&config).unwrap());
    assert_eq!((applied.changed, applied.failed), (vec!["view".to_owned()], vec![]));
    assert_eq!(show(&mut pool, "/gone/file"), ok("the host's"));
}
