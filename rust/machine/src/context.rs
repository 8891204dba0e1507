// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processor state of user code.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::regs::Regs;

/// Bytes of a [`VectorState`].
pub const VECTOR_STATE_BYTES: usize = 4096;
/// The same in words of 32 bits.
const WORDS: usize = VECTOR_STATE_BYTES / 4;

/// Vector and x87 state: an XSAVE area in the standard format (Intel SDM vol. 1, 13.4), and the engine's data behind
/// it.
///
/// ```
/// use mayfly_machine::{VECTOR_STATE_BYTES, VectorState};
///
/// let state = VectorState::from_words([0; VECTOR_STATE_BYTES / 4]).with_bytes(&[1, 2, 3, 4]);
/// assert_eq!(state.to_bytes()[..5], [1, 2, 3, 4, 0]);
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct VectorState(Arc<[u32; WORDS]>);

impl std::fmt::Debug for VectorState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VectorState").finish_non_exhaustive()
    }
}

impl From<VectorState> for Vec<u8> {
    fn from(state: VectorState) -> Self {
        state.to_bytes()
    }
}

impl TryFrom<Vec<u8>> for VectorState {
    type Error = &'static str;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        if bytes.len() != VECTOR_STATE_BYTES {
            return Err("vector state of another size");
        }
        Ok(Self::from_words([0; WORDS]).with_bytes(&bytes))
    }
}

impl VectorState {
    /// The state that these words are.
    #[must_use]
    pub fn from_words(words: [u32; WORDS]) -> Self {
        Self(Arc::new(words))
    }

    /// Its words.
    #[must_use]
    pub fn words(&self) -> &[u32; WORDS] {
        &self.0
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// State with these first bytes, in whole words, and the rest of `self`. The engine refuses invalid state.
    #[must_use]
    pub fn with_bytes(&self, bytes: &[u8]) -> Self {
        let mut words = *self.0;
        for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = four.try_into().map_or(*word, u32::from_le_bytes);
        }
        Self::from_words(words)
    }
}

/// All that user code can change in the processor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserContext {
    /// General registers, RIP and RFLAGS among them.
    pub regs: Regs,
    /// The FS base: the thread pointer.
    pub fs_base: u64,
    /// The GS base.
    pub gs_base: u64,
    /// The rest.
    pub vector: VectorState,
}
