// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image depends on, on either engine.

use serde::{Deserialize, Serialize};

use crate::host::{EngineHost, Host};

/// See the engines' own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fingerprint {
    #[cfg(feature = "kvm")]
    Kvm(mayfly_kvm::Fingerprint),
    #[cfg(feature = "process")]
    Process(mayfly_process::Fingerprint),
}

/// Why an image cannot run on a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintMismatch {
    /// It belongs to another engine.
    #[error("it was saved on the engine \"{saved}\", and the program now runs on \"{here}\"")]
    Engine {
        /// That engine.
        saved: &'static str,
        /// The engine on which it was to run.
        here: &'static str,
    },
    /// Something else of KVM.
    #[cfg(feature = "kvm")]
    #[error(transparent)]
    Kvm(#[from] mayfly_kvm::FingerprintMismatch),
    /// Something else of processes.
    #[cfg(feature = "process")]
    #[error(transparent)]
    Process(#[from] mayfly_process::FingerprintMismatch),
}

impl Fingerprint {
    pub(crate) fn of(host: &Host) -> Self {
        match &host.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(host) => Self::Kvm(mayfly_kvm::Fingerprint::of(host)),
            #[cfg(feature = "process")]
            EngineHost::Process(_) => Self::Process(mayfly_process::Fingerprint::here()),
        }
    }

    /// Checks whether an image with this fingerprint can run on `host`.
    pub(crate) fn check(&self, host: &Host) -> Result<(), FingerprintMismatch> {
        match (self, &host.engine) {
            #[cfg(feature = "kvm")]
            (Self::Kvm(saved), EngineHost::Kvm(host)) => Ok(saved.check(host)?),
            #[cfg(feature = "process")]
            (Self::Process(saved), EngineHost::Process(_)) => Ok(saved.check()?),
            #[cfg(all(feature = "kvm", feature = "process"))]
            (Self::Kvm(_), _) => Err(FingerprintMismatch::Engine { saved: "kvm", here: "process" }),
            #[cfg(all(feature = "kvm", feature = "process"))]
            (Self::Process(_), _) => Err(FingerprintMismatch::Engine { saved: "process", here: "kvm" }),
        }
    }
}
