// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sources of a program's content: memory, or a file of which only the necessary parts are read.

use std::borrow::Cow;

use crate::host::files;

/// A program's content.
#[derive(Clone, Copy, Debug)]
pub enum Elf<'a> {
    /// In memory; the machine gets a copy.
    Bytes(&'a [u8]),
    /// A regular file, open for reading, which the machine maps, as Linux does. The file must not be changed in place
    /// while a machine, or an image or worker of one, exists.
    File(&'a std::fs::File),
}

impl<'a> Elf<'a> {
    /// The content in memory.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::File(_) => &[],
        }
    }
}

impl<'a> From<&'a [u8]> for Elf<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Elf<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// As [`Elf`], for reading.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ElfSource<'a> {
    Bytes(&'a [u8]),
    File { file: &'a files::HostFile, size: u64 },
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for ElfSource<'a> {
    fn from(bytes: &'a T) -> Self {
        Self::Bytes(bytes.as_ref())
    }
}

impl<'a> ElfSource<'a> {
    /// Size in bytes.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => size,
        }
    }

    /// Up to `len` bytes from `offset`; fewer at the end, and if a file cannot be read. The caller bounds `len`.
    pub(crate) fn read(self, offset: u64, len: usize) -> Cow<'a, [u8]> {
        match self {
            Self::Bytes(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                Cow::Borrowed(rest.get(..len).unwrap_or(rest))
            }
            Self::File { file, .. } => {
                let mut bytes = vec![0; len];
                let got = file.read_at(offset, &mut bytes, true).unwrap_or(0);
                bytes.truncate(got);
                Cow::Owned(bytes)
            }
        }
    }
}
