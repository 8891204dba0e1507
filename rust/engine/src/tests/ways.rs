// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ways back into the frozen program: the next request begins with the state of a fresh fork, whatever the last one
//! left in the processor, and whichever way it stopped. `rust/sandbox/tests/ways.rs` tests what the program sees of it;
//! these tests compare all that KVM shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_segment};
use mayfly_machine::Blame;

use super::*;
use crate::testing::{Extreme, Way, extremes, ways};

// Waits by a call, with things in its registers, and shows by an `out` of its own what it goes on with. Then it takes
// the registers that `testing::ways` wants, and falls into what was put behind it.
guest!(
    begin,
    "mov rax, 0x12345000",
    "wrfsbase rax",
    "mov rax, 0x54321000",
    "wrgsbase rax",
    "mov ebx, 0x1111",
    "mov ebp, 0x2222",
    "mov r12d, 0x3333",
    "mov r15d, 0x4444",
    "mov edi, 1",
    "mov rax, 0x7fff00001100",
    "call rax",
    "out 0xd0, al",
    "mov edi, 2",
    "mov rsi, 0x500000",
    "mov edx, 1",
    "mov r8, 0x7fff00001100",
    "mov rax, 0x600000",
    "jmp rax",
);

/// The selector of user code, and the page of the guest kernel's entry for system calls.
const USER_CODE: u16 = 0x33;
const SYSCALL: u64 = USER_END + 0x4000;

/// Where `begin` goes on.
const PIECE: u64 = 0x60_0000;

/// The state in which a vCPU begins a request, as far as KVM shows it.
#[derive(Debug, PartialEq)]
struct Begins {
    regs: Regs,
    segments: Vec<(u16, u64, u8)>,
    control: [u64; 5],
    vector: Vec<u32>,
    msrs: Vec<u64>,
    /// Injected and pending exceptions, interrupts and NMIs.
    events: [u8; 5],
    breakpoints: ([u64; 4], u64),
}

impl Begins {
    /// Runs to where `begin` shows it.
    fn of(machine: &mut Machine) -> Self {
        let exit = run_on(machine);
        assert_eq!(exit, Exit::Doorbell, "{:x?}", machine.regs());
        let fd = machine.processor.kvm().vcpu_fd();
        let sregs = fd.get_sregs().unwrap();
        let xcr0 = fd.get_xcrs().unwrap().xcrs[0].value;
        // A null selector has no descriptor: what the vCPU keeps of the last one is not used.
        let segment = |segment: kvm_segment| {
            (segment.selector, segment.base, if segment.selector == 0 { 3 } else { segment.dpl })
        };
        let numbers = [0x174, 0x175, 0x176, 0x277, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0102];
        let entries = numbers.map(|index| kvm_msr_entry { index, ..Default::default() });
        let mut msrs = Msrs::from_entries(&entries).unwrap();
        assert_eq!(fd.get_msrs(&mut msrs).unwrap(), numbers.len());
        let events = fd.get_vcpu_events().unwrap();
        // XSTATE_BV: the processor, and a kernel that switches threads, may note at any time that a component is as it
        // is at first.
        let mut vector = fd.get_xsave().unwrap().region.to_vec();
        vector[128..130].fill(0);
        // DR6 says what the last #DB was: no instruction of user code, and none of Mayfly's, reads it.
        let debug = fd.get_debug_regs().unwrap();
        Self {
            segments: [sregs.cs, sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs].map(segment).to_vec(),
            control: [sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer, xcr0],
            vector,
            msrs: msrs.as_slice().iter().map(|entry| entry.data).collect(),
            events: [
                events.exception.injected,
                events.exception.pending,
                events.interrupt.injected,
                events.nmi.injected,
                events.nmi.pending,
            ],
            breakpoints: (debug.db, debug.dr7),
            regs: machine.regs(),
        }
    }
}

