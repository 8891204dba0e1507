// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors of the entries.

use mayfly_admin::AdminError;
use mayfly_tenancy as tenancy;

use crate::guard::Panicked;

/// Why an entry other than a call failed. Its text becomes that of the C++ exception.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] tenancy::ConfigError),
    /// The tenants cannot start.
    #[error(transparent)]
    Start(#[from] tenancy::StartError),
    /// The admin thread cannot start.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A reload failed; the tenant goes on unchanged.
    #[error(transparent)]
    Reload(#[from] tenancy::ReloadError),
    /// A report cannot be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A limit of the process is too low.
    #[error(transparent)]
    TooLow(#[from] tenancy::TooLow),
    /// A bug in Mayfly.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}
