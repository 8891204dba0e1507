// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's processor: one of the engines'. Calls go to it by a match, which the compiler can see through.

use std::sync::Arc;

use mayfly_machine::{BadReturn, CreateError, Exit, FreezeError, MemoryError, Regs, RunError, UserContext};
use mayfly_memory::memory::Memory;
use mayfly_memory::sealed::SealedMemory;
use mayfly_memory::tables::Tables;

use crate::host::{EngineHost, Host};

/// Does the same with the processor of either engine.
macro_rules! either {
    ($processor:expr, $name:ident => $call:expr) => {
        match $processor {
            #[cfg(feature = "kvm")]
            Processor::Kvm($name) => $call,
            #[cfg(feature = "process")]
            Processor::Process($name) => $call,
        }
    };
}

/// A processor.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "every machine has one, and requests go through it: no pointer between")]
pub(crate) enum Processor {
    /// A vCPU.
    #[cfg(feature = "kvm")]
    Kvm(mayfly_kvm::Processor),
    /// A stub process.
    #[cfg(feature = "process")]
    Process(mayfly_process::Processor),
}

/// Where the processors of an image's workers come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Virtual machines are made from nothing; the frame onto which the processor pushes exceptions.
    #[cfg(feature = "kvm")]
    Kvm { stack_frame: u64 },
    /// A process that has the image mapped.
    #[cfg(feature = "process")]
    Process(Arc<mayfly_process::ImageSource>),
}

impl Host {
    /// Where the processors of an image's workers come from. `stack_frame` is that of the processor that was frozen.
    pub(crate) fn source(
        &self,
        memory: &Arc<SealedMemory>,
        tables: Tables,
        stack_frame: Option<u64>,
    ) -> Result<Source, FreezeError> {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(_) => {
                let _ = (memory, tables);
                Ok(Source::Kvm { stack_frame: stack_frame.unwrap_or(0) })
            }
            #[cfg(feature = "process")]
            EngineHost::Process(host) => {
                let _ = stack_frame;
                mayfly_process::ImageSource::new(host, memory, tables).map(Arc::new).map(Source::Process)
            }
        }
    }
}

impl Source {
    /// The frame onto which a vCPU pushes exceptions; none on other engines.
    pub(crate) fn stack_frame(&self) -> Option<u64> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm { stack_frame } => Some(*stack_frame),
            #[cfg(feature = "process")]
            Self::Process(_) => None,
        }
    }
}

