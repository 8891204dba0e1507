// SPDX-License-Identifier: MIT OR Apache-2.0
//! The personality on a real machine, driven call by call: a program of a few bytes makes the system calls that the
//! test puts into its registers, and touches the memory that the test names.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mayfly_engine::{Image, Machine, testing};
use mayfly_machine::{Exit, PAGE_SIZE, SharedMemory, layout};
use proptest::prelude::*;

use crate::base::context::{Context, Output, Stream};
use crate::base::limits::{Limits, RefusedProcesses};
use crate::base::pages::PageRange;
use crate::base::step::Step;
use crate::exec::program::Program;
use crate::fs::mounts::Mounts;
use crate::kernel::process::Process;
use crate::net::allow_list::Network;

mod any_calls;
mod durable;
mod files;
mod may_block;
mod outbound;
mod overlay_mappings;
mod shared;
mod sockets;
mod turns;

/// ```text
/// again:  syscall                 ; the test has put a call into the registers
///         test r13, r13
///         jz   1f
///         inc  qword ptr [r13]    ; and may want a page to be touched
/// 1:      test r12, r12
///         jz   again
///         call r12                ; and the doorbell to be rung
///         jmp  again
/// ```
const PUPPET: [u8; 21] = [
    0x0f, 0x05, 0x4d, 0x85, 0xed, 0x74, 0x04, 0x49, 0xff, 0x45, 0x00, 0x4d, 0x85, 0xe4, 0x74, 0xf0, 0x41, 0xff, 0xd4,
    0xeb, 0xeb,
];

/// An ELF file with [`PUPPET`] at its entry.
fn puppet_elf() -> Vec<u8> {
    const ENTRY: u64 = 0x40_0078;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [ENTRY, 64, 0] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let size = (file.len() + 48 + PUPPET.len()) as u64;
    for word in [0, 0x40_0000, 0x40_0000, size, size, PAGE_SIZE] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(PUPPET);
    file
}

#[derive(Debug, Default)]
struct Log(Vec<u8>);

impl Output for Log {
    fn write(&mut self, _stream: Stream, bytes: &[u8]) {
        self.0.extend(bytes);
    }
}

/// A machine that has stopped at a system call which the test has not chosen yet.
struct Puppet {
    machine: Machine,
    process: Process,
    log: Log,
    may_block: bool,
}

impl Puppet {
    fn boot() -> Self {
        Self::boot_with(None)
    }

    fn boot_with(shared: Option<&SharedMemory>) -> Self {
        Self::boot_with_both(shared, &Mounts::default())
    }

    fn boot_in(mounts: &Mounts) -> Self {
        Self::boot_with_both(None, mounts)
    }

    fn boot_with_both(shared: Option<&SharedMemory>, mounts: &Mounts) -> Self {
        Self::boot_with_all(shared, mounts, &Network::default())
    }

    fn boot_with_all(shared: Option<&SharedMemory>, mounts: &Mounts, network: &Network) -> Self {
        Self::boot_large(16 << 20, shared, mounts, network)
    }

    fn boot_large(bytes: u64, shared: Option<&SharedMemory>, mounts: &Mounts, network: &Network) -> Self {
        let elf = puppet_elf();
        let program = Program { elf: (&elf).into(), name: "puppet", args: &[], env: &[], mounts, network };
        let limits = Limits { stack_bytes: 64 << 10, ..Limits::default() };
        let mut machine = testing::boot_machine(bytes);
        if let Some(shared) = shared {
            machine.share(shared).unwrap();
        }
        let process = Process::exec(&mut machine, &program, &[], 0, &limits).unwrap();
        let mut puppet = Self { machine, process, log: Log::default(), may_block: true };
        assert_eq!(puppet.run(), Ok(Exit::Syscall));
        puppet
    }

    fn handle(&mut self, exit: &Exit) -> Step {
        let mut rng = |bytes: &mut [u8]| bytes.fill(7);
        let mut context = Context { output: &mut self.log, rng: &mut rng, may_block: self.may_block };
        self.process.handle(&mut self.machine, exit, &mut context)
    }

