// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's processor: one stub, run from event to event.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mayfly_machine::layout::{CONTROL, PAGE_SIZE, SHARED};
use mayfly_machine::{
    CreateError, Exit, FreezeError, MemoryError, Prot, Regs, RunError, Unexpected, UserContext, VECTOR_STATE_BYTES,
    VectorState,
};
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::{Run, Tables};

use crate::code::frozen_rip;
use crate::error::RingError;
use crate::host::Host;
use crate::layout::RESUME;
use crate::processor::kicker::Kicker;
use crate::processor::pages::{self, Part, Stale};
use crate::processor::source::{ImageSource, region, unborn};
use crate::resume::resume_pages;
use crate::ring::order::{Order, PASSING};
use crate::ring::vector::vector_components;
use crate::stub::{Nursery, Stub, StubFiles};
use crate::zygote::zygote::Region;

/// Most regions that a stub is born with; orders map the others.
const REGIONS: usize = 32;
/// MXCSR and the x87 control word as a process has them at its start (System V ABI, 3.4.1).
const MXCSR: u32 = 0x1f80;
const FCW: u32 = 0x37f;

/// Where a stub waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Before its first instruction.
    Born,
    /// At the doorbell, for a value.
    Doorbell,
    /// At a system call, for a value.
    Call,
    /// Behind a trapped system call.
    Syscall,
    /// At another signal: an exception, or a kick.
    Signal,
    /// On its way into the frozen program.
    Rewinding,
}

/// What the next run does.
#[derive(Debug, Clone)]
pub(crate) enum Next {
    /// The program goes on as it is.
    Same,
    /// Its doorbell or its call returns this.
    Value(u64),
    /// It goes on with the general registers and bases that are kept here.
    Regs,
    /// It goes on with all of this.
    Context(Box<UserContext>),
    /// The frozen program is entered.
    Rewind,
}

/// A stub process, which runs a program over a machine's memory.
#[derive(Debug)]
pub struct Processor {
    /// None before [`Processor::start`].
    stub: Option<Stub>,
    source: Option<Arc<ImageSource>>,
    pub(crate) at: At,
    pub(crate) next: Next,
    /// The user's, as of the last event, or as set since.
    pub(crate) regs: Regs,
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
    /// Whether the doorbell enters the trampoline.
    rewinds: bool,
    pub(crate) stale: Stale,
    /// The page of the last fault, which is mapped with the next run.
    pub(crate) fault: Option<u64>,
    /// Set by a [`Kicker`]: no run is to start.
    is_kicked: Arc<AtomicBool>,
    /// The address and the instruction of the last page that was mapped, and how often in a row.
    pub(crate) filled: (u64, u64, u32),
}

/// Vector state as at the start of a process.
pub(super) fn initial_vector() -> VectorState {
    let mut words = [0; VECTOR_STATE_BYTES / 4];
    words[0] = FCW;
    words[6] = MXCSR;
    VectorState::from_words(words)
}

impl Processor {
    fn new(source: Option<Arc<ImageSource>>) -> Self {
        Self {
            stub: None,
            source,
            at: At::Born,
            next: Next::Same,
            regs: Regs::default(),
            fs_base: 0,
            gs_base: 0,
            rewinds: false,
            stale: Stale::default(),
            fault: None,
            is_kicked: Arc::default(),
            filled: (0, 0, 0),
        }
    }

    /// A processor for a boot, in whose memory [`pages`](crate::pages) are mapped.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the kernel refuses a stub.
    pub fn boot(host: &Host, memory: &Memory, tables: Tables) -> Result<Self, CreateError> {
        let nursery = Nursery::new(host)
            .map_err(|error| CreateError::Call { call: "a zygote", source: io::Error::other(error) })?;
        let mut processor = Self::new(None);
        let runs = tables.runs(memory);
        processor.stub = Some(birth(&nursery, None, memory, &runs)?);
        Ok(processor)
    }

    /// A processor for a worker, which [`Processor::start`] makes ready.
    #[must_use]
    pub fn fork(source: &Arc<ImageSource>) -> Self {
        Self::new(Some(Arc::clone(source)))
    }

