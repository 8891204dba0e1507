// SPDX-License-Identifier: MIT OR Apache-2.0
//! What look-ups of files need: the process, and whether the thread may wait for the host's files.

use crate::kernel::call::Call;
use crate::kernel::process::Process;

/// A process's files, read on one thread of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FsView<'a> {
    pub(crate) process: &'a Process,
    /// As [`crate::Context::may_block`].
    pub(crate) may_block: bool,
}

impl Call<'_, '_> {
    /// The files as this call may read them.
    pub(crate) fn view(&self) -> FsView<'_> {
        FsView { process: self.process, may_block: self.context.may_block }
    }
}
