// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots that were saved and loaded, as whole workers.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::plain::Plain;
use common::{call, patient, program, text};
use libc::{EACCES, ECONNRESET, EPIPE};
use mayfly_sandbox::inventory::INVENTORY;
use mayfly_sandbox::{
    BootedFrom, Connects, Host, Limits, MonotonicClock, MountPoint, Mounts, NoLog, Outbound, OutboundHost, Program,
    Readiness, Service, SharedMemory, Snapshot, SnapshotFileError, SnapshotSaveError, Target, Worker, WorkerState,
};
use proptest::prelude::*;

fn host() -> Host {
    Host::open().expect("these tests need an engine")
}

fn boot(program: &Program, limits: &Limits) -> Snapshot {
    Snapshot::boot(&host(), program, limits, Arc::new(NoLog)).unwrap()
}

fn load(program: &Program, limits: &Limits, path: &Path) -> Result<Snapshot, SnapshotFileError> {
    Snapshot::load(&host(), program, limits, Arc::new(NoLog), path)
}

/// Why a file is refused.
fn refusal(program: &Program, limits: &Limits, path: &Path) -> String {
    load(program, limits, path).unwrap_err().to_string()
}

struct Saved {
    program: Program,
    limits: Limits,
    booted: Snapshot,
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Saved {
    fn of(program: Program, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.snapshot");
        let booted = boot(&program, &limits);
        booted.save(&path).unwrap();
        Self { program, limits, booted, path, folder }
    }

    fn named(name: &str) -> Self {
        Self::of(program(name, &[]), patient())
    }

    fn load(&self) -> Snapshot {
        let loaded = load(&self.program, &self.limits, &self.path).unwrap();
        assert_eq!((self.booted.booted_from(), loaded.booted_from()), (BootedFrom::Program, BootedFrom::File));
        assert_eq!(loaded.image_bytes(), self.booted.image_bytes());
        assert_eq!(loaded.has_handover(), self.booted.has_handover());
        loaded
    }
}

#[test]
fn a_loaded_program_answers_as_the_booted_one() {
    for name in ["hello", "echo", "visits"] {
        let saved = Saved::named(name);
        let loaded = saved.load();
        // The same for a loaded snapshot.
        let again = saved.folder.path().join("again.snapshot");
        loaded.save(&again).unwrap();
        let third = load(&saved.program, &saved.limits, &again).unwrap();
        let mut answers = Vec::new();
        for snapshot in [&saved.booted, &loaded, &third] {
            let mut worker = Worker::fork(snapshot).unwrap();
            let answer = [(); 3].map(|()| {
                let (stats, response) = call(&mut worker, "/a?b=c", b"body").unwrap();
                assert_eq!(worker.differences(), 0, "{name}");
                // The time and the entropy in it differ from request to request.
                (stats, response.status, response.headers, response.body.len())
            });
            answers.push(format!("{answer:?}"));
        }
        assert_eq!(answers[0], answers[1], "{name}: exits and faults are the same, too");
        assert_eq!(answers[0], answers[2], "{name}");
        let files = fs::read_dir(saved.folder.path()).unwrap().count();
        assert_eq!(files, 2, "no unfinished file is left");
        assert_eq!(fs::metadata(&again).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn what_workers_have_learned_is_in_the_file() {
    let saved = Saved::named("workset");
    let mut worker = Worker::fork(&saved.booted).unwrap();
    let (first, _) = call(&mut worker, "/", b"").unwrap();
    assert!(first.faults > 0 && saved.booted.learned_pages() > 0);
    saved.booted.save(&saved.path).unwrap();
    let loaded = saved.load();
    assert_eq!(loaded.learned_pages(), saved.booted.learned_pages());
    let (first, _) = call(&mut Worker::fork(&loaded).unwrap(), "/", b"").unwrap();
    assert_eq!(first.faults, 0);
}

#[test]
fn a_worker_of_a_loaded_snapshot_is_reset_as_any_other() {
    let saved = Saved::named("faults");
    let fresh = text(&mut Worker::fork(&saved.booted).unwrap(), "/state");
    let loaded = saved.load();
    let mut worker = Worker::fork(&loaded).unwrap();
    assert_eq!(text(&mut worker, "/state"), fresh);
    for item in INVENTORY {
        text(&mut worker, &format!("/dirty-{}", item.name));
        assert_eq!(worker.differences(), 0, "{}", item.name);
        assert_eq!(worker.state(), WorkerState::Ready);
        assert_eq!(text(&mut worker, "/state"), fresh, "{}", item.name);
    }
}

#[test]
fn two_that_were_loaded_draw_different_numbers() {
    let saved = Saved::named("faults");
    let page = || text(&mut Worker::fork(&saved.load()).unwrap(), "/random");
    let one = page();
    assert!(!one.is_empty());
    assert_ne!(one, page());
}

/// A program with threads, one of which waits with a timeout.
const THREADS: &str = include_str!("programs/threads.c");

fn has_whole_system() -> bool {
    std::env::var_os("MAYFLY_LANE").is_none_or(|lane| lane != "svm")
}

fn compile(source: &str) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("program");
    let text = folder.path().join("program.c");
    fs::write(&text, source).unwrap();
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tenants/sdk");
    let done = Command::new("gcc")
        .args(["-O1", "-static", "-pthread", "-I"])
        .arg(sdk)
        .arg("-o")
        .args([&built, &text])
        .status();
    assert!(done.unwrap().success());
    Program::load(&built).unwrap()
}

#[test]
fn threads_go_on_in_a_loaded_snapshot() {
    if !has_whole_system() {
        return;
    }
    let saved = Saved::of(compile(THREADS), Limits { threads: 4, ..patient() });
    let loaded = saved.load();
    for snapshot in [&saved.booted, &loaded] {
        let mut worker = Worker::fork(snapshot).unwrap();
        for _ in 0..3 {
            assert_eq!(text(&mut worker, "/"), "3 5 7 ");
            assert_eq!(worker.differences(), 0);
        }
    }
}

/// A program with two connections when it is frozen: one that it has used, and one at which a thread waits with a
/// timeout.
const CONNECTIONS: &str = include_str!("programs/remote.c");

/// An echo server; returns its port.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut peer in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut peer.try_clone().unwrap(), &mut peer));
        }
    });
    port
}

