// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stub: a process that runs a program's code, and can do nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mayfly_machine::{Regs, UserContext, VectorState};
use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::{CpuSet, Pid, sched_getcpu, sched_setaffinity};

use crate::error::{ForkError, RingError, StartError};
use crate::host::{Host, HostReport, Wake};
use crate::layout::{FRAMES_BYTES, ORDERS_BYTES};
use crate::ring::context::Interrupted;
use crate::ring::kick::{Kick, Kicker};
use crate::ring::order::{IMAGE, MEMORY, Order};
use crate::ring::ring::{Event, Ring};
use crate::ring::vector;
use crate::sys::memory::SharedPages;
use crate::sys::pidfd;
use crate::zygote::zygote::{ExitStatus, Region, Zygote};

/// How long the kernel may take to end a process that was killed.
const DEATH: Duration = Duration::from_secs(5);

/// Stubs' source: a process that they are copies of, with what that has mapped.
#[derive(Debug, Clone)]
pub struct Nursery {
    zygote: Arc<Zygote>,
    wake: Wake,
    killable: bool,
    ends: bool,
}

/// The files from which a stub maps memory by [orders](Order::map_file). It can do nothing else with them.
#[derive(Debug, Clone, Copy)]
pub struct StubFiles<'a> {
    /// The stub's descriptor 0: the machine's memory.
    pub memory: BorrowedFd<'a>,
    /// Its descriptor 1: the image, if the machine is a copy of one.
    pub image: Option<BorrowedFd<'a>>,
}

impl Nursery {
    /// Starts the process.
    ///
    /// # Errors
    ///
    /// [`StartError`] says which step failed.
    pub fn new(host: &Host) -> Result<Self, StartError> {
        Self::with_image(host, &[])
    }

