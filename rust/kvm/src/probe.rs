// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens the KVM device, and probes at start which kind of KVM it is by what a few guest instructions do.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use kvm_ioctls::{Cap, Kvm};
use mayfly_machine::layout::USER_MIN;
use mayfly_machine::{CreateError, MemoryError, PAGE_SIZE, Prot, read_tsc};
use mayfly_memory::layout::Reach;
use mayfly_memory::ledger::Account;
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::{Entry, Tables};

use crate::error::{self, HostError};
use crate::guest::cpuid;
use crate::guest::kernel::{self, SyscallEntry, USER_CODE, Variant};
use crate::guest::tsc::GuestTsc;
use crate::host::host::{Host, Inner};
use crate::processor::at::At;
use crate::processor::processor::Processor;
use crate::vcpu::vcpu::RawExit;

#[allow(clippy::disallowed_methods, reason = "by the descriptor of a device that was looked at")]
fn open(path: &Path) -> Result<Kvm, HostError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => HostError::Missing { path: path.into() },
        std::io::ErrorKind::PermissionDenied => HostError::Permission { path: path.into() },
        _ => HostError::Open { path: path.into(), source },
    };
    // `open_device` checked the file before it opened it; here it is opened again through its descriptor, or by its
    // name where `/proc` is not mounted.
    let device = mayfly_files::open_device(path).map_err(|problem| failed(problem.into()))?;
    let opened = CString::new(format!("/proc/self/fd/{}", device.as_raw_fd())).map_err(|error| failed(error.into()))?;
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    let kvm = Kvm::new_with_path(&opened)
        .or_else(|error| if error.errno() == libc::ENOENT { Kvm::new_with_path(&name) } else { Err(error) })
        .map_err(|error| failed(std::io::Error::from_raw_os_error(error.errno())))?;
    // A file that is not KVM answers this ioctl with an error, which is negative.
    if kvm.get_api_version() != 12 {
        return Err(HostError::Open {
            path: path.into(),
            source: std::io::Error::other("it does not speak KVM API version 12"),
        });
    }
    Ok(kvm)
}

/// A processor and its memory, with the probe's code at [`USER_MIN`].
struct Guest {
    processor: Processor,
    // Dropped after the processor, which has it mapped.
    _memory: Memory,
}

impl Guest {
    fn new(host: &Host) -> Result<Self, CreateError> {
        const FRAMES: u64 = 64;
        let limit = MemoryError::Limit { limit_pages: FRAMES };
        let mut memory = Memory::boot(FRAMES, &Account::default(), Reach::Mapping)?;
        let tables = Tables::new(&mut memory).ok_or(limit)?;
        tables.map_engine_pages(&mut memory, &kernel::pages(host.variant())).ok_or(limit)?;
        let frame = memory.allocate().ok_or(limit)?;
        let slot = tables.slot_or_create(&mut memory, USER_MIN).ok_or(limit)?;
        memory.write_u64(slot, Entry::user(frame, Prot::READ | Prot::EXEC).0);
        let code = kernel::probe_code();
        memory.slice_mut(frame * PAGE_SIZE, code.len()).copy_from(code);
        let mut processor = Processor::boot(host, &memory, tables)?;
        processor.set_regs(&kernel::user_regs(USER_MIN, USER_MIN + PAGE_SIZE));
        Ok(Self { processor, _memory: memory })
    }
}

/// Runs a few guest instructions and checks what they did. Returns the guest's XCR0, and what its `rdtsc` reads.
fn probe(host: &Host) -> Result<(u64, GuestTsc), String> {
    let mut guest = Guest::new(host).map_err(|error| error.to_string())?;
    let machine = &mut guest.processor;
    let mut expect = |wanted: RawExit| {
        let exit = machine.vcpu.run().map_err(|error| error.to_string())?;
        if exit == wanted {
            Ok(machine.vcpu.regs())
        } else {
            let regs = machine.vcpu.regs();
            Err(format!("{exit:?} where {wanted:?} was expected (rip {:#x})", regs.rip))
        }
    };
    expect(RawExit::Doorbell)?;
    let regs = expect(RawExit::Doorbell)?;
    let xcr0 = regs.rdx << 32 | regs.rax & 0xffff_ffff;
    expect(RawExit::Syscall)?;
    let at_user = machine.vcpu.get_sregs().map_err(|error| error.to_string())?.cs.selector == USER_CODE;
    let expects_user = host.variant().syscall == SyscallEntry::User;
    if at_user != expects_user {
        return Err(format!("`syscall` {} CPL 3", if at_user { "stays at" } else { "leaves" }));
    }
    machine.at = At::Syscall;
    machine.return_from_syscall(0).map_err(|error| error.to_string())?;
    let exit = machine.vcpu.run().map_err(|error| error.to_string())?;
    if exit != RawExit::Doorbell {
        return Err(format!("{exit:?} after returning from `syscall`"));
    }
    let guest_tsc = if reads_host_tsc(machine)? {
        GuestTsc::Same
    } else if machine.vcpu.clear_tsc_offset().is_ok() && reads_host_tsc(machine)? {
        GuestTsc::WithoutOffset
    } else {
        GuestTsc::Foreign
    };
    Ok((xcr0, guest_tsc))
}

