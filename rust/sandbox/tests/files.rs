// SPDX-License-Identifier: MIT OR Apache-2.0
//! SQLite on a large database of a mount: a request changes a few pages of it, and the next one finds it as it was.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{Kept, call, patient, text};
use mayfly_sandbox::{
    BufferedResponse, DurableLimits, Host, Limits, MountAccess, MountPoint, Mounts, Program, Progress, Request, Slice,
    Snapshot, Worker,
};

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

/// Python, a folder, and a folder for data in that.
fn place() -> (PathBuf, tempfile::TempDir, PathBuf) {
    let python = Path::new("/usr/bin/python3").canonicalize().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    (python, folder, data)
}

#[test]
fn sqlite_changes_pages_of_a_large_database_of_a_mount_until_the_reset() {
    if !has_whole_system() {
        return;
    }
    let (python, folder, data) = place();
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

/// Adds rows to a database of a durable mount: `/delete/5` adds 5 in that mode, one transaction each; `/wal` shares its
/// index with other workers, `/exclusive` does not. `/hold` takes the lock, and keeps it; `/hold/wal` in that mode. The
/// connection of the boot is used as well.
const DURABLE: &str = "import os, sqlite3, sys, time
sys.path.insert(0, '/tenants/sdk/python')
import mayfly

boots = sqlite3.connect('/data/base', timeout=20, isolation_level=None)
boots.execute('create table if not exists t(a integer primary key, b blob)')
# In WAL a connection has locks as long as it is open.
early = sqlite3.connect('/data/early', timeout=20, isolation_level=None)
early.execute('pragma journal_mode=wal')
early.execute('create table if not exists t(a integer primary key, b blob)')
early.execute('insert into t(b) values (1)')

def page(request):
    way, _, count = request.path.strip('/').partition('/')
    if not way:
        return mayfly.Response('')
    try:
        if way == 'count':
            total = boots.execute('select count(*) from t').fetchone()[0]
            return mayfly.Response(f'{total} {boots.execute(\"pragma integrity_check\").fetchone()[0]}')
        if way == 'early':
            for _ in range(int(count)):
                early.execute('insert into t(b) values (2)')
            names = ' '.join(sorted(name for name in os.listdir('/data') if name.startswith('early')))
            return mayfly.Response(f'{early.execute(\"select count(*) from t\").fetchone()[0]} {names}')
        if way == 'config':
            with open('/data/config.new', 'w') as new:
                new.write(count * 1000)
                new.flush()
                os.fsync(new.fileno())
            os.rename('/data/config.new', '/data/config')
            return mayfly.Response(str(os.path.getsize('/data/config')))
        base = sqlite3.connect('/data/base', timeout=20, isolation_level=None)
        if way == 'exclusive':
            base.execute('pragma locking_mode=exclusive')
        is_wal = way in ('wal', 'exclusive') or count == 'wal'
        mode = base.execute(f'pragma journal_mode={\"wal\" if is_wal else \"delete\"}').fetchone()[0]
        if way == 'hold':
            base.execute('begin immediate')
            base.execute('insert into t(b) values (randomblob(20000))')
            time.sleep(60)
        base.execute('pragma synchronous=full')
        for _ in range(int(count)):
            base.execute('insert into t(b) values (zeroblob(?))', (300 if int(count) < 50 else 1000000,))
        if way == 'exclusive':
            base.execute('pragma journal_mode=delete')
        base.close()
        return mayfly.Response(mode)
    except (sqlite3.Error, OSError) as error:
        return mayfly.Response(f'{type(error).__name__} {error}')

mayfly.serve(page)";

fn host_now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[test]
fn sqlite_keeps_a_database_of_a_durable_mount_that_workers_share() {
    if !has_whole_system() {
        return;
    }
    let (python, folder, data) = place();
    fs::write(folder.path().join("main.py"), DURABLE).unwrap();
    let limits = Limits { boot_memory_bytes: 1 << 30, private_memory_bytes: 256 << 20, ..patient() };
    let access = MountAccess::Durable(DurableLimits { bytes: 8 << 20, files: 20 });
    let snapshot = boot(&python, folder.path(), (&data, access), &limits);
    let mut workers: Vec<_> = (0..2).map(|_| Worker::fork(&snapshot).unwrap()).collect();
    // In turns, in both modes, the second with and without an index that workers share.
    let mut rows = 0;
    for way in ["delete", "exclusive", "wal", "wal", "delete", "wal"] {
        for worker in &mut workers {
            assert_eq!(text(worker, &format!("/{way}/3")), if way == "delete" { way } else { "wal" });
            rows += 3;
            assert_eq!(worker.differences(), 0);
        }
        workers.iter_mut().for_each(|worker| assert_eq!(text(worker, "/count"), format!("{rows} ok")));
    }
    // At once: none is lost.
    for way in ["wal", "delete"] {
        // Nobody else has it open when its mode changes.
        assert_eq!(text(&mut workers[0], &format!("/{way}/0")), way);
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| (0..5).for_each(|_| assert_eq!(text(worker, &format!("/{way}/4")), way)));
            }
        });
        rows += 40;
        workers.iter_mut().for_each(|worker| assert_eq!(text(worker, "/count"), format!("{rows} ok"), "{way}"));
    }
    // By a connection of the boot that has had its database in WAL since.
    let mut early = 1;
    for round in 0..4 {
        early += 2;
        let names = "early early-shm early-wal";
        assert_eq!(text(&mut workers[round % 2], "/early/2"), format!("{early} {names}"));
        assert_eq!(workers[round % 2].differences(), 0);
        assert_eq!(text(&mut workers[1 - round % 2], "/early/0"), format!("{early} {names}"));
    }
    std::thread::scope(|scope| {
        for worker in &mut workers {
            scope.spawn(|| (0..5).for_each(|_| assert!(text(worker, "/early/4").ends_with("-wal"))));
        }
    });
    assert!(text(&mut workers[0], "/early/0").starts_with(&format!("{} ", early + 40)));
    // Leg by leg, on threads that may block and threads that may not, where pages of the index are none of the
    // program's.
    for way in ["wal", "early"] {
        assert!(text(&mut workers[0], &format!("/{way}/0")).contains("wal"));
        let answer = leg_by_leg(&mut workers[1], &format!("/{way}/3"));
        assert!(answer.contains("wal"), "{answer}");
        assert_eq!(workers[1].differences(), 0);
    }
    (rows, early) = (rows + 3, early + 43);
    assert!(text(&mut workers[0], "/early/0").starts_with(&format!("{early} ")));
    assert_eq!(text(&mut workers[0], "/count"), format!("{rows} ok"));
    // A request that is given up in the middle of a transaction leaves what a killed process leaves.
    for way in ["wal", "delete"] {
        assert_eq!(text(&mut workers[1], &format!("/{way}/1")), way);
        hold(&mut workers[0], way);
        if way == "wal" {
            assert_eq!(text(&mut workers[1], "/count"), format!("{} ok", rows + 1), "readers go on");
        }
        workers[0].reset().unwrap();
        assert_eq!(workers[0].differences(), 0);
        assert_eq!(text(&mut workers[1], &format!("/{way}/1")), way);
        rows += 2;
        assert_eq!(text(&mut workers[0], "/count"), format!("{rows} ok"));
    }
    for size in 1..4_u32 {
        let path = format!("/config/{}", "x".repeat(size as usize));
        assert_eq!(text(&mut workers[size as usize % 2], &path), (1000 * size).to_string());
    }
    // The host's own SQLite finds the same.
    let check =
        "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('select count(*) from t').fetchone())";
    let found = Command::new(&python).args(["-I", "-c", check]).arg(data.join("base")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), rows.to_string());
    // The quota holds.
    for way in ["delete", "wal"] {
        let full = text(&mut workers[0], &format!("/{way}/50"));
        assert_eq!(full, "OperationalError database or disk is full");
        assert_eq!(text(&mut workers[1], "/count").split_whitespace().nth(1), Some("ok"));
    }
}

