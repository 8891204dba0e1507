// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on open files that need the process.

use crate::base::context::Stream;
use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::event::look::{LOG_READINESS, Look};
use crate::event::poll_bits::bits;
use crate::fs::calls::{fifos, overlay_mappings};
use crate::fs::object::{Object, copy};
use crate::fs::open_files::OpenFile;
use crate::fs::view::find::plain;
use crate::fs::view::fs_view::FsView;
use crate::fs::view::lookup;
use crate::host::attributes::Attributes;
use crate::kernel::call::Call;
use crate::kernel::process::Process;

impl OpenFile {
    /// For `fstat`.
    pub(crate) fn attributes(&self, view: FsView<'_>) -> Result<Attributes, Errno> {
        let attributes = self.object.attributes(view)?;
        let is_directory = matches!(self.object, Object::Directory { .. });
        // That of a durable mount may have changed since it was opened.
        if is_directory
            && let Some((mount, rest)) = view.process.shared.mounts.find(plain(&self.path))
            && mount.durable.is_some()
        {
            return match lookup::look_in(view, mount, rest) {
                Ok(node) if node.attributes.inode == attributes.inode => Ok(node.attributes),
                Err(Errno::NOT_HERE) => Err(Errno::NOT_HERE),
                _ => Ok(attributes),
            };
        }
        Ok(if is_directory { view.process.overlay.directory(plain(&self.path), attributes) } else { attributes })
    }
}

impl Object {
    /// Reads at `offset` into `out`; a short read means the end of the file.
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
            Self::Memory { id, .. } => Ok(overlay_mappings::read(call, *id, offset, out)?),
            Self::Host(file) => Ok(file.read_at(offset, out, call.context.may_block)?),
            Self::Directory { .. } => Err(Errno::EISDIR.into()),
            // `fs/calls/pollables.rs` reads these.
            Self::Pollable(_) => Err(Errno::EINVAL.into()),
        }
    }

    /// For `fstat`.
    pub(crate) fn attributes(&self, view: FsView<'_>) -> Result<Attributes, Errno> {
        Ok(match self {
            Self::Memory { id, device } => view.process.overlay.inodes().attributes(*id, *device),
            Self::Null | Self::Zero | Self::Full | Self::Random { .. } => self.device_attributes(),
            Self::Log(Stream::Stdout) => Attributes::synthetic(2, libc::S_IFIFO | 0o600),
            Self::Log(Stream::Stderr) => Attributes::synthetic(3, libc::S_IFIFO | 0o600),
            Self::Text { attributes, .. } | Self::Directory { attributes, .. } => *attributes,
            Self::Host(file) => file.attributes(view.may_block)?,
            Self::Pollable(id) => {
                fifos::attributes(view.process, *id).unwrap_or_else(|| view.process.pollables.attributes(*id))
            }
        })
    }

    /// Readiness in the bits of `poll`.
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
