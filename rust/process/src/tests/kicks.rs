// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kicks: at any instruction, without a trace in the program.

use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mayfly_machine::layout::{CONTROL, DOORBELL, PAGE_SIZE};
use mayfly_machine::{Prot, Regs, UserContext};

use super::programs::{CODE, SPIN, SYSCALL, bell, memory, mov_eax, nursery_on, start, stub};
use super::rewinds::{full_state, meaning};
use crate::host::Host;
use crate::layout::{FRAMES_BYTES, RESUME, RESUME_BYTES};
use crate::ring::kick::Kicker;
use crate::ring::order::Order;
use crate::ring::ring::Event;
use crate::stub::Stub;
use crate::sys::memory::sealed;
use crate::zygote::zygote::Region;
use crate::{KICK, doorbell_page, resume_pages, vector_components};

/// Both ways in which a host treats signals to waiting stubs.
fn hosts() -> [Host; 2] {
    [Host::probe().unwrap(), Host::probe_without_killable().unwrap()]
}

/// Counters in all registers but RCX, R11 and those of `except`; the difference of each from RBX is known.
fn counters(except: &[u8]) -> impl Iterator<Item = u8> {
    (0..16).filter(move |register| ![1, 3, 11].contains(register) && !except.contains(register))
}

/// How long a storm lasts where other work keeps the kicks from coming,
const LONGEST: Duration = Duration::from_secs(4);
/// or until as much has happened as shows something.
const PATIENCE: Duration = Duration::from_secs(60);

const STEP: u64 = 0x1_0000;

/// Counts up all of them; `ud2` if one is not what it should be.
fn count(except: &[u8]) -> Vec<u8> {
    let increment = |register: u8| [0x48 | register >> 3, 0xff, 0xc0 | register & 7];
    let mut code = increment(3).to_vec();
    counters(except).for_each(|register| code.extend(increment(register)));
    for register in counters(except) {
        let difference = (i32::from(register) - 3) * STEP as i32;
        code.extend([0x48, 0x8d, 0x8b]); // lea difference(%rbx), %rcx
        code.extend(difference.to_le_bytes());
        code.extend([0x48 | (register >> 3) << 2, 0x39, 0xc1 | (register & 7) << 3]); // cmp %register, %rcx
        code.extend([0x74, 2, 0x0f, 0x0b]); // je; ud2
    }
    code
}

/// `ud2` unless RAX is RBX and this.
fn expect(more: i8) -> Vec<u8> {
    vec![0x48, 0x8d, 0x4b, more as u8, 0x48, 0x39, 0xc1, 0x74, 2, 0x0f, 0x0b]
}

fn jump_back(code: &mut Vec<u8>) {
    let distance = -(code.len() as i32 + 5);
    code.push(0xe9);
    code.extend(distance.to_le_bytes());
}

const FLAGS: u64 = 0x24_0400;
const BASES: (u64, u64) = (0x1111_2222_3000, 0x4444_5555_6000);

fn first_context() -> UserContext {
    let at = |register: u64| register * STEP;
    let regs = Regs {
        rax: 0,
        rcx: 0,
        rdx: at(2),
        rbx: at(3),
        rsp: at(4),
        rbp: at(5),
        rsi: at(6),
        rdi: at(7),
        r8: at(8),
        r9: at(9),
        r10: at(10),
        r11: 0,
        r12: at(12),
        r13: at(13),
        r14: at(14),
        r15: at(15),
        rip: CODE,
        rflags: FLAGS,
    };
    UserContext { regs, fs_base: BASES.0, gs_base: BASES.1, vector: full_state() }
}

/// Kicks at random times, by a handler of this thread's that sets its timer again.
///
/// One at a time: its handler finds the stub and the timer by names that all threads share.
struct Storm {
    timer: libc::timer_t,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

static KICKER: AtomicPtr<Kicker> = AtomicPtr::new(ptr::null_mut());
static TIMER: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());
static MOST_NS: AtomicU64 = AtomicU64::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(99);

extern "C" fn on_signal(_: i32) {
    // SAFETY: null, or a value that lives for ever.
    if let Some(kicker) = unsafe { KICKER.load(Ordering::SeqCst).as_ref() } {
        kicker.stop();
        set_timer(TIMER.load(Ordering::SeqCst));
    }
}

