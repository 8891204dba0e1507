// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process's descriptors: how many it needs, and what the last ones are reserved for.
//!
//! ```text
//!   0 ... open when Mayfly starts: the HTTP server's listeners and loops, the log, the application's own
//!     +16  Mayfly's own: KVM, event queues, file watches, operators
//!     +32  free at least; otherwise the server does not start
//!            the last 16: for connections only. No program boots and no worker is forked with them
//!            the last 4:  unused. A connection is closed as soon as it is accepted, since an HTTP server that has no
//!                         descriptor to accept with finds the same connection again at once, in an endless loop
//! ```
//!
//! Linux assigns the lowest free number. So the number of a newly opened descriptor is a lower bound on how many are in
//! use, at a cost that does not depend on how many there are.

use std::io;
use std::os::fd::AsRawFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::host::resources::{self, OncePerSecond, descriptor_limit, descriptors};

/// Descriptors that Mayfly opens for itself; measured: 11.
const OWN: u64 = 16;
/// Descriptors that must be free in addition, for a program, a worker and connections.
const FREE: u64 = 32;
/// The last descriptors, reserved for connections: programs and workers do not take them.
const FOR_CONNECTIONS: u64 = 16;
/// The very last descriptors, which stay free.
const LAST: u64 = 4;
/// The soft limit is raised at most to this. A hard limit may be 2^30, and some programs iterate over all numbers.
const RAISE_TO: u64 = 1 << 20;
/// Address space below which not even the stacks of threads fit.
const ADDRESS_SPACE: u64 = 1 << 30;

/// A limit of the process that is too low to start.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TooLow {
    /// `RLIMIT_NOFILE`.
    #[error(
        "the limit on descriptors is {limit}, but at least {needed} are needed: {open} are open, {later} are for event loops and \
         listeners to be opened, {OWN} for Mayfly itself, {FREE} for a program, its workers and connections. Raise it: ulimit -n \
         1024, or LimitNOFILE=1024 in systemd"
    )]
    Descriptors {
        /// The hard limit, to which the soft limit has been raised.
        limit: u64,
        /// The sum of all that are needed.
        needed: u64,
        /// Open already.
        open: u64,
        /// What the caller is going to open.
        later: u64,
    },
    /// `RLIMIT_AS`.
    #[error(
        "the limit on address space is {} MiB, but at least {} MiB are needed, more with each worker. Lift it (ulimit -v unlimited; \
         LimitAS=infinity in systemd); to bound memory, use a control group (MemoryMax=)", limit >> 20, ADDRESS_SPACE >> 20
    )]
    AddressSpace {
        /// The limit in bytes.
        limit: u64,
    },
}

/// Raises the soft limit on descriptors as far as the process may, and checks that it suffices for a server that opens
/// `later` more before it serves.
///
/// # Errors
///
/// [`TooLow`] says what is needed, what for, and what to do.
pub fn require(later: u64) -> Result<(), TooLow> {
    raise();
    if let Some(limit) = getrlimit(Resource::As).current.filter(|&limit| limit < ADDRESS_SPACE) {
        return Err(TooLow::AddressSpace { limit });
    }
    let (limit, open) = (descriptor_limit(), descriptors());
    let needed = open + later + OWN + FREE;
    if limit < needed { Err(TooLow::Descriptors { limit, needed, open, later }) } else { Ok(()) }
}

/// Warns if there is a limit on the size of files.
pub(crate) fn warn_of_file_size() {
    if let Some(limit) = getrlimit(Resource::Fsize).current {
        tracing::warn!(
            target: "mayfly::server", limit_kib = limit >> 10,
            "the size of files is limited, and a program's memory is a file: larger programs do not boot. Lift it (ulimit -f unlimited; \
             LimitFSIZE=infinity in systemd)"
        );
    }
}

/// Raises the soft limit. Its default suits a login shell and is low for the sake of programs that use select(2);
/// servers raise it.
fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(u64::MAX).min(RAISE_TO);
    if current.is_some_and(|current| current < most) {
        // If it is refused, the current limit applies.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum });
    }
}

/// Checks that there are descriptors for a program or a worker beyond those reserved for connections.
///
/// # Errors
///
/// `EMFILE`, as if there were none left.
pub(crate) fn for_program() -> io::Result<()> {
    if left() > FOR_CONNECTIONS { Ok(()) } else { Err(Errno::MFILE.into()) }
}

/// Whether a connection can be kept. Otherwise the caller must close it, so that there is always a descriptor to accept
/// the next one with.
#[must_use]
pub fn for_connection() -> bool {
    static LOGGED: OncePerSecond = OncePerSecond::new();
    let has_room = left() > LAST;
    if !has_room && LOGGED.is_due() {
        let (limit, advice) = (descriptor_limit(), resources::advice(&io::Error::from(Errno::MFILE)));
        tracing::warn!(target: "mayfly::server", limit, advice, "connections are closed without an answer: no descriptors are left");
    }
    has_room
}

/// An upper bound on the descriptors that are left: assumes that exactly those below the lowest free one are in use.
fn left() -> u64 {
    let number =
        eventfd(0, EventfdFlags::CLOEXEC).ok().and_then(|descriptor| u64::try_from(descriptor.as_raw_fd()).ok());
    number.map_or(0, |number| descriptor_limit().saturating_sub(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_reported_with_all_figures_and_what_to_do() {
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
                .starts_with("the limit on address space is 100 MiB, but at least 1024 MiB")
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
        // Other tests raise the limit, too: not in the middle of this one.
        require(0).unwrap();
        let before = left();
        let held: Vec<_> = (0..400).map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap()).collect();
        // Other tests open and close some in the meantime, those of whole servers.
        assert!(left() + 200 < before, "{before} {}", left());
        drop(held);
        assert!(for_connection() && for_program().is_ok());
    }
}
