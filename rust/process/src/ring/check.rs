// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checks on each notification: every register of a stub is a program's, and hostile.
//!
//! What the kernel says, and a program cannot choose: who made the call, by which convention, and behind which
//! instruction. Everything else is only used to compute what the program itself does next.
//!
//! Each check is a function, and has a test that fails without it.

use mayfly_machine::layout::{PAGE_SIZE, VDSO};

use crate::code::{KICK, NR_BELL, OP_BORN, Places, SIGNALS};
use crate::filter::policy::{ARCH_X86_64, answers_at_once, tells_the_time};
use crate::layout::{CODE, CODE_BYTES, FRAMES, FRAMES_BYTES, HOST_HALF};
use crate::poison::Poison;
use crate::ring::order::Order;

/// The page of vsyscalls, the only one above the lower half that programs can call (`asm/vsyscall.h`).
const VSYSCALLS: std::ops::Range<u64> = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;

/// Where in a stub a call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The doorbell.
    Bell,
    /// The signal handler.
    Handler,
    /// A ring of the host code's own: birth, end of orders.
    Ring,
    /// An order.
    Order,
    /// The program.
    Program,
    /// The vDSO's page, in which programs ask for the time.
    Vdso,
}

/// What a stub can be expected to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Ring for the first time.
    Unborn,
    /// Whatever a program does.
    Running,
    /// Make ordered calls, or ring that one has failed.
    Ordering,
    /// Ring that all orders were carried out, or that the last has failed.
    Ordered,
    /// Go on as a program behind its last order, or ring that this has failed.
    Resuming,
}

/// What a stub was last made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Go on behind a call, with its result; or nothing yet.
    Value,
    /// Make ordered calls.
    Orders,
    /// Enter the trampoline.
    Rewind,
    /// Restore a context of the program's.
    Restore,
    /// Restore a context of the host code's, which a kick interrupted.
    Nested,
}

/// What a signal has interrupted, and so what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The program.
    Program,
    /// The host code, which has its work before it: it goes on where it was, and rings.
    Host,
    /// The host code on its way to the program: this has the registers that it was to get.
    Restoring,
    /// The host code on its way back to the host code: it is sent there again.
    RestoringHost,
    /// The trampoline, or the way to it, by a kick.
    Rewinding,
    /// The same by a signal that the program's state of before raised: it is sent there again.
    Rewound,
}

/// The call was made by the stub itself.
pub(crate) fn check_process(notified: u32, pid: i32) -> Result<(), Poison> {
    if i64::from(notified) == i64::from(pid) { Ok(()) } else { Err(Poison::Process { pid: notified }) }
}

/// The call was made by the convention whose numbers and registers we know.
pub(crate) fn check_convention(call: &libc::seccomp_data) -> Result<(), Poison> {
    if call.arch == ARCH_X86_64 { Ok(()) } else { Err(Poison::Convention { arch: call.arch }) }
}

/// Where the call was made, if calls are made there.
pub(crate) fn place(rip: u64, places: &Places) -> Result<Place, Poison> {
    match rip {
        _ if rip == places.bell_after => Ok(Place::Bell),
        _ if rip == places.handler_after => Ok(Place::Handler),
        _ if rip == places.ring_after => Ok(Place::Ring),
        _ if rip == places.order_after => Ok(Place::Order),
        _ if (VDSO..VDSO + PAGE_SIZE).contains(&rip) => Ok(Place::Vdso),
        _ if in_host_pages(rip) || VSYSCALLS.contains(&rip) => Err(Poison::Place { rip }),
        _ => Ok(Place::Program),
    }
}

/// The call at this place is the one that the host code makes there. Orders are compared by [`check_order`].
pub(crate) fn check_number(place: Place, call: &libc::seccomp_data) -> Result<(), Poison> {
    match place {
        Place::Bell | Place::Handler | Place::Ring if i64::from(call.nr) != NR_BELL => {
            Err(Poison::Number { number: call.nr })
        }
        Place::Program if !answers_at_once(call) => Err(Poison::Filter { number: call.nr }),
        Place::Vdso if !tells_the_time(call) => Err(Poison::Number { number: call.nr }),
        _ => Ok(()),
    }
}

/// The stub's state leads to a call at this place.
pub(crate) fn check_expected(place: Place, state: State) -> Result<(), Poison> {
    match (state, place) {
        // While it has orders the handler rings for kicks only: see `interruption`.
        (State::Unborn, Place::Ring)
        | (State::Ordered, Place::Ring | Place::Handler)
        | (State::Ordering, Place::Order | Place::Ring | Place::Handler)
        | (State::Running | State::Resuming, Place::Bell | Place::Handler | Place::Program | Place::Vdso)
        | (State::Resuming, Place::Ring) => Ok(()),
        _ => Err(Poison::Unexpected),
    }
}