fn set_timer(timer: libc::timer_t) {
    let mut random = Random(RANDOM.load(Ordering::Relaxed));
    let pause = random.below(MOST_NS.load(Ordering::Relaxed)) + 500;
    RANDOM.store(random.0, Ordering::Relaxed);
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let time = libc::itimerspec { it_interval: zero, it_value: libc::timespec { tv_sec: 0, tv_nsec: pause as i64 } };
    // SAFETY: plain call; the timer may be gone, which is an error that does not matter.
    unsafe { libc::timer_settime(timer, 0, &raw const time, ptr::null_mut()) };
}

impl Storm {
    fn new(stub: &Stub, most_us: u64) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        KICKER.store(Box::into_raw(Box::new(stub.kicker())), Ordering::SeqCst);
        MOST_NS.store(most_us * 1_000, Ordering::SeqCst);
        // Before other work, if that is allowed: the handler is to run when the timer says so.
        // SAFETY: plain calls.
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, -15);
            libc::setpriority(libc::PRIO_PROCESS, stub.pid() as libc::id_t, -5);
        }
        // SAFETY: zeroes are a valid sigaction, sigevent and timer; the handler is async-signal-safe.
        let timer = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as extern "C" fn(i32) as usize;
            libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut());
            libc::prctl(libc::PR_SET_TIMERSLACK, 1);
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGUSR2;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer: libc::timer_t = std::mem::zeroed();
            assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer), 0);
            timer
        };
        TIMER.store(timer, Ordering::SeqCst);
        set_timer(timer);
        Self { timer, _alone: alone }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        KICKER.store(ptr::null_mut(), Ordering::SeqCst);
        // SAFETY: made by this value.
        unsafe { libc::timer_delete(self.timer) };
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn a_kick_stops_a_spinning_program_and_shows_all_its_registers() {
    for host in hosts() {
        let mut stub = stub(&nursery_on(&host), &SPIN);
        stub.load(&UserContext { regs: Regs { rbx: 7, ..start() }, ..first_context() }).unwrap();
        stub.kicker().stop();
        let Event::Signal(seen) = stub.receive().unwrap() else { panic!("no signal") };
        assert_eq!((seen.signal, seen.regs.rip, seen.regs.rbx), (KICK, CODE, 7));
        assert!(!stub.take_kick(), "it was an event");
        stub.kicker().stop();
        assert!(stub.take_kick() && !stub.take_kick(), "a wish while the stub waits");
        assert!(stub.cpu_ns().unwrap() > 0);
    }
}

/// A program that only computes is kicked `kicks` times.
fn compute(host: &Host, kicks: u32, most_us: u64) {
    let mut code = count(&[]);
    jump_back(&mut code);
    let mut stub = stub(&nursery_on(host), &code);
    let context = first_context();
    stub.load(&context).unwrap();
    let storm = Storm::new(&stub, most_us);
    let (mut last, mut random) = (0, Random(7));
    let (start, mut kicked) = (Instant::now(), 0);
    let goes_on = |kicked| {
        let patience = if kicked > 50 { LONGEST } else { PATIENCE };
        kicked < kicks && start.elapsed() < patience
    };
    while goes_on(kicked) {
        kicked += 1;
        let Event::Signal(seen) = stub.receive().unwrap() else { panic!("no signal") };
        assert_eq!(seen.signal, KICK, "{seen:x?}");
        assert!(seen.regs.rbx >= last, "it never goes back");
        last = seen.regs.rbx;
        assert_eq!((seen.regs.rflags & FLAGS, (seen.fs_base, seen.gs_base)), (FLAGS, BASES));
        let vector = stub.vector().unwrap();
        assert_eq!(meaning(&vector), meaning(&context.vector));
        if random.below(4) == 0 {
            let UserContext { fs_base, gs_base, .. } = context;
            stub.load(&UserContext { regs: seen.regs, fs_base, gs_base, vector }).unwrap();
        } else {
            stub.resume(&seen.regs, None).unwrap();
        }
    }
    drop(storm);
    println!("computing: {kicked} kicks, counted to {}, deepest {}", last - 3 * STEP, stub.deepest());
    assert!(last > 3 * STEP && kicked > 50);
    assert!(stub.deepest() < FRAMES_BYTES);
}

