// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds out what the host can do, by doing it: kernels are patched, and containers filter calls.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mayfly_machine::layout::{CONTROL, DOORBELL, DOORBELL_ENTRY, PAGE_SIZE, USER_MIN};
use mayfly_machine::{Prot, Regs, UserContext, VECTOR_STATE_BYTES, VectorState};

use crate::code::doorbell_page;
use crate::error::{ForkError, RingError, StartError};
use crate::host::{Host, HostReport, Missing, Wake};
use crate::layout::{RESUME, RESUME_BYTES};
use crate::resume::resume_pages;
use crate::ring::ring::Event;
use crate::ring::vector::vector_components;
use crate::stub::{Nursery, Stub, StubFiles};
use crate::sys::check;
use crate::sys::memory::sealed;
use crate::zygote::zygote::Region;

/// What every kernel must take: a listener; no mitigation that slows the server's own stubs (before Linux 5.16 seccomp
/// implies it).
const FLAGS: u64 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
/// What is better to have (Linux 5.19).
const FLAG_KILLABLE: u64 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

const UPGRADE: &str = "Linux 5.9 or newer is needed, on a processor with FSGSBASE (Intel Ivy Bridge, AMD Zen 1)";
const CONTAINER: &str = "in a container, its seccomp profile must allow the call; Docker's and Podman's default do";

/// How long a trial may take: it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The result of `trial`, which runs on a thread of its own: one that hangs is left behind, and `None`.
fn bounded<T: Send + 'static>(trial: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        let _ = sender.send(trial());
    };
    thread::Builder::new().name("mayfly-probe".into()).spawn(run).ok()?;
    receiver.recv_timeout(PATIENCE).ok()
}