/// The call is this order: number and all six arguments, in 64 bits, of which a call may ignore some.
pub(crate) fn check_order(order: &Order, call: &libc::seccomp_data) -> Result<(), Poison> {
    if i64::from(call.nr) == order.number() && call.args == order.arguments() {
        Ok(())
    } else {
        Err(Poison::Order { number: call.nr })
    }
}

/// The first ring is that of a birth, and names the listener that the server has received.
pub(crate) fn check_birth(operation: u64, number: u64, listener: u64) -> Result<(), Poison> {
    match operation {
        OP_BORN if number == listener => Ok(()),
        OP_BORN => Err(Poison::Listener { number }),
        _ => Err(Poison::Unexpected),
    }
}

/// The offset, in the frames' pages, of `bytes` bytes at this address of the stub, if they all lie there.
pub(crate) fn in_frames(address: u64, bytes: u64, align: u64) -> Result<u64, Poison> {
    let poison = Poison::Frame { address };
    let offset = address.checked_sub(FRAMES).ok_or(poison)?;
    let end = offset.checked_add(bytes).ok_or(poison)?;
    if end <= FRAMES_BYTES && address.is_multiple_of(align) { Ok(offset) } else { Err(poison) }
}

/// The signal, if the handler rings for it.
pub(crate) fn check_signal(register: u64) -> Result<i32, Poison> {
    let poison = Poison::Signal { signal: register };
    let signal = i32::try_from(register).map_err(|_| poison)?;
    if SIGNALS.contains(&signal) { Ok(signal) } else { Err(poison) }
}

/// What a signal at this instruction has interrupted.
///
/// A program can jump into the host code, and have any of these answers: none but what it does by itself follows from
/// them, and the server counts those after which the program is not heard.
pub(crate) fn interruption(
    signal: i32,
    rip: u64,
    state: State,
    doing: Doing,
    places: &Places,
) -> Result<Interruption, Poison> {
    let poison = Poison::HostCode { signal, rip };
    let kick = signal == KICK;
    let host_code = (CODE..CODE + CODE_BYTES).contains(&rip);
    // The handler up to its call, which is made again if a signal comes before it was received.
    let before_call = is_before_call(rip, places);
    match state {
        State::Unborn => Err(poison),
        State::Ordering | State::Ordered if kick && host_code => {
            let restoring = doing == Doing::Nested && is_behind_answer(rip, places);
            Ok(if restoring { Interruption::RestoringHost } else { Interruption::Host })
        }
        State::Ordering | State::Ordered => Err(poison),
        State::Running | State::Resuming if host_code && kick && before_call => Ok(Interruption::Host),
        State::Running | State::Resuming if host_code => match doing {
            Doing::Rewind if kick => Ok(Interruption::Rewinding),
            Doing::Rewind => Ok(Interruption::Rewound),
            Doing::Restore if kick => Ok(Interruption::Restoring),
            Doing::Nested if kick => Ok(Interruption::RestoringHost),
            _ => Err(poison),
        },
        State::Running | State::Resuming => {
            // Behind the doorbell's call, on the way to the trampoline. At its return the program is rewound: it may
            // have been frozen there.
            let rewinding = doing == Doing::Rewind && (places.bell_after..places.bell_return).contains(&rip);
            match (rewinding, kick) {
                (true, true) => Ok(Interruption::Rewinding),
                (true, false) => Ok(Interruption::Rewound),
                // Wherever it is: what lies there besides the host code can only fault.
                (false, _) => Ok(Interruption::Program),
            }
        }
    }
}

/// Whether the handler is at what leads to its call.
pub(crate) fn is_before_call(rip: u64, places: &Places) -> bool {
    (places.handler..places.handler_after).contains(&rip)
}

/// Whether the host code is at what follows an answer to a ring, up to the end of a context's restoration.
pub(crate) fn is_behind_answer(rip: u64, places: &Places) -> bool {
    (places.handler_after..places.born).contains(&rip) || (places.ring_after..places.orders).contains(&rip)
}

