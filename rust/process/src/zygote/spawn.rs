// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts a program from memory, with three descriptors. Those of the server's that are not closed on exec, the program
//! has to close.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::sys::check;

/// Descriptors that the program finds as 0, 1 and 2; the executable is 3, until it runs.
pub(crate) type Descriptors<'a> = [BorrowedFd<'a>; 3];

/// Bytes of the child's stack up to `execveat`: it calls one function.
const STACK_BYTES: usize = 0x1_0000;
/// Copies of the descriptors are made from here on, out of the way of 0 to 3.
const ASIDE: u64 = 16;

/// What the child gets, and how it reports an error.
struct Child {
    descriptors: [i32; 4],
    errno: i32,
}

/// A system call by the instruction, as the child makes it: the C library would set the `errno` of the thread whose
/// memory the child runs in.
///
/// # Safety
///
/// As for the call.
unsafe fn system_call(number: i64, arguments: [u64; 5]) -> i64 {
    let [a, b, c, d, e] = arguments;
    let result;
    // SAFETY: the kernel changes RAX, RCX, R11 and what the call is documented to change, for which the caller answers.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// The child, from `clone` to `execveat`: on a stack of its own, in the server's memory, all signals blocked.
///
/// It allocates nothing, takes no lock, and cannot panic.
extern "C" fn child(argument: *mut libc::c_void) -> i32 {
    // SAFETY: `spawn` passes a `Child` that lives until this process has another memory or has ended; its own thread
    // sleeps meanwhile (CLONE_VFORK).
    let child = unsafe { &mut *argument.cast::<Child>() };
    let failed = |result: i64| if result < 0 { Err(result) } else { Ok(result as u64) };
    let steps = || -> Result<(), i64> {
        let mut aside = [0; 4];
        // SAFETY: the calls change this process's own table of descriptors, and then replace its memory; the strings
        // and lists of `execveat` live until then.
        unsafe {
            for (copy, descriptor) in aside.iter_mut().zip(child.descriptors) {
                let duplicate = libc::F_DUPFD_CLOEXEC as u64;
                *copy = failed(system_call(libc::SYS_fcntl, [descriptor as u64, duplicate, ASIDE, 0, 0]))?;
            }
            for (copy, number) in aside.into_iter().zip(0..) {
                let flags = if number == 3 { libc::O_CLOEXEC as u64 } else { 0 };
                failed(system_call(libc::SYS_dup3, [copy, number, flags, 0, 0]))?;
            }
            // If memory is short and the kernel must kill, it is to be a stub, which costs one worker, and never the
            // server. Where it cannot be said, stubs are like the server. After a vfork the kernel changes this
            // process alone.
            let path = c"/proc/self/oom_score_adj".as_ptr() as u64;
            let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as u64;
            let file = system_call(libc::SYS_openat, [libc::AT_FDCWD as u64, path, flags, 0, 0]);
            if let Ok(file) = failed(file) {
                let first = c"1000".to_bytes();
                system_call(libc::SYS_write, [file, first.as_ptr() as u64, first.len() as u64, 0, 0]);
                system_call(libc::SYS_close, [file, 0, 0, 0, 0]);
            }
            let arguments = [c"mayfly-zygote".as_ptr(), ptr::null()];
            let environment = [ptr::null::<libc::c_char>()];
            let execute = [
                3,
                c"".as_ptr() as u64,
                arguments.as_ptr() as u64,
                environment.as_ptr() as u64,
                libc::AT_EMPTY_PATH as u64,
            ];
            failed(system_call(libc::SYS_execveat, execute))?;
        }
        Ok(())
    };
    if let Err(negative) = steps() {
        child.errno = -negative as i32;
    }
    // SAFETY: ends this process alone: it shares memory with the server, but is no thread of it.
    unsafe { system_call(libc::SYS_exit_group, [127, 0, 0, 0, 0]) };
    127
}

/// A child process.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// Its number, which stays its own until it is reaped.
    pub(crate) pid: i32,
    /// The process.
    pub(crate) pidfd: OwnedFd,
}

/// Starts `executable` with these descriptors. All signals are blocked in it.
///
/// # Errors
///
/// What the kernel says to clone(2) or execveat(2).
pub(crate) fn spawn(executable: BorrowedFd<'_>, descriptors: Descriptors<'_>) -> io::Result<Spawned> {
    let [zero, one, two] = descriptors.map(|descriptor| descriptor.as_raw_fd());
    let mut argument = Child { descriptors: [zero, one, two, executable.as_raw_fd()], errno: 0 };
    let mut stack = vec![0_u128; STACK_BYTES / 16];
    let mut pidfd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: `child` gets a stack of its own, 16-byte aligned, and its argument; both live until it has left this
    // memory, as this thread waits for that. No handler of the server's runs in it, since all signals stay blocked
    // until the program that it becomes unblocks them: a new program has no handlers.
    let pid = unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let top = stack.as_mut_ptr().add(stack.len());
        let pid = check(libc::clone(child, top.cast(), flags, (&raw mut argument).cast(), &raw mut pidfd).into());
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        pid
    }? as i32;
    // SAFETY: CLONE_PIDFD made the descriptor, and nothing else owns it.
    let spawned = Spawned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } };
    // SAFETY: the child wrote the word before it ended, and this thread slept until then; the compiler must not assume
    // the value from before.
    match unsafe { ptr::read_volatile(&raw const argument.errno) } {
        0 => Ok(spawned),
        errno => {
            reap(&spawned);
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

/// Waits for the child's end. If the process's other code has waited for it already, that is as good.
pub(crate) fn reap(child: &Spawned) {
    // SAFETY: zeroes are a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = child.pidfd.as_raw_fd() as libc::id_t;
    // SAFETY: plain call with room for the siginfo.
    let _ = crate::sys::check_again(|| unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED) }.into());
}
