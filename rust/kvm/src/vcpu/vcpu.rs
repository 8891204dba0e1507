// SPDX-License-Identifier: MIT OR Apache-2.0
//! One VM with one vCPU, and its exits; it knows nothing of the program that runs in it.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_device_attr, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_userspace_memory_region, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd, VmFd};
use mayfly_machine::layout::SHARED_MAX;
use mayfly_machine::{CreateError, PAGE_SIZE, Regs, RunError, Unexpected};
use mayfly_memory::layout::{FILES_MAX, FILES_PHYSICAL, SHARED_FILES_MAX, SHARED_FILES_PHYSICAL, SHARED_PHYSICAL};
use mayfly_memory::memory::Memory;

use crate::error;
use crate::guest::kernel::{self, Variant};
use crate::guest::tsc::GuestTsc;
use crate::host::host::Host;
use crate::layout::{PORT_DOORBELL, PORT_SYSCALL};
use crate::vcpu::regs::{from_kvm, to_kvm};

/// An exit, before the machine has looked at memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawExit {
    Doorbell,
    Syscall,
    Exception { vector: u8 },
    Kicked,
    Unexpected(Unexpected),
}

#[derive(Debug)]
pub(crate) struct Vcpu {
    fd: VcpuFd,
    // Closed after the vCPU: fields drop in order.
    vm: VmFd,
    /// Frames that memslots cover, from 0.
    covered: u64,
    files: FileSlots,
    shared_files: FileSlots,
}

/// Memslots for files' frames.
#[derive(Debug)]
struct FileSlots {
    /// The next slot.
    next: u32,
    /// Guest-physical address of the first frame.
    physical: u64,
    /// Frames that they cover.
    covered: u64,
}

/// When the special registers reach the vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At once: a boot may read and change them before the first run.
    Boot,
    /// With the first run, through the shared page: a fork is one ioctl shorter.
    Fork,
}

/// Without leaf 0x8000_0008, which no user code needs, KVM takes guest-physical addresses to have 36 bits.
const MEMORY_MAX: u64 = 1 << 36;
const _: () = assert!(SHARED_PHYSICAL + SHARED_MAX <= FILES_PHYSICAL);
const _: () = assert!(FILES_PHYSICAL + FILES_MAX <= SHARED_FILES_PHYSICAL);
const _: () = assert!(SHARED_FILES_PHYSICAL + SHARED_FILES_MAX <= MEMORY_MAX);

/// Frames beyond the image that the first memslot covers. KVM's bookkeeping grows with a slot, in time and in memory,
/// and most workers need few frames of their own; the rest gets a slot when it is first used.
const FIRST_SLOT_PRIVATE: u64 = 512;

/// Slots below are the machine's own frames and the shared region.
const FIRST_FILE_SLOT: u32 = 3;
/// Frames of files for which a booting machine makes its first slot; each further one doubles what is covered.
const FIRST_FILE_FRAMES: u64 = 64 << 20 >> 12;
/// Slots for files that are mapped shared: above those of the other files, each of which doubles what is covered.
const FIRST_SHARED_FILE_SLOT: u32 = 32;
/// Frames of the first such slot.
const FIRST_SHARED_FILE_FRAMES: u64 = 8 << 20 >> 12;

