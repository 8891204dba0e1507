// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many waiting threads: each of them costs the host a bounded time, and all make progress.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod support;

use std::time::Duration;

use mayfly_linux::{Context, Limits, Step};
use mayfly_machine::Exit;
use support::{Guest, Linking, MEMORY, agrees_with_native_in, compile, monotonic_ns};

#[test]
fn calls_of_many_steps_that_depend_on_each_other_end() {
    let limits = Limits { threads: 2, ..Limits::default() };
    agrees_with_native_in("crowd", &[Linking::Glibc], &[], &[], &limits);
}

/// A loop thread or overflow thread returns to the host after a bounded time, whatever the threads of a program wait
/// for: the work continues in the request's next turn. So it takes many turns; how long each is depends on the machine.
#[test]
fn many_waiting_threads_do_not_occupy_the_host() {
    let program = compile("crowd", Linking::Glibc);
    let limits = Limits { threads: 600, ..Limits::default() };
    let mut guest = Guest::load(&program, &["crowd", "500", "1000"], &limits, MEMORY);
    let mut turns = 0;
    loop {
        let exit = guest.machine.run().unwrap();
        let counts = guest.log.stdout.ends_with(b"ready\n");
        let mut rng = |bytes: &mut [u8]| bytes.fill(7);
        let mut context = Context { output: &mut guest.log, rng: &mut rng, may_block: true };
        let mut step = match exit {
            Exit::Kicked => guest.process.rotate(&mut guest.machine, &mut context),
            _ => guest.process.handle(&mut guest.machine, &exit, &mut context),
        };
        while let Step::Waits { until_ns: Some(until_ns), .. } = step {
            turns += u32::from(counts);
            std::thread::sleep(Duration::from_nanos(until_ns.saturating_sub(monotonic_ns())));
            step = guest.process.wake(&mut guest.machine, &mut context);
        }
        match step {
            Step::Continue => {}
            Step::Exited { status: 0 } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(guest.log.stdout.ends_with(b"done\n"));
    assert!(turns >= 5, "it took {turns} turns");
}