    /// Runs to the next system call or doorbell, or to the program's end.
    fn run(&mut self) -> Result<Exit, Step> {
        loop {
            match self.machine.run().unwrap() {
                exit @ (Exit::Syscall | Exit::Doorbell) => return Ok(exit),
                exit => match self.handle(&exit) {
                    Step::Continue => {}
                    end => return Err(end),
                },
            }
        }
    }

    /// Makes a system call, then increments the word at `touch` unless that is 0, and returns the call's result.
    fn call(&mut self, number: libc::c_long, args: [u64; 6], touch: u64) -> Result<i64, Step> {
        self.call_then(number, args, touch, 0, &Exit::Syscall)?;
        Ok(self.machine.regs().rax.cast_signed())
    }

    fn call_then(
        &mut self,
        number: libc::c_long,
        args: [u64; 6],
        touch: u64,
        doorbell: u64,
        next: &Exit,
    ) -> Result<(), Step> {
        let mut regs = self.machine.regs();
        regs.rax = number.cast_unsigned();
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
        (regs.r13, regs.r12) = (touch, doorbell);
        testing::set_arguments(&mut self.machine, &regs);
        match self.handle(&Exit::Syscall) {
            Step::Continue => assert_eq!(&self.run()?, next),
            end => return Err(end),
        }
        Ok(())
    }

    /// Rings the doorbell and freezes the program.
    fn freeze(mut self) -> (Image, Process) {
        self.call_then(libc::SYS_getpid, [0; 6], 0, layout::DOORBELL_ENTRY, &Exit::Doorbell).unwrap();
        self.process.freeze();
        assert!(!self.process.is_dirty());
        (Image::freeze(self.machine, 0).unwrap(), self.process)
    }

    fn fork(image: &Image, process: &Process) -> Self {
        let machine = Machine::fork(image, 2000, &[]).unwrap();
        let mut puppet = Self { machine, process: process.clone(), log: Log::default(), may_block: true };
        assert_eq!(puppet.run(), Ok(Exit::Syscall));
        puppet
    }

    /// Rings the doorbell, as every request that ends well does, and goes back to the snapshot and to its first system
    /// call. An error means that the program ended before it could ring.
    fn reset(&mut self, frozen: &Process) -> Result<(), Step> {
        self.call_then(libc::SYS_getpid, [0; 6], 0, layout::DOORBELL_ENTRY, &Exit::Doorbell)?;
        self.machine.reset().unwrap();
        self.process.reset_from(frozen);
        assert_eq!(self.machine.audit(), [], "the machine equals the snapshot");
        assert!(!self.process.is_dirty());
        // Statistics are not reset.
        self.process.take_limit_hits();
        self.process.take_connects();
        self.process.take_refused_processes();
        // Another thread closes the files of durable mounts, whose number shows.
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let (now, then) = (format!("{:?}", self.process), format!("{frozen:?}"));
            if now == then {
                break;
            }
            assert!(Instant::now() < end, "the process equals the snapshot: {now} {then}");
            std::thread::yield_now();
        }
        assert_eq!(self.run(), Ok(Exit::Syscall));
        Ok(())
    }

    /// Whether the program may write at `address`.
    fn is_writable(&self, address: u64) -> bool {
        self.process.memory.find(address).is_some_and(|vma| vma.prot.contains(mayfly_machine::Prot::WRITE))
    }
}

/// Number of random cases: fewer in the hardware lane, whose processor is emulated.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    let emulated = std::env::var_os("MAYFLY_LANE").is_some_and(|lane| lane == "svm");
    ProptestConfig::with_cases(if emulated { count / 5 } else { count })
}

const WINDOW: u64 = 0x1000_0000;
const WINDOW_PAGES: u64 = 48;
const RW: u64 = 3;
const PRIVATE_ANON_FIXED: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u64;

