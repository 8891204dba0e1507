// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identity and exit of the process, and the settings of `prctl(2)` and `arch_prctl(2)`.

use mayfly_engine::RunError;

use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::identity::{GID, PARENT_PID, PID, UID, is_self};
use crate::base::pages::TASK_SIZE;
use crate::base::step::Step;
use crate::kernel::call::Call;
use crate::sched::threads::NAME_BYTES;

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;
const TIMER_SLACK_NS: u64 = 50_000;
/// CAP_LAST_CAP.
const CAPABILITY_MAX: u64 = 40;
const PR_SET_VMA_ANON_NAME: u64 = 0;
/// Versions of `capget`'s structures, and the number of data words in each.
const CAPABILITY_VERSIONS: [(u32, usize); 3] = [(0x1998_0330, 3), (0x2007_1026, 6), (0x2008_0522, 6)];

/// `capget(2)`: no capabilities.
pub(crate) fn capget(call: &mut Call<'_, '_>) -> CallResult {
    let [header, data, ..] = call.args;
    let version = call.user().read_u32(header)?;
    let Some((_, words)) = CAPABILITY_VERSIONS.iter().find(|(known, _)| *known == version) else {
        call.user().write(header, &0x2008_0522_u32.to_le_bytes())?;
        return if data == 0 { Ok(0) } else { Err(Errno::EINVAL.into()) };
    };
    let pid = call.user().read_u32(header.checked_add(4).ok_or(Errno::EFAULT)?)?;
    crate::sched::calls::scheduling::check_thread(call, pid.into())?;
    if data != 0 {
        let bytes: Vec<u8> = std::iter::repeat_n([0; 4], *words).flatten().collect();
        call.user().write(data, &bytes)?;
    }
    Ok(0)
}

/// `capset(2)`: there are no capabilities to set.
pub(crate) fn capset(call: &mut Call<'_, '_>) -> CallResult {
    let [header, data, ..] = call.args;
    let version = call.user().read_u32(header)?;
    let Some((_, words)) = CAPABILITY_VERSIONS.iter().find(|(known, _)| *known == version) else {
        call.user().write(header, &0x2008_0522_u32.to_le_bytes())?;
        return Err(Errno::EINVAL.into());
    };
    let pid = call.user().read_u32(header.checked_add(4).ok_or(Errno::EFAULT)?)?;
    if pid != 0 && pid != call.process.threads.current().tid {
        return Err(Errno::EPERM.into());
    }
    let mut bytes = vec![0; words.saturating_mul(4)];
    call.user().read(data, &mut bytes)?;
    if bytes.iter().all(|&byte| byte == 0) { Ok(0) } else { Err(Errno::EPERM.into()) }
}

/// `personality(2)`: Linux. Other values are accepted and have no effect.
pub(crate) fn personality(_call: &mut Call<'_, '_>) -> CallResult {
    Ok(0)
}

/// Calls that programs try and can do without, as on a kernel built without them.
pub(crate) fn not_offered(_call: &mut Call<'_, '_>) -> CallResult {
    Err(Errno::ENOSYS.into())
}

/// `restart_syscall(2)`: no call is ever restarted this way.
pub(crate) fn restart_syscall(_call: &mut Call<'_, '_>) -> CallResult {
    Err(Errno::EINTR.into())
}

/// `getpid(2)`, `getpgrp(2)`: the process leads its group.
pub(crate) fn getpid(_call: &mut Call<'_, '_>) -> CallResult {
    Ok(PID.into())
}

/// `getppid(2)`.
pub(crate) fn getppid(_call: &mut Call<'_, '_>) -> CallResult {
    Ok(PARENT_PID.into())
}

/// `getpgid(2)`, `getsid(2)`.
pub(crate) fn getpgid(call: &mut Call<'_, '_>) -> CallResult {
    let [pid, ..] = call.args;
    if is_self(int(pid)) { Ok(PID.into()) } else { Err(Errno::ESRCH.into()) }
}

/// `getuid(2)`, `geteuid(2)`.
pub(crate) fn getuid(_call: &mut Call<'_, '_>) -> CallResult {
    Ok(UID.into())
}

/// `getgid(2)`, `getegid(2)`.
pub(crate) fn getgid(_call: &mut Call<'_, '_>) -> CallResult {
    Ok(GID.into())
}

/// `getresuid(2)`.
pub(crate) fn getresuid(call: &mut Call<'_, '_>) -> CallResult {
    write_three(call, UID)
}