impl Vcpu {
    /// Creates the VM, its memslot and its vCPU, in user mode with page tables at `cr3`.
    pub(crate) fn create(
        host: &Host,
        variant: Variant,
        memory: &Memory,
        cr3: u64,
        start: Start,
    ) -> Result<Self, CreateError> {
        let has_more = memory.shared().is_some() || memory.files().used_frames() > 0;
        let most = if has_more { SHARED_PHYSICAL } else { MEMORY_MAX };
        if memory.bytes() > most {
            let source = std::io::Error::from_raw_os_error(libc::EFBIG);
            return Err(CreateError::Map { bytes: memory.bytes(), source });
        }
        let vm = host.kvm().create_vm().map_err(error::create("KVM_CREATE_VM"))?;
        let covered = memory.frames().min(memory.image_frames() + FIRST_SLOT_PRIVATE);
        set_slot(&vm, 0, memory, 0, covered)?;
        set_shared_slot(&vm, memory)?;
        let mut files = FileSlots::new(FIRST_FILE_SLOT, FILES_PHYSICAL);
        // A worker maps no more files than its image.
        files.extend(&vm, memory.files().host_address(), memory.files().used_frames())?;
        let mut fd = vm.create_vcpu(0).map_err(error::create("KVM_CREATE_VCPU"))?;
        let features = host.features();
        fd.set_cpuid2(&features.cpuid).map_err(error::create("KVM_SET_CPUID2"))?;
        if features.xsave {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            xcrs.xcrs[0].value = features.xcr0;
            fd.set_xcrs(&xcrs).map_err(error::create("KVM_SET_XCRS"))?;
        }
        begin(&mut fd)?;
        let base = host.initial_sregs(|| fd.get_sregs().map_err(error::create("KVM_GET_SREGS")))?;
        let sregs = kernel::sregs(base, features, variant, cr3);
        match start {
            Start::Boot => fd.set_sregs(&sregs).map_err(error::create("KVM_SET_SREGS"))?,
            Start::Fork => {
                fd.sync_regs_mut().sregs = sregs;
                fd.set_sync_dirty_reg(SyncReg::SystemRegister);
            }
        }
        let entries = kernel::msrs().map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() });
        let msrs = Msrs::from_entries(&entries).map_err(|_| CreateError::Call {
            call: "KVM_SET_MSRS",
            source: std::io::Error::from_raw_os_error(libc::E2BIG),
        })?;
        let set = fd.set_msrs(&msrs).map_err(error::create("KVM_SET_MSRS"))?;
        if set != entries.len() {
            return Err(CreateError::Call {
                call: "KVM_SET_MSRS",
                source: std::io::Error::from_raw_os_error(libc::EINVAL),
            });
        }
        fd.set_sync_valid_reg(SyncReg::Register);
        let shared_files = FileSlots::new(FIRST_SHARED_FILE_SLOT, SHARED_FILES_PHYSICAL);
        let vcpu = Self { fd, vm, covered, files, shared_files };
        if host.guest_tsc() == GuestTsc::WithoutOffset {
            vcpu.clear_tsc_offset().map_err(|source| CreateError::Call { call: "KVM_SET_DEVICE_ATTR", source })?;
        }
        Ok(vcpu)
    }

    /// Lets the guest read the host's time-stamp counter as it is. By default, KVM starts a counter of the guest's own
    /// with its vCPU.
    pub(crate) fn clear_tsc_offset(&self) -> std::io::Result<()> {
        // _IOW(KVMIO, 0xe1, struct kvm_device_attr), which kvm-ioctls has for other architectures' vCPUs only.
        const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
        const _: () = assert!(size_of::<kvm_device_attr>() == 0x18);
        let offset = 0_u64;
        let attribute = kvm_device_attr {
            group: KVM_VCPU_TSC_CTRL,
            attr: KVM_VCPU_TSC_OFFSET.into(),
            addr: (&raw const offset) as u64,
            flags: 0,
        };
        // SAFETY: the descriptor is open, and both structures outlive the call, which only reads them.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// Makes a memslot for frames without one, if any of them are in use.
    pub(crate) fn cover(&mut self, memory: &Memory) -> Result<(), CreateError> {
        if memory.used_frames() > self.covered {
            set_slot(&self.vm, 1, memory, self.covered, memory.frames())?;
            self.covered = memory.frames();
        }
        Ok(())
    }

    /// Makes memslots for files that were mapped since.
    pub(crate) fn cover_files(&mut self, memory: &Memory) -> Result<(), CreateError> {
        let used = memory.files().used_frames();
        if used > self.files.covered {
            let most = FILES_MAX / PAGE_SIZE;
            let wanted = used.max(FIRST_FILE_FRAMES).max(2 * self.files.covered).min(most);
            self.files.extend(&self.vm, memory.files().host_address(), wanted)?;
        }
        let used = memory.shared_files().used_frames();
        if used > self.shared_files.covered {
            let most = SHARED_FILES_MAX / PAGE_SIZE;
            let wanted = used.max(FIRST_SHARED_FILE_FRAMES).max(2 * self.shared_files.covered).min(most);
            self.shared_files.extend(&self.vm, memory.shared_files().host_address(), wanted)?;
        }
        Ok(())
    }

    /// Makes the memslot of shared memory that was added after [`Vcpu::create`].
    pub(crate) fn cover_shared(&self, memory: &Memory) -> Result<(), CreateError> {
        set_shared_slot(&self.vm, memory)
    }

    /// General registers as of the last exit, or as set since.
    #[inline]
    pub(crate) fn regs(&self) -> Regs {
        from_kvm(&self.fd.sync_regs().regs)
    }

    /// The same registers, in place. A change takes effect only after [`Vcpu::set_regs`].
    #[inline]
    pub(crate) fn regs_mut(&mut self) -> &mut kvm_regs {
        &mut self.fd.sync_regs_mut().regs
    }

    /// Sets the general registers through the shared page: no system call.
    #[inline]
    pub(crate) fn set_regs(&mut self, regs: &Regs) {
        self.fd.sync_regs_mut().regs = to_kvm(regs);
        self.fd.set_sync_dirty_reg(SyncReg::Register);
    }

    /// One `KVM_RUN`.
    #[inline]
    pub(crate) fn run(&mut self) -> Result<RawExit, RunError> {
        match self.fd.run() {
            // The data and its length are a guest's choice and unused; a string instruction shows as more than one
            // byte.
            Ok(VcpuExit::IoOut(PORT_DOORBELL, [_])) => Ok(RawExit::Doorbell),
            Ok(VcpuExit::IoOut(PORT_SYSCALL, [_])) => Ok(RawExit::Syscall),
            Ok(VcpuExit::InternalError) => Ok(RawExit::Unexpected(self.internal_error())),
            Ok(exit) => Ok(rare(exit)),
            // EAGAIN is not a kick. It means a processor that waits to be started, which this one never does, or that
            // the system refused KVM a thread (it has one for each machine, against huge pages that programs execute).
            // Retrying would never end.
            Err(error) if error.errno() == libc::EINTR => Ok(RawExit::Kicked),
            Err(error) => Err(error::run("KVM_RUN")(error)),
        }
    }

    /// KVM's reason for an internal error.
    #[cold]
    fn internal_error(&mut self) -> Unexpected {
        // SAFETY: after KVM_EXIT_INTERNAL_ERROR this member of the union is the one that KVM has written; any bits are
        // a valid one.
        let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        Unexpected::Internal { suberror }
    }

    /// Lets KVM finish the instruction of the last exit, without running the guest, and reads the registers it leaves.
    ///
    /// On hardware the RIP of an `out` exit is still at the instruction until the next `KVM_RUN`.
    pub(crate) fn complete_exit(&mut self) -> Result<Regs, RunError> {
        self.fd.set_kvm_immediate_exit(1);
        let result = self.fd.run().map(|_| ());
        self.fd.set_kvm_immediate_exit(0);
        match result {
            Ok(()) => {}
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(error::run("KVM_RUN")(error)),
        }
        let regs = self.fd.get_regs().map_err(error::run("KVM_GET_REGS"))?;
        self.fd.sync_regs_mut().regs = regs;
        Ok(from_kvm(&regs))
    }

    pub(crate) fn get_sregs(&self) -> Result<kvm_sregs, RunError> {
        self.fd.get_sregs().map_err(error::run("KVM_GET_SREGS"))
    }

    pub(crate) fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), RunError> {
        // Otherwise a fork's first registers would overwrite these at its first run.
        self.fd.clear_sync_dirty_reg(SyncReg::SystemRegister);
        self.fd.set_sregs(sregs).map_err(error::run("KVM_SET_SREGS"))
    }

    pub(crate) fn xsave(&self) -> Result<kvm_xsave, RunError> {
        self.fd.get_xsave().map_err(error::run("KVM_GET_XSAVE"))
    }

    pub(crate) fn set_xsave(&self, xsave: &kvm_xsave) -> Result<(), RunError> {
        // SAFETY: the kernel reads as much as a `kvm_xsave` has: features with larger state (AMX) are never enabled for
        // a guest.
        unsafe { self.fd.set_xsave(xsave) }.map_err(error::run("KVM_SET_XSAVE"))
    }

    /// For tests, which compare everything that KVM shows.
    #[cfg(feature = "testing")]
    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Whether an exception or an interrupt is about to be delivered.
    pub(crate) fn has_event(&self) -> Result<bool, RunError> {
        let events = self.fd.get_vcpu_events().map_err(error::run("KVM_GET_VCPU_EVENTS"))?;
        let exception = events.exception.injected | events.exception.pending;
        Ok(exception | events.interrupt.injected | events.nmi.injected | events.nmi.pending != 0)
    }

    /// Makes the vCPU as it was created, wherever the last run was interrupted: at CPL 0, or with a pending event.
    pub(crate) fn start_over(&mut self, sregs: &kvm_sregs) -> Result<(), RunError> {
        // An instruction that KVM has yet to finish would change registers at the next run.
        self.complete_exit()?;
        self.fd.set_vcpu_events(&kvm_vcpu_events::default()).map_err(error::run("KVM_SET_VCPU_EVENTS"))?;
        self.set_sregs(sregs)
    }

    /// A handle with which a signal's handler can stop a run.
    pub(crate) fn kicker(&mut self) -> Kicker {
        Kicker { immediate_exit: &raw mut self.fd.get_kvm_run().immediate_exit }
    }
}