/// A kick between the last order and the program: the order had its expected result.
pub(crate) fn check_last_order(rip: u64, rax: u64, expected: u64, places: &Places) -> Result<(), Poison> {
    let compared = (places.order_after..places.order_done).contains(&rip);
    let rings = (places.born..places.ring_after).contains(&rip);
    let failed = rings || (places.order_failed..places.trampoline).contains(&rip);
    if failed || compared && rax != expected { Err(Poison::LastOrder { result: rax }) } else { Ok(()) }
}

/// The program is in 64-bit mode, in the segment in which it is resumed.
pub(crate) fn check_segment(selector: u16) -> Result<(), Poison> {
    const USER_CODE: u16 = 0x33;
    if selector == USER_CODE { Ok(()) } else { Err(Poison::Segment { selector }) }
}

/// Whether the address belongs to the engine's pages.
pub(crate) fn in_host_pages(address: u64) -> bool {
    (address >> 32) as u32 == HOST_HALF
}

#[cfg(test)]
mod tests {
    use mayfly_machine::layout::{CONTROL, DOORBELL, SHARED, USER_END};

    use super::*;
    use crate::code::places;
    use crate::layout::CODE;

    fn call(number: i64, rip: u64) -> libc::seccomp_data {
        libc::seccomp_data { nr: number as i32, arch: ARCH_X86_64, instruction_pointer: rip, args: [1, 2, 3, 4, 5, 6] }
    }

    #[test]
    fn only_the_stub_itself_is_heard() {
        assert_eq!(check_process(7, 7), Ok(()));
        assert_eq!(check_process(8, 7), Err(Poison::Process { pid: 8 }));
        // The kernel says 0 for a process that the server cannot see.
        assert_eq!(check_process(0, -1), Err(Poison::Process { pid: 0 }));
    }

    #[test]
    fn calls_of_32_bit_code_are_poison() {
        let i386 = libc::seccomp_data { arch: 0x4000_0003, ..call(NR_BELL, places().bell_after) };
        assert_eq!(check_convention(&i386), Err(Poison::Convention { arch: 0x4000_0003 }));
        assert_eq!(check_convention(&call(NR_BELL, places().bell_after)), Ok(()));
    }

    #[test]
    fn in_the_host_pages_calls_are_made_at_four_places() {
        let places = places();
        let mut found = Vec::new();
        for rip in (DOORBELL..DOORBELL + 4096).chain(CODE..CODE + 4096) {
            match place(rip, places) {
                Ok(place) => found.push(place),
                Err(poison) => assert_eq!(poison, Poison::Place { rip }),
            }
        }
        assert_eq!(found, [Place::Bell, Place::Handler, Place::Ring, Place::Order]);
        for rip in [FRAMES, FRAMES + 2, crate::layout::SCRIPT, crate::layout::ORDERS, 0x7fff_ffff_f000] {
            assert_eq!(place(rip, places), Err(Poison::Place { rip }));
        }
        assert_eq!(place(0x40_0002, places), Ok(Place::Program));
    }

    #[test]
    fn vsyscalls_are_poison() {
        for rip in [0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_0400, 0xffff_ffff_ff60_0800] {
            assert_eq!(place(rip, places()), Err(Poison::Place { rip }));
        }
    }

    #[test]
    fn another_number_at_a_ring_is_poison() {
        for at in [Place::Bell, Place::Handler, Place::Ring] {
            assert_eq!(check_number(at, &call(NR_BELL, 0)), Ok(()));
            for number in [libc::SYS_mmap, libc::SYS_getpid, NR_BELL | 1 << 30] {
                assert_eq!(check_number(at, &call(number, 0)), Err(Poison::Number { number: number as i32 }));
            }
        }
    }

    #[test]
    fn a_program_is_notified_of_listed_calls_only() {
        assert_eq!(check_number(Place::Program, &call(libc::SYS_getpid, 0)), Ok(()));
        for number in [libc::SYS_mmap, NR_BELL, libc::SYS_rt_sigreturn] {
            let poison = Poison::Filter { number: number as i32 };
            assert_eq!(check_number(Place::Program, &call(number, 0)), Err(poison));
        }
    }

    #[test]
    fn each_state_leads_to_its_own_places() {
        use Place::{Bell, Handler, Program, Ring, Vdso};
        for (state, allowed) in [
            (State::Unborn, &[Ring][..]),
            (State::Running, &[Bell, Handler, Program, Vdso]),
            (State::Resuming, &[Bell, Handler, Program, Vdso, Ring]),
            (State::Ordering, &[Place::Order, Ring, Handler]),
            (State::Ordered, &[Ring, Handler]),
        ] {
            for place in [Bell, Handler, Ring, Place::Order, Program, Vdso] {
                assert_eq!(check_expected(place, state).is_ok(), allowed.contains(&place), "{state:?} {place:?}");
            }
        }
    }