impl Processor {
    /// A processor for a boot, in whose memory the engine's pages are mapped.
    pub(crate) fn boot(host: &Host, memory: &Memory, tables: Tables) -> Result<Self, CreateError> {
        match &host.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(host) => mayfly_kvm::Processor::boot(host, memory, tables).map(Self::Kvm),
            #[cfg(feature = "process")]
            EngineHost::Process(host) => mayfly_process::Processor::boot(host, memory, tables).map(Self::Process),
        }
    }

    /// A processor for a worker, which [`Processor::start`] makes ready.
    pub(crate) fn fork(host: &Host, source: &Source, memory: &Memory, tables: Tables) -> Result<Self, CreateError> {
        match (&host.engine, source) {
            #[cfg(feature = "kvm")]
            (EngineHost::Kvm(host), Source::Kvm { stack_frame }) => {
                mayfly_kvm::Processor::fork(host, memory, tables, *stack_frame).map(Self::Kvm)
            }
            #[cfg(feature = "process")]
            (EngineHost::Process(_), Source::Process(source)) => {
                let _ = (memory, tables);
                Ok(Self::Process(mayfly_process::Processor::fork(source)))
            }
            #[cfg(all(feature = "kvm", feature = "process"))]
            _ => {
                let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
                Err(CreateError::Call { call: "a fork on another engine", source })
            }
        }
    }

    /// Makes a worker's processor ready, whose pages at `addresses` (ascending) are its own already.
    pub(crate) fn start(&mut self, memory: &Memory, tables: Tables, addresses: &[u64]) -> Result<(), CreateError> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(_) => {
                let _ = (memory, tables, addresses);
                Ok(())
            }
            #[cfg(feature = "process")]
            Self::Process(processor) => processor.start(memory, tables, addresses),
        }
    }

    /// The vCPU, for tests that compare all that KVM shows.
    #[cfg(test)]
    pub(crate) fn kvm(&mut self) -> &mut mayfly_kvm::Processor {
        match self {
            Self::Kvm(processor) => processor,
            #[cfg(feature = "process")]
            Self::Process(_) => panic!("a test of KVM"),
        }
    }

    #[inline]
    pub(crate) fn run(&mut self, memory: &mut Memory, tables: Tables) -> Result<Exit, RunError> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(processor) => {
                let _ = tables;
                processor.run(memory)
            }
            #[cfg(feature = "process")]
            Self::Process(processor) => processor.run(memory, tables),
        }
    }

    /// What the processor knows of the page at `address` is out of date: it has less access, or another frame.
    #[inline]
    pub(crate) fn forget(&mut self, address: u64) {
        match self {
            // By the frame: see `mayfly_memory::take_back`.
            #[cfg(feature = "kvm")]
            Self::Kvm(_) => {
                let _ = address;
            }
            #[cfg(feature = "process")]
            Self::Process(processor) => processor.forget(address),
        }
    }

    /// Carries out what was to be forgotten, where that takes time: after a reset, and not before the next request.
    #[inline]
    pub(crate) fn settle(&mut self, memory: &Memory, tables: Tables) -> Result<(), MemoryError> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(_) => {
                let _ = (memory, tables);
                Ok(())
            }
            #[cfg(feature = "process")]
            Self::Process(processor) => processor.settle(memory, tables),
        }
    }

    /// Makes sure that the processor can reach every frame in use.
    pub(crate) fn cover(&mut self, memory: &Memory) -> Result<(), CreateError> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(processor) => processor.cover(memory),
            #[cfg(feature = "process")]
            Self::Process(_) => {
                let _ = memory;
                Ok(())
            }
        }
    }

    /// As [`Processor::cover`], after shared memory was added.
    pub(crate) fn cover_shared(&mut self, memory: &Memory) -> Result<(), CreateError> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(processor) => processor.cover_shared(memory),
            #[cfg(feature = "process")]
            Self::Process(processor) => processor.share(memory),
        }
    }

    /// Writes what workers go on with into the engine's pages, and returns what their processors are made from.
    pub(crate) fn freeze(&mut self, memory: &mut Memory, tables: Tables, result: u64) -> Result<(), FreezeError> {
        either!(self, processor => processor.freeze(memory, tables, result))
    }

    /// The frame onto which a vCPU pushes exceptions; none on other engines.
    pub(crate) fn stack_frame(&self) -> Option<u64> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(processor) => Some(processor.stack_frame()),
            #[cfg(feature = "process")]
            Self::Process(_) => None,
        }
    }

    /// That frame, if anything may have been pushed there.
    #[inline]
    pub(crate) fn used_stack_frame(&self) -> Option<u64> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(processor) => processor.has_used_stack().then(|| processor.stack_frame()),
            #[cfg(feature = "process")]
            Self::Process(_) => None,
        }
    }

    /// Erases what the program may have left in pages of the engine's own, at a reset.
    #[inline]
    pub(crate) fn clean(&mut self) {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(_) => {}
            #[cfg(feature = "process")]
            Self::Process(processor) => processor.clean(),
        }
    }

    #[inline]
    pub(crate) fn regs(&self) -> Regs {
        either!(self, processor => processor.regs())
    }

    #[inline]
    pub(crate) fn set_regs(&mut self, regs: &Regs) {
        either!(self, processor => processor.set_regs(regs));
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn set_arguments(&mut self, regs: &Regs) {
        either!(self, processor => processor.set_arguments(regs));
    }

    pub(crate) fn user_regs(&self, memory: &Memory) -> Option<Regs> {
        either!(self, processor => processor.user_regs(memory))
    }

    pub(crate) fn vector_features(&self) -> (u64, usize) {
        either!(self, processor => processor.vector_features())
    }

    pub(crate) fn context(&mut self, memory: &Memory) -> Result<Option<UserContext>, RunError> {
        either!(self, processor => processor.context(memory))
    }

    pub(crate) fn set_context(&mut self, context: &UserContext) -> Result<(), RunError> {
        either!(self, processor => processor.set_context(context))
    }

    #[inline]
    pub(crate) fn return_from_doorbell(&mut self, value: u64) {
        either!(self, processor => processor.return_from_doorbell(value));
    }

    #[inline]
    pub(crate) fn return_from_syscall(&mut self, value: u64) -> Result<(), BadReturn> {
        either!(self, processor => processor.return_from_syscall(value))
    }

    pub(crate) fn bases(&self) -> Result<(u64, u64), RunError> {
        either!(self, processor => processor.bases())
    }

    pub(crate) fn set_bases(&mut self, fs_base: Option<u64>, gs_base: Option<u64>) -> Result<(), RunError> {
        either!(self, processor => processor.set_bases(fs_base, gs_base))
    }

    #[inline]
    pub(crate) fn rewind(&mut self) {
        either!(self, processor => processor.rewind());
    }

    #[inline]
    pub(crate) fn enter_trampoline(&mut self) {
        either!(self, processor => processor.enter_trampoline());
    }

    #[inline]
    pub(crate) fn enter_frozen(&mut self) -> Result<(), RunError> {
        either!(self, processor => processor.enter_frozen())
    }

    /// The control word: whether the doorbell enters the trampoline.
    #[inline]
    pub(crate) fn set_rewinds(&mut self, rewinds: bool) {
        match self {
            // Its code reads the word itself.
            #[cfg(feature = "kvm")]
            Self::Kvm(_) => {
                let _ = rewinds;
            }
            #[cfg(feature = "process")]
            Self::Process(processor) => processor.set_rewinds(rewinds),
        }
    }

    pub(crate) fn abandon(&mut self) -> Result<(), RunError> {
        either!(self, processor => processor.abandon())
    }

    #[inline]
    pub(crate) fn is_at_doorbell(&self) -> bool {
        either!(self, processor => processor.is_at_doorbell())
    }

    #[inline]
    pub(crate) fn shares_tsc(&self) -> bool {
        either!(self, processor => processor.shares_tsc())
    }

    #[inline]
    pub(crate) fn cpu_clock(&self) -> Option<i32> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(_) => None,
            #[cfg(feature = "process")]
            Self::Process(processor) => processor.cpu_clock(),
        }
    }

    pub(crate) fn set_nice(&mut self, nice: i32) -> std::io::Result<()> {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(_) => {
                let _ = nice;
                Ok(())
            }
            #[cfg(feature = "process")]
            Self::Process(processor) => processor.set_nice(nice),
        }
    }

    pub(crate) fn kicker(&mut self) -> Kicker {
        match self {
            #[cfg(feature = "kvm")]
            Self::Kvm(processor) => Kicker(AnyKicker::Kvm(processor.kicker())),
            #[cfg(feature = "process")]
            Self::Process(processor) => Kicker(AnyKicker::Process(processor.kicker())),
        }
    }
}

