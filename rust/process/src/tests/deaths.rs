// SPDX-License-Identifier: MIT OR Apache-2.0
//! How stubs end, and what they leave: nothing.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::programs::{SPIN, code_page, code_region, memory, nursery, run, stub};
use crate::error::{ForkError, RingError};
use crate::sys::socket;

/// Whether the process runs; one that only waits to be reaped does not.
fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with(['Z', 'X']))
}

fn die_within(pids: &[i32], time: Duration) -> bool {
    let start = Instant::now();
    while pids.iter().any(|&pid| is_alive(pid)) {
        if start.elapsed() > time {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// What dies at once, on a busy machine or an emulated processor.
const SOON: Duration = Duration::from_secs(60);

fn kill(pid: i32) {
    // SAFETY: plain call; the process is a child of this test's, or of its child's.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

fn lines(file: &str) -> usize {
    std::fs::read_to_string(file).unwrap().lines().count()
}

fn children(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
}

#[test]
fn ten_thousand_births_and_deaths_leave_no_process_descriptor_or_mapping() {
    let nursery = nursery();
    let file = code_page(&SPIN);
    let count = || (entries("/proc/self/fd"), entries(&format!("/proc/{}/fd", nursery.pid())));
    // The allocator may map once more for the first stub.
    drop(nursery.stub(&[code_region(&file)], memory(&file)).unwrap());
    let (before, mapped) = (count(), lines("/proc/self/maps"));
    for round in 0..10_000 {
        let mut stub = nursery.stub(&[code_region(&file)], memory(&file)).unwrap();
        if round % 2 == 0 {
            stub.start(&super::programs::start(), 0, 0).unwrap();
        }
        let status = stub.end().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }
    assert_eq!(count(), before, "descriptors, the server's and the zygote's");
    assert_eq!(children(nursery.pid()), "", "zombies");
    // Other tests of this process may map meanwhile.
    let more = lines("/proc/self/maps").saturating_sub(mapped);
    assert!(more < 100, "{more} mappings more");
}

#[test]
fn a_birth_that_fails_says_why_and_leaves_nothing() {
    // Whatever descriptors of the process's other code are not closed on exec.
    // SAFETY: plain call; the copy stays open as long as the process lives.
    assert!(unsafe { libc::fcntl(1, libc::F_DUPFD, 100) } >= 100);
    let nursery = nursery();
    assert_eq!(entries(&format!("/proc/{}/fd", nursery.pid())), 1, "its socket");
    let (ours, _theirs) = socket::pair().unwrap();
    let file = code_page(&SPIN);
    // A socket cannot be mapped.
    let region = crate::Region { file: ours.as_fd(), ..code_region(&file) };
    match nursery.stub(&[region], memory(&file)) {
        Err(ForkError::Script(why)) => assert!(why.starts_with("system call 9: "), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(children(nursery.pid()), "");
    assert_eq!(entries(&format!("/proc/{}/fd", nursery.pid())), 1, "its socket alone, as before");
    run(&nursery, &SPIN).end().unwrap();
}

#[test]
fn a_stub_that_is_killed_is_gone() {
    let nursery = nursery();
    let mut stub = run(&nursery, &SPIN);
    kill(stub.pid());
    assert!(matches!(stub.receive(), Err(RingError::Gone)));
    assert_eq!(stub.end().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_stub_lives_on_when_the_thread_that_made_it_ends() {
    let (nursery, stub) = std::thread::spawn(|| {
        let nursery = nursery();
        let stub = run(&nursery, &SPIN);
        (nursery, stub)
    })
    .join()
    .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(is_alive(nursery.pid()) && is_alive(stub.pid()));
}

#[test]
fn a_zygote_that_is_killed_takes_its_stubs_along_and_is_not_asked_again() {
    let nursery = nursery();
    let (waiting, spinning) = (stub(&nursery, &SPIN), run(&nursery, &SPIN));
    let pids = [nursery.pid(), waiting.pid(), spinning.pid()];
    let file = code_page(&SPIN);
    kill(nursery.pid());
    assert!(die_within(&pids, SOON));
    assert!(matches!(nursery.stub(&[], memory(&file)), Err(ForkError::Line(_))));
    assert!(matches!(nursery.stub(&[], memory(&file)), Err(ForkError::Gone)));
}

/// Set for the process that the last test starts: that prints its processes' numbers, and waits to be killed.
const WAITS: &str = "MAYFLY_TEST_WAITS_TO_BE_KILLED";

#[test]
fn many_stubs_live_side_by_side() {
    let nursery = nursery();
    let stubs: Vec<_> =
        (0..10).map(|n| if n % 2 == 0 { run(&nursery, &SPIN) } else { stub(&nursery, &SPIN) }).collect();
    assert!(stubs.iter().all(|stub| is_alive(stub.pid())));
    let pids: Vec<String> = stubs.iter().map(|stub| stub.pid().to_string()).collect();
    println!("\npids {} {}", nursery.pid(), pids.join(" "));
    while std::env::var_os(WAITS).is_some() {
        std::thread::park();
    }
}

#[test]
fn killing_the_server_leaves_no_process() {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::deaths::many_stubs_live_side_by_side", "--nocapture"])
        .env(WAITS, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(server.stdout.take().unwrap());
    let line = output.lines().map(Result::unwrap).find(|line| line.starts_with("pids ")).unwrap();
    let pids: Vec<i32> = line.split(' ').skip(1).map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 11 && pids.iter().all(|&pid| is_alive(pid)));
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(die_within(&pids, SOON), "{pids:?}");
}