/// The answer to a request whose legs may not block and may block in turns.
fn leg_by_leg(worker: &mut Worker, path: &str) -> String {
    let request = Request { method: b"GET", path: path.as_bytes(), query: b"", headers: &[], body: b"", client: None };
    let mut sink = BufferedResponse::default();
    let mut progress = worker.start(1, &request, Slice::non_blocking(Duration::from_millis(5)), &mut sink).unwrap();
    let mut legs = 1;
    while !matches!(progress, Progress::Answered(_)) {
        legs += 1;
        // The first ones are short; later ones are long enough for any machine.
        let time = Duration::from_millis(if legs < 20 { 1 } else { 500 });
        progress = worker.resume(Slice { time, may_block: legs % 2 == 0 }, &mut sink).unwrap();
    }
    assert!(legs > 1, "what it does may wait for a disk");
    worker.reset().unwrap();
    String::from_utf8(sink.body).unwrap()
}

/// Has a request begin a transaction, and stop in the middle of it.
fn hold(worker: &mut Worker, way: &str) {
    let path = format!("/hold/{way}");
    let request = Request { method: b"GET", path: path.as_bytes(), query: b"", headers: &[], body: b"", client: None };
    let mut sink = BufferedResponse::default();
    let mut progress = worker.start(1, &request, Duration::MAX, &mut sink).unwrap();
    // Python itself may sleep for the time of a collection before it sleeps for the program.
    for _ in 0..10 {
        let Progress::Waits { until_ns } = progress else { break };
        if until_ns > host_now_ns() + 1_000_000_000 {
            break;
        }
        progress = worker.resume(Duration::MAX, &mut sink).unwrap();
    }
    assert!(matches!(progress, Progress::Waits { .. }), "{progress:?}");
}