    #[test]
    fn a_stub_is_born_with_its_own_listener() {
        assert_eq!(check_birth(OP_BORN, 3, 3), Ok(()));
        assert_eq!(check_birth(OP_BORN, 4, 3), Err(Poison::Listener { number: 4 }));
        assert_eq!(check_birth(2, 3, 3), Err(Poison::Unexpected));
    }

    #[test]
    fn an_order_is_compared_in_every_bit() {
        let order = Order::new(libc::SYS_mmap, [1, 2, 3, 4, 5, 6], 1);
        assert_eq!(check_order(&order, &call(libc::SYS_mmap, 0)), Ok(()));
        for (argument, bit) in (0..6).flat_map(|argument| (0..64).map(move |bit| (argument, bit))) {
            let mut other = call(libc::SYS_mmap, 0);
            other.args[argument] ^= 1 << bit;
            assert!(check_order(&order, &other).is_err(), "argument {argument}, bit {bit}");
        }
        for bit in 0..32 {
            let mut other = call(libc::SYS_mmap, 0);
            other.nr ^= 1 << bit;
            assert!(check_order(&order, &other).is_err(), "number, bit {bit}");
        }
    }

    #[test]
    fn a_frame_lies_in_the_frames_aligned_and_whole() {
        let end = FRAMES + FRAMES_BYTES;
        assert_eq!(in_frames(FRAMES, FRAMES_BYTES, 16), Ok(0));
        assert_eq!(in_frames(end - 64, 64, 64), Ok(FRAMES_BYTES - 64));
        for (address, bytes, align) in [
            (FRAMES - 16, 64, 16),
            (end - 48, 64, 16),
            (end, 1, 1),
            (FRAMES + 8, 64, 16),
            (0, 64, 16),
            (u64::MAX - 15, 64, 16),
            (FRAMES, FRAMES_BYTES + 1, 16),
            (FRAMES + 16, u64::MAX, 16),
        ] {
            assert_eq!(in_frames(address, bytes, align), Err(Poison::Frame { address }), "{address:#x}+{bytes:#x}");
        }
    }

    #[test]
    fn a_ring_for_a_signal_without_handler_is_poison() {
        assert_eq!(check_signal(11), Ok(libc::SIGSEGV));
        for signal in [0, 2, 9, 12, 11 | 1 << 32, u64::MAX] {
            assert_eq!(check_signal(signal), Err(Poison::Signal { signal }));
        }
    }

    #[test]
    fn in_the_vdso_calls_tell_the_time() {
        for rip in [VDSO, VDSO + 2, VDSO + 4095] {
            assert_eq!(place(rip, places()), Ok(Place::Vdso));
        }
        assert_eq!(place(VDSO + 4096, places()), Err(Poison::Place { rip: VDSO + 4096 }));
        use libc::{SYS_clock_getres, SYS_clock_gettime, SYS_getcpu, SYS_gettimeofday, SYS_time};
        for number in [SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_time, SYS_getcpu] {
            assert_eq!(check_number(Place::Vdso, &call(number, 0)), Ok(()));
        }
        for number in [libc::SYS_getpid, libc::SYS_mmap, NR_BELL, libc::SYS_clock_settime] {
            assert_eq!(check_number(Place::Vdso, &call(number, 0)), Err(Poison::Number { number: number as i32 }));
        }
    }

    const FAULT: i32 = libc::SIGSEGV;

    fn interrupted(signal: i32, rip: u64, state: State, doing: Doing) -> Result<Interruption, Poison> {
        interruption(signal, rip, state, doing, places())
    }

    #[test]
    fn a_signal_in_the_programs_memory_is_the_programs() {
        let program = [0x40_0000, DOORBELL, places().bell_return, VDSO, SHARED, FRAMES, CONTROL, USER_END];
        for (rip, signal) in program.iter().flat_map(|&rip| [(rip, KICK), (rip, FAULT)]) {
            for doing in [Doing::Value, Doing::Restore, Doing::Rewind] {
                assert_eq!(interrupted(signal, rip, State::Running, doing), Ok(Interruption::Program), "{rip:#x}");
            }
            let poison = Poison::HostCode { signal, rip };
            for state in [State::Unborn, State::Ordering, State::Ordered] {
                assert_eq!(interrupted(signal, rip, state, Doing::Orders), Err(poison), "{rip:#x} {state:?}");
            }
        }
    }

