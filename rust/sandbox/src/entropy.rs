// SPDX-License-Identifier: MIT OR Apache-2.0
//! Randomness for requests: fresh for each, without a system call.
//!
//! Every worker has a ChaCha12 generator of its own (the standard generator of the `rand` crate), seeded from the
//! operating system when it is forked. It lives in host memory, so reset does not touch it and no guest can read it:
//! the bytes of one request say nothing about those of another.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A worker's generator.
#[derive(Debug)]
pub(crate) struct Entropy(ChaCha12Rng);

/// Why a generator got no seed.
#[derive(Debug, thiserror::Error)]
#[error("getrandom: {0}")]
pub struct EntropyError(std::io::Error);

impl Entropy {
    /// A generator with a seed from the operating system.
    pub(crate) fn new() -> Result<Self, EntropyError> {
        ChaCha12Rng::try_from_os_rng().map(Self).map_err(|error| EntropyError(std::io::Error::other(error)))
    }

    #[inline]
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}
