// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors of the machine, one type per operation.

use std::path::PathBuf;

use mayfly_machine::MemoryError;

/// Why this host cannot run machines.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The KVM device does not exist.
    #[error(
        "{path} does not exist: this host offers no KVM (load kvm_intel, kvm_amd or kvm_pvm, or enable nested virtualisation)"
    )]
    Missing {
        /// The device that was tried.
        path: PathBuf,
    },
    /// The KVM device exists but may not be opened.
    #[error(
        "no permission to open {path}: add the server's user to the group that owns it (usually `kvm`), or pass the device into the container"
    )]
    Permission {
        /// The device that was tried.
        path: PathBuf,
    },
    /// The KVM device could not be opened for another reason, or is not one.
    #[error("cannot use {path} as KVM: {source}")]
    Open {
        /// The device that was tried.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// KVM lacks something that Mayfly needs.
    #[error("this host's KVM lacks {what}")]
    Lacks {
        /// The missing capability or processor feature.
        what: &'static str,
    },
    /// The probe machine did something that no known kind of KVM does.
    #[error("the start-up probe failed: {what}")]
    Probe {
        /// What was seen.
        what: String,
    },
    /// The probe machine could not be made.
    #[error("the start-up probe failed: {0}")]
    Create(#[from] CreateError),
}

/// Why a machine could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A KVM ioctl failed.
    #[error("{call}: {source}")]
    Kvm {
        /// The ioctl.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Guest memory could not be mapped.
    #[error("guest memory of {bytes} bytes: {source}")]
    Map {
        /// Size asked for.
        bytes: u64,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel pages or the inbox did not fit.
    #[error("guest memory: {0}")]
    Memory(#[from] MemoryError),
}

impl CreateError {
    pub(crate) fn kvm(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm { call, source: std::io::Error::from_raw_os_error(error.errno()) }
    }

    /// Whether the process's bound on memory is the reason.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Memory(MemoryError::Full))
    }

    pub(crate) fn map(bytes: u64) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Map { bytes, source }
    }
}

/// `KVM_RUN` or another vCPU ioctl failed on the host's side.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct RunError {
    /// The ioctl.
    pub call: &'static str,
    /// What the kernel said.
    pub source: std::io::Error,
}

impl RunError {
    pub(crate) fn kvm(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |error| Self { call, source: std::io::Error::from_raw_os_error(error.errno()) }
    }
}

/// Why a machine could not be frozen into an image.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// Reading the vCPU's state failed.
    #[error(transparent)]
    Vcpu(#[from] RunError),
    /// Sealing or mapping the image failed.
    #[error("{call}: {source}")]
    Image {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The vCPU is not in user mode where it could be resumed.
    #[error("the machine is not at a point where it can be frozen: {0}")]
    State(String),
}

impl FreezeError {
    pub(crate) fn image(call: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Image { call, source }
    }
}

/// Why an image could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Its machines share memory, which is not a part of the image.
    #[error("the program has memory that its workers share")]
    Shared,
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Why an image could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It was made on a host with another fingerprint.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintMismatch),
    /// Its content is not what was saved.
    #[error("the file is damaged: {0}")]
    Corrupt(&'static str),
    /// The process's bound on memory is reached.
    #[error("the process's bound on memory is reached")]
    Full,
    /// A file that it has pages of is shorter now, or cannot be mapped.
    #[error("a file that the program has mapped cannot be mapped as it was")]
    Files,
    /// The memory could not be sealed.
    #[error(transparent)]
    Seal(#[from] FreezeError),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Why an image cannot run on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintMismatch {
    /// A machine enters its guest kernel in another way.
    #[error("it was made on another kind of KVM")]
    Kvm,
    /// The guest kernel has changed.
    #[error("it has the guest kernel of another Mayfly")]
    Kernel,
    /// Programs have other vector registers.
    #[error("its processor state has the components {saved:#x}, and this host's has {here:#x}")]
    State {
        /// The image's.
        saved: u64,
        /// The host's.
        here: u64,
    },
    /// Programs see another processor.
    #[error("it was made on another processor: they differ in leaf {function:#x}.{index} of CPUID")]
    Cpuid {
        /// The first leaf that differs.
        function: u32,
        /// Its index.
        index: u32,
    },
}
