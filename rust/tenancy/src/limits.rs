// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant's limits as a configuration writes them: names, units, ranges.

use std::time::Duration;

use serde::Deserialize;

use crate::values::Bounded;

/// What a tenant may use. Every limit is always on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// What its machines may use.
    pub machine: mayfly_sandbox::Limits,
    /// What its standard output and error may add to the log. 0 keeps the tenant out of it.
    pub log_bytes_per_second: u64,
    /// How long a request may hold a loop thread. Past it, it goes on elsewhere. Wall clock; never 0.
    pub inline_budget: Duration,
    /// How many of its requests may be in the server at a time.
    pub concurrent_requests: u32,
}

impl Default for Limits {
    /// Those of the machine; 64 KiB of log a second, 1 ms on a loop thread, 64 requests at a time.
    fn default() -> Self {
        Self {
            machine: mayfly_sandbox::Limits::default(),
            log_bytes_per_second: 64 << 10,
            inline_budget: Duration::from_millis(1),
            concurrent_requests: 64,
        }
    }
}

/// Limits as a configuration writes them: what is left out stays as it was.
///
/// The ranges keep a slip of the keyboard from becoming an outage; those of memory and requests are the machine's own.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsPatch {
    boot_ms: Option<Bounded<1, 600_000>>,
    boot_memory_mib: Option<Bounded<1, 65_536>>,
    cpu_ms: Option<Bounded<1, 60_000>>,
    wall_ms: Option<Bounded<1, 600_000>>,
    memory_mib: Option<Bounded<1, 65_536>>,
    request_kib: Option<Bounded<4, 65_536>>,
    response_kib: Option<Bounded<1, 65_536>>,
    work_set_kib: Option<Bounded<64, 1_048_576>>,
    descriptors: Option<Bounded<3, 1024>>,
    threads: Option<Bounded<1, 1024>>,
    mappings: Option<Bounded<16, 65_536>>,
    log_bytes_per_second: Option<Bounded<0, 1_073_741_824>>,
    inline_budget_us: Option<Bounded<50, 1_000_000>>,
    concurrent_requests: Option<Bounded<1, 65_536>>,
}

impl LimitsPatch {
    /// These limits, and those of `base` where nothing is said.
    pub(crate) fn over(self, base: &Limits) -> Limits {
        let mut limits = base.clone();
        let machine = &mut limits.machine;
        set(&mut machine.boot_time, self.boot_ms, Duration::from_millis);
        set(&mut machine.boot_memory_bytes, self.boot_memory_mib, mib);
        set(&mut machine.cpu_time, self.cpu_ms, Duration::from_millis);
        set(&mut machine.wall_time, self.wall_ms, Duration::from_millis);
        set(&mut machine.private_memory_bytes, self.memory_mib, mib);
        set(&mut machine.request_bytes, self.request_kib, kib);
        set(&mut machine.response_bytes, self.response_kib, kib);
        set(&mut machine.retained_bytes, self.work_set_kib, kib);
        set(&mut machine.descriptors, self.descriptors, |number| number as u32);
        set(&mut machine.threads, self.threads, |number| number as u32);
        set(&mut machine.mappings, self.mappings, |number| number as u32);
        set(&mut limits.log_bytes_per_second, self.log_bytes_per_second, |bytes| bytes);
        set(&mut limits.inline_budget, self.inline_budget_us, Duration::from_micros);
        set(&mut limits.concurrent_requests, self.concurrent_requests, |requests| requests as u32);
        limits
    }
}

fn set<T, const MIN: u64, const MAX: u64>(limit: &mut T, value: Option<Bounded<MIN, MAX>>, unit: impl Fn(u64) -> T) {
    if let Some(number) = value {
        *limit = unit(number.get());
    }
}

fn kib(number: u64) -> u64 {
    number << 10
}

fn mib(number: u64) -> u64 {
    number << 20
}