#[test]
fn connections_with_the_outside_are_reset_in_a_loaded_snapshot_and_new_ones_can_be_made() {
    if !has_whole_system() {
        return;
    }
    let port = echo_server();
    let mut program = compile(CONNECTIONS);
    program.args = vec![port.to_string()];
    program.outbound = vec![
        Outbound { host: OutboundHost::Address([127, 0, 0, 1].into()), port },
        Outbound { host: OutboundHost::Name("db.invalid".into()), port: 5432 },
    ];
    for monotonic in [MonotonicClock::Runs, MonotonicClock::Suspends] {
        let saved = Saved::of(Program { monotonic, ..program.clone() }, Limits { threads: 2, ..patient() });
        let loaded = saved.load();
        // The boot's connections belong to the snapshot that was booted.
        assert_eq!([saved.booted.connects().made, loaded.connects().made], [2, 0]);
        let expected = format!("{} 0 {}, {}, 1, {}, 1", -ECONNRESET, -EPIPE, -ECONNRESET, -EACCES);
        for snapshot in [&saved.booted, &loaded] {
            let mut worker = Worker::fork(snapshot).unwrap();
            for _ in 0..3 {
                assert_eq!(text(&mut worker, "/"), expected, "{monotonic:?}");
                assert_eq!(worker.connects(), Connects { made: 1, refused: 1 });
                assert_eq!(worker.differences(), 0);
            }
        }
    }
    let mut other = program.clone();
    other.outbound.pop();
    let saved = Saved::of(program, Limits { threads: 2, ..patient() });
    assert!(refusal(&other, &saved.limits, &saved.path).contains("other destinations"));
}

