// SPDX-License-Identifier: MIT OR Apache-2.0
//! What may be done with a page.

use serde::{Deserialize, Serialize};

/// Access that a page grants; the values are those of `PROT_*` in `<sys/mman.h>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Prot(u8);

impl TryFrom<u8> for Prot {
    type Error = &'static str;

    fn try_from(bits: u8) -> Result<Self, Self::Error> {
        Self::from_bits(bits.into()).ok_or("no protection")
    }
}

impl From<Prot> for u8 {
    fn from(prot: Prot) -> Self {
        prot.bits()
    }
}

impl Prot {
    /// No access.
    pub const NONE: Self = Self(0);
    /// Reading.
    pub const READ: Self = Self(1);
    /// Writing; x86 pages that can be written can be read.
    pub const WRITE: Self = Self(2);
    /// Instruction fetch.
    pub const EXEC: Self = Self(4);

    /// The protection of these `PROT_*` bits; unknown bits give `None`.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits <= 7 { Some(Self(bits as u8)) } else { None }
    }

    /// The `PROT_*` bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both protections together; as `|`, in constants.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This protection without what `other` grants.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is granted.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Prot {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// A page that an engine maps into every machine that boots, among those of [`layout`](crate::layout).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnginePage {
    /// Its address.
    pub address: u64,
    /// Whether the program may reach it.
    pub user: bool,
    /// What may be done with it.
    pub prot: Prot,
    /// Its first bytes; the rest is zero.
    pub bytes: Vec<u8>,
}