impl Host {
    /// Runs a program of a few instructions in a stub.
    ///
    /// ```
    /// match mayfly_process::Host::probe() {
    ///     Ok(host) => println!("{}", host.report()),
    ///     Err(missing) => println!("{missing}"),
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Missing`] says what failed, and what to do about it.
    pub fn probe() -> Result<Self, Missing> {
        // A kernel that loses answers may leave the trial waiting.
        let probed = bounded(|| Self::probe_for(true)).or_else(|| bounded(|| Self::probe_for(false)));
        probed.unwrap_or_else(|| {
            let what = format!("a stub did not do as it should within {} s", PATIENCE.as_secs());
            Err(Missing { what, advice: UPGRADE })
        })
    }

    /// The same, but as if signals aborted calls that the server has received, as before Linux 5.19, and as if waiting
    /// for a stub did not end with it, as before Linux 6.11.
    ///
    /// # Errors
    ///
    /// As for [`Host::probe`].
    pub fn probe_without_killable() -> Result<Self, Missing> {
        Self::probe_for(false)
    }

    fn probe_for(allow_new: bool) -> Result<Self, Missing> {
        check_processor()?;
        check_sizes()?;
        if !takes_flags(FLAGS)? {
            let what = "seccomp(2) makes no listener".to_owned();
            return Err(Missing { what, advice: UPGRADE });
        }
        let killable = allow_new && takes_flags(FLAGS | FLAG_KILLABLE)?;
        let mut host = Self::with(Wake::Synchronous, killable, allow_new);
        if let Err(failure) = trial(&host) {
            if !matches!(failure, Trial::Fork(ForkError::Wake(_))) {
                return Err(failure.missing());
            }
            host = Self::with(Wake::Pinned, killable, allow_new);
            trial(&host).map_err(Trial::missing)?;
        }
        if killable && loses_answers(&host).map_err(Trial::missing)? {
            host = Self::with(host.report.wake, false, allow_new);
        }
        Ok(host)
    }

    fn with(wake: Wake, killable: bool, allows_ends: bool) -> Self {
        let filter_flags = if killable { FLAGS | FLAG_KILLABLE } else { FLAGS };
        let kernel = kernel();
        let ends = allows_ends && waiting_ends(&kernel);
        Self { report: HostReport { kernel, wake, killable, ends }, filter_flags }
    }
}

/// The instructions that the host code uses, allowed to programs.
fn check_processor() -> Result<(), Missing> {
    /// `HWCAP2_FSGSBASE` (`asm/hwcap2.h`): the kernel has enabled the instructions (Linux 5.9).
    const FSGSBASE: u64 = 1 << 1;
    // SAFETY: plain call.
    let fsgsbase = unsafe { libc::getauxval(libc::AT_HWCAP2) } & FSGSBASE != 0;
    // The kernel enables XSAVE wherever the processor has it, unless it was told not to.
    let xsave = std::arch::is_x86_feature_detected!("xsave");
    for (there, what) in [(fsgsbase, "the FSGSBASE instructions"), (xsave, "XSAVE")] {
        if !there {
            return Err(Missing { what: format!("programs have not {what}"), advice: UPGRADE });
        }
    }
    Ok(())
}

/// The kernel's structures are those that were compiled in.
fn check_sizes() -> Result<(), Missing> {
    let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: plain call with room for the three sizes.
    let asked = check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) });
    if let Err(error) = asked {
        return Err(Missing { what: format!("seccomp(2) has no notifications: {error}"), advice: refused(&error) });
    }
    let ours = (size_of::<libc::seccomp_notif>(), size_of::<libc::seccomp_notif_resp>());
    let kernels = (usize::from(sizes.seccomp_notif), usize::from(sizes.seccomp_notif_resp));
    if ours != kernels || usize::from(sizes.seccomp_data) != size_of::<libc::seccomp_data>() {
        let what = format!("seccomp notifications of {kernels:?} bytes, where {ours:?} are known");
        return Err(Missing { what, advice: "a newer Mayfly is needed" });
    }
    Ok(())
}

/// Whether the kernel knows these flags. It looks at them before it looks at the filter (seccomp(2), EFAULT).
fn takes_flags(flags: u64) -> Result<bool, Missing> {
    let no_filter = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel refuses a null filter.
    match check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, no_filter) }) {
        Err(error) => match error.raw_os_error() {
            Some(libc::EFAULT) => Ok(true),
            Some(libc::EINVAL) => Ok(false),
            _ => Err(Missing { what: format!("seccomp(2): {error}"), advice: refused(&error) }),
        },
        Ok(_) => Ok(false),
    }
}

/// What to do about a refused call.
fn refused(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EPERM) { CONTAINER } else { UPGRADE }
}

/// What went wrong with a stub.
enum Trial {
    Memory(io::Error),
    Start(StartError),
    Fork(ForkError),
    Ring(RingError),
    Event(&'static str, Box<Event>),
}

impl Trial {
    fn missing(self) -> Missing {
        const LIMITS: &str = "see the limits on processes and memory, and the seccomp profile of the container, which \
                              must not itself have a supervisor";
        let (what, advice) = match self {
            Self::Memory(error) => (format!("memory that can be sealed: {error}"), refused(&error)),
            Self::Start(error @ StartError::Spawn(_)) => (error.to_string(), CONTAINER),
            Self::Start(error) => (error.to_string(), LIMITS),
            Self::Fork(error) => (error.to_string(), LIMITS),
            Self::Ring(error) => (error.to_string(), UPGRADE),
            Self::Event(wanted, event) => (format!("{event:?} where {wanted} was expected"), UPGRADE),
        };
        Missing { what, advice }
    }
}

/// Runs a program that makes a call by value, one that is trapped, and rings the doorbell; and rewinds it.
fn trial(host: &Host) -> Result<(), Trial> {
    const BY_VALUE: i64 = 0x1234_5678_9abc_def0;
    const TRAPPED: u64 = 0x0fed_cba9_8765_4321;
    let mut code = vec![
        0xb8, 39, 0, 0, 0, // mov $39, %eax: getpid
        0x0f, 0x05, // syscall
        0x48, 0x89, 0xc3, // mov %rax, %rbx
        0x31, 0xc0, // xor %eax, %eax: read
        0x0f, 0x05, // syscall
        0x48, 0x89, 0xc7, // mov %rax, %rdi
        0x48, 0x89, 0xde, // mov %rbx, %rsi
        0x48, 0xb9, // movabs $DOORBELL_ENTRY, %rcx
    ];
    code.extend(DOORBELL_ENTRY.to_le_bytes());
    code.extend([0xff, 0xe1]); // jmp *%rcx
    let vector = VectorState::from_words([0; VECTOR_STATE_BYTES / 4]);
    let frozen = UserContext { regs: Regs { rip: USER_MIN, ..Regs::default() }, fs_base: 0, gs_base: 0, vector };
    let memory = [page(&code), doorbell_page(), resume_pages(&frozen, vector_components(), true), page(&[1])].concat();
    let file = sealed(c"mayfly-probe", &memory).map_err(Trial::Memory)?;
    let region = |page, address, bytes, prot| {
        let offset = page * PAGE_SIZE;
        Region { file: file.as_fd(), offset, address, bytes, prot }
    };
    let executable = Prot::READ | Prot::EXEC;
    let regions = [
        region(0, USER_MIN, PAGE_SIZE, executable),
        region(1, DOORBELL, PAGE_SIZE, executable),
        region(2, RESUME, RESUME_BYTES, Prot::READ),
        region(4, CONTROL, PAGE_SIZE, Prot::READ),
    ];
    let nursery = Nursery::start(host, host.report.wake, false).map_err(Trial::Start)?;
    let mut stub = nursery.stub(&regions, files(&file)).map_err(Trial::Fork)?;
    stub.start(&frozen.regs, 0, 0).map_err(Trial::Ring)?;
    getpid(&mut stub)?;
    stub.answer(BY_VALUE).map_err(Trial::Ring)?;
    match stub.receive().map_err(Trial::Ring)? {
        Event::Signal(seen) if seen.signal == libc::SIGSYS && seen.regs.rax == libc::SYS_read as u64 => {
            stub.resume(&Regs { rax: TRAPPED, ..seen.regs }, None).map_err(Trial::Ring)?;
        }
        other => return Err(Trial::Event("a trapped read", other.into())),
    }
    match stub.receive().map_err(Trial::Ring)? {
        Event::Doorbell([TRAPPED, second, ..]) if second == BY_VALUE as u64 => {}
        other => return Err(Trial::Event("the doorbell", other.into())),
    }
    stub.rewind().map_err(Trial::Ring)?;
    getpid(&mut stub)?;
    stub.end().map_err(Trial::Fork)?;
    Ok(())
}

/// The next event is a call of getpid.
fn getpid(stub: &mut Stub) -> Result<(), Trial> {
    match stub.receive().map_err(Trial::Ring)? {
        Event::Call { number: libc::SYS_getpid, .. } => Ok(()),
        other => Err(Trial::Event("getpid", other.into())),
    }
}

/// Whether the kernel loses an answer now and then that is sent just behind a signal: Linux from 5.19 on, until that
/// was repaired in 6.18 and in the stable releases of October 2025.
fn loses_answers(host: &Host) -> Result<bool, Trial> {
    const ROUNDS: i64 = 200;
    // mov $39, %eax; syscall; jmp .-9
    let file = sealed(c"mayfly-probe", &page(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7])).map_err(Trial::Memory)?;
    let prot = Prot::READ | Prot::EXEC;
    let region = Region { file: file.as_fd(), offset: 0, address: USER_MIN, bytes: PAGE_SIZE, prot };
    let nursery = Nursery::start(host, host.report.wake, false).map_err(Trial::Start)?;
    let mut stub = nursery.stub(&[region], files(&file)).map_err(Trial::Fork)?;
    stub.start(&Regs { rip: USER_MIN, ..Regs::default() }, 0, 0).map_err(Trial::Ring)?;
    for round in 0..ROUNDS {
        getpid(&mut stub)?;
        let (seen, lost) = stub.stop_noting(round).map_err(Trial::Ring)?;
        if lost {
            return Ok(true);
        }
        stub.resume(&seen.regs, None).map_err(Trial::Ring)?;
    }
    Ok(false)
}

fn page(code: &[u8]) -> Vec<u8> {
    let mut page = code.to_vec();
    page.resize(PAGE_SIZE as usize, 0xcc);
    page
}

fn files(memory: &File) -> StubFiles<'_> {
    StubFiles { memory: memory.as_fd(), image: None }
}

/// The kernel's release.
/// Whether RECV ends with the stub, by the kernel's release. A release that says nothing is taken for an old one.
fn waiting_ends(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    matches!((numbers.next().flatten(), numbers.next().flatten()), (Some(major), Some(minor)) if (major, minor) >= (6, 11))
}

fn kernel() -> String {
    // SAFETY: zeroes are a valid utsname, of strings that end; the kernel ends those that it writes.
    unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut name);
        CStr::from_ptr(name.release.as_ptr()).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests;