#[test]
fn kicks_leave_no_trace_in_a_program_that_computes() {
    let [killable, other] = hosts();
    compute(&killable, 30_000, 60);
    compute(&other, 20_000, 60);
}

/// A program that counts, makes a call by value and a trapped one, and rings; kicked all the time, rewound now and
/// then, by a server that answers in every way it has.
fn converse(host: &Host, rounds: u32, most_us: u64) {
    // RAX and RDI are the calls'.
    let mut code = count(&[0, 7]);
    code.extend([0x48, 0x89, 0xdf]); // mov %rbx, %rdi
    code.extend([&mov_eax(39)[..], &SYSCALL, &expect(7)].concat());
    code.extend([&[0x48, 0x89, 0xdf, 0x31, 0xc0][..], &SYSCALL, &expect(9)].concat());
    // Every 16th time it rings.
    code.extend([0xf6, 0xc3, 15, 0x75, 12]); // test $15, %bl; jnz over the doorbell
    code.extend(bell());
    jump_back(&mut code);
    assert_eq!(bell().len(), 12);
    let context = first_context();
    let mut pages = code.clone();
    pages.resize(PAGE_SIZE as usize, 0xcc);
    pages.extend(doorbell_page());
    pages.extend(resume_pages(&context, vector_components(), true));
    pages.extend(1_u64.to_le_bytes());
    pages.resize(5 * PAGE_SIZE as usize, 0);
    let file = sealed(c"test", &pages).unwrap();
    let region = |page, address, bytes, prot| {
        let offset = page * PAGE_SIZE;
        Region { file: file.as_fd(), offset, address, bytes, prot }
    };
    let executable = Prot::READ | Prot::EXEC;
    let regions = [
        region(0, CODE, PAGE_SIZE, executable),
        region(1, DOORBELL, PAGE_SIZE, executable),
        region(2, RESUME, RESUME_BYTES, Prot::READ),
        region(4, CONTROL, PAGE_SIZE, Prot::READ),
    ];
    let mut stub = nursery_on(host).stub(&regions, memory(&file)).unwrap();
    stub.rewind().unwrap();
    let storm = Storm::new(&stub, most_us);
    let first = context.regs.rbx;
    let mut random = Random(5);
    let (mut kicks, mut absorbed, mut rewinding, mut rewinds) = (0, 0, 0, 0);
    // The count at which the next call by value is due, and whether the trapped one is.
    let (mut due, mut trapped) = (first + 1, false);
    let order = Order::protect(CODE, PAGE_SIZE, executable).unwrap();
    let (start, mut round) = (Instant::now(), 0);
    loop {
        let has_seen_all = kicks > 0 && absorbed > 0 && rewinds > 0;
        let patience = if has_seen_all { LONGEST } else { PATIENCE };
        if (has_seen_all && round >= rounds) || start.elapsed() > patience {
            break;
        }
        round += 1;
        let event = stub.receive().unwrap();
        absorbed += u32::from(stub.take_kick());
        let mut rewound = false;
        match event {
            Event::Call { number, arguments: [n, ..], .. } => {
                assert_eq!((number, n, trapped), (39, due, false), "each call once");
                trapped = true;
                if random.below(8) == 0 {
                    let seen = stub.stop(n as i64 + 7).unwrap();
                    assert_eq!((seen.regs.rax, seen.regs.rbx), (n + 7, n));
                    stub.order(&[order, order]).unwrap();
                    stub.resume(&seen.regs, None).unwrap();
                } else {
                    stub.answer(n as i64 + 7).unwrap();
                }
            }
            Event::Doorbell([n, ..]) => {
                assert_eq!((n + 1, trapped), (due, false));
                stub.rewind().unwrap();
                rewound = true;
            }
            Event::Rewinding => {
                rewinding += 1;
                assert_eq!((due, trapped), (first + 1, false), "nothing ran");
                stub.rewind().unwrap();
            }
            Event::Signal(seen) => {
                assert_eq!((seen.fs_base, seen.gs_base), BASES);
                assert_eq!(seen.regs.rflags & FLAGS, FLAGS);
                let mut regs = seen.regs;
                match seen.signal {
                    KICK => kicks += 1,
                    libc::SIGSYS => {
                        assert_eq!((regs.rax, regs.rdi, trapped), (0, due, true), "each call once");
                        assert_eq!(seen.arch, 0xc000_003e);
                        regs.rax = regs.rdi + 9;
                        (due, trapped) = (due + 1, false);
                    }
                    other => panic!("signal {other}: {seen:x?}"),
                }
                match random.below(8) {
                    0 => stub.order_and_resume(&[order, order, order], &regs, None).unwrap(),
                    1 => {
                        stub.order(&[order]).unwrap();
                        stub.resume(&regs, None).unwrap();
                    }
                    2 => {
                        let vector = stub.vector().unwrap();
                        assert_eq!(meaning(&vector), meaning(&context.vector));
                        let (fs_base, gs_base) = BASES;
                        stub.load(&UserContext { regs, fs_base, gs_base, vector }).unwrap();
                    }
                    3 if random.below(4) == 0 => {
                        stub.with_file(file.as_fd(), &[order]).unwrap();
                        stub.clear();
                        stub.rewind().unwrap();
                        rewound = true;
                    }
                    _ => stub.resume(&regs, None).unwrap(),
                }
            }
        }
        if rewound {
            rewinds += 1;
            (due, trapped) = (first + 1, false);
        }
    }
    drop(storm);
    println!(
        "conversing: {round} rounds, {kicks} kicks seen, {absorbed} in host code, {rewinding} while rewinding, \
         {rewinds} rewinds, deepest {}",
        stub.deepest()
    );
    assert!(kicks > 0 && absorbed > 0 && rewinds > 0);
}

