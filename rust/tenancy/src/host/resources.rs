// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process's use of the system's resources, and advice for when the system refuses more.

use std::error::Error;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::host::cgroup::{self, Controller};
use crate::host::clock::monotonic_ns;

/// The process's soft limit on descriptors.
pub(crate) fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Processes and threads that may exist at a time, as far as this process's own limits say: those of its cgroups, of its
/// user unless that is root, and the system's.
pub(crate) fn process_limit() -> u64 {
    let system = |path: &'static str| mayfly_files::kernel_text(path).ok()?.trim().parse::<u64>().ok();
    let user = if rustix::process::geteuid().is_root() { None } else { getrlimit(Resource::Nproc).current };
    let cgroups = cgroup::own(Controller::Processes);
    let limits = cgroups.iter().filter_map(cgroup::Cgroup::most_processes);
    let system = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].into_iter().filter_map(system);
    limits.chain(system).chain(user).min().unwrap_or(u64::MAX)
}

/// Descriptors that the process has open; 0 if the system does not say.
pub(crate) fn descriptors() -> u64 {
    const HERE: &str = "/proc/self/fd";
    // From Linux 6.2 on, the directory's size is the number. Before, the entries must be counted, which opens one more.
    match fs::metadata(HERE).map(|directory| directory.len()) {
        Ok(0) | Err(_) => fs::read_dir(HERE).map_or(0, |entries| entries.count().saturating_sub(1) as u64),
        Ok(count) => count,
    }
}

/// Resident memory of the process in bytes, including shared pages; 0 if the system does not say.
pub(crate) fn resident_bytes() -> u64 {
    let pages =
        mayfly_files::kernel_text("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    // The page size of x86-64.
    pages.unwrap_or(0).saturating_mul(4096)
}

/// Checks that a thread can be created, for callers that would panic otherwise.
///
/// # Errors
///
/// The system's error.
pub fn room_for_a_thread() -> io::Result<()> {
    let count = || fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let before = count();
    // The thread cannot panic.
    let _ = thread::Builder::new().spawn(|| {})?.join();
    // The system still counts it for a moment. Other threads may have started meanwhile, so the wait is short.
    let end = Instant::now() + Duration::from_millis(200);
    while count() > before && Instant::now() < end {
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// What an operator can do about an error that means that the system refuses more of a resource.
pub(crate) fn advice(error: &(dyn Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return match Errno::from_raw_os_error(code) {
                Errno::MFILE => {
                    "raise the process's limit on descriptors (ulimit -n; systemd: LimitNOFILE), or lower `max_workers`"
                }
                Errno::NFILE => "the system has no descriptors left (fs.file-max): lower `max_workers`",
                Errno::AGAIN => {
                    "no more threads can be created: raise their limit (ulimit -u; systemd: TasksMax, LimitNPROC)"
                }
                Errno::FBIG => "raise the process's limit on the size of files (ulimit -f; systemd: LimitFSIZE)",
                Errno::NOMEM => "memory is short: lower `max_workers`, or the tenants' `work_set_kib` and `memory_mib`",
                _ => "",
            };
        }
        cause = error.source();
    }
    ""
}

/// The error's message, followed by advice if there is any.
#[must_use]
pub fn with_advice(error: &(dyn Error + 'static)) -> String {
    match advice(error) {
        "" => error.to_string(),
        advice => format!("{error}: {advice}"),
    }
}

/// Limits repeated log lines to one per second.
#[derive(Debug)]
pub(crate) struct OncePerSecond(AtomicU64);

impl OncePerSecond {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether a line may be logged now.
    pub(crate) fn is_due(&self) -> bool {
        // At least 1, even right after the machine's start: 0 means never.
        let second = 1 + monotonic_ns() / 1_000_000_000;
        self.0.swap(second, Ordering::Relaxed) != second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_be_read_for_lack_of_descriptors_comes_with_advice() {
        let full = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let error = mayfly_sandbox::ProgramError { path: "p".into(), source: full.into() };
        assert!(with_advice(&error).contains("LimitNOFILE"), "{}", with_advice(&error));
    }

    #[test]
    fn the_process_is_measured() {
        // Other tests open and close some at the same time, those of whole servers, but not these.
        let files: Vec<_> = (0..400).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let counted = descriptors();
        assert!(counted > files.len() as u64, "{counted}");
        assert!(descriptor_limit() >= descriptors());
        assert!(resident_bytes() > 1 << 20);
    }

    #[test]
    fn advice_is_found_for_the_source_of_an_error() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let of = |errno: Errno| advice(&Outer(errno.into()));
        assert!(of(Errno::MFILE).contains("LimitNOFILE"));
        assert!(of(Errno::NOMEM).contains("memory"));
        assert!(of(Errno::AGAIN).contains("TasksMax") && of(Errno::FBIG).contains("LimitFSIZE"));
        assert!(with_advice(&Outer(Errno::MFILE.into())).starts_with("outer: raise"));
        assert_eq!(with_advice(&Outer(io::Error::other("x"))), "outer");
        assert_eq!((of(Errno::PERM), advice(&Outer(io::Error::other("x")))), ("", ""));
    }

    #[test]
    fn a_repeated_line_is_due_once_a_second() {
        let limit = OncePerSecond::new();
        let lines = (0..1000).filter(|_| limit.is_due()).count();
        assert!((1..100).contains(&lines), "{lines}");
    }
}