/// `getresgid(2)`.
pub(crate) fn getresgid(call: &mut Call<'_, '_>) -> CallResult {
    write_three(call, GID)
}

fn write_three(call: &mut Call<'_, '_>, id: u32) -> CallResult {
    let [real, effective, saved, ..] = call.args;
    for address in [real, effective, saved] {
        call.user().write(address, &id.to_le_bytes())?;
    }
    Ok(0)
}

/// `getgroups(2)`: no supplementary groups.
pub(crate) fn getgroups(call: &mut Call<'_, '_>) -> CallResult {
    let [size, ..] = call.args;
    if int(size) < 0 { Err(Errno::EINVAL.into()) } else { Ok(0) }
}

/// `exit_group(2)`.
pub(crate) fn exit_group(call: &mut Call<'_, '_>) -> CallResult {
    let [status, ..] = call.args;
    Err(Halt::End(Step::Exited { status: int(status) & 0xff }))
}

/// `arch_prctl(2)`: the bases of FS and GS.
pub(crate) fn arch_prctl(call: &mut Call<'_, '_>) -> CallResult {
    let [code, address, ..] = call.args;
    let poison = |error: RunError| Halt::End(Step::Poison(format!("segment base: {error}")));
    let base = match int(code) {
        ARCH_SET_FS | ARCH_SET_GS if address >= TASK_SIZE => return Err(Errno::EPERM.into()),
        ARCH_SET_FS => return call.machine.set_fs_base(address).map(|()| 0).map_err(poison),
        ARCH_SET_GS => return call.machine.set_gs_base(address).map(|()| 0).map_err(poison),
        ARCH_GET_FS => call.machine.fs_base(),
        ARCH_GET_GS => call.machine.gs_base(),
        _ => return Err(Errno::EINVAL.into()),
    };
    let base = base.map_err(poison)?;
    call.user().write_words(address, &[base])?;
    Ok(0)
}

/// `prctl(2)`: the thread's name, and what holds for every process here.
pub(crate) fn prctl(call: &mut Call<'_, '_>) -> CallResult {
    let [option, argument, third, fourth, fifth, _] = call.args;
    match int(option) {
        libc::PR_SET_NAME => {
            let mut name = [0; NAME_BYTES];
            // A name may end before its sixteenth byte, at the end of its page.
            for (offset, slot) in (0_u64..).zip(name.iter_mut().take(NAME_BYTES.saturating_sub(1))) {
                let at = argument.checked_add(offset).ok_or(Errno::EFAULT)?;
                let [byte] = call.user().read_array(at)?;
                if byte == 0 {
                    break;
                }
                *slot = byte;
            }
            call.process.threads.edit().current_mut().name = name;
            Ok(0)
        }
        libc::PR_GET_NAME => {
            let name = call.process.threads.current().name;
            call.user().write(argument, &name)?;
            Ok(0)
        }
        libc::PR_GET_DUMPABLE
        | libc::PR_GET_SECCOMP
        | libc::PR_GET_KEEPCAPS
        | libc::PR_GET_THP_DISABLE
        | libc::PR_SET_CHILD_SUBREAPER
        | libc::PR_SET_TIMERSLACK => Ok(0),
        libc::PR_SET_KEEPCAPS if argument <= 1 => Ok(0),
        libc::PR_SET_THP_DISABLE if (third, fourth, fifth) == (0, 0, 0) => Ok(0),
        libc::PR_GET_TIMERSLACK => Ok(TIMER_SLACK_NS),
        // The parent is outside of the machine, so its death is never signalled.
        libc::PR_SET_PDEATHSIG if argument <= 64 => Ok(0),
        libc::PR_GET_PDEATHSIG => {
            call.user().write(argument, &[0; 4])?;
            Ok(0)
        }
        libc::PR_CAPBSET_READ if argument <= CAPABILITY_MAX => Ok(0),
        // A name for `/proc/self/maps`, which does not show names.
        libc::PR_SET_VMA if argument == PR_SET_VMA_ANON_NAME => Ok(0),
        libc::PR_SET_DUMPABLE if argument <= 1 => Ok(0),
        libc::PR_SET_NO_NEW_PRIVS if (argument, third, fourth, fifth) == (1, 0, 0, 0) => Ok(0),
        libc::PR_GET_NO_NEW_PRIVS if (argument, third, fourth, fifth) == (0, 0, 0, 0) => Ok(1),
        _ => Err(Errno::EINVAL.into()),
    }
}