/// Puts its response into a file that it has mapped shared, sleeps, and rings with that.
const MAPPED: &str = "import ctypes, mmap, struct, sys, time
sys.path.insert(0, '/tenants/sdk/python')
import mayfly

with open('/data/answer', 'r+b') as file:
    there = mmap.mmap(file.fileno(), 0)
at = ctypes.addressof(ctypes.c_char.from_buffer(there))
find = ctypes.CDLL(None).getauxval
find.restype, find.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
doorbell = ctypes.c_uint64.from_address(find(0x4d59464c) + 16).value
ring = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)(doorbell)

def page(request):
    if request.path == '/':
        return mayfly.Response('')
    body = request.path.encode() * 1000
    far = 64 << 12
    there[far:far + len(body)] = body
    struct.pack_into('<IIQQQ', there, 0, 200, 0, 0, at + far, len(body))
    time.sleep(0.02)
    return mayfly.Response(str(ring(2, at, 1)))

mayfly.serve(page)";

#[test]
fn a_response_in_a_file_that_is_mapped_shared_is_read_where_that_may_wait_for_a_disk() {
    if !has_whole_system() {
        return;
    }
    let (python, folder, data) = place();
    fs::write(folder.path().join("main.py"), MAPPED).unwrap();
    fs::write(data.join("answer"), vec![0; 128 << 12]).unwrap();
    let limits = Limits { boot_memory_bytes: 1 << 30, private_memory_bytes: 256 << 20, ..patient() };
    let access = MountAccess::Durable(DurableLimits { bytes: 8 << 20, files: 20 });
    let mut worker = Worker::fork(&boot(&python, folder.path(), (&data, access), &limits)).unwrap();
    for path in ["/one", "/another"] {
        let request =
            Request { method: b"GET", path: path.as_bytes(), query: b"", headers: &[], body: b"", client: None };
        let mut sink = BufferedResponse::default();
        let leg = |may_block| Slice { time: Duration::from_secs(5), may_block };
        let mut progress = worker.start(1, &request, leg(false), &mut sink).unwrap();
        // As in the server: what would wait goes on where it may, and all else where it may not.
        let mut may_block = false;
        while !matches!(progress, Progress::Answered(_)) {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            assert!(!maps.contains("data/answer"), "a program that stands still has no windows of files");
            let mut left = 0;
            if let Progress::Waits { until_ns } = progress {
                left = until_ns.saturating_sub(host_now_ns());
                std::thread::sleep(Duration::from_nanos(left));
            }
            may_block = !may_block && left == 0 && matches!(progress, Progress::Waits { .. });
            progress = worker.resume(leg(may_block), &mut sink).unwrap();
        }
        assert!(may_block, "it rang where it might not wait");
        assert_eq!((sink.status, String::from_utf8(sink.body).unwrap()), (200, path.repeat(1000)));
        worker.reset().unwrap();
        assert_eq!(worker.differences(), 0);
        assert!(fs::read(data.join("answer")).unwrap()[64 << 12..].starts_with(path.as_bytes()));
    }
}