/// A change to a few pages at [`WINDOW`]; pages are counted from there.
#[derive(Clone, Debug)]
enum Change {
    Map { page: u64, pages: u64, prot: u64 },
    Unmap { page: u64, pages: u64 },
    Protect { page: u64, pages: u64, prot: u64 },
    Discard { page: u64, pages: u64 },
    Move { page: u64, pages: u64, to: u64, new_pages: u64 },
    Grow { page: u64, pages: u64, new_pages: u64 },
    Break { pages: u64 },
    Touch { page: u64 },
}

fn any_change() -> impl Strategy<Value = Change> {
    let page = || 0..WINDOW_PAGES - 8;
    let pages = || 1..8_u64;
    let prot = || prop_oneof![Just(0_u64), Just(1), Just(RW), Just(RW), Just(7)];
    prop_oneof![
        3 => (page(), pages(), prot()).prop_map(|(page, pages, prot)| Change::Map { page, pages, prot }),
        1 => (page(), pages()).prop_map(|(page, pages)| Change::Unmap { page, pages }),
        3 => (page(), pages(), prot()).prop_map(|(page, pages, prot)| Change::Protect { page, pages, prot }),
        1 => (page(), pages()).prop_map(|(page, pages)| Change::Discard { page, pages }),
        1 => (page(), pages(), page(), pages())
            .prop_map(|(page, pages, to, new_pages)| Change::Move { page, pages, to, new_pages }),
        1 => (page(), pages(), pages()).prop_map(|(page, pages, new_pages)| Change::Grow { page, pages, new_pages }),
        1 => (0..8_u64).prop_map(|pages| Change::Break { pages }),
        8 => (0..WINDOW_PAGES).prop_map(|page| Change::Touch { page }),
    ]
}

/// The first word of each page, unless it is zero.
type Content = BTreeMap<u64, u64>;

fn at(page: u64) -> u64 {
    WINDOW + page * PAGE_SIZE
}

fn forget(content: &mut Content, start: u64, len: u64) {
    content.retain(|page, _| !(start..start + len).contains(page));
}

/// Applies the change to the machine, and its effect on the content to the model.
fn apply(puppet: &mut Puppet, content: &mut Content, change: &Change) {
    match *change {
        Change::Map { page, pages, prot } => {
            let len = pages * PAGE_SIZE;
            let args = [at(page), len, prot, PRIVATE_ANON_FIXED, u64::MAX, 0];
            assert_eq!(puppet.call(libc::SYS_mmap, args, 0), Ok(at(page).cast_signed()));
            forget(content, at(page), len);
        }
        Change::Unmap { page, pages } => {
            let len = pages * PAGE_SIZE;
            assert_eq!(puppet.call(libc::SYS_munmap, [at(page), len, 0, 0, 0, 0], 0), Ok(0));
            forget(content, at(page), len);
        }
        Change::Protect { page, pages, prot } => {
            // May fail at a gap, after changing what lies before it; content stays in either case.
            puppet.call(libc::SYS_mprotect, [at(page), pages * PAGE_SIZE, prot, 0, 0, 0], 0).unwrap();
        }
        Change::Discard { page, pages } => {
            let len = pages * PAGE_SIZE;
            let advice = u64::from(libc::MADV_DONTNEED.cast_unsigned());
            puppet.call(libc::SYS_madvise, [at(page), len, advice, 0, 0, 0], 0).unwrap();
            forget(content, at(page), len);
        }
        Change::Move { page, pages, to, new_pages } => {
            let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
            let (len, new_len) = (pages * PAGE_SIZE, new_pages * PAGE_SIZE);
            let args = [at(page), len, new_len, flags, at(to), 0];
            if puppet.call(libc::SYS_mremap, args, 0).unwrap() == at(to).cast_signed() {
                forget(content, at(to), new_len);
                let kept = at(page)..at(page) + len.min(new_len);
                let moved: Vec<_> = content.range(kept).map(|(page, word)| (*page, *word)).collect();
                forget(content, at(page), len);
                content.extend(moved.iter().map(|(from, word)| (from - at(page) + at(to), *word)));
            }
        }
        Change::Grow { page, pages, new_pages } => {
            let (len, new_len) = (pages * PAGE_SIZE, new_pages * PAGE_SIZE);
            if puppet.call(libc::SYS_mremap, [at(page), len, new_len, 0, 0, 0], 0).unwrap() > 0 && new_len < len {
                forget(content, at(page) + new_len, len - new_len);
            }
        }
        Change::Break { pages } => {
            let start = puppet.process.memory.heap_start();
            let end = start + pages * PAGE_SIZE;
            let now = puppet.call(libc::SYS_brk, [end, 0, 0, 0, 0, 0], 0).unwrap().cast_unsigned();
            assert_eq!(now, end);
            forget(content, end, 8 * PAGE_SIZE);
            if pages > 0 {
                touch(puppet, content, start);
            }
        }
        Change::Touch { page } => touch(puppet, content, at(page)),
    }
}

