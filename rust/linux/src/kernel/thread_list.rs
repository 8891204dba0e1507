// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the threads of a program do, for messages.

use std::fmt;

use crate::kernel::process::Process;
use crate::sched::threads::{Thread, ThreadState};

/// Most threads that a message lists.
const LISTED_MAX: usize = 8;

/// What the threads of a program do, as in `thread 1 (node) waits in epoll_wait, thread 2 (worker) in a futex`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadList {
    /// Identity, name, and the call that it waits in.
    listed: Vec<(u32, String, Option<&'static str>)>,
    others: usize,
}

impl Process {
    /// What the program's threads do now.
    #[must_use]
    pub fn thread_list(&self) -> ThreadList {
        let listed = self.threads.iter().take(LISTED_MAX).map(|thread| (thread.tid, printable(thread), call(thread)));
        ThreadList { listed: listed.collect(), others: self.threads.len().saturating_sub(LISTED_MAX) }
    }
}

/// The name, of which the program has chosen each byte.
fn printable(thread: &Thread) -> String {
    let name = thread.name.iter().take_while(|&&byte| byte != 0);
    name.map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' }).collect()
}

fn call(thread: &Thread) -> Option<&'static str> {
    match &thread.state {
        ThreadState::Waiting(waiting) => Some(waiting.call()),
        ThreadState::Ready | ThreadState::Held => None,
    }
}

impl fmt::Display for ThreadList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (tid, name, call)) in self.listed.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}thread {tid} ({name}) ")?;
            match call {
                Some(call) => write!(f, "waits in {call}")?,
                None => write!(f, "runs")?,
            }
        }
        match self.others {
            0 => Ok(()),
            others => write!(f, ", and {others} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_sentence_of_bounded_length() {
        let one = (1, "node".to_owned(), Some("epoll_wait"));
        let list = ThreadList { listed: vec![one.clone()], others: 0 };
        assert_eq!(list.to_string(), "thread 1 (node) waits in epoll_wait");
        let list = ThreadList { listed: vec![one, (2, "w".to_owned(), None)], others: 3 };
        assert_eq!(list.to_string(), "thread 1 (node) waits in epoll_wait, thread 2 (w) runs, and 3 more");
    }
}
