// SPDX-License-Identifier: MIT OR Apache-2.0
//! The identity that a program sees. It reveals nothing of the host: the answers are the same on every host, for every
//! tenant, before and after a reset.

/// The one process, and its first thread. Not 1: some programs take 1 as a sign that they are `init`.
pub(crate) const PID: u32 = 2;
/// The parent, which the program can neither see nor signal.
pub(crate) const PARENT_PID: u32 = 1;
/// Real, effective, saved and file-system user: an ordinary one.
pub(crate) const UID: u32 = 1000;
/// Group, in the same four roles.
pub(crate) const GID: u32 = 1000;
/// Clock ticks in a second: AT_CLKTCK and the unit of `times(2)`.
pub(crate) const CLOCK_TICKS: u64 = 100;

/// For `uname(2)`. The release is that of the oldest kernel that has all offered calls; C libraries compare it.
pub(crate) const SYSTEM: &str = "Linux";
pub(crate) const NODE: &str = "mayfly";
pub(crate) const RELEASE: &str = "6.1.0-mayfly";
pub(crate) const VERSION: &str = "#1 Mayfly";
pub(crate) const MACHINE: &str = "x86_64";
pub(crate) const DOMAIN: &str = "(none)";

/// Whether a process number denotes the caller: its own, or 0.
pub(crate) fn is_self(pid: i32) -> bool {
    pid == 0 || pid.cast_unsigned() == PID
}
