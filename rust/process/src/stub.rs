// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stub: a process that runs a program's code, and can do nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mayfly_machine::Regs;

use crate::error::{ForkError, RingError};
use crate::host::{Host, Wake};
use crate::layout::{FRAMES_BYTES, ORDERS_BYTES};
use crate::ring::order::Order;
use crate::ring::ring::{Event, Ring};
use crate::sys::memory::SharedPages;
use crate::sys::pidfd;
use crate::zygote::zygote::{ExitStatus, Region, Zygote};

/// How long the kernel may take to end a process that was killed.
const DEATH: Duration = Duration::from_secs(5);

/// Stubs' source for one host: a process that they are copies of.
#[derive(Debug, Clone)]
pub struct Nursery {
    zygote: Arc<Zygote>,
    wake: Wake,
}

impl Nursery {
    /// Starts the process.
    ///
    /// # Errors
    ///
    /// [`StartError`](crate::StartError) says which step failed.
    pub fn new(host: &Host) -> Result<Self, crate::StartError> {
        Self::start(host.filter_flags(), host.report().wake, false)
    }

    pub(crate) fn start(filter_flags: u64, wake: Wake, observable: bool) -> Result<Self, crate::StartError> {
        Ok(Self { zygote: Arc::new(Zygote::start(filter_flags, observable)?), wake })
    }

    #[cfg(test)]
    pub(crate) fn pid(&self) -> i32 {
        self.zygote.pid()
    }

    /// Makes a stub that has these regions mapped, and waits: for orders, or for registers to load.
    ///
    /// # Errors
    ///
    /// [`ForkError`] for regions that a stub cannot have, and if a step fails, as at a limit on processes.
    pub fn stub(&self, regions: &[Region<'_>]) -> Result<Stub, ForkError> {
        let pages = SharedPages::new(c"mayfly-worker", ORDERS_BYTES + FRAMES_BYTES).map_err(ForkError::Memory)?;
        let newborn = self.zygote.fork(&pages, regions)?;
        // From here on its end is this value's business.
        let end = End { zygote: Arc::clone(&self.zygote), pid: newborn.pid, status: None };
        let pidfd = newborn.pidfd.try_clone().map_err(ForkError::Memory);
        let mut guard = Unborn { pidfd: newborn.pidfd, end: Some(end) };
        let mut ring = Ring::born(newborn.pid, pidfd?, newborn.listener, newborn.listener_number, pages)?;
        match self.wake {
            Wake::Synchronous => ring.set_synchronous().map_err(ForkError::Wake)?,
            Wake::Pinned => pin_here(newborn.pid).map_err(ForkError::Pin)?,
        }
        ring.order(&[Order::close_all(), Order::unmap_script()])?;
        match guard.end.take() {
            Some(end) => Ok(Stub { ring, end }),
            None => Err(ForkError::Gone),
        }
    }
}

/// A stub whose birth may yet fail: killed and reaped then.
struct Unborn {
    pidfd: OwnedFd,
    end: Option<End>,
}

impl Drop for Unborn {
    fn drop(&mut self) {
        if let Some(end) = &mut self.end {
            let _ = end.end(self.pidfd.as_fd());
        }
    }
}

/// Lets the process run on this thread's present processor only.
fn pin_here(pid: i32) -> std::io::Result<()> {
    // SAFETY: zeroes are an empty set of processors, and CPU_SET stays within it; plain calls otherwise.
    let set = unsafe {
        let mut processors: libc::cpu_set_t = std::mem::zeroed();
        let here = libc::sched_getcpu();
        libc::CPU_SET(usize::try_from(here).unwrap_or(0), &mut processors);
        libc::sched_setaffinity(pid, size_of::<libc::cpu_set_t>(), &raw const processors)
    };
    crate::sys::check(set.into()).map(drop)
}

/// The end of a process: killed and reaped once.
#[derive(Debug)]
struct End {
    zygote: Arc<Zygote>,
    pid: i32,
    status: Option<ExitStatus>,
}

impl End {
    fn end(&mut self, pidfd: BorrowedFd<'_>) -> Result<ExitStatus, ForkError> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        pidfd::signal(pidfd, libc::SIGKILL).map_err(ForkError::End)?;
        // The zygote is not made to wait: other stubs are born from it.
        pidfd::ends_within(pidfd, DEATH).map_err(ForkError::End)?;
        let status = self.zygote.reap(self.pid)?;
        self.status = Some(status);
        Ok(status)
    }
}

/// A process below the filter. It ends when this value is dropped, and when the server ends.
///
/// Each method that returns [`RingError::Poisoned`] or [`RingError::Gone`] will do so for ever: the stub is to be
/// dropped.
#[derive(Debug)]
pub struct Stub {
    ring: Ring,
    end: End,
}

impl Stub {
    /// The process's number, for messages: it is the stub's own until [`Stub::end`].
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.ring.pid()
    }

    /// Waits for the program's next event. One system call.
    ///
    /// # Errors
    ///
    /// [`RingError`]; `NotWaiting` if the last event was not answered.
    pub fn receive(&mut self) -> Result<Event, RingError> {
        self.ring.receive()
    }

    /// Answers [`Event::Doorbell`] or [`Event::Call`] with a value. One system call.
    ///
    /// # Errors
    ///
    /// [`RingError`]; `NotWaiting` if something else waits, or nothing.
    pub fn answer(&mut self, value: i64) -> Result<(), RingError> {
        self.ring.answer(value)
    }

    /// Lets a program that a signal interrupted go on with these registers. One system call.
    ///
    /// Its flags are cut to those that programs have; its vector state is as it was.
    ///
    /// # Errors
    ///
    /// As for [`Stub::answer`].
    pub fn resume(&mut self, regs: &Regs) -> Result<(), RingError> {
        self.ring.resume(regs)
    }

    /// Lets a new stub, or one that a signal interrupted, go on as a program with these registers, and initial vector
    /// state. One system call.
    ///
    /// # Errors
    ///
    /// As for [`Stub::answer`].
    pub fn load(&mut self, regs: &Regs, fs_base: u64, gs_base: u64) -> Result<(), RingError> {
        self.ring.load(regs, fs_base, gs_base)
    }

    /// Has a new stub, or one that a signal interrupted, make these calls. Afterwards it waits as before.
    ///
    /// # Errors
    ///
    /// As for [`Stub::answer`]; [`RingError::OrderFailed`] if one had another result than expected.
    pub fn order(&mut self, orders: &[Order]) -> Result<(), RingError> {
        self.ring.order(orders)
    }

    #[cfg(test)]
    pub(crate) fn order_otherwise(&mut self, placed: &[Order], expected: &[Order]) -> Result<(), RingError> {
        self.ring.order_otherwise(placed, expected)
    }

    #[cfg(test)]
    pub(crate) fn expect(&mut self, order: Order) -> Result<(), RingError> {
        self.ring.expect(order)
    }

    #[cfg(test)]
    pub(crate) fn pages(&self) -> &SharedPages {
        self.ring.pages()
    }

    /// Ends the process, and says how it ended: by this, unless the kernel came first.
    ///
    /// # Errors
    ///
    /// [`ForkError`] if the zygote cannot say.
    pub fn end(mut self) -> Result<ExitStatus, ForkError> {
        self.end.end(self.ring.pidfd().as_fd())
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        let _ = self.end.end(self.ring.pidfd().as_fd());
    }
}