impl FileSlots {
    fn new(first: u32, physical: u64) -> Self {
        Self { next: first, physical, covered: 0 }
    }

    /// Covers files' frames up to `to`, of which the host has the first at `host_address`.
    fn extend(&mut self, vm: &VmFd, host_address: u64, to: u64) -> Result<(), CreateError> {
        if to <= self.covered {
            return Ok(());
        }
        let region = kvm_userspace_memory_region {
            slot: self.next,
            flags: 0,
            guest_phys_addr: self.physical + self.covered * PAGE_SIZE,
            memory_size: (to - self.covered) * PAGE_SIZE,
            userspace_addr: host_address + self.covered * PAGE_SIZE,
        };
        // SAFETY: the frames lie within the reserved region, which the machine's memory keeps alive, and which outlives
        // the VM as in `set_slot`.
        unsafe { vm.set_user_memory_region(region) }.map_err(error::create("KVM_SET_USER_MEMORY_REGION"))?;
        self.next += 1;
        self.covered = to;
        Ok(())
    }
}

/// Maps frames `from..to` into a memslot.
fn set_slot(vm: &VmFd, slot: u32, memory: &Memory, from: u64, to: u64) -> Result<(), CreateError> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: from * PAGE_SIZE,
        memory_size: (to - from) * PAGE_SIZE,
        userspace_addr: memory.host_address() + from * PAGE_SIZE,
    };
    // SAFETY: the frames lie within the mapping, which outlives the VM: a machine drops its processor before its memory.
    unsafe { vm.set_user_memory_region(region) }.map_err(error::create("KVM_SET_USER_MEMORY_REGION"))
}

