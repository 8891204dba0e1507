// SPDX-License-Identifier: MIT OR Apache-2.0
//! SQLite on a large database of a mount: a request changes a few pages of it, and the next one finds it as it was.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::{Kept, call, patient, text};
use mayfly_sandbox::{Host, Limits, MountAccess, MountPoint, Mounts, Program, Snapshot, Worker};

/// The database: 20 MiB in 5,000 rows.
const MAKE: &str = "import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as base:
    base.execute('create table t(a integer primary key, b blob)')
    base.executemany('insert into t values (?, ?)', ((n, bytes(4100)) for n in range(5000)))";

/// Answers what the program finds before and after a change: `/delete`, `/wal` and `/mmap` add a row with that way of
/// writing, and `/all` changes every row.
const SERVE: &str = "import os, sqlite3, sys
sys.path.insert(0, '/tenants/sdk/python')
import mayfly

early = open('/data/base', 'rb')

def page(request):
    way = request.path.strip('/')
    if not way:
        # The SDK's own warm-up.
        return mayfly.Response('')
    base = sqlite3.connect('/data/base')
    count = lambda: base.execute('select count(*), coalesce(max(a), 0) from t').fetchone()
    before = count()
    try:
        if way == 'wal':
            assert base.execute('pragma journal_mode=wal').fetchone() == ('wal',)
        if way == 'mmap':
            assert base.execute('pragma mmap_size=100000000').fetchone() == (100000000,)
        with base:
            if way == 'all':
                base.execute('update t set b = randomblob(4100)')
            else:
                base.execute('insert into t values (7777, ?)', (b'new' * 1000,))
        other = sqlite3.connect('/data/base')
        rows = other.execute('select b from t where a = 7777').fetchall()
        check = other.execute('pragma integrity_check').fetchone()
        result = f'{before} {count()} {len(rows)} {check} {sorted(os.listdir(\"/data\"))}'
        other.close(), base.close()
        # What was opened before sees the writes.
        with open('/data/base', 'rb') as late:
            early.seek(0)
            result += f' {early.read() == late.read()}'
    except sqlite3.Error as error:
        result = f'{before} {error}'
    return mayfly.Response(result)

mayfly.serve(page)";

fn has_whole_system() -> bool {
    std::env::var_os("MAYFLY_LANE").is_none_or(|lane| lane != "svm")
}

fn boot(python: &Path, folder: &Path, (data, access): (&Path, MountAccess), limits: &Limits) -> Snapshot {
    let built = common::tenant("hello").parent().unwrap().parent().unwrap().to_owned();
    let own = ["/lib", "/lib64", "/usr/lib", "/usr/bin"]
        .map(|path| (path.to_owned(), PathBuf::from(path), MountAccess::ReadOnly));
    let read = MountAccess::ReadOnly;
    let others = [("/tenants", built.as_path(), read), ("/app", folder, read), ("/data", data, access)];
    let others = others.map(|(guest, host, access)| (guest.to_owned(), host.to_owned(), access));
    let points: Vec<_> = others
        .into_iter()
        .chain(own)
        .filter(|(_, host, _)| host.is_dir())
        .map(|(guest, host, access)| MountPoint { guest, host, access })
        .collect();
    let mut program = Program::load(python).unwrap();
    python.to_str().unwrap().clone_into(&mut program.name);
    program.args = ["-I", "-B", "/app/main.py"].map(str::to_owned).to_vec();
    program.mounts = Mounts::open(&points).unwrap();
    let log = Arc::new(Kept::default());
    let host = Host::open().expect("these tests need an engine");
    Snapshot::boot(&host, &program, limits, Arc::clone(&log) as _).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&log.0.lock().unwrap()));
    })
}

#[test]
fn sqlite_changes_pages_of_a_large_database_of_a_mount_until_the_reset() {
    if !has_whole_system() {
        return;
    }
    let python = Path::new("/usr/bin/python3").canonicalize().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let base = data.join("base");
    let made = Command::new(&python).args(["-I", "-c", MAKE]).arg(&base).status().unwrap();
    assert!(made.success());
    let original = fs::read(&base).unwrap();
    assert!(original.len() > 20 << 20);
    fs::write(folder.path().join("main.py"), SERVE).unwrap();

    let limits = Limits { boot_memory_bytes: 1 << 30, private_memory_bytes: 256 << 20, ..patient() };
    assert_eq!(limits.files_bytes, 16 << 20, "less than the database");
    let snapshot = boot(&python, folder.path(), (&data, MountAccess::Private), &limits);
    let mut worker = Worker::fork(&snapshot).unwrap();
    let fine = |files: &str| format!("(5000, 4999) (5001, 7777) 1 ('ok',) [{files}] True");
    for _ in 0..2 {
        for (way, files) in [("delete", "'base'"), ("wal", "'base', 'base-shm', 'base-wal'"), ("mmap", "'base'")] {
            assert_eq!(text(&mut worker, &format!("/{way}")), fine(files), "{way}");
            assert_eq!(worker.differences(), 0);
        }
        // More than what the program may write.
        assert_eq!(text(&mut worker, "/all"), "(5000, 4999) database or disk is full");
        assert_eq!(worker.differences(), 0);
    }
    let (stats, _) = call(&mut worker, "/delete", b"").unwrap();
    println!("an insert: {} exits, {} of them faults", stats.exits, stats.faults);

    // With room for all of it, twice: the journal has the old pages.
    let limits = Limits { files_bytes: 64 << 20, ..limits };
    let mut worker = Worker::fork(&boot(&python, folder.path(), (&data, MountAccess::Private), &limits)).unwrap();
    let all = text(&mut worker, "/all");
    assert_eq!(all, "(5000, 4999) (5000, 4999) 0 ('ok',) ['base'] True");
    assert_eq!(worker.differences(), 0);
    assert!(fs::read(&base).unwrap() == original, "the host's file never changes");
}
