// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an open file can be, and what can be done with each kind.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use super::listing::Listing;
use crate::calls::{prompt, written};
use crate::errno::{Errno, Halt};
use crate::host;
use crate::overlay::InodeId;
use crate::pollables::{LOG_READINESS, Look, PollableId, bits};
use crate::process::{Process, Stream};
use crate::table::Call;

/// What a descriptor stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Object {
    /// `/dev/null`; also what standard input is.
    Null,
    /// `/dev/zero`.
    Zero,
    /// `/dev/full`.
    Full,
    /// `/dev/random` or `/dev/urandom`.
    Random { urandom: bool },
    /// An output stream: to the program it is the writing end of a pipe.
    Log(Stream),
    /// A file whose content was made up when it was opened.
    Text { content: Arc<[u8]>, attributes: Attributes },
    /// A regular file of a mount. The host's descriptor has no state of the program's.
    Host(#[serde(with = "crate::saved::host_file")] Arc<host::File>),
    /// A file that the program has written, in the mount that is `device`.
    Memory { id: InodeId, device: u32 },
    /// A pipe, a socket, a counter, a timer, an epoll.
    Pollable(PollableId),
    /// A directory; its entries are there from the first `getdents64` on.
    Directory { listing: Option<Arc<Listing>>, attributes: Attributes },
}

impl Object {
    /// What `fstat` tells.
    pub(crate) fn attributes(&self, process: &Process) -> Result<Attributes, Errno> {
        Ok(match self {
            Self::Memory { id, device } => process.overlay.file_attributes(*id, *device),
            Self::Null | Self::Zero | Self::Full | Self::Random { .. } => self.device_attributes(),
            Self::Log(Stream::Stdout) => Attributes::made_up(2, libc::S_IFIFO | 0o600),
            Self::Log(Stream::Stderr) => Attributes::made_up(3, libc::S_IFIFO | 0o600),
            Self::Text { attributes, .. } | Self::Directory { attributes, .. } => *attributes,
            Self::Host(file) => file.attributes(process.may_block)?,
            Self::Pollable(id) => process.pollables.attributes(*id),
        })
    }

    /// What `stat` tells of the devices.
    pub(crate) fn device_attributes(&self) -> Attributes {
        let minor = match self {
            Self::Zero => 5,
            Self::Full => 7,
            Self::Random { urandom: false } => 8,
            Self::Random { urandom: true } => 9,
            _ => 3,
        };
        Attributes { special: (1, minor), ..Attributes::made_up(u64::from(minor), libc::S_IFCHR | 0o666) }
    }

    /// Reads into `out` what lies at `offset`; less than asked for means the file's end.
    pub(crate) fn read_at(&self, call: &mut Call<'_, '_>, offset: u64, out: &mut [u8]) -> Result<usize, Halt> {
        match self {
            Self::Null => Ok(0),
            Self::Zero | Self::Full => {
                out.fill(0);
                Ok(out.len())
            }
            Self::Random { .. } => {
                (call.context.rng)(out);
                Ok(out.len())
            }
            Self::Log(_) => Err(Errno::EBADF.into()),
            Self::Text { content, .. } => Ok(copy(content, offset, out)),
            Self::Memory { id, .. } => {
                if call.process.memory.has_written() {
                    prompt::check_file(call, *id)?;
                }
                written::refresh(call, *id, offset, out.len() as u64);
                Ok(copy(call.process.overlay.content(*id), offset, out))
            }
            Self::Host(file) => Ok(file.read_at(offset, out, call.process.may_block)?),
            Self::Directory { .. } => Err(Errno::EISDIR.into()),
            // These are read by `calls/transfer.rs`.
            Self::Pollable(_) => Err(Errno::EINVAL.into()),
        }
    }

    /// Bytes that the host keeps for it: what was made up or listed when it was opened.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Text { content, .. } => content.len(),
            Self::Directory { listing: Some(listing), .. } => listing.bytes(),
            _ => 0,
        }
    }

    /// Whether it has a position: `pread` and `pwrite` work.
    pub(crate) fn has_position(&self) -> bool {
        !matches!(self, Self::Log(_) | Self::Pollable(_))
    }

    /// What it is ready for, in the bits of `poll`.
    pub(crate) fn readiness(&self, process: &Process, look: &mut Look) -> u32 {
        match self {
            Self::Log(_) => LOG_READINESS,
            Self::Pollable(id) => process.pollables.readiness(*id, look),
            Self::Null
            | Self::Zero
            | Self::Full
            | Self::Random { .. }
            | Self::Text { .. }
            | Self::Host(_)
            | Self::Memory { .. }
            | Self::Directory { .. } => bits::READ | bits::WRITE,
        }
    }
}

/// Copies what `content` has at `offset`; returns how much.
fn copy(content: &[u8], offset: u64, out: &mut [u8]) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
    for (to, from) in out.iter_mut().zip(rest) {
        *to = *from;
    }
    out.len().min(rest.len())
}
