// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wakes sleepers that wait for the network: the descriptor of each becomes readable when its request may continue.
//!
//! One thread waits for all of them. A descriptor is watched for one event, and again each time that its request goes
//! to sleep. It is no longer watched when its worker closes it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

/// Most events per wait.
const EVENTS: usize = 256;
/// The number of the bell, which no sleeper has.
const BELL: u64 = u64::MAX;

/// The watched descriptors.
#[derive(Debug)]
pub(crate) struct DescriptorWatch {
    epoll: OwnedFd,
    /// Ends a wait.
    bell: OwnedFd,
}

impl DescriptorWatch {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &bell, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Self { epoll, bell })
    }

    /// Reports `number` once when `descriptor` is readable.
    pub(crate) fn watch(&self, descriptor: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        let (data, once) = (EventData::new_u64(number), EventFlags::IN | EventFlags::ONESHOT);
        match epoll::add(&self.epoll, descriptor, data, once) {
            // The request has slept before.
            Err(rustix::io::Errno::EXIST) => Ok(epoll::modify(&self.epoll, descriptor, data, once)?),
            other => Ok(other?),
        }
    }

    /// Waits for reports, with or without a time limit.
    pub(crate) fn wait(&self, at_most: Option<Duration>) -> Vec<u64> {
        let timeout = at_most.and_then(|time| Timespec::try_from(time).ok());
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        // It can fail only because of a signal, which ends the wait early.
        let count = epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()).unwrap_or(0);
        events[..count].iter().map(|event| { event.data }.u64()).filter(|number| *number != BELL).collect()
    }

    /// Ends the current wait and all later ones.
    pub(crate) fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_millis(10));

    #[test]
    fn each_is_reported_once_and_again_when_it_is_watched_again() {
        let watch = DescriptorWatch::new().unwrap();
        let (mut one, other) = UnixStream::pair().unwrap();
        watch.watch(other.as_fd(), 7).unwrap();
        assert!(watch.wait(SOON).is_empty());
        one.write_all(b"x").unwrap();
        assert_eq!(watch.wait(None), [7]);
        assert!(watch.wait(SOON).is_empty());
        watch.watch(other.as_fd(), 8).unwrap();
        assert_eq!(watch.wait(None), [8]);
        watch.watch(other.as_fd(), 9).unwrap();
        drop(other);
        assert!(watch.wait(SOON).is_empty(), "closing a descriptor ends its watch");
        watch.ring();
        assert!(watch.wait(None).is_empty());
        assert!(watch.wait(None).is_empty());
    }
}
