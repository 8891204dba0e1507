// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resource limits: those that `getrlimit(2)` returns, and those that the program has set.

use serde::{Deserialize, Serialize};

use crate::base::limits::Limits;

/// RLIM_NLIMITS.
const COUNT: usize = 16;
const INFINITY: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ResourceLimit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// A program's resource limits, by number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ResourceLimits {
    pub(crate) all: [ResourceLimit; COUNT],
    /// The mask of `umask(2)`.
    pub(crate) umask: u32,
    /// The nice value, of all threads. It only rises: programs have no privilege to lower it.
    pub(crate) nice: i32,
}

const UMASK: u32 = 0o022;

impl ResourceLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut all = [ResourceLimit { soft: INFINITY, hard: INFINITY }; COUNT];
        for (number, slot) in (0_u32..).zip(&mut all) {
            let value = match number {
                libc::RLIMIT_STACK => limits.stack_bytes,
                libc::RLIMIT_AS => limits.address_space_bytes,
                libc::RLIMIT_NOFILE => crate::base::arguments::count(limits.descriptors),
                libc::RLIMIT_NPROC => limits.threads.into(),
                libc::RLIMIT_FSIZE => limits.overlay_bytes,
                // No core dumps, and no better priority than the program has.
                libc::RLIMIT_CORE | libc::RLIMIT_NICE | libc::RLIMIT_RTPRIO => 0,
                _ => continue,
            };
            *slot = ResourceLimit { soft: value, hard: value };
        }
        Self { all, umask: UMASK, nice: 0 }
    }
}