/// Whether the probe's `rdtsc` reads a value between two of the host's. A counter of the guest's own would have started
/// with its vCPU, some microseconds ago; the host's started with the host.
fn reads_host_tsc(machine: &mut Processor) -> Result<bool, String> {
    let before = read_tsc();
    let exit = machine.vcpu.run().map_err(|error| error.to_string())?;
    let after = read_tsc();
    if exit != RawExit::Doorbell {
        return Err(format!("{exit:?} after `rdtsc`"));
    }
    let regs = machine.vcpu.regs();
    let read = regs.rdx << 32 | regs.rax & 0xffff_ffff;
    Ok((before..=after).contains(&read))
}

impl Host {
    /// Opens the KVM device at `path` (normally `/dev/kvm`) and runs the probe.
    ///
    /// ```
    /// use mayfly_kvm::{Host, HostError};
    ///
    /// match Host::open("/dev/kvm".as_ref()) {
    ///     Ok(host) => println!("{} KVM", host.kind().name()),
    ///     Err(error) => println!("{error}"),
    /// }
    /// assert!(matches!(Host::open("/nowhere".as_ref()), Err(HostError::Missing { .. })));
    /// ```
    ///
    /// # Errors
    ///
    /// [`HostError`] says what is missing and what to do about it.
    pub fn open(path: &Path) -> Result<Self, HostError> {
        let kvm = open(path)?;
        for (cap, what) in [
            (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        ] {
            if !kvm.check_extension(cap) {
                return Err(HostError::Lacks { what });
            }
        }
        let supported = kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(error::create("KVM_GET_SUPPORTED_CPUID"))?;
        let native = cpuid::features(None).ok_or(HostError::Lacks { what: "a usable CPUID" })?;
        let limited = cpuid::features(Some(supported.as_slice())).ok_or(HostError::Lacks { what: "a usable CPUID" })?;

        // The order matters little: each combination either behaves or is refused.
        let mut seen = String::new();
        for syscall in [SyscallEntry::Supervisor, SyscallEntry::User] {
            for task_type in [11, 9] {
                let variant = Variant { syscall, task_type };
                let features = match syscall {
                    SyscallEntry::Supervisor => limited.clone(),
                    SyscallEntry::User => native.clone(),
                };
                let host = Self {
                    inner: Arc::new(Inner {
                        kvm: open(path)?,
                        features,
                        variant,
                        guest_xcr0: 0,
                        guest_tsc: GuestTsc::Same,
                        initial_sregs: OnceLock::new(),
                    }),
                };
                match probe(&host) {
                    Ok((xcr0, guest_tsc)) => {
                        if !host.features().xsave {
                            return Err(HostError::Lacks { what: "XSAVE" });
                        }
                        if !host.features().fsgsbase {
                            return Err(HostError::Lacks { what: "the FSGSBASE instructions" });
                        }
                        let Inner { features, .. } = &*host.inner;
                        let features = features.clone();
                        return Ok(Self {
                            inner: Arc::new(Inner {
                                kvm,
                                features,
                                variant,
                                guest_xcr0: xcr0,
                                guest_tsc,
                                initial_sregs: OnceLock::new(),
                            }),
                        });
                    }
                    Err(reason) => {
                        seen.push_str(&format!("{syscall:?}/{task_type}: {reason}; "));
                    }
                }
            }
        }
        Err(HostError::Probe { what: seen })
    }
}
