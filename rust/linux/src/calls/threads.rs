// SPDX-License-Identifier: MIT OR Apache-2.0
//! What C libraries set up for threads, for the one thread that there is, and `futex(2)`.

use super::{int, waits_for_ever};
use crate::errno::{CallResult, Errno};
use crate::identity::PID;
use crate::table::{Call, unknown};

/// Size of a thread's name with its NUL.
pub(crate) const NAME_BYTES: usize = 16;
/// Size of `struct robust_list_head`.
const ROBUST_LIST_HEAD_BYTES: u64 = 24;

/// The thread's state.
///
/// The addresses that `set_tid_address` and `set_robust_list` give are for the kernel to use when one thread of several ends, so
/// with one thread they are not kept.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) name: [u8; NAME_BYTES],
}

impl Thread {
    /// A thread named, as Linux does, after the last component of the program's path.
    pub(crate) fn named(path: &str) -> Self {
        let last = path.rsplit('/').next().unwrap_or_default();
        let mut name = [0; NAME_BYTES];
        for (slot, byte) in name.iter_mut().take(NAME_BYTES.saturating_sub(1)).zip(last.bytes()) {
            *slot = byte;
        }
        Self { name }
    }
}

/// `clone(2)`. There is no second thread yet, and the answer is that of a limit on them; there are no processes at all.
pub(crate) fn clone(call: &mut Call<'_, '_>) -> CallResult {
    let [flags, ..] = call.args;
    refuse_thread(call, flags, libc::SYS_clone)
}

/// `clone3(2)`.
pub(crate) fn clone3(call: &mut Call<'_, '_>) -> CallResult {
    /// CLONE_ARGS_SIZE_VER0.
    const ARGUMENTS_BYTES_MIN: u64 = 64;
    let [arguments, size, ..] = call.args;
    if size < ARGUMENTS_BYTES_MIN {
        return Err(Errno::EINVAL.into());
    }
    let [flags] = call.user().read_words(arguments)?;
    refuse_thread(call, flags, libc::SYS_clone3)
}

fn refuse_thread(call: &mut Call<'_, '_>, flags: u64, number: libc::c_long) -> CallResult {
    if flags & u64::from(libc::CLONE_THREAD.cast_unsigned()) == 0 {
        return Err(unknown(call.process, call.context, number.cast_unsigned()).into());
    }
    let threads = &mut call.process.hits.threads;
    *threads = threads.saturating_add(1);
    Err(Errno::EAGAIN.into())
}

/// `set_tid_address(2)`.
pub(crate) fn set_tid_address(_call: &mut Call<'_, '_>) -> CallResult {
    Ok(PID.into())
}

/// `set_robust_list(2)`.
pub(crate) fn set_robust_list(call: &mut Call<'_, '_>) -> CallResult {
    let [_, size, ..] = call.args;
    if size == ROBUST_LIST_HEAD_BYTES { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

/// `rseq(2)`: not offered, as on a kernel built without it; C libraries go without.
pub(crate) fn rseq(_call: &mut Call<'_, '_>) -> CallResult {
    Err(Errno::ENOSYS.into())
}

/// `futex(2)`. Nobody else can wait or wake, so waking finds nobody and waiting ends by its timeout or not at all.
pub(crate) fn futex(call: &mut Call<'_, '_>) -> CallResult {
    let [address, operation, value, timeout, _, third_value] = call.args;
    let command = int(operation) & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL.into());
    }
    match command {
        libc::FUTEX_WAKE | libc::FUTEX_REQUEUE => Ok(0),
        libc::FUTEX_WAKE_BITSET if int(third_value) != 0 => Ok(0),
        libc::FUTEX_CMP_REQUEUE => {
            if call.user().read_u32(address)? == int(third_value).cast_unsigned() {
                Ok(0)
            } else {
                Err(Errno::EAGAIN.into())
            }
        }
        libc::FUTEX_WAIT_BITSET if int(third_value) == 0 => Err(Errno::EINVAL.into()),
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => {
            if timeout != 0 {
                super::time::read_duration(call, timeout)?;
            }
            if call.user().read_u32(address)? != int(value).cast_unsigned() {
                Err(Errno::EAGAIN.into())
            } else if timeout != 0 {
                Err(Errno::ETIMEDOUT.into())
            } else {
                Err(waits_for_ever("a futex that no other thread can wake"))
            }
        }
        libc::FUTEX_WAKE_BITSET => Err(Errno::EINVAL.into()),
        _ => Err(Errno::ENOSYS.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_named_after_the_file() {
        assert_eq!(&Thread::named("/srv/tenants/hello").name, b"hello\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&Thread::named("a-name-that-is-too-long").name, b"a-name-that-is-\0");
    }
}