    /// Starts a process that has these regions mapped, and so have its stubs. There may be thousands, of a few files
    /// each time; neighbours that the kernel can merge count as one toward `vm.max_map_count`.
    ///
    /// # Errors
    ///
    /// As for [`Nursery::new`]; for a region that is not the program's memory, too.
    pub fn with_image(host: &Host, regions: &[Region<'_>]) -> Result<Self, StartError> {
        let nursery = Self::start(host, host.report().wake, false)?;
        nursery.zygote.map_image(regions)?;
        Ok(nursery)
    }

    /// `observable`: whether others of this user may look into its processes by `/proc`, as tests do.
    pub(crate) fn start(host: &Host, wake: Wake, observable: bool) -> Result<Self, StartError> {
        let zygote = Arc::new(Zygote::start(host.filter_flags(), observable)?);
        let &HostReport { killable, ends, .. } = host.report();
        Ok(Self { zygote, wake, killable, ends })
    }

    #[cfg(test)]
    pub(crate) fn pid(&self) -> i32 {
        self.zygote.pid()
    }

    /// Makes a stub that has these regions mapped besides the image's, and waits: for orders, or for registers to load.
    ///
    /// # Errors
    ///
    /// [`ForkError`] for regions that a stub cannot have, or too many of them, and if a step fails, as at a limit on
    /// processes.
    pub fn stub(&self, regions: &[Region<'_>], files: StubFiles<'_>) -> Result<Stub, ForkError> {
        let (pages, file) =
            SharedPages::new(c"mayfly-worker", ORDERS_BYTES + FRAMES_BYTES).map_err(ForkError::Memory)?;
        let newborn = self.zygote.fork(file.as_fd(), regions)?;
        // From here on its end is this value's business.
        let end = End { zygote: Arc::clone(&self.zygote), pid: newborn.pid, status: None };
        let pidfd = newborn.pidfd.try_clone().map_err(ForkError::Memory);
        let mut guard = Unborn { pidfd: newborn.pidfd, end: Some(end) };
        let kick = Kick::new(pidfd?, self.killable, self.ends);
        let components = vector::vector_components();
        let mut ring = Ring::born(newborn.pid, kick, newborn.listener, newborn.listener_number, pages, components)?;
        let bound = match self.wake {
            Wake::Synchronous => {
                ring.set_synchronous().map_err(ForkError::Wake)?;
                None
            }
            Wake::Pinned => Some(bind_here(newborn.pid).map_err(ForkError::Pin)?),
        };
        ring.order(&[Order::close_all()])?;
        ring.install(files.memory, MEMORY)?;
        if let Some(image) = files.image {
            ring.install(image, IMAGE)?;
        }
        // Behind an installation a stub counts as one that wants the processor, until it rings again.
        ring.order(&[Order::unmap_script()])?;
        match guard.end.take() {
            Some(end) => {
                let nice = getpriority_process(Pid::from_raw(newborn.pid)).unwrap_or(0);
                Ok(Stub { ring, end, bound, nice })
            }
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

/// Lets the process run on this thread's present processor only, and says which that is.
fn bind_here(pid: i32) -> std::io::Result<usize> {
    let mut processors = CpuSet::new();
    let here = sched_getcpu();
    processors.set(here);
    sched_setaffinity(Pid::from_raw(pid), &processors)?;
    Ok(here)
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
    /// The processor that it is bound to, where the kernel does not keep it on its server's.
    bound: Option<usize>,
    /// Its nice value.
    nice: i32,
}

impl Stub {
    /// The process's number, for messages: it is the stub's own until [`Stub::end`].
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.ring.pid()
    }

    /// Sets the nice value with which the stub competes for processors. Nothing happens if it has this value.
    ///
    /// # Errors
    ///
    /// What setpriority(2) says: a lower value than the present one needs `CAP_SYS_NICE` or a limit `RLIMIT_NICE` that
    /// allows it.
    pub fn set_nice(&mut self, nice: i32) -> std::io::Result<()> {
        if self.nice != nice {
            setpriority_process(Pid::from_raw(self.pid()), nice)?;
            self.nice = nice;
        }
        Ok(())
    }

    /// Binds the stub to the processor of this thread, if it is bound to another one: a switch between two processors
    /// takes ten times as long. Where the kernel keeps the two together (`Wake::Synchronous`), nothing happens.
    #[inline]
    pub fn follow(&mut self) {
        if self.bound.is_some() {
            self.follow_bound();
        }
    }

    #[cold]
    fn follow_bound(&mut self) {
        // A failure costs time and nothing else; the next run tries again.
        if self.bound != Some(sched_getcpu())
            && let Ok(here) = bind_here(self.pid())
        {
            self.bound = Some(here);
        }
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

    /// Answers [`Event::Doorbell`] or [`Event::Call`] with a value, and stops the program behind the call: all its
    /// registers are known then, and it waits like one that a signal interrupted.
    ///
    /// # Errors
    ///
    /// As for [`Stub::answer`].
    pub fn stop(&mut self, value: i64) -> Result<Interrupted, RingError> {
        self.ring.stop(value)
    }

    /// The same, and whether the answer was lost.
    pub(crate) fn stop_noting(&mut self, value: i64) -> Result<(Interrupted, bool), RingError> {
        self.ring.stop_noting(value)
    }

    /// Lets a program that a signal interrupted go on with these registers, and these FS and GS bases or those that it
    /// had. One system call.
    ///
    /// Its flags are cut to those that programs have; its vector state is as it was.
    ///
    /// # Errors
    ///
    /// As for [`Stub::answer`].
    pub fn resume(&mut self, regs: &Regs, bases: Option<(u64, u64)>) -> Result<(), RingError> {
        self.ring.resume(regs, bases)
    }

    /// Lets a new stub, or one that a signal interrupted, go on as a program with these registers, and initial vector
    /// state. One system call.
    ///
    /// # Errors
    ///
    /// As for [`Stub::answer`].
    pub fn start(&mut self, regs: &Regs, fs_base: u64, gs_base: u64) -> Result<(), RingError> {
        self.ring.start(regs, fs_base, gs_base)
    }

    /// The same with a whole context. Of its vector state the stub gets what programs have on this host.
    ///
    /// # Errors
    ///
    /// As for [`Stub::answer`].
    pub fn load(&mut self, context: &UserContext) -> Result<(), RingError> {
        self.ring.load(context)
    }

    /// The vector state of the program that a signal interrupted; `None` if none waits. What a program has done to
    /// its frames shows in it.
    #[must_use]
    pub fn vector(&self) -> Option<VectorState> {
        self.ring.vector()
    }

    /// Has the program start again from its frozen state, whatever it did: that of the
    /// [pages](crate::resume_pages) at [`RESUME`](crate::layout::RESUME), with RAX from the control line. One system
    /// call.
    ///
    /// Answers a doorbell, whose code looks for a control line that does not start with 0; the ring of a signal; and a
    /// new stub's.
    ///
    /// # Errors
    ///
    /// As for [`Stub::answer`]; a call by value is to be [stopped](Stub::stop) first.
    pub fn rewind(&mut self) -> Result<(), RingError> {
        self.ring.rewind()
    }

    /// Zeroes the alternate signal stack, which the program can write, and what the server has written into orders and
    /// context, which it can read. The program that a signal interrupted can be
    /// rewound or replaced then, but not resumed.
    pub fn clear(&mut self) {
        self.ring.clear();
    }

    /// Has a new stub, or one that a signal interrupted, make these calls. Afterwards it waits as before.
    ///
    /// # Errors
    ///
    /// As for [`Stub::answer`]; [`RingError::OrderFailed`] if one had another result than expected.
    pub fn order(&mut self, orders: &[Order]) -> Result<(), RingError> {
        self.ring.order(orders)
    }

    /// [`Stub::order`] and [`Stub::resume`], without the ring between them.
    ///
    /// # Errors
    ///
    /// As for [`Stub::order`], and then the stub waits as before. If the last order fails, [`Stub::receive`] says so
    /// by [`Poison::LastOrder`](crate::Poison::LastOrder): the stub is lost, since a program could say the same.
    pub fn order_and_resume(
        &mut self,
        orders: &[Order],
        regs: &Regs,
        bases: Option<(u64, u64)>,
    ) -> Result<(), RingError> {
        self.ring.order_and_resume(orders, regs, bases)
    }

    /// [`Stub::order`] with a file as the stub's descriptor 2, which is closed afterwards.
    ///
    /// # Errors
    ///
    /// As for [`Stub::order`].
    pub fn with_file(&mut self, file: BorrowedFd<'_>, orders: &[Order]) -> Result<(), RingError> {
        self.ring.with_file(file, orders)
    }

    /// What a handler of signals needs to stop the program.
    #[must_use]
    pub fn kicker(&self) -> Kicker {
        self.ring.kicker()
    }

    /// Whether the program was to be stopped, since the last time this was asked, without an event of that: the wish
    /// came while the stub waited, or the kick while it rang anyway. To be asked after each event. Where this says no,
    /// a kick may still come as a later event.
    pub fn take_kick(&mut self) -> bool {
        self.ring.take_kick()
    }

    /// The number of the program's last system call, for messages.
    #[must_use]
    pub fn last_call(&self) -> Option<i64> {
        self.ring.last_call()
    }

    /// Processor time that the process has used, in nanoseconds, the kernel's on its behalf included.
    ///
    /// # Errors
    ///
    /// What clock_gettime(2) says, as for a stub that has ended.
    pub fn cpu_ns(&self) -> std::io::Result<u64> {
        // `CPUCLOCK_SCHED` of a process (Linux, `linux/posix-timers.h`).
        let clock = !self.pid() << 3 | 2;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: plain call with room for the time.
        crate::sys::check(unsafe { libc::clock_gettime(clock, &raw mut time) }.into())?;
        Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
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
    pub(crate) fn deepest(&self) -> u64 {
        self.ring.deepest()
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
