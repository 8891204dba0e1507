// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's KVM: opened once, and probed by its behaviour.

use std::sync::{Arc, OnceLock};

use kvm_bindings::kvm_sregs;
use kvm_ioctls::Kvm;

use crate::guest::cpuid::Features;
use crate::guest::kernel::{SyscallEntry, Variant};
use crate::guest::tsc::GuestTsc;
use mayfly_machine::CreateError;

/// The two kinds of KVM that Mayfly knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// VT-x or AMD-V with nested page tables, or an emulation of it.
    Hardware,
    /// Deprivileged guests under shadow page tables (PVM).
    Paging,
}

impl HostKind {
    /// The word used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Paging => "paging",
        }
    }
}

/// An opened and probed KVM; cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) kvm: Kvm,
    pub(crate) features: Features,
    pub(crate) variant: Variant,
    pub(crate) guest_xcr0: u64,
    pub(crate) guest_tsc: GuestTsc,
    /// Special registers of a new vCPU: the same for each.
    pub(crate) initial_sregs: OnceLock<kvm_sregs>,
}

impl Host {
    /// The kind of KVM.
    #[must_use]
    pub fn kind(&self) -> HostKind {
        match self.inner.variant.syscall {
            SyscallEntry::Supervisor => HostKind::Hardware,
            SyscallEntry::User => HostKind::Paging,
        }
    }

    /// The extended state components that guests see enabled in XCR0.
    #[must_use]
    pub fn guest_xcr0(&self) -> u64 {
        self.inner.guest_xcr0
    }

    /// Whether programs can compute the time from the host's time-stamp counter.
    #[must_use]
    pub fn shares_tsc(&self) -> bool {
        self.inner.guest_tsc != GuestTsc::Foreign
    }

    pub(crate) fn guest_tsc(&self) -> GuestTsc {
        self.inner.guest_tsc
    }

    pub(crate) fn kvm(&self) -> &Kvm {
        &self.inner.kvm
    }

    /// What `KVM_GET_SREGS` returns for a new vCPU; `ask` is called once.
    pub(crate) fn initial_sregs(
        &self,
        ask: impl FnOnce() -> Result<kvm_sregs, CreateError>,
    ) -> Result<kvm_sregs, CreateError> {
        if let Some(known) = self.inner.initial_sregs.get() {
            return Ok(*known);
        }
        let sregs = ask()?;
        Ok(*self.inner.initial_sregs.get_or_init(|| sregs))
    }

    /// The same, if it is known already.
    pub(crate) fn known_sregs(&self) -> Option<kvm_sregs> {
        self.inner.initial_sregs.get().copied()
    }

    pub(crate) fn features(&self) -> &Features {
        &self.inner.features
    }

    pub(crate) fn variant(&self) -> Variant {
        self.inner.variant
    }
}