    /// Makes the stub of a worker, whose pages at `addresses` (ascending) are its own already.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the kernel refuses a stub.
    pub fn start(&mut self, memory: &Memory, tables: Tables, addresses: &[u64]) -> Result<(), CreateError> {
        let Some(source) = self.source.clone() else { return Ok(()) };
        let mut runs = tables.runs_from(memory, CONTROL);
        for address in addresses {
            let entry = tables.entry(memory, *address);
            let Some(frame) = entry.frame().filter(|frame| entry.is_user() && memory.owns(*frame)) else { continue };
            match runs.last_mut() {
                Some(last) if last.is_followed_by(*address, frame, entry.prot()) => last.pages += 1,
                _ => runs.push(Run { address: *address, frame, pages: 1, prot: entry.prot() }),
            }
        }
        let (first, others) = runs.split_at(runs.len().min(REGIONS));
        self.stub = Some(birth(source.nursery(), Some(&source), memory, first)?);
        for run in others {
            (0..run.pages).for_each(|page| self.stale.add(run.address + page * PAGE_SIZE));
        }
        self.settle(memory, tables).map_err(CreateError::Memory)
    }

    pub(super) fn stub(&mut self) -> Result<&mut Stub, StubError> {
        self.stub.as_mut().ok_or(StubError::None)
    }

    /// Sets the nice value of the program's process.
    ///
    /// # Errors
    ///
    /// As for [`Stub::set_nice`].
    pub fn set_nice(&mut self, nice: i32) -> std::io::Result<()> {
        self.stub.as_mut().map_or(Ok(()), |stub| stub.set_nice(nice))
    }

    /// Runs the program until its next exit.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the host fails; the machine must not be used again then.
    #[inline]
    pub fn run(&mut self, memory: &mut Memory, tables: Tables) -> Result<Exit, RunError> {
        if let Some(stub) = &mut self.stub {
            stub.follow();
        }
        loop {
            if self.is_kicked.load(Ordering::Relaxed) {
                self.stub()?.take_kick();
                return Ok(Exit::Kicked);
            }
            let exit = match self.resume(memory, tables).and_then(|()| Ok(self.stub()?.receive()?)) {
                Ok(event) => self.event(event, memory, tables)?,
                Err(error) => Some(self.failed(error)?),
            };
            if let Some(exit) = exit {
                // It has got on.
                self.filled = (0, 0, 0);
                return Ok(exit);
            }
        }
    }

    /// What an error of the stub's means for its machine.
    #[cold]
    fn failed(&mut self, error: StubError) -> Result<Exit, RunError> {
        match error {
            StubError::Ring(RingError::Poisoned(poison)) => Ok(Exit::Unexpected(Unexpected::Stub(poison.to_string()))),
            StubError::Ring(RingError::Gone) => {
                let (what, killed) = self.stub.take().map_or_else(|| (String::new(), false), obituary);
                Ok(Exit::Unexpected(Unexpected::Ended { what, killed }))
            }
            other => Err(other.into()),
        }
    }

    /// Lets the stub go on, with its mappings brought up to date.
    #[inline]
    fn resume(&mut self, memory: &Memory, tables: Tables) -> Result<(), StubError> {
        let rewinds = self.rewinds;
        if self.stale.is_empty() && self.fault.is_none() {
            match (self.at, &self.next) {
                (At::Doorbell, Next::Rewind | Next::Same) if rewinds => {
                    return Ok(self.stub()?.rewind()?);
                }
                (At::Doorbell | At::Call, &Next::Value(value)) => {
                    return Ok(self.stub()?.answer(value as i64)?);
                }
                _ => {}
            }
        }
        self.resume_signal(memory, tables)
    }

    fn resume_signal(&mut self, memory: &Memory, tables: Tables) -> Result<(), StubError> {
        if matches!(self.at, At::Doorbell | At::Call) {
            self.stop()?;
        }
        let mut parts = self.stale.take(memory, tables);
        if let Some(page) = self.fault.take() {
            parts.extend(pages::around(memory, tables, page));
        }
        let orders = self.order_files(memory, &parts)?;
        let (regs, bases) = (self.regs, Some((self.fs_base, self.gs_base)));
        let at = self.at;
        let next = std::mem::replace(&mut self.next, Next::Same);
        let stub = self.stub()?;
        let done = match (at, next) {
            (At::Rewinding, _) | (_, Next::Rewind) => ordered(stub, &orders).and_then(|()| stub.rewind()),
            (_, Next::Context(context)) => ordered(stub, &orders).and_then(|()| stub.load(&context)),
            (At::Born, _) => {
                let (fs_base, gs_base) = (self.fs_base, self.gs_base);
                let context = UserContext { regs, fs_base, gs_base, vector: initial_vector() };
                let stub = self.stub()?;
                ordered(stub, &orders).and_then(|()| stub.load(&context))
            }
            _ if orders.is_empty() => stub.resume(&regs, bases),
            _ => stub.order_and_resume(&orders, &regs, bases),
        };
        Ok(done?)
    }