#[test]
fn a_server_is_loaded_with_its_sockets_and_the_connection_that_it_has_kept() {
    for how in ["accept", "once", "poll", "epoll", "edge", "thread", "tick"] {
        for times in [0, 3] {
            let warm_up = common::warm_up("/count", times);
            let mut program = program("listens", &[how]);
            program.service = Some(Service { warm_up: vec![warm_up], ..Service::new(Arc::new(Plain)) });
            let saved = Saved::of(program, Limits { threads: 8, ..patient() });
            let loaded = saved.load();
            let exits = [&saved.booted, &loaded].map(|snapshot| {
                let mut worker = Worker::fork(snapshot).unwrap();
                let mut exits = Vec::new();
                for _ in 0..5 {
                    let (stats, response) = call(&mut worker, "/count", b"").unwrap();
                    assert_eq!(response.body, (times + 1).to_string().as_bytes(), "{how}, {times}");
                    assert_eq!(text(&mut worker, "/echo"), "", "{how}");
                    assert_eq!(text(&mut worker, "/thread"), "42", "{how}");
                    assert_eq!(worker.differences(), 0, "{how}");
                    exits.push((stats.syscalls, stats.faults));
                }
                // The first takes faults. On a busy machine any of the others may take so long that a clock ticks.
                exits.into_iter().skip(1).min()
            });
            // Programs with a clock make calls of their own when it ticks; where requests take longer than 10 ms, so
            // does a thread that sleeps for that time.
            let emulated = std::env::var_os("MAYFLY_LANE").is_some_and(|lane| lane == "svm");
            let has_clock = how == "tick" || (how == "thread" && emulated);
            assert!(has_clock || exits[0] == exits[1], "{how}, {times}: {exits:?}");
        }
    }
}

/// Debian's Python with a script in a mount, which the test can change.
fn python(folder: &Path) -> Program {
    let built = common::tenant("hello").parent().unwrap().parent().unwrap().to_owned();
    let own = ["/lib", "/lib64", "/usr/lib", "/usr/bin"].map(|path| (path.to_owned(), PathBuf::from(path)));
    let points: Vec<_> = [("/app".to_owned(), built), ("/app/of".to_owned(), folder.to_owned())]
        .into_iter()
        .chain(own)
        .filter(|(_, host)| host.is_dir())
        .map(|(guest, host)| MountPoint { guest, host, access: mayfly_sandbox::MountAccess::ReadOnly })
        .collect();
    let executable = Path::new("/usr/bin/python3").canonicalize().unwrap();
    let mut program = Program::load(&executable).unwrap();
    executable.to_str().unwrap().clone_into(&mut program.name);
    program.args = ["-I", "-B", "/app/of/main.py"].map(str::to_owned).to_vec();
    program.mounts = Mounts::open(&points).unwrap();
    program
}

#[test]
fn a_dynamic_program_is_loaded_as_long_as_its_files_are_what_they_were() {
    if !has_whole_system() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = fs::read_to_string(common::tenant("python").with_file_name("sdk.py")).unwrap();
    let script = script.replace("Hello World!", "Hello from a file!");
    assert!(script.contains("from a file"));
    fs::write(folder.path().join("main.py"), &script).unwrap();
    fs::write(folder.path().join("unused"), "").unwrap();
    let limits = Limits { boot_memory_bytes: 1 << 30, ..patient() };
    let saved = Saved::of(python(folder.path()), limits.clone());
    let loaded = saved.load();
    println!(
        "booted in {:?}, {} KiB of image, {} KiB of file, loaded in {:?}",
        saved.booted.boot_time(),
        loaded.image_bytes() >> 10,
        fs::metadata(&saved.path).unwrap().len() >> 10,
        loaded.boot_time()
    );
    // The fastest of some loads: on a busy machine any of them may wait for a processor.
    let fastest = (0..5).map(|_| saved.load().boot_time()).min().unwrap();
    assert!(fastest < saved.booted.boot_time(), "{fastest:?}");
    let mut worker = Worker::fork(&loaded).unwrap();
    let mut drawn = Vec::new();
    for _ in 0..3 {
        let (stats, response) = call(&mut worker, "/", b"").unwrap();
        assert_eq!(response.body, b"Hello from a file!");
        assert_eq!((worker.differences(), stats.syscalls), (0, 0));
        drawn.push(text(&mut worker, "/random"));
    }
    drawn.push(text(&mut Worker::fork(&saved.load()).unwrap(), "/random"));
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), 4, "{drawn:?}");

    // Files that the boot did not look at may change.
    fs::write(folder.path().join("unused"), "now").unwrap();
    load(&saved.program, &limits, &saved.path).unwrap();
    fs::write(folder.path().join("main.py"), script.replace("from a file", "again")).unwrap();
    let changed = refusal(&saved.program, &limits, &saved.path);
    assert!(changed.contains("/app/of/main.py"), "{changed}");
}

