// SPDX-License-Identifier: MIT OR Apache-2.0
//! The floor: the least that KVM costs on this host, for comparison with Mayfly's figures.
//!
//! It uses nothing of this crate's machine, so that a mistake there cannot hide here. A floor machine is the smallest
//! one that does what every request must do: code at CPL 3 exits by one `out`, and the next `KVM_RUN` enters it again.
//!
//! ```text
//! guest-physical = guest-virtual    0x1000 PML4   0x2000 PDPT   0x3000 PD   0x4000 PT
//!                                   0x5000 code   0x6000 TSS and I/O bitmap 0x7000 GDT
//! ```

use std::io;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use mayfly_machine::{CreateError, RunError};

use crate::error;

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const CODE: u64 = 0x5000;
const TSS: u64 = 0x6000;
const GDT: u64 = 0x7000;
const MEMORY_BYTES: usize = 0x8000;
const PORT: u16 = 0xd0;
/// `1: outb %al, $PORT; jmp 1b`
const LOOP: [u8; 4] = [0xe6, PORT as u8, 0xeb, 0xfc];

/// Offset of the I/O bitmap in a 64-bit TSS that holds nothing else (Intel SDM volume 3, "TSS in 64-bit mode").
const IO_BITMAP: u64 = 0x68;
/// The bits of every port up to [`PORT`]'s byte, and the byte of ones that must follow them.
const IO_BITMAP_BYTES: usize = PORT as usize / 8 + 2;
const USER_CODE: u16 = 0x1b;
const USER_DATA: u16 = 0x23;
const TASK: u16 = 0x28;
/// Descriptors 1 to 4: code and data of CPL 0, code and data of CPL 3. Only the host loads the task register.
const DESCRIPTORS: [u64; 5] =
    [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00af_fb00_0000_ffff, 0x00cf_f300_0000_ffff];

/// Types of a 64-bit TSS descriptor. VT-x demands the busy one; QEMU's emulated AMD-V honours the I/O bitmap of the
/// other only.
const TSS_BUSY: u8 = 11;
const TSS_AVAILABLE: u8 = 9;

/// Page-table entry: present, writable, for CPL 3.
const ENTRY: u64 = 0b111;

/// Makes bare virtual machines: `KVM_CREATE_VM`, one vCPU, one memslot, and nothing set up in them.
#[derive(Debug)]
pub struct BareVms {
    kvm: Kvm,
    memory: GuestMemoryMmap,
}

/// One bare virtual machine; dropping it closes its descriptors.
#[derive(Debug)]
pub struct BareVm {
    vcpu: VcpuFd,
    _vm: VmFd,
    /// The memslot's pages: dropped last, and mapped for as long as any machine can reach them.
    _memory: GuestMemoryMmap,
}

impl BareVms {
    /// Opens KVM and maps the few pages that the machines share, so that making one costs no more than its ioctls.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if `/dev/kvm` cannot be opened or there is no memory.
    pub fn new() -> Result<Self, CreateError> {
        let kvm = Kvm::new().map_err(error::create("open /dev/kvm"))?;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).map_err(|_| no_memory())?;
        Ok(Self { kvm, memory })
    }

    /// Creates a machine.
    ///
    /// # Errors
    ///
    /// [`CreateError::Call`] names the ioctl that failed.
    pub fn create(&self) -> Result<BareVm, CreateError> {
        let vm = self.kvm.create_vm().map_err(error::create("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(error::create("KVM_CREATE_VCPU"))?;
        let host = self.memory.get_host_address(GuestAddress(0)).map_err(|_| no_memory())?;
        let slot = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY_BYTES as u64,
            userspace_addr: host as u64,
        };
        // SAFETY: the slot covers exactly the mapping of `memory`, which the machine keeps alive past its own
        // descriptors. The host forms no reference into it.
        unsafe { vm.set_user_memory_region(slot) }.map_err(error::create("KVM_SET_USER_MEMORY_REGION"))?;
        Ok(BareVm { vcpu, _vm: vm, _memory: self.memory.clone() })
    }
}

/// What the kernel said when it refused the few pages.
fn no_memory() -> CreateError {
    CreateError::map(MEMORY_BYTES as u64)(io::Error::last_os_error())
}

/// A machine whose user code does `out` in a loop.
///
/// ```
/// use mayfly_kvm::floor::Floor;
///
/// let Ok(mut floor) = Floor::new() else { return Ok(()) }; // There is no KVM here.
/// let start = std::time::Instant::now();
/// floor.round_trip()?;
/// println!("KVM takes {:?} for a round trip", start.elapsed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Floor {
    machine: BareVm,
}