#[test]
fn kicks_while_calls_are_answered_orders_made_and_programs_rewound_change_nothing() {
    let [killable, other] = hosts();
    converse(&killable, 50_000, 60);
    converse(&other, 50_000, 60);
}

#[test]
fn a_stopped_call_has_its_value_and_all_registers() {
    for host in hosts() {
        // getpid for ever; RBX counts.
        let code = [&[0x48, 0xff, 0xc3][..], &mov_eax(39), &SYSCALL, &[0xeb, 0xf4]].concat();
        let mut stub = stub(&nursery_on(&host), &code);
        stub.start(&Regs { r12: 5, ..start() }, 0x1000, 0x2000).unwrap();
        assert!(matches!(stub.stop(0), Err(crate::RingError::NotWaiting)));
        for round in 1..500 {
            assert!(matches!(stub.receive().unwrap(), Event::Call { number: 39, .. }));
            let seen = stub.stop(-round).unwrap();
            assert_eq!((seen.signal, seen.regs.rip, seen.regs.rax as i64), (KICK, CODE + 10, -round));
            assert_eq!((seen.regs.rbx, seen.regs.r12, seen.fs_base), (round as u64, 5, 0x1000));
            assert_eq!(stub.last_call(), Some(39));
            stub.order(&[]).unwrap();
            stub.resume(&seen.regs, None).unwrap();
        }
    }
}

#[test]
fn a_program_that_claims_kicks_in_the_host_code_is_poison_and_no_loop() {
    let [host, _] = hosts();
    let mut stub = stub(&nursery_on(&host), &SPIN);
    // A frame that says: interrupted at the handler's first instruction, with registers that lead there again.
    let frame = crate::layout::FRAMES + 0x1000;
    let handler = crate::code::places().handler;
    let regs = Regs { rip: handler, rdi: KICK as u64, rdx: frame, ..start() };
    let mut words = [0_u64; 24];
    (words[8], words[12], words[16], words[18], words[23]) = (KICK as u64, frame, handler, 0x33, frame + 0x200);
    assert!(stub.pages().set_words(crate::layout::ORDERS_BYTES + 0x1000 + 40, words));
    stub.start(&regs, 0, 0).unwrap();
    let outcome = stub.receive();
    assert!(matches!(outcome, Err(crate::RingError::Poisoned(crate::Poison::Signals { .. }))), "{outcome:?}");
}
