// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why an entry failed.

use mayfly_admin::AdminError;
use mayfly_tenancy as tenancy;

use crate::guard::Panicked;

/// Why an entry other than a call failed; C++ sees its text as the exception's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] tenancy::ConfigError),
    /// The tenants could not be started.
    #[error(transparent)]
    Start(#[from] tenancy::StartError),
    /// Operators would not reach the server, or changes of files would go unseen.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A tenant goes on as it was.
    #[error(transparent)]
    Reload(#[from] tenancy::ReloadError),
    /// A report could not be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A limit of the process is too low.
    #[error(transparent)]
    TooLow(#[from] tenancy::TooLow),
    /// A bug in Mayfly.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}