    #[test]
    fn only_a_kick_may_interrupt_the_host_code() {
        let Places { handler, handler_after, order_after, ring_after, .. } = *places();
        for rip in [CODE, handler, handler_after, order_after, ring_after] {
            let poison = Poison::HostCode { signal: FAULT, rip };
            for doing in [Doing::Value, Doing::Orders, Doing::Restore, Doing::Nested] {
                for state in [State::Running, State::Resuming, State::Ordering, State::Ordered, State::Unborn] {
                    assert_eq!(interrupted(FAULT, rip, state, doing), Err(poison));
                }
            }
        }
        assert_eq!(interrupted(KICK, FRAMES, State::Running, Doing::Restore), Ok(Interruption::Program));
    }

    #[test]
    fn a_kick_before_the_handlers_call_and_among_orders_lets_the_host_code_go_on() {
        let Places { handler, handler_after, orders, order_after, born, ring_after, .. } = *places();
        for doing in [Doing::Value, Doing::Restore, Doing::Nested, Doing::Rewind] {
            for rip in [handler, handler_after - 2] {
                assert_eq!(interrupted(KICK, rip, State::Running, doing), Ok(Interruption::Host));
            }
        }
        for (state, doing) in [(State::Ordering, Doing::Orders), (State::Ordered, Doing::Nested)] {
            for rip in [orders, order_after - 2, order_after, born, ring_after - 2, handler] {
                assert_eq!(interrupted(KICK, rip, state, doing), Ok(Interruption::Host), "{rip:#x}");
            }
        }
        for rip in [handler_after, ring_after, orders - 1] {
            let ordering = |doing| interrupted(KICK, rip, State::Ordering, doing);
            assert_eq!(ordering(Doing::Nested), Ok(Interruption::RestoringHost), "{rip:#x}");
            assert_eq!(ordering(Doing::Orders), Ok(Interruption::Host), "{rip:#x}");
        }
    }

    #[test]
    fn a_kick_behind_an_answer_is_what_the_answer_was() {
        let Places { handler_after, order_after, ring_after, restorer, .. } = *places();
        for rip in [handler_after, ring_after, order_after, restorer - 1] {
            for state in [State::Running, State::Resuming] {
                let seen = |doing| interrupted(KICK, rip, state, doing);
                assert_eq!(seen(Doing::Restore), Ok(Interruption::Restoring));
                assert_eq!(seen(Doing::Nested), Ok(Interruption::RestoringHost));
                assert_eq!(seen(Doing::Rewind), Ok(Interruption::Rewinding));
                assert_eq!(seen(Doing::Value), Err(Poison::HostCode { signal: KICK, rip }));
            }
        }
    }

    #[test]
    fn a_kick_does_not_hide_that_the_last_order_failed() {
        let Places { order_after, order_done, order_failed, trampoline, ring_after, .. } = *places();
        for rip in [order_after, order_done - 1] {
            assert_eq!(check_last_order(rip, 5, 5, places()), Ok(()));
            assert_eq!(check_last_order(rip, 6, 5, places()), Err(Poison::LastOrder { result: 6 }));
        }
        for rip in [order_done, order_failed - 1, ring_after] {
            assert_eq!(check_last_order(rip, 6, 5, places()), Ok(()), "RAX is another value by then");
        }
        for rip in [order_failed, trampoline - 1, places().born, ring_after - 2] {
            assert_eq!(check_last_order(rip, 5, 5, places()), Err(Poison::LastOrder { result: 5 }));
        }
    }

    #[test]
    fn any_signal_on_the_way_to_the_trampoline_is_of_the_rewind() {
        let Places { bell_after, bell_return, handler_after, .. } = *places();
        for rip in [bell_after, bell_return - 1, handler_after, CODE + CODE_BYTES - 1] {
            assert_eq!(interrupted(KICK, rip, State::Running, Doing::Rewind), Ok(Interruption::Rewinding));
            assert_eq!(interrupted(libc::SIGTRAP, rip, State::Running, Doing::Rewind), Ok(Interruption::Rewound));
        }
        assert_eq!(interrupted(libc::SIGTRAP, bell_after, State::Running, Doing::Value), Ok(Interruption::Program));
    }

    #[test]
    fn programs_stay_in_64_bit_mode() {
        assert_eq!(check_segment(0x33), Ok(()));
        for selector in [0x23, 0x10, 0, 0x2b] {
            assert_eq!(check_segment(selector), Err(Poison::Segment { selector }));
        }
    }
}