#[test]
fn what_it_was_made_from_must_be_the_same() {
    let saved = Saved::named("echo");
    type Change = fn(&mut Program, &mut Limits);
    let changes: [(Change, &str); 10] = [
        (|program, _| program.elf = common::program("hello", &[]).elf, "another program"),
        (|program, _| program.args.push("x".into()), "other arguments"),
        (|program, _| program.env.push(("A".into(), "b".into())), "other arguments or another environment"),
        (|program, _| program.name.push('x'), "other arguments"),
        (
            |program, _| program.outbound.push(Outbound { host: OutboundHost::Name("a.invalid".into()), port: 1 }),
            "other destinations",
        ),
        (|_, limits| limits.request_bytes += 4096, "other limits"),
        (|_, limits| limits.boot_memory_bytes += 4096, "other limits"),
        (|_, limits| limits.threads += 1, "other limits"),
        (|program, _| program.shared = Some(SharedMemory::anonymous(1).unwrap()), "other shared memory"),
        (
            |program, _| {
                let point =
                    MountPoint { guest: "/m".into(), host: "/".into(), access: mayfly_sandbox::MountAccess::ReadOnly };
                program.mounts = Mounts::open(&[point]).unwrap();
            },
            "other mounts",
        ),
    ];
    for (change, reason) in changes {
        let (mut program, mut limits) = (saved.program.clone(), saved.limits.clone());
        change(&mut program, &mut limits);
        let said = refusal(&program, &limits, &saved.path);
        assert!(said.contains(reason), "{said} for {reason}");
    }
    // Workers' own files do not matter.
    let other = Limits { private_memory_bytes: 16 << 20, retained_bytes: 1 << 20, ..saved.limits.clone() };
    let loaded = load(&saved.program, &other, &saved.path).unwrap();
    assert_eq!(loaded.limits(), &other);
}

/// Those that docs/configuration.md lists.
#[test]
fn every_setting_of_the_moment_of_the_freeze_must_be_the_same() {
    let target = || Target { path: b"/x".to_vec(), query: Vec::new() };
    let warm_up = common::warm_up("/", 1);
    let plain = || Service::new(Arc::new(Plain));
    let services = [
        plain(),
        Service { port: Some(80), ..plain() },
        Service { ready: Some(Readiness { target: target(), status: 200, within: Duration::from_secs(1) }), ..plain() },
        Service { warm_up: vec![warm_up], ..plain() },
        Service { settle: plain().settle + Duration::from_secs(1), ..plain() },
        Service { before_freeze: Some(target()), ..plain() },
        Service { after_restore: Some(target()), ..plain() },
    ];
    let digest = |service: &Service| {
        let program = Program { service: Some(service.clone()), ..program("hello", &[]) };
        Snapshot::inputs_digest(&host(), &program, &patient())
    };
    let mut digests: Vec<_> = services.iter().map(digest).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), services.len());
}

#[test]
fn shared_memory_keeps_a_snapshot_from_a_file() {
    let mut program = program("counter", &[]);
    program.shared = Some(SharedMemory::anonymous(1).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let error = boot(&program, &patient()).save(&folder.path().join("it")).unwrap_err();
    assert!(matches!(error, SnapshotSaveError::Image(_)), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no unfinished file is left");
}

#[test]
fn what_is_not_to_be_saved_is_not() {
    let booted = boot(&program("hello", &[]), &patient());
    booted.keep_unsaved();
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(booted.save(&folder.path().join("it")), Err(SnapshotSaveError::Process(_))));
}

#[test]
fn a_file_of_another_kind_version_or_build_is_refused() {
    let saved = Saved::named("hello");
    let good = fs::read(&saved.path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&saved.path, bytes).unwrap();
        load(&saved.program, &saved.limits, &saved.path).unwrap_err()
    };
    assert!(matches!(refused(b""), SnapshotFileError::Foreign));
    assert!(matches!(refused(&[b'x'; 10_000]), SnapshotFileError::Foreign));
    assert!(matches!(refused(&good[..40]), SnapshotFileError::Foreign));
    assert!(matches!(refused(&good[..good.len() - 1]), SnapshotFileError::Corrupt("it ends too early")));
    let mut older = good.clone();
    older[8] -= 1;
    assert!(matches!(refused(&older), SnapshotFileError::Version { version: 0 }));
    // As another build would have written it, with the correct checksum.
    let mut other = good.clone();
    other[16] ^= 1;
    let sum = mayfly_engine::checksum(&other[..48]).to_le_bytes();
    other[48..56].copy_from_slice(&sum);
    assert!(matches!(refused(&other), SnapshotFileError::Build));
    fs::write(&saved.path, &good).unwrap();
    load(&saved.program, &saved.limits, &saved.path).unwrap();

    fs::set_permissions(&saved.path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(load(&saved.program, &saved.limits, &saved.path), Err(SnapshotFileError::Writable)));
    assert!(matches!(load(&saved.program, &saved.limits, saved.folder.path()), Err(SnapshotFileError::File(_))));
    let nowhere = saved.folder.path().join("nowhere");
    assert!(matches!(load(&saved.program, &saved.limits, &nowhere), Err(SnapshotFileError::Io(_))));
}

