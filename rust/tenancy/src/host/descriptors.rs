// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process's descriptors: how many it needs, and what the last ones are kept for.
//!
//! ```text
//!   0 ... open when Mayfly starts: the HTTP server's listeners and loops, the log, what the application has
//!     +16  Mayfly's own: KVM, event queues, the watch over files, operators
//!     +32  left free at least; no server starts with fewer
//!            the last 16: connections alone. No program boots, no worker is forked into them
//!            the last 4:  nothing. A connection is closed as soon as it is accepted, since an HTTP server that has no
//!                         descriptor to accept with finds the same connection again at once, and for ever
//! ```
//!
//! Linux gives the lowest free number. So the number of a descriptor that is opened to be asked for its number tells
//! how many are in use, at least, and costs the same with few of them as with many.

use std::io;
use std::os::fd::AsRawFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::host::resources::{self, Seldom, descriptor_limit, descriptors};

/// What Mayfly opens for itself; measured: 11.
const OWN: u64 = 16;
/// What has to be free beside it, for a program, a worker and connections.
const FREE: u64 = 32;
/// The last ones, which programs and workers do not take: connections have them.
const FOR_CONNECTIONS: u64 = 16;
/// The last ones of all.
const LAST: u64 = 4;
/// The soft limit is raised no further than this. A hard limit may be 2^30, and there are programs that walk through
/// all numbers.
const RAISE_TO: u64 = 1 << 20;
/// Address space below which there is not even room for the stacks of threads.
const ADDRESS_SPACE: u64 = 1 << 30;

/// A limit of the process that is too low to start with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TooLow {
    /// `RLIMIT_NOFILE`.
    #[error(
        "the limit on descriptors is {limit}, and at least {needed} are needed: {open} are open, {later} are for event loops and \
         listeners that come, {OWN} for Mayfly itself, {FREE} for a program, its workers and connections. Raise it: ulimit -n \
         1024, or LimitNOFILE=1024 in systemd"
    )]
    Descriptors {
        /// The hard limit: the soft one has been raised to it.
        limit: u64,
        /// The sum of the others.
        needed: u64,
        /// Open already.
        open: u64,
        /// What the caller is going to open.
        later: u64,
    },
    /// `RLIMIT_AS`.
    #[error(
        "the limit on address space is {} MiB, and at least {} MiB are needed, more with each worker. Lift it (ulimit -v unlimited; \
         LimitAS=infinity in systemd); what bounds memory is a control group (MemoryMax=)", limit >> 20, ADDRESS_SPACE >> 20
    )]
    AddressSpace {
        /// The limit in bytes.
        limit: u64,
    },
}

/// Raises the limit on descriptors to what the process may have, and makes sure that there are enough for a server that
/// opens `later` more before it serves.
///
/// # Errors
///
/// [`TooLow`] says what is needed, for what, and what to do.
pub fn require(later: u64) -> Result<(), TooLow> {
    raise();
    if let Some(limit) = getrlimit(Resource::As).current.filter(|&limit| limit < ADDRESS_SPACE) {
        return Err(TooLow::AddressSpace { limit });
    }
    let (limit, open) = (descriptor_limit(), descriptors());
    let needed = open + later + OWN + FREE;
    if limit < needed { Err(TooLow::Descriptors { limit, needed, open, later }) } else { Ok(()) }
}

/// Says what a limit on the size of files does, if there is one.
pub(crate) fn warn_of_file_size() {
    if let Some(limit) = getrlimit(Resource::Fsize).current {
        tracing::warn!(
            target: "mayfly::server", limit_kib = limit >> 10,
            "the size of files is limited, and a program's memory is one: larger programs do not boot. Lift it (ulimit -f unlimited; \
             LimitFSIZE=infinity in systemd)"
        );
    }
}

/// The soft limit is what a login shell may have; it is low for the sake of programs that use select(2), and servers
/// raise it.
fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(u64::MAX).min(RAISE_TO);
    if current.is_some_and(|current| current < most) {
        // Where it is refused, the present one is what counts.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum });
    }
}

/// Whether there are so few descriptors left that connections have them.
///
/// # Errors
///
/// As if there were none.
pub(crate) fn for_program() -> io::Result<()> {
    if left() > FOR_CONNECTIONS { Ok(()) } else { Err(Errno::MFILE.into()) }
}

/// Whether a connection can be kept. Otherwise it is to be closed, so that there is always a descriptor to accept the
/// next one with.
#[must_use]
pub fn for_connection() -> bool {
    static TOLD: Seldom = Seldom::new();
    let is_room = left() > LAST;
    if !is_room && TOLD.is_due() {
        let (limit, advice) = (descriptor_limit(), resources::advice(&io::Error::from(Errno::MFILE)));
        tracing::warn!(target: "mayfly::server", limit, advice, "connections are closed unanswered: no descriptors are left");
    }
    is_room
}

/// How many are left, at most: as if all below the lowest free one, and no other, were in use.
fn left() -> u64 {
    let number =
        eventfd(0, EventfdFlags::CLOEXEC).ok().and_then(|descriptor| u64::try_from(descriptor.as_raw_fd()).ok());
    number.map_or(0, |number| descriptor_limit().saturating_sub(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_low_is_said_with_all_figures_and_what_to_do() {
        let limit = descriptor_limit();
        let TooLow::Descriptors { needed, open, later, .. } = require(limit).unwrap_err() else { unreachable!() };
        assert_eq!((needed, later), (open + limit + OWN + FREE, limit));
        let text = TooLow::Descriptors { limit: 40, needed: 67, open: 17, later: 2 }.to_string();
        for words in ["is 40", "67 are needed", "17 are open", "2 are for", "ulimit -n", "LimitNOFILE"] {
            assert!(text.contains(words), "{text}");
        }
        assert!(
            TooLow::AddressSpace { limit: 100 << 20 }
                .to_string()
                .starts_with("the limit on address space is 100 MiB, and at least 1024 MiB")
        );
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        require(0).unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert!(current.unwrap_or(u64::MAX) >= maximum.unwrap_or(u64::MAX).min(RAISE_TO));
    }

    #[test]
    fn descriptors_in_use_are_not_left() {
        let before = left();
        let held: Vec<_> = (0..100).map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap()).collect();
        // Other tests open and close some meanwhile.
        assert!(left() + 50 < before, "{before} {}", left());
        drop(held);
        assert!(for_connection() && for_program().is_ok());
    }
}
