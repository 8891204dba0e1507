// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors of the machine, one type per operation.

use std::path::PathBuf;

use mayfly_machine::{CreateError, RunError};

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

/// An ioctl's error, as that of creating a machine.
pub(crate) fn create(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> CreateError {
    move |error| CreateError::Call { call, source: std::io::Error::from_raw_os_error(error.errno()) }
}

/// An ioctl's error, as that of running one.
pub(crate) fn run(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> RunError {
    move |error| RunError { call, source: std::io::Error::from_raw_os_error(error.errno()) }
}
