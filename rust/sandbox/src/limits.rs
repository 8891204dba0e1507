// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a tenant may use.

use std::time::Duration;

/// Limits of one tenant. All are always on.
///
/// ```
/// use std::time::Duration;
/// use mayfly_sandbox::Limits;
///
/// let limits = Limits { cpu_time: Duration::from_millis(100), request_bytes: 64 << 10, ..Limits::default() };
/// assert_eq!(limits.response_bytes, 4 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most CPU time from the program's start until it waits for a request, and a quarter of the most wall-clock time.
    pub boot_time: Duration,
    /// Most memory that the program may have when it boots, in bytes. Range: 1 MiB to 64 GiB.
    pub boot_memory_bytes: u64,
    /// Most CPU time that a request may use, on all threads that it runs on.
    pub cpu_time: Duration,
    /// Longest time that a request may take, the time in which it is paused included. Wall clock.
    pub wall_time: Duration,
    /// Most memory that a worker may have beyond the snapshot, in bytes: pages written, pages new, page tables.
    pub private_memory_bytes: u64,
    /// Largest request, in bytes: method, path, query, headers, body and 256 bytes of frame. Range: up to 64 MiB.
    pub request_bytes: u64,
    /// Largest response, in bytes: header names, header values and body.
    pub response_bytes: u64,
    /// Work set that a worker may keep between requests in any case, in bytes. A larger one is given back to the system,
    /// unless it may be kept as well.
    pub retained_bytes: u64,
    /// Whether a worker keeps a larger work set while its process has ample memory: less than a quarter of its bound is
    /// taken, and the tenant holds no more than its share.
    pub retains_more: bool,
    /// Most descriptors that a program may have open. Range: 3 to 1,024.
    pub descriptors: u32,
    /// Most threads that a program may have. There are none beside the first yet.
    pub threads: u32,
    /// Most mappings that a program may have.
    pub mappings: u32,
    /// Most memory of the host for the files that a program writes, in bytes: their pages, and their names.
    pub files_bytes: u64,
}

impl Default for Limits {
    /// 10 s and 256 MiB to boot; 1 s of CPU time in 10 s, 32 MiB, 1 MiB in and 4 MiB out for a request; a work set of
    /// up to 4 MiB is kept, and a larger one while memory is ample; 64 descriptors, 1 thread, 4,096 mappings, 16 MiB of
    /// written files.
    fn default() -> Self {
        Self {
            boot_time: Duration::from_secs(10),
            boot_memory_bytes: 256 << 20,
            cpu_time: Duration::from_secs(1),
            wall_time: Duration::from_secs(10),
            private_memory_bytes: 32 << 20,
            request_bytes: 1 << 20,
            response_bytes: 4 << 20,
            retained_bytes: 4 << 20,
            retains_more: true,
            descriptors: 64,
            threads: 1,
            mappings: 4096,
            files_bytes: 16 << 20,
        }
    }
}

impl Limits {
    /// The limits that the Linux personality enforces.
    pub(crate) fn for_linux(&self) -> mayfly_linux::Limits {
        mayfly_linux::Limits {
            mappings: self.mappings as usize,
            descriptors: self.descriptors as usize,
            threads: self.threads,
            memory_bytes: self.boot_memory_bytes,
            overlay_bytes: self.files_bytes,
            ..Default::default()
        }
    }
}

/// A duration in nanoseconds; one that does not fit has no end.
#[inline]
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
