// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that set users, groups and sessions. A process without privileges may set each of its identities to one that it
//! has. All of them are the same here, so nothing changes, and servers that drop privileges succeed.

use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::CallResult;
use crate::base::identity::{GID, UID, is_self};
use crate::kernel::call::Call;

/// Accepts ids that are all the own one, or -1: unchanged.
fn check(ids: &[u64], own: u32) -> CallResult {
    let is_allowed = |&id: &u64| int(id) == -1 || int(id).cast_unsigned() == own;
    if ids.iter().all(is_allowed) { Ok(0) } else { Err(Errno::EPERM.into()) }
}

/// As [`check`], of one id, for which -1 is invalid.
fn check_one(id: u64, own: u32) -> CallResult {
    if int(id) == -1 { Err(Errno::EINVAL.into()) } else { check(&[id], own) }
}

/// `setuid(2)`.
pub(crate) fn setuid(call: &mut Call<'_, '_>) -> CallResult {
    let [id, ..] = call.args;
    check_one(id, UID)
}

/// `setgid(2)`.
pub(crate) fn setgid(call: &mut Call<'_, '_>) -> CallResult {
    let [id, ..] = call.args;
    check_one(id, GID)
}

/// `setreuid(2)`.
pub(crate) fn setreuid(call: &mut Call<'_, '_>) -> CallResult {
    let [real, effective, ..] = call.args;
    check(&[real, effective], UID)
}

/// `setregid(2)`.
pub(crate) fn setregid(call: &mut Call<'_, '_>) -> CallResult {
    let [real, effective, ..] = call.args;
    check(&[real, effective], GID)
}

/// `setresuid(2)`.
pub(crate) fn setresuid(call: &mut Call<'_, '_>) -> CallResult {
    let [real, effective, saved, ..] = call.args;
    check(&[real, effective, saved], UID)
}

/// `setresgid(2)`.
pub(crate) fn setresgid(call: &mut Call<'_, '_>) -> CallResult {
    let [real, effective, saved, ..] = call.args;
    check(&[real, effective, saved], GID)
}

/// `setfsuid(2)`: returns the identity before, and fails silently.
pub(crate) fn setfsuid(_call: &mut Call<'_, '_>) -> CallResult {
    Ok(UID.into())
}

/// `setfsgid(2)`.
pub(crate) fn setfsgid(_call: &mut Call<'_, '_>) -> CallResult {
    Ok(GID.into())
}

/// `setgroups(2)`: needs a privilege, whatever the groups.
pub(crate) fn setgroups(_call: &mut Call<'_, '_>) -> CallResult {
    Err(Errno::EPERM.into())
}

/// `setpgid(2)`: the process leads its session, so its group cannot change.
pub(crate) fn setpgid(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, group, ..] = call.args;
    match (int(pid), int(group)) {
        (_, ..0) => Err(Errno::EINVAL.into()),
        (pid, _) if !is_self(pid) => Err(Errno::ESRCH.into()),
        _ => Err(Errno::EPERM.into()),
    }
}

/// `setsid(2)`: the process leads a group already.
pub(crate) fn setsid(_call: &mut Call<'_, '_>) -> CallResult {
    Err(Errno::EPERM.into())
}