/// Runs to the next exit but a fault on memory that the program has, and one of the trap flag.
fn run_on(machine: &mut Machine) -> Exit {
    let (mut traps, mut faults) = (0, 0);
    loop {
        match machine.run().unwrap() {
            Exit::PageFault { address, code, .. }
                if (DATA..USER_END).contains(&address) && code.bits() & 0x10 == 0 && faults < 100 =>
            {
                faults += 1;
                let page = address & !(PAGE_SIZE - 1);
                if machine.is_mapped(page) {
                    machine.make_writable(page, Origin::Snapshot).unwrap();
                } else {
                    machine.map_zero(page, RW, Origin::Snapshot).unwrap();
                }
            }
            Exit::Exception { vector: 1, .. } if traps < 100 => traps += 1,
            exit => break exit,
        }
    }
}

/// Sends signals to this thread repeatedly: one may come when it is not in `KVM_RUN`.
struct Signals {
    over: Arc<AtomicBool>,
    sender: Option<std::thread::JoinHandle<()>>,
}

impl Signals {
    fn every(time: Duration) -> Self {
        extern "C" fn nothing(_: i32) {}
        // SAFETY: all-zero bytes are a valid `sigaction`; the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
        }
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        // SAFETY: it has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        let sender = std::thread::spawn(move || {
            loop {
                std::thread::park_timeout(time);
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                // SAFETY: the thread waits for this one before it ends.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            }
        });
        Self { over, sender: Some(sender) }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(sender) = self.sender.take() {
            sender.thread().unpark();
            sender.join().unwrap();
        }
    }
}

/// A worker whose requests run the code that is written into them.
struct Rig {
    worker: Machine,
    image: Image,
    fresh: Begins,
}

impl Rig {
    fn new() -> Self {
        let mut machine = boot(begin(), 1);
        machine.map_zero(PIECE, RW | RX, Origin::Snapshot).unwrap();
        let image = freeze(machine);
        let fresh = Begins::of(&mut Machine::fork(&image, 256, &[]).unwrap());
        let worker = Machine::fork(&image, 256, &[]).unwrap();
        Self { worker, image, fresh }
    }

    /// A request up to where it stops.
    fn request(&mut self, extreme: &Extreme, way: &Way) -> Exit {
        assert_eq!(Begins::of(&mut self.worker), self.fresh, "before {}, {}", extreme.name, way.name);
        self.worker.make_writable(PIECE, Origin::Snapshot).unwrap();
        self.worker.write(PIECE, &[extreme.code, way.code].concat()).unwrap();
        let _signals = Signals::every(Duration::from_millis(if way.name == "interrupt" { 2 } else { 1000 }));
        run_on(&mut self.worker)
    }

    /// Resets the worker by the way of its exit, as `mayfly-sandbox` does.
    fn take_back(&mut self, exit: &Exit) {
        match exit {
            Exit::Doorbell => drop(self.worker.reset().unwrap()),
            Exit::Syscall => {
                self.worker.reset().unwrap();
                self.worker.enter_frozen(INBOX).unwrap();
            }
            // Given up.
            _ => {
                self.worker.abandon().unwrap();
                self.worker.reset().unwrap();
            }
        }
    }

    /// What the next request begins with.
    fn check(&mut self, extreme: &Extreme, way: &Way, exit: &Exit) {
        let (extreme, way) = (extreme.name, way.name);
        assert_eq!(Begins::of(&mut self.worker), self.fresh, "{extreme}, {way}: {exit:?}");
        // It has rung a doorbell of its own: to begin with that again, the worker is taken back.
        self.worker.reset().unwrap();
    }

    /// Runs `test` for each extreme before each way.
    fn for_each(mut test: impl FnMut(&mut Self, &Extreme, &Way)) {
        let mut rig = Self::new();
        for extreme in extremes() {
            for way in ways() {
                test(&mut rig, &extreme, &way);
            }
        }
    }
}

#[test]
fn the_next_request_begins_as_in_a_fresh_fork_whatever_the_last_one_left() {
    let mut exits = std::collections::BTreeMap::<String, usize>::new();
    Rig::for_each(|rig, extreme, way| {
        let mut exit = rig.request(extreme, way);
        if way.name == "second system call" && exit == Exit::Syscall {
            rig.worker.return_from_syscall(7).unwrap();
            exit = run_on(&mut rig.worker);
        }
        let name = match &exit {
            Exit::Exception { vector, .. } => format!("exception {vector}"),
            Exit::PageFault { .. } => "page fault".into(),
            Exit::Unexpected(what) => {
                assert_ne!(what.blame(), Blame::Host, "{}, {}: {what}", extreme.name, way.name);
                format!("{what:?}").split(' ').next().unwrap().into()
            }
            other => format!("{other:?}"),
        };
        *exits.entry(name).or_default() += 1;
        rig.take_back(&exit);
        rig.check(extreme, way, &exit);
    });
    println!("{exits:?}");
    assert!(exits["Doorbell"] > 50 && exits["Syscall"] > 20 && exits["Kicked"] > 20, "{exits:?}");
}

