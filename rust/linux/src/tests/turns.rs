// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a turn of a program that makes no calls.

use super::*;
use crate::signal::signals::SA_RESTORER;

/// The signal finds the program in the middle of an exit, where it cannot be delivered yet.
#[test]
fn a_timers_signal_that_was_postponed_is_delivered_at_the_end_of_the_next_turn() {
    for which in [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF] {
        const HANDLER: u64 = 0x40_0078;
        let mut puppet = Puppet::boot();
        let page = [0, PAGE_SIZE, RW, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64, u64::MAX, 0];
        let page = puppet.call(libc::SYS_mmap, page, 0).unwrap().cast_unsigned();
        let [action, interval] = [page, page + 64];
        let signal = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF][which as usize] as u64;
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        // A call brings the page in, since the test writes it as the host.
        puppet.call(libc::SYS_getrandom, [page, 128, 0, 0, 0, 0], 0).unwrap();
        puppet.machine.write(action, &words(&[HANDLER, SA_RESTORER, HANDLER, 0])).unwrap();
        puppet.machine.write(interval, &words(&[1000, 0, 0, 1])).unwrap();
        assert_eq!(puppet.call(libc::SYS_rt_sigaction, [signal, action, 0, 8, 0, 0], 0), Ok(0));
        assert_eq!(puppet.call(libc::SYS_setitimer, [which as u64, interval, 0, 0, 0, 0], 0), Ok(0));
        while puppet.machine.regs().rip != HANDLER {
            let now = crate::base::clock::now_ns();
            puppet.process.fire_timers(&mut puppet.machine, now).unwrap();
            if puppet.process.threads.due {
                let mut rng = |bytes: &mut [u8]| bytes.fill(7);
                let mut context = Context { output: &mut puppet.log, rng: &mut rng, may_block: true };
                assert_eq!(puppet.process.rotate(&mut puppet.machine, &mut context), Step::Continue);
                assert_eq!(puppet.machine.regs().rip, HANDLER, "timer {which}");
            }
        }
    }
}