/// Maps the shared region, if there is one, into a memslot of its own.
fn set_shared_slot(vm: &VmFd, memory: &Memory) -> Result<(), CreateError> {
    let Some(shared) = memory.shared() else { return Ok(()) };
    let region = kvm_userspace_memory_region {
        slot: 2,
        flags: 0,
        guest_phys_addr: SHARED_PHYSICAL,
        memory_size: shared.bytes(),
        userspace_addr: shared.host_address(),
    };
    // SAFETY: the slot is the whole of the region's mapping, which `memory` keeps alive, and which outlives the VM as
    // in `set_slot`.
    unsafe { vm.set_user_memory_region(region) }.map_err(error::create("KVM_SET_USER_MEMORY_REGION"))
}

/// Makes a vCPU return from `KVM_RUN`.
///
/// Setting the flag stops a run that is about to start. A signal to the thread ends a run that is in progress; its
/// handler sets the flag, in case the run was only about to start. Both happen on that thread: the handle stays on it.
#[derive(Debug)]
pub struct Kicker {
    immediate_exit: *mut u8,
}

impl Kicker {
    fn flag(&self) -> &AtomicU8 {
        // SAFETY: valid and aligned as long as the machine lives, which all methods require.
        unsafe { AtomicU8::from_ptr(self.immediate_exit) }
    }

    /// Makes the current or the next `KVM_RUN` return at once.
    ///
    /// # Safety
    ///
    /// The machine that made this handle must still exist.
    pub unsafe fn set(&self) {
        self.flag().store(1, Ordering::SeqCst);
    }

    /// Whether a run would return at once.
    ///
    /// # Safety
    ///
    /// The machine that made this handle must still exist.
    #[inline]
    #[must_use]
    pub unsafe fn is_set(&self) -> bool {
        self.flag().load(Ordering::Relaxed) != 0
    }

    /// Clears the flag.
    ///
    /// # Safety
    ///
    /// The machine that made this handle must still exist.
    pub unsafe fn clear(&self) {
        self.flag().store(0, Ordering::SeqCst);
    }
}

/// A first `KVM_RUN` that does not enter the guest. At a machine's first run KVM starts a thread for it (against huge
/// pages that programs execute), which the system may refuse (`EAGAIN`). Then the machine is not created, instead of
/// failing its first request.
fn begin(fd: &mut VcpuFd) -> Result<(), CreateError> {
    fd.set_kvm_immediate_exit(1);
    let begun = fd.run().map(|_| ());
    fd.set_kvm_immediate_exit(0);
    match begun {
        Err(error) if error.errno() != libc::EINTR => Err(error::create("KVM_RUN")(error)),
        _ => Ok(()),
    }
}

/// Exits off the hot path.
#[cold]
fn rare(exit: VcpuExit<'_>) -> RawExit {
    RawExit::Unexpected(match exit {
        VcpuExit::IoOut(port, data) => match (kernel::exception_vector(port), data) {
            (Some(vector), [_]) => return RawExit::Exception { vector },
            _ => Unexpected::Port { port },
        },
        VcpuExit::IoIn(port, _) => Unexpected::Port { port },
        VcpuExit::MmioRead(address, _) | VcpuExit::MmioWrite(address, _) => Unexpected::Mmio { address },
        VcpuExit::Shutdown => Unexpected::Shutdown,
        VcpuExit::FailEntry(reason, _) => Unexpected::Entry { reason },
        VcpuExit::Intr => return RawExit::Kicked,
        other => Unexpected::Other(format!("{other:?}")),
    })
}