#[test]
fn a_context_taken_out_and_put_back_does_not_change_what_comes_next() {
    Rig::for_each(|rig, extreme, way| {
        let mut exit = rig.request(extreme, way);
        // As another thread's turn, and a turn later.
        if let Ok(Some(context)) = rig.worker.context() {
            rig.worker.set_context(&context).unwrap();
            exit = Exit::Kicked;
        }
        rig.take_back(&exit);
        rig.check(extreme, way, &exit);
    });
}

#[test]
fn a_worker_that_was_kept_begins_anew_after_its_reset() {
    Rig::for_each(|rig, extreme, way| {
        rig.worker.set_rewinds(false);
        let exit = rig.request(extreme, way);
        rig.worker.set_rewinds(true);
        rig.take_back(&exit);
        rig.worker.set_rewinds(false);
        if exit == Exit::Doorbell {
            rig.worker.enter_trampoline();
        }
        rig.check(extreme, way, &exit);
    });
}

#[test]
fn no_exit_is_taken_for_a_system_call_or_a_doorbell_at_the_wrong_privilege() {
    Rig::for_each(|rig, extreme, way| {
        let mut exit = rig.request(extreme, way);
        let worker = &mut rig.worker;
        for _ in 0..3 {
            let is_user = worker.processor.kvm().code_segment().unwrap() == USER_CODE;
            match exit {
                Exit::Doorbell => assert!(is_user, "{}, {}", extreme.name, way.name),
                Exit::Syscall => {
                    let stays = worker.host().kind() == "paging";
                    assert_eq!(is_user, stays, "{}, {}", extreme.name, way.name);
                    worker.return_from_syscall(0).unwrap();
                    exit = run_on(worker);
                    continue;
                }
                _ => {}
            }
            assert!(worker.return_from_syscall(0).is_err(), "{}, {}: from nothing", extreme.name, way.name);
            break;
        }
        // Wherever it is now.
        rig.take_back(&Exit::Kicked);
    });
}

#[test]
fn a_system_call_that_kvm_emulates_ends_in_the_guest_kernel_and_never_goes_on() {
    let mut rig = Rig::new();
    let kind = rig.worker.host().kind();
    let emulated = extremes().into_iter().find(|extreme| extreme.name == "emulated_cpuid").unwrap();
    let mut seen = 0;
    for way in ways().iter().filter(|way| way.name.contains("system call")) {
        let exit = rig.request(&emulated, way);
        let is_forged = way.name == "forged system call";
        match (kind, &exit) {
            ("hardware", Exit::Syscall) if !is_forged => {}
            ("hardware", Exit::Exception { vector: 13, .. }) if is_forged => {}
            ("paging", Exit::Unexpected(Unexpected::Port { .. })) if is_forged => {}
            // At CPL 0, by SMEP or by #UD, or at CPL 3, by #UD.
            ("paging", Exit::Unexpected(Unexpected::Kernel { rip, .. }) | Exit::Exception { vector: 6, rip, .. }) => {
                assert!((SYSCALL..SYSCALL + PAGE_SIZE).contains(rip), "{}: {exit:?}", way.name);
            }
            _ => panic!("{}: {exit:?}", way.name),
        }
        rig.take_back(&Exit::Kicked);
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn a_fork_that_never_ran_begins_as_one_that_was_given_up() {
    let mut rig = Rig::new();
    let mut fork = Machine::fork(&rig.image, 256, &[]).unwrap();
    fork.abandon().unwrap();
    fork.reset().unwrap();
    fork.enter_frozen(INBOX).unwrap();
    assert_eq!(Begins::of(&mut fork), rig.fresh);
    assert_eq!(Begins::of(&mut rig.worker), rig.fresh);
}