/// Increments a word in the machine and in the model, and compares them.
fn touch(puppet: &mut Puppet, content: &mut Content, page: u64) {
    if puppet.is_writable(page) {
        puppet.call(libc::SYS_getpid, [0; 6], page).unwrap();
        let word = content.entry(page).or_default();
        *word += 1;
        let mut found = [0; 8];
        puppet.machine.read(page, &mut found).unwrap();
        assert_eq!(u64::from_le_bytes(found), *word, "content of {page:#x}");
    }
}

fn apply_all(puppet: &mut Puppet, content: &mut Content, changes: &[Change]) {
    for change in changes {
        apply(puppet, content, change);
    }
    for page in 0..WINDOW_PAGES {
        touch(puppet, content, at(page));
    }
}

proptest! {
    #![proptest_config(cases(40))]

    /// The central property of reset: whatever a boot has mapped and whatever requests do to it, every page has the
    /// right content, and after each reset machine and process equal the snapshot.
    #[test]
    fn any_changes_of_memory_are_correct_and_are_undone(
        boot in prop::collection::vec(any_change(), 0..20),
        requests in prop::collection::vec(prop::collection::vec(any_change(), 0..30), 1..4),
    ) {
        let mut puppet = Puppet::boot();
        let mut frozen_content = Content::new();
        apply_all(&mut puppet, &mut frozen_content, &boot);
        let (image, frozen) = puppet.freeze();
        let mut worker = Puppet::fork(&image, &frozen);
        for request in &requests {
            let mut content = frozen_content.clone();
            apply_all(&mut worker, &mut content, request);
            worker.reset(&frozen).unwrap();
        }
    }
}