/// Makes a machine's run return.
///
/// Setting it stops a run that is about to start. A signal to the thread ends a run that is in progress; its handler
/// sets this, in case the run was only about to start. Both happen on that thread: the handle stays on it.
///
/// ```
/// # use mayfly_engine::{Host, Machine};
/// # use mayfly_machine::{Exit, Origin, Prot, Regs};
/// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
/// # let code = [0xeb, 0xfe];
/// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
/// # machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
/// # machine.load(0x40_0000, &code)?;
/// # machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
/// let kicker = machine.kicker();
/// // SAFETY: the machine outlives the kicker.
/// unsafe { kicker.set() };
/// assert_eq!(machine.run()?, Exit::Kicked);
/// // SAFETY: as above.
/// unsafe { kicker.clear() };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Kicker(AnyKicker);

#[derive(Debug)]
enum AnyKicker {
    #[cfg(feature = "kvm")]
    Kvm(mayfly_kvm::Kicker),
    #[cfg(feature = "process")]
    Process(mayfly_process::Kicker),
}

impl Kicker {
    /// Makes the current or the next run return at once.
    ///
    /// # Safety
    ///
    /// The machine that made this handle must still exist.
    pub unsafe fn set(&self) {
        match &self.0 {
            // SAFETY: as the caller promises.
            #[cfg(feature = "kvm")]
            AnyKicker::Kvm(kicker) => unsafe { kicker.set() },
            #[cfg(feature = "process")]
            AnyKicker::Process(kicker) => kicker.set(),
        }
    }

    /// Whether a run would return at once.
    ///
    /// # Safety
    ///
    /// The machine that made this handle must still exist.
    #[inline]
    #[must_use]
    pub unsafe fn is_set(&self) -> bool {
        match &self.0 {
            // SAFETY: as the caller promises.
            #[cfg(feature = "kvm")]
            AnyKicker::Kvm(kicker) => unsafe { kicker.is_set() },
            #[cfg(feature = "process")]
            AnyKicker::Process(kicker) => kicker.is_set(),
        }
    }

    /// Clears it.
    ///
    /// # Safety
    ///
    /// The machine that made this handle must still exist.
    pub unsafe fn clear(&self) {
        match &self.0 {
            // SAFETY: as the caller promises.
            #[cfg(feature = "kvm")]
            AnyKicker::Kvm(kicker) => unsafe { kicker.clear() },
            #[cfg(feature = "process")]
            AnyKicker::Process(kicker) => kicker.clear(),
        }
    }
}
