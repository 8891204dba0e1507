// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kinds of open files, and the operations on each.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::context::Stream;
use crate::base::ids::{InodeId, PollableId};
use crate::host::attributes::Attributes;
use crate::host::files;
use crate::host::listing::Listing;

/// What a descriptor refers to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Object {
    /// `/dev/null`; standard input too.
    Null,
    /// `/dev/zero`.
    Zero,
    /// `/dev/full`.
    Full,
    /// `/dev/random` or `/dev/urandom`.
    Random { urandom: bool },
    /// An output stream; the program sees it as the writing end of a pipe.
    Log(Stream),
    /// A synthetic file, with its content as of when it was opened.
    Text { content: Arc<[u8]>, attributes: Attributes },
    /// A regular file of a mount. The host's descriptor has no state that a program could change.
    Host(#[serde(with = "crate::host::file_table::host_file")] Arc<files::HostFile>),
    /// A file of the overlay, in the mount with this `device`.
    Memory { id: InodeId, device: u32 },
    /// A pipe, a socket, a counter, a timer, or an epoll.
    Pollable(PollableId),
    /// A directory. The first `getdents64` lists its entries.
    Directory { listing: Option<Arc<Listing>>, attributes: Attributes },
}

impl Object {
    /// Attributes of the devices, for `stat`.
    pub(crate) fn device_attributes(&self) -> Attributes {
        let minor = match self {
            Self::Zero => 5,
            Self::Full => 7,
            Self::Random { urandom: false } => 8,
            Self::Random { urandom: true } => 9,
            _ => 3,
        };
        Attributes { special: (1, minor), ..Attributes::synthetic(u64::from(minor), libc::S_IFCHR | 0o666) }
    }

    /// Bytes that the host stores for the open file: synthetic text, or a listing.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Text { content, .. } => content.len(),
            Self::Directory { listing: Some(listing), .. } => listing.bytes(),
            _ => 0,
        }
    }

    /// Whether it has positions: `pread` and `pwrite` work.
    pub(crate) fn has_position(&self) -> bool {
        !matches!(self, Self::Log(_) | Self::Pollable(_))
    }
}

/// Copies the part of `content` from `offset` on to `out`; returns the number of bytes.
pub(crate) fn copy(content: &[u8], offset: u64, out: &mut [u8]) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
    for (to, from) in out.iter_mut().zip(rest) {
        *to = *from;
    }
    out.len().min(rest.len())
}
