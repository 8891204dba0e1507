// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors of images in files.

use mayfly_machine::FreezeError;

use crate::fingerprint::FingerprintMismatch;

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
