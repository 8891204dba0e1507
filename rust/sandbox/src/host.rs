// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host, as the floors above see it: they do not know that it is KVM.

use std::path::PathBuf;

pub use mayfly_kvm::HostError;

use crate::time::{timekeeping, watchdog};

/// The environment variable that names another KVM device than `/dev/kvm`, as containers and tests need.
pub const DEVICE_VARIABLE: &str = "MAYFLY_KVM_PATH";

/// A host that can run machines; cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) machine: mayfly_kvm::Host,
}

/// What kind of host this is, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// `hardware` or `paging`.
    pub kvm: &'static str,
    /// Extended state components that programs can use, as XCR0 has them.
    pub xcr0: u64,
    /// Whether programs read the time without a system call.
    pub clocks: bool,
}

impl Host {
    /// Opens the host's KVM and probes it.
    ///
    /// ```
    /// use mayfly_sandbox::Host;
    ///
    /// match Host::open() {
    ///     Ok(host) => println!("{:?}", host.report()),
    ///     Err(error) => println!("cannot run programs here: {error}"),
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`HostError`] says what is missing and what an operator can do.
    pub fn open() -> Result<Self, HostError> {
        let path = std::env::var_os(DEVICE_VARIABLE).map_or_else(|| PathBuf::from("/dev/kvm"), PathBuf::from);
        watchdog::survive_file_size_limit();
        let machine = mayfly_kvm::Host::open(&path)?;
        timekeeping::begin();
        Ok(Self { machine })
    }

    /// The same host, for machines whose memory is charged to `account`.
    #[must_use]
    pub fn on_account(&self, account: &mayfly_kvm::Account) -> Self {
        Self { machine: self.machine.on_account(account) }
    }

    /// What kind of host this is.
    #[must_use]
    pub fn report(&self) -> HostReport {
        HostReport {
            kvm: self.machine.kind().name(),
            xcr0: self.machine.guest_xcr0(),
            clocks: self.machine.shares_tsc() && timekeeping::line().is_some_and(|line| line.rate != 0),
        }
    }
}