impl Floor {
    /// Makes the machine and checks that it makes a round trip.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if KVM refuses a step, or the code does not reach its `out`.
    pub fn new() -> Result<Self, CreateError> {
        Self::with_task_type(TSS_BUSY).or_else(|_| Self::with_task_type(TSS_AVAILABLE))
    }

    fn with_task_type(task_type: u8) -> Result<Self, CreateError> {
        let vms = BareVms::new()?;
        fill(&vms.memory).map_err(|_| no_memory())?;
        let machine = vms.create()?;
        let cpuid =
            vms.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(error::create("KVM_GET_SUPPORTED_CPUID"))?;
        machine.vcpu.set_cpuid2(&cpuid).map_err(error::create("KVM_SET_CPUID2"))?;
        let mut sregs = machine.vcpu.get_sregs().map_err(error::create("KVM_GET_SREGS"))?;
        enter_user_mode(&mut sregs, task_type);
        machine.vcpu.set_sregs(&sregs).map_err(error::create("KVM_SET_SREGS"))?;
        let regs = kvm_regs { rip: CODE, rflags: 0x202, ..Default::default() };
        machine.vcpu.set_regs(&regs).map_err(error::create("KVM_SET_REGS"))?;
        let mut floor = Self { machine };
        floor.round_trip().map_err(|error| CreateError::Call { call: error.call, source: error.source })?;
        Ok(floor)
    }

    /// One `KVM_RUN`: into the guest at CPL 3 and out again.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the ioctl fails, or the guest exits by anything but its `out`.
    pub fn round_trip(&mut self) -> Result<(), RunError> {
        match self.machine.vcpu.run() {
            Ok(VcpuExit::IoOut(PORT, _)) => Ok(()),
            Ok(exit) => {
                Err(RunError { call: "KVM_RUN", source: io::Error::other(format!("unexpected exit {exit:?}")) })
            }
            Err(error) => Err(error::run("KVM_RUN")(error)),
        }
    }
}

/// Writes tables, code, TSS and GDT.
fn fill(memory: &GuestMemoryMmap) -> Result<(), vm_memory::GuestMemoryError> {
    for (table, next) in [(PML4, PDPT), (PDPT, DIRECTORY), (DIRECTORY, TABLE)] {
        memory.write_obj(next | ENTRY, GuestAddress(table))?;
    }
    for page in [CODE, TSS, GDT] {
        memory.write_obj(page | ENTRY, GuestAddress(TABLE + page / 4096 * 8))?;
    }
    memory.write_slice(&LOOP, GuestAddress(CODE))?;
    memory.write_obj(IO_BITMAP as u16, GuestAddress(TSS + 0x66))?;
    let mut bitmap = [0xff_u8; IO_BITMAP_BYTES];
    bitmap[PORT as usize / 8] &= !(1 << (PORT % 8));
    memory.write_slice(&bitmap, GuestAddress(TSS + IO_BITMAP))?;
    for (index, descriptor) in DESCRIPTORS.iter().enumerate() {
        memory.write_obj(*descriptor, GuestAddress(GDT + index as u64 * 8))?;
    }
    Ok(())
}

/// 64-bit mode with paging, at CPL 3. There is no IDT: an exception would end the machine, which `round_trip` reports.
fn enter_user_mode(sregs: &mut kvm_sregs, task_type: u8) {
    let flat = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: USER_DATA,
        type_: 3,
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment { selector: USER_CODE, type_: 11, db: 0, l: 1, ..flat };
    (sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs) = (flat, flat, flat, flat, flat);
    sregs.tr = kvm_segment {
        base: TSS,
        limit: (IO_BITMAP as usize + IO_BITMAP_BYTES - 1) as u32,
        selector: TASK,
        type_: task_type,
        present: 1,
        ..Default::default()
    };
    sregs.gdt = kvm_dtable { base: GDT, limit: (DESCRIPTORS.len() * 8 - 1) as u16, ..Default::default() };
    sregs.idt = kvm_dtable::default();
    sregs.cr0 = 0x8000_0033; // PG, NE, ET, MP, PE
    sregs.cr3 = PML4;
    sregs.cr4 = 0x620; // PAE, OSFXSR, OSXMMEXCPT
    sregs.efer = 0xd01; // NXE, LMA, LME, SCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_makes_round_trips() {
        let mut floor = Floor::new().unwrap();
        for _ in 0..100 {
            floor.round_trip().unwrap();
        }
    }

    #[test]
    fn bare_machines_can_be_made_side_by_side() {
        let vms = BareVms::new().unwrap();
        let machines: Vec<_> = (0..4).map(|_| vms.create().unwrap()).collect();
        drop(vms);
        drop(machines);
    }
}