    /// Has the stub map the files' parts, and returns the orders for the others.
    fn order_files(&mut self, memory: &Memory, parts: &[Part]) -> Result<Vec<Order>, StubError> {
        let mut orders = Vec::new();
        for part in parts {
            let order = part.order()?;
            match (part.file(memory), &mut self.stub) {
                (Some(file), Some(stub)) => stub.with_file(file, &[order])?,
                _ => orders.push(order),
            }
        }
        Ok(orders)
    }

    /// Makes a stub that waits for a value wait at a signal, with all its registers.
    pub(super) fn stop(&mut self) -> Result<(), StubError> {
        let value = match self.next {
            Next::Value(value) => value,
            _ => 0,
        };
        let rewinds = matches!(self.next, Next::Rewind);
        let interrupted = self.stub()?.stop(value as i64)?;
        self.at = At::Signal;
        (self.regs, self.fs_base, self.gs_base) = (interrupted.regs, interrupted.fs_base, interrupted.gs_base);
        self.next = if rewinds { Next::Rewind } else { Next::Same };
        Ok(())
    }

    /// Maps shared memory that was added since the stub was born, which has not run yet.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the kernel refuses.
    pub fn share(&mut self, memory: &Memory) -> Result<(), CreateError> {
        let (Some(stub), Some(shared)) = (&mut self.stub, memory.shared()) else { return Ok(()) };
        let prot = Prot::READ | Prot::WRITE;
        let order = Order::map_file(PASSING, 0, SHARED, shared.bytes(), prot, true)?;
        let failed = |error| CreateError::Call { call: "mapping shared memory", source: io::Error::other(error) };
        stub.with_file(shared.as_fd(), &[order]).map_err(failed)
    }

    /// What is known of the page at `address` is out of date: it has less access, or another frame.
    #[inline]
    pub fn forget(&mut self, address: u64) {
        self.stale.add(address);
    }

    /// Brings the stub's mappings up to date now, if it can be done where it waits: that need not be done when the next
    /// request is there.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Host`] if an order fails: the machine must be dropped then.
    pub fn settle(&mut self, memory: &Memory, tables: Tables) -> Result<(), MemoryError> {
        if self.stale.is_empty() {
            return Ok(());
        }
        let failed = |_| MemoryError::Host { errno: libc::EIO };
        if matches!(self.at, At::Doorbell | At::Call) {
            self.stop().map_err(failed)?;
        }
        let parts = self.stale.take(memory, tables);
        let orders = self.order_files(memory, &parts).map_err(|_| MemoryError::Host { errno: libc::EIO })?;
        let Some(stub) = &mut self.stub else { return Ok(()) };
        ordered(stub, &orders).map_err(|_| MemoryError::Host { errno: libc::EIO })
    }

    /// Erases what the program may have left in the signal stack, which it can write, and what the server has shown it.
    #[inline]
    pub fn clean(&mut self) {
        if let Some(stub) = &mut self.stub {
            stub.clear();
        }
    }

    /// Says whether the doorbell enters the trampoline: whether the control word is not 0.
    #[inline]
    pub fn set_rewinds(&mut self, rewinds: bool) {
        self.rewinds = rewinds;
    }

    /// Makes the next run enter the frozen program.
    #[inline]
    pub fn rewind(&mut self) {
        self.next = Next::Rewind;
        self.fault = None;
    }

    /// The same, even where the doorbell would return.
    #[inline]
    pub fn enter_trampoline(&mut self) {
        self.rewind();
    }

    /// The same.
    ///
    /// # Errors
    ///
    /// None here; as for the other engine.
    #[inline]
    pub fn enter_frozen(&mut self) -> Result<(), RunError> {
        self.rewind();
        Ok(())
    }