/// Descriptors of every kind of pollable, 3 to 18, and structures for calls at the start of the window.
fn make_pollables(puppet: &mut Puppet) {
    let flags = libc::O_NONBLOCK as u64;
    for (number, args) in [
        (libc::SYS_pipe2, [at(0), flags, 0, 0, 0, 0]),
        (libc::SYS_pipe2, [at(0), 0, 0, 0, 0, 0]),
        (libc::SYS_socketpair, [1, 1, 0, at(0), 0, 0]),
        (libc::SYS_socketpair, [1, 2 | flags, 0, at(0), 0, 0]),
        (libc::SYS_eventfd2, [1, 0, 0, 0, 0, 0]),
        (libc::SYS_timerfd_create, [1, 0, 0, 0, 0, 0]),
        (libc::SYS_epoll_create1, [0; 6]),
        (libc::SYS_socket, [2, 1 | flags, 0, 0, 0, 0]),
        (libc::SYS_listen, [14, 2, 0, 0, 0, 0]),
        (libc::SYS_socket, [10, 1, 0, 0, 0, 0]),
        (libc::SYS_memfd_create, [at(0), 2, 0, 0, 0, 0]),
        (libc::SYS_signalfd4, [u64::MAX, at(4), 8, flags, 0, 0]),
        (libc::SYS_inotify_init1, [flags, 0, 0, 0, 0, 0]),
    ] {
        assert!(puppet.call(number, args, 0).unwrap() >= 0, "{number}");
    }
    // An address; an event; a message and its buffers.
    let mut put = |address, bytes: &[u8]| puppet.process.copy_out(&mut puppet.machine, address, bytes).unwrap();
    put(at(0), &[2, 0, 0x80, 1, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    put(at(4), &[1, 0, 0, 0x80, 9, 0, 0, 0, 0, 0, 0, 0]);
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    put(at(8), &words(&[at(0), 16, at(9), 2, at(10), 24, 0, 0]));
    put(at(10), &words(&[24, 1 | 1 << 32, 7 | 9 << 32]));
    put(at(9), &words(&[at(0), 100, at(4), 5000]));
    put(at(12), b"/tmp/fifo\0");
    // A datagram socket with an address, another one, and a FIFO.
    for (number, args) in [
        (libc::SYS_socket, [2, 2 | flags, 0, 0, 0, 0]),
        (libc::SYS_bind, [19, at(0), 16, 0, 0, 0]),
        (libc::SYS_socket, [10, 2 | flags, 0, 0, 0, 0]),
        (libc::SYS_mknod, [at(12), u64::from(libc::S_IFIFO | 0o600), 0, 0, 0, 0]),
        (libc::SYS_open, [at(12), libc::O_RDWR as u64 | flags, 0, 0, 0, 0]),
    ] {
        assert!(puppet.call(number, args, 0).unwrap() >= 0, "{number}");
    }
}

#[test]
fn every_kind_of_state_is_reset() {
    let (image, frozen) = Puppet::boot().freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    let stack = crate::mm::address_space::AddressSpace::stack_top() - PAGE_SIZE;
    let map = [WINDOW, PAGE_SIZE, RW, PRIVATE_ANON_FIXED, u64::MAX, 0];
    let profile = [libc::ITIMER_PROF as u64, stack + 64, 0, 0, 0, 0];
    let changes: [(&str, libc::c_long, [u64; 6]); 15] = [
        ("pollables", libc::SYS_eventfd2, [0; 6]),
        ("files in memory", libc::SYS_memfd_create, [0x40_0001, 0, 0, 0, 0, 0]),
        ("taken signals", libc::SYS_signalfd4, [u64::MAX, 0x40_0000, 8, 0, 0, 0]),
        ("watches", libc::SYS_inotify_init1, [0; 6]),
        ("a process", libc::SYS_pidfd_open, [2, 0, 0, 0, 0, 0]),
        ("timers of CPU time", libc::SYS_setitimer, profile),
        ("mappings", libc::SYS_mmap, map),
        ("break", libc::SYS_brk, [frozen.memory.heap_start() + 1, 0, 0, 0, 0, 0]),
        ("descriptors", libc::SYS_close, [1, 0, 0, 0, 0, 0]),
        ("signal mask", libc::SYS_rt_sigprocmask, [0, 0x40_0000, 0, 8, 0, 0]),
        ("umask", libc::SYS_umask, [0o77, 0, 0, 0, 0, 0]),
        ("alarm", libc::SYS_alarm, [1000, 0, 0, 0, 0, 0]),
        ("timers", libc::SYS_timer_create, [1, 0, stack, 0, 0, 0]),
        ("thread name", libc::SYS_prctl, [libc::PR_SET_NAME as u64, 0x40_0001, 0, 0, 0, 0]),
        ("resource limits", libc::SYS_setrlimit, [0, 0x40_0028, 0, 0, 0, 0]),
    ];
    for (what, number, args) in changes {
        assert!(!worker.process.is_dirty());
        // An interval and a time.
        let times: Vec<u8> = [0, 0, 1000, 0].iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        worker.process.copy_out(&mut worker.machine, stack + 64, &times).unwrap();
        assert!(worker.call(number, args, 0).unwrap() >= 0, "{what}");
        assert!(worker.process.is_dirty(), "{what}");
        assert_ne!(format!("{:?}", worker.process), format!("{frozen:?}"), "{what}");
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn pending_signals_are_reset() {
    let (image, frozen) = Puppet::boot().freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for target in [libc::SYS_kill, libc::SYS_tkill] {
        // The file's first bytes block signal 1, among others.
        assert_eq!(worker.call(libc::SYS_rt_sigprocmask, [0, 0x40_0000, 0, 8, 0, 0], 0), Ok(0));
        assert_eq!(worker.call(target, [2, 1, 0, 0, 0, 0], 0), Ok(0));
        let pending = worker.process.threads.current().signals.pending.set();
        assert_eq!(pending.or(worker.process.signals.pending.set()).bits(), 1);
        worker.reset(&frozen).unwrap();
    }
}

/// At the end of a request, the entry of such a page no longer says that it was written.
#[test]
fn a_page_that_was_written_and_then_made_inaccessible_is_reset() {
    let mut puppet = Puppet::boot();
    let map = [WINDOW, 4 * PAGE_SIZE, RW, PRIVATE_ANON_FIXED, u64::MAX, 0];
    puppet.call(libc::SYS_mmap, map, WINDOW).unwrap();
    puppet.call(libc::SYS_getpid, [0; 6], WINDOW + PAGE_SIZE).unwrap();
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    let protect = |prot| [WINDOW, 2 * PAGE_SIZE, prot, 0, 0, 0];
    for last in [libc::PROT_NONE as u64, libc::PROT_READ as u64] {
        worker.call(libc::SYS_mprotect, protect(6), 0).unwrap();
        worker.call(libc::SYS_getpid, [0; 6], WINDOW).unwrap();
        worker.call(libc::SYS_mprotect, protect(last), 0).unwrap();
        // The page is moved as well.
        let away = [WINDOW, PAGE_SIZE, PAGE_SIZE, 3, WINDOW + 0x10_0000, 0];
        worker.call(libc::SYS_mremap, away, 0).unwrap();
        worker.reset(&frozen).unwrap();
        assert_eq!(worker.machine.audit(), []);
    }
}

#[test]
fn reading_changes_nothing() {
    let (image, frozen) = Puppet::boot().freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    let stack = crate::mm::address_space::AddressSpace::stack_top() - PAGE_SIZE;
    for number in [libc::SYS_getpid, libc::SYS_sched_yield, libc::SYS_brk, libc::SYS_uname, libc::SYS_time] {
        let buffer = if number == libc::SYS_uname { stack } else { 0 };
        assert!(worker.call(number, [buffer, 0, 0, 0, 0, 0], 0).unwrap() >= 0);
    }
    assert!(!worker.process.is_dirty());
}

#[test]
fn unknown_calls_are_counted_over_resets_and_logged_once() {
    let (image, frozen) = Puppet::boot().freeze();
    let mut workers = [Puppet::fork(&image, &frozen), Puppet::fork(&image, &frozen)];
    for worker in &mut workers {
        for _ in 0..2 {
            assert_eq!(worker.call(libc::SYS_fork, [0; 6], 0), Ok(-38));
            assert_eq!(worker.call(0x1_0000_0000 + libc::SYS_getpid, [0; 6], 0), Ok(2), "the upper half is ignored");
            assert_eq!(worker.call(libc::SYS_execve, [0; 6], 0), Ok(-38));
            assert_eq!(worker.process.take_refused_processes(), RefusedProcesses { forks: 1, execs: 1 });
            assert_eq!(worker.process.take_refused_processes(), RefusedProcesses::default());
            worker.reset(&frozen).unwrap();
        }
    }
    let log: Vec<String> = workers.iter().map(|worker| String::from_utf8(worker.log.0.clone()).unwrap()).collect();
    assert_eq!(log.concat().matches("57 (fork)").count(), 1, "{log:?}");
    let counted = frozen.unknown_calls();
    let counted: Vec<_> = counted.iter().map(|call| (call.name, call.count)).collect();
    assert_eq!(counted, [("fork", 4), ("execve", 4)]);
}

#[test]
fn a_window_fits_between_program_and_mappings() {
    let window = PageRange::at(WINDOW, WINDOW_PAGES * PAGE_SIZE).unwrap();
    let puppet = Puppet::boot();
    assert_eq!(puppet.process.memory.within(window).count(), 0);
}