/// The number of cases, smaller in the hardware lane, whose processor is emulated. A failure is printed and not saved.
fn cases(count: u32) -> ProptestConfig {
    let emulated = std::env::var_os("MAYFLY_LANE").is_some_and(|lane| lane == "svm");
    ProptestConfig {
        cases: if emulated { count / 5 } else { count },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Every bit and every length counts, except in the rest of the first page, which is never read.
#[test]
fn damage_is_found() {
    let saved = Saved::named("hello");
    let file = OpenOptions::new().read(true).write(true).open(&saved.path).unwrap();
    let len = file.metadata().unwrap().len();
    let good = fs::read(&saved.path).unwrap();
    let counts = |at: u64| !(56..4096).contains(&at);
    proptest!(cases(200), |(at in prop_oneof![0..56u64, 4096..len, len - 4000..len], bit in 0u8..8)| {
        prop_assert!(counts(at));
        let byte = good[at as usize];
        file.write_all_at(&[byte ^ 1 << bit], at).unwrap();
        let loaded = load(&saved.program, &saved.limits, &saved.path);
        file.write_all_at(&[byte], at).unwrap();
        prop_assert!(loaded.is_err(), "byte {at}, bit {bit}");
    });
    proptest!(cases(50), |(short in prop_oneof![0..len, len - 100..len])| {
        file.set_len(short).unwrap();
        let loaded = load(&saved.program, &saved.limits, &saved.path);
        fs::write(&saved.path, &good).unwrap();
        prop_assert!(loaded.is_err(), "{short} bytes");
    });
    let loaded = saved.load();
    assert_eq!(text(&mut Worker::fork(&loaded).unwrap(), "/"), text(&mut Worker::fork(&saved.booted).unwrap(), "/"));
    drop::<File>(file);
}

/// With a correct checksum: a writer of such a file is trusted, but even so it must crash nothing.
#[test]
fn a_state_that_makes_no_sense_ends_nothing() {
    let mut server = program("listens", &["epoll"]);
    server.service = Some(Service::new(Arc::new(Plain)));
    for program in [program("hello", &[]), server] {
        let limits = Limits { threads: 8, ..patient() };
        let saved = Saved::of(program, limits);
        // Some of them spin, or wait for events that never come.
        let hurried =
            Limits { cpu_time: Duration::from_millis(200), wall_time: Duration::from_secs(1), ..saved.limits.clone() };
        let good = fs::read(&saved.path).unwrap();
        let word = |at: usize| u64::from_le_bytes(good[at..at + 8].try_into().unwrap());
        let (at, len) = (word(24) as usize, word(32) as usize);
        let path = saved.folder.path().join("changed");
        let changes = prop::collection::vec((0..len, any::<u8>()), 1..4);
        let counts = std::cell::Cell::new((0, 0));
        proptest!(cases(300), |(changes in changes)| {
            let mut bytes = good.clone();
            for (place, value) in changes {
                bytes[at + place] = value;
            }
            let sum = mayfly_engine::checksum(&bytes[at..at + len]).to_le_bytes();
            bytes[40..48].copy_from_slice(&sum);
            let sum = mayfly_engine::checksum(&bytes[..48]).to_le_bytes();
            bytes[48..56].copy_from_slice(&sum);
            fs::write(&path, &bytes).unwrap();
            if let Ok(snapshot) = load(&saved.program, &hurried, &path)
                && let Ok(mut worker) = Worker::fork(&snapshot)
            {
                // Any answer will do.
                let answered = call(&mut worker, "/", b"").is_ok();
                let (loaded, answers) = counts.get();
                counts.set((loaded + 1, answers + u32::from(answered)));
            }
        });
        println!("{}: (loaded, answered) {:?}", saved.program.name, counts.get());
    }
}