    /// Gives up what the program was about to do.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the stub cannot be stopped.
    pub fn abandon(&mut self) -> Result<(), RunError> {
        if self.at == At::Call {
            self.stop()?;
        }
        self.next = Next::Rewind;
        self.fault = None;
        Ok(())
    }

    /// Whether the stub waits at the doorbell.
    #[inline]
    #[must_use]
    pub fn is_at_doorbell(&self) -> bool {
        self.at == At::Doorbell && matches!(self.next, Next::Same | Next::Value(_))
    }

    /// Whether programs compute the time from the host's time-stamp counter: a process reads it as the server does.
    #[must_use]
    pub fn shares_tsc(&self) -> bool {
        true
    }

    /// The clock of the CPU time that the stub uses, as clock_gettime(2) knows it.
    #[inline]
    #[must_use]
    pub fn cpu_clock(&self) -> Option<i32> {
        // MAKE_PROCESS_CPUCLOCK in linux/posix-timers.h, which clock_getcpuclockid(3) uses: all bits of the process's
        // number inverted, and "scheduler's clock".
        const SCHED: i32 = 2;
        self.stub.as_ref().map(|stub| !stub.pid() << 3 | SCHED)
    }

    /// A handle with which a signal's handler can stop a run of this thread.
    pub fn kicker(&mut self) -> Kicker {
        Kicker::new(self.stub.as_ref().map(Stub::kicker), Arc::clone(&self.is_kicked))
    }

    /// Writes what workers go on with into the engine's pages: behind the doorbell, with `result` in RAX.
    ///
    /// # Errors
    ///
    /// [`FreezeError`] if the program does not stand between two instructions of its own.
    pub fn freeze(&mut self, memory: &mut Memory, tables: Tables, result: u64) -> Result<(), FreezeError> {
        let context = self.context(memory)?;
        let Some(mut context) = context.filter(|context| context.regs.rip < CONTROL) else {
            return Err(FreezeError::State("it is not in the program".into()));
        };
        let rip = frozen_rip(context.regs.rip);
        let keeps_vector = rip == context.regs.rip;
        (context.regs.rip, context.regs.rax) = (rip, result);
        let bytes = resume_pages(&context, vector_components(), keeps_vector);
        for (page, address) in bytes.chunks(PAGE_SIZE as usize).zip((RESUME..).step_by(PAGE_SIZE as usize)) {
            let frame = tables.entry(memory, address).frame();
            let frame = frame.ok_or_else(|| FreezeError::State("the pages to resume from are gone".into()))?;
            memory.slice_mut(frame * PAGE_SIZE, page.len()).copy_from(page);
        }
        Ok(())
    }
}

/// All that is known of a stub that has ended, and whether it was killed.
fn obituary(stub: Stub) -> (String, bool) {
    let last = stub.last_call().map_or_else(String::new, |number| format!("; its last system call: {number}"));
    match stub.end().map(|status| status.signal()) {
        Ok(Some(signal)) => (format!("signal {signal}{last}"), signal == libc::SIGKILL),
        Ok(None) => (format!("no signal{last}"), false),
        Err(error) => (format!("{error}{last}"), false),
    }
}

fn ordered(stub: &mut Stub, orders: &[Order]) -> Result<(), RingError> {
    if orders.is_empty() { Ok(()) } else { stub.order(orders) }
}

/// Why a stub does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum StubError {
    #[error("there is no stub")]
    None,
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl From<StubError> for RunError {
    fn from(error: StubError) -> Self {
        Self { call: "a stub", source: io::Error::other(error) }
    }
}

/// A stub with these runs of the machine's memory, and the shared memory.
fn birth(nursery: &Nursery, source: Option<&ImageSource>, memory: &Memory, runs: &[Run]) -> Result<Stub, CreateError> {
    let file = memory.file().ok_or(CreateError::Call { call: "a stub", source: io::ErrorKind::NotFound.into() })?;
    let mut regions: Vec<Region<'_>> = runs.iter().map(|run| region(file, run)).collect();
    if let Some(shared) = memory.shared() {
        let (offset, address, prot) = (0, SHARED, Prot::READ | Prot::WRITE);
        regions.push(Region { file: shared.as_fd(), offset, address, bytes: shared.bytes(), prot });
    }
    let files = StubFiles { memory: file.as_fd(), image: source.map(ImageSource::file) };
    nursery.stub(&regions, files).map_err(unborn)
}
