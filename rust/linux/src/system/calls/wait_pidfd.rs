// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that wait for and signal processes: there is only the program's own, and it has no children.

use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::CallResult;
use crate::base::identity::is_self;
use crate::event::calls::pipes;
use crate::fs::object::Object;
use crate::kernel::call::Call;
use crate::kernel::delivery::SignalTarget;
use crate::pollables::table::PollableKind;
use crate::signal::calls::signals::{queue, send};
use crate::signal::signals::SI_USER;

/// `__WNOTHREAD`, `__WALL`, `__WCLONE`.
const ANY_CHILD: i32 = libc::__WNOTHREAD | libc::__WALL | libc::__WCLONE;

/// `wait4(2)`: there are no children.
pub(crate) fn wait4(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, _, options, ..] = call.args;
    let known = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED | ANY_CHILD;
    if int(options) & !known != 0 {
        return Err(Errno::EINVAL.into());
    }
    // This number has no valid group.
    Err(if int(pid) == i32::MIN { Errno::ESRCH } else { Errno::ECHILD }.into())
}

/// `waitid(2)`: there are no children.
pub(crate) fn waitid(call: &mut Call<'_, '_>) -> CallResult {
    let [which, id, _, options, ..] = call.args;
    let events = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED;
    let known = events | libc::WNOHANG | libc::WNOWAIT | ANY_CHILD;
    if int(options) & !known != 0 || int(options) & events == 0 {
        return Err(Errno::EINVAL.into());
    }
    let which = int(which).cast_unsigned();
    match which {
        libc::P_ALL => Err(Errno::ECHILD.into()),
        libc::P_PID if int(id) > 0 => Err(Errno::ECHILD.into()),
        libc::P_PGID if int(id) >= 0 => Err(Errno::ECHILD.into()),
        libc::P_PIDFD if int(id) >= 0 => {
            check(call, id)?;
            Err(Errno::ECHILD.into())
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `pidfd_open(2)`: of the process itself, whose end its own program never sees.
pub(crate) fn pidfd_open(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, flags, ..] = call.args;
    let (pid, flags) = (int(pid), int(flags));
    if flags & !libc::O_NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    if !is_self(pid) {
        // A thread is not a process.
        let is_thread = call.process.threads.by_tid(pid.cast_unsigned()).is_some();
        return Err(if is_thread { Errno::EINVAL } else { Errno::ESRCH }.into());
    }
    call.process.files.check_room()?;
    pipes::make(call, PollableKind::Process, flags, true)
}

/// Refuses a descriptor that does not refer to the process.
fn check(call: &Call<'_, '_>, fd: u64) -> Result<(), Errno> {
    let Object::Pollable(id) = call.process.files.open_file(int(fd))?.object else { return Err(Errno::EBADF) };
    if matches!(call.process.pollables.kind(id), Some(PollableKind::Process)) { Ok(()) } else { Err(Errno::EBADF) }
}

/// `pidfd_send_signal(2)`.
pub(crate) fn pidfd_send_signal(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, number, info, flags, ..] = call.args;
    if int(flags) != 0 {
        return Err(Errno::EINVAL.into());
    }
    check(call, fd)?;
    if info == 0 {
        return send(call, Some(SignalTarget::Process), number, SI_USER);
    }
    if call.user().read_u32(info)? != int(number).cast_unsigned() {
        return Err(Errno::EINVAL.into());
    }
    queue(call, Some(SignalTarget::Process), number, info)
}
