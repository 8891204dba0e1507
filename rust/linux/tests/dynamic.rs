// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dynamic programs, with this machine's libraries mounted read-only.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod support;

use std::path::Path;

use mayfly_linux::{Limits, Step};
use support::{Guest, Linking, MEMORY, agrees_with_native_on, has_whole_system, libraries, run_natively};

#[test]
fn dynamic_programs_start_as_they_do_natively() {
    if !has_whole_system() {
        return;
    }
    agrees_with_native_on("start", &[Linking::GlibcDynamic, Linking::MuslDynamic], &[], &libraries());
}

#[test]
fn dynamic_programs_agree_with_native() {
    if !has_whole_system() {
        return;
    }
    for name in ["files", "memory"] {
        agrees_with_native_on(name, &[Linking::GlibcDynamic], &[], &libraries());
    }
}

#[test]
fn cpp_programs_work() {
    if !has_whole_system() {
        return;
    }
    agrees_with_native_on("library", &[Linking::Cpp], &[], &libraries());
}

#[test]
fn python_runs() {
    if !has_whole_system() {
        return;
    }
    let python = Path::new("/usr/bin/python3");
    let python = python.canonicalize().unwrap();
    let mut mounts = libraries();
    mounts.push(Path::new("/usr/bin"));
    let database = "import os, sqlite3, tempfile
with tempfile.TemporaryDirectory() as place:
    with sqlite3.connect(place + '/data') as base:
        base.execute('create table t(a)')
        base.executemany('insert into t values (?)', [(n,) for n in range(1000)])
    print(base.execute('select sum(a) from t').fetchall(), sorted(os.listdir(place)))
print(os.path.exists(place))";
    // A log that SQLite maps shared, a profiler's timer, a memfd, descriptors that are sent, signals read from a
    // descriptor.
    let runtime = "import mmap, os, signal, socket, sqlite3, tempfile, time
with tempfile.TemporaryDirectory() as place:
    base = sqlite3.connect(place + '/data')
    print(base.execute('pragma journal_mode=wal').fetchall())
    with base:
        base.execute('create table t(a)')
        base.executemany('insert into t values (?)', [(n,) for n in range(1000)])
    other = sqlite3.connect(place + '/data')
    print(other.execute('select sum(a) from t').fetchall(), sorted(os.listdir(place)))
    other.close(), base.close()
    print(sorted(os.listdir(place)))
hits = []
signal.signal(signal.SIGPROF, lambda *_: hits.append(1))
signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
while len(hits) < 3: time.process_time()
signal.setitimer(signal.ITIMER_PROF, 0)
fd = os.memfd_create('x')
os.ftruncate(fd, 4096)
with mmap.mmap(fd, 4096) as memory:
    memory[:3] = b'abc'
    print(os.pread(fd, 3, 0))
    os.pwrite(fd, b'd', 3)
    print(memory[:4])
one, other = socket.socketpair()
socket.send_fds(one, [b'here'], [fd])
message, fds, flags, address = socket.recv_fds(other, 100, 10)
print(message, os.pread(fds[0], 4, 0), flags)
source, target = os.pipe()
print(os.splice(fds[0], target, 4, offset_src=0), os.read(source, 10))
print(os.copy_file_range(fd, fds[0], 2, 0, 10), os.pread(fd, 2, 10))
os.close(os.pidfd_open(os.getpid()))
print(time.thread_time() > 0, time.get_clock_info('process_time').resolution)";
    for script in [runtime, "print(1)", "import json, re; print(json.dumps(re.findall('a|b', 'abc')))", database] {
        let args = ["-I", "-S", "-c", script];
        let native = run_natively(&python, &args);
        let copied = Guest::load_with(&python, &args, &Limits::default(), 4 * MEMORY, &mounts);
        for guest in [copied, Guest::load_mapped(&python, &args, &Limits::default(), 4 * MEMORY, &mounts)] {
            let inside = guest.outcome();
            assert_eq!(inside.stdout.as_bytes(), native.stdout, "{inside:?}");
            assert_eq!(inside.end, Step::Exited { status: 0 }, "{inside:?}");
        }
    }
}

#[test]
fn mapped_programs_and_libraries_take_no_memory() {
    if !has_whole_system() {
        return;
    }
    let python = Path::new("/usr/bin/python3").canonicalize().unwrap();
    let args = ["-I", "-S", "-c", "print(1)"];
    let mut guest = Guest::load_mapped(&python, &args, &Limits::default(), 4 * MEMORY, &libraries());
    assert_eq!(guest.run(), Some(Step::Exited { status: 0 }), "{:?}", guest.log);
    let own = guest.machine.private_pages() * mayfly_machine::PAGE_SIZE;
    let file = std::fs::metadata(&python).unwrap().len();
    assert!(own < file / 2, "{own} bytes of its own, and the program alone has {file}");
}
