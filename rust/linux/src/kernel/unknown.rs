// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts the system calls that a program makes and Mayfly does not have.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::names;

/// Numbers below this are counted one by one; all others are counted together. Linux has none above 470 yet.
const NUMBERED: usize = 512;

/// An unknown system call that a program made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCall {
    /// Its number; `None` for all numbers that Linux does not have.
    pub number: Option<u64>,
    /// Its name as in `syscalls(2)`, or `"?"`.
    pub name: &'static str,
    /// How often it was made, by all workers of the snapshot together.
    pub count: u64,
}

/// Counters that all forks of a process share. They are statistics, which reset leaves alone.
#[derive(Debug)]
pub(crate) struct UnknownCalls {
    numbered: [AtomicU64; NUMBERED],
    beyond: AtomicU64,
}

impl UnknownCalls {
    pub(crate) fn new() -> Self {
        Self { numbered: [const { AtomicU64::new(0) }; NUMBERED], beyond: AtomicU64::new(0) }
    }

    /// Counts a call. The first call of each number returns a line for the log.
    pub(crate) fn count(&self, number: u64) -> Option<String> {
        let counter = usize::try_from(number).ok().and_then(|index| self.numbered.get(index)).unwrap_or(&self.beyond);
        let first = counter.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| {
            let name = names::name(number);
            match process_call(number) {
                Some(ProcessCall::New) => {
                    return format!(
                        "mayfly: the program made system call {number} ({name}) for another process, and there is \
                         only one: ENOSYS (logged once); {ADVICE}\n"
                    );
                }
                Some(ProcessCall::Program) => {
                    return format!(
                        "mayfly: the program made system call {number} ({name}) to run another program in its \
                         place: ENOSYS (logged once); {ADVICE}\n"
                    );
                }
                None => {}
            }
            format!(
                "mayfly: the program made system call {number} ({name}), which is not supported: ENOSYS (logged once)\n"
            )
        })
    }

    /// All unknown calls that were made.
    pub(crate) fn report(&self) -> Vec<UnknownCall> {
        let numbered = (0_u64..).zip(&self.numbered).map(|(number, counter)| UnknownCall {
            number: Some(number),
            name: names::name(number),
            count: counter.load(Ordering::Relaxed),
        });
        let beyond = UnknownCall { number: None, name: "?", count: self.beyond.load(Ordering::Relaxed) };
        numbered.chain([beyond]).filter(|call| call.count > 0).collect()
    }
}

/// What a program's owner can do about a refused process.
const ADVICE: &str = "commands (system, popen, subprocess, shell_exec) and worker processes always fail, and a program \
                      may go on with a wrong result: use a library or threads in the program itself, or a service \
                      that `outbound` lists; a server must serve from its own process";

/// What a call for another process would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessCall {
    /// Create a process.
    New,
    /// Replace the program.
    Program,
}

/// Whether an unknown call would create a process, or replace the program. `clone` and `clone3` get here only then.
pub(crate) fn process_call(number: u64) -> Option<ProcessCall> {
    match number.cast_signed() {
        libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3 => Some(ProcessCall::New),
        libc::SYS_execve | libc::SYS_execveat => Some(ProcessCall::Program),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_logged_once_and_counted_every_time() {
        let calls = UnknownCalls::new();
        assert!(calls.count(57).unwrap().contains("57 (fork) for another process"));
        let line = calls.count(59).unwrap();
        assert!(line.contains("59 (execve) to run another program") && line.contains("a library"), "{line}");
        assert!(calls.count(425).unwrap().contains("425 (io_uring_setup), which is not supported"));
        assert_eq!(calls.count(57), None);
        assert!(calls.count(u64::MAX).unwrap().contains("(?)"));
        assert_eq!(calls.count(100_000), None);
        let report = calls.report();
        assert_eq!(report[0], UnknownCall { number: Some(57), name: "fork", count: 2 });
        assert_eq!(report[1], UnknownCall { number: Some(59), name: "execve", count: 1 });
        assert_eq!(report[2], UnknownCall { number: Some(425), name: "io_uring_setup", count: 1 });
        assert_eq!(report[3], UnknownCall { number: None, name: "?", count: 2 });
        assert_eq!(report.len(), 4);
    }
}
