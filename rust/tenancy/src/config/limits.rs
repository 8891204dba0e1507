// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant's limits in the configuration: names, units, ranges.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::cpu_share::CpuShare;
use crate::config::values::Bounded;

/// The limits of a tenant. Every limit is always enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The limits of its machines.
    pub machine: mayfly_sandbox::Limits,
    /// Bytes per second that its standard output and error may add to the log. 0 keeps the tenant out of the log.
    pub log_bytes_per_second: u64,
    /// How long a request may occupy a loop thread, in wall-clock time; never 0. After that, it continues on another
    /// thread.
    pub inline_budget: Duration,
    /// How many of its requests may be in progress at a time.
    pub concurrent_requests: u32,
    /// How much of a processor its workers may use between requests, all together. Only for a tenant that keeps its
    /// state and serves connections: see [`crate::TenantConfig::background_cpu`].
    pub background_cpu: CpuShare,
}

impl Default for Limits {
    /// The default limits of machines; 64 KiB of log per second, 1 ms on a loop thread, 64 requests at a time, a
    /// twentieth of a processor between requests.
    fn default() -> Self {
        Self {
            machine: mayfly_sandbox::Limits::default(),
            log_bytes_per_second: 64 << 10,
            inline_budget: Duration::from_millis(1),
            concurrent_requests: 64,
            background_cpu: CpuShare::BETWEEN_REQUESTS,
        }
    }
}

impl Limits {
    /// The default limits of a program that serves connections itself, which is usually a language's runtime: 1 GiB and
    /// 30 s of CPU time to boot, 64 threads, 256 descriptors, 64 MiB per request.
    #[must_use]
    pub fn of_a_server() -> Self {
        let mut limits = Self::default();
        limits.machine.boot_time = Duration::from_secs(30);
        limits.machine.boot_memory_bytes = 1 << 30;
        limits.machine.private_memory_bytes = 64 << 20;
        limits.machine.threads = 64;
        limits.machine.descriptors = 256;
        limits.machine.mappings = 16_384;
        limits
    }
}

/// Limits. A limit that is left out is taken from the group, the defaults of the file, or Mayfly.
//
// The ranges keep a typing error from becoming an outage; those of memory and requests are the machine's own.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Limits", default)]
pub(crate) struct LimitsPatch {
    /// Milliseconds of CPU time, and a quarter of the wall-clock time, from the program's start to its first wait for a
    /// request.
    #[schemars(extend("default" = 10_000))]
    boot_ms: Option<Bounded<1, 600_000>>,
    /// MiB of memory that the program may use at boot.
    #[schemars(extend("default" = 256))]
    boot_memory_mib: Option<Bounded<1, 65_536>>,
    /// Milliseconds of CPU time for a request.
    #[schemars(extend("default" = 1_000))]
    cpu_ms: Option<Bounded<1, 60_000>>,
    /// Milliseconds of wall-clock time for a request, including waits.
    #[schemars(extend("default" = 10_000))]
    wall_ms: Option<Bounded<1, 600_000>>,
    /// MiB of memory that a request may change or add.
    #[schemars(extend("default" = 32))]
    memory_mib: Option<Bounded<1, 65_536>>,
    /// KiB of a request: method, path, query, headers and body.
    #[schemars(extend("default" = 1_024))]
    request_kib: Option<Bounded<4, 65_536>>,
    /// KiB of a response: headers and body.
    #[schemars(extend("default" = 4_096))]
    response_kib: Option<Bounded<1, 65_536>>,
    /// KiB of changed memory that a worker keeps from request to request; memory above it is returned to the system.
    /// Where it is not set, a worker keeps up to half of `memory_mib` while the server has ample memory.
    work_set_kib: Option<Bounded<64, 1_048_576>>,
    /// Descriptors that the program may have open.
    #[schemars(extend("default" = 64))]
    descriptors: Option<Bounded<3, 1024>>,
    /// Threads that the program may have.
    #[schemars(extend("default" = 1))]
    threads: Option<Bounded<1, 1024>>,
    /// Mappings that the program may have.
    #[schemars(extend("default" = 4_096))]
    mappings: Option<Bounded<16, 65_536>>,
    /// MiB of the files that the program writes, from its boot on.
    #[schemars(extend("default" = 16))]
    files_mib: Option<Bounded<1, 65_536>>,
    /// Bytes per second that the program's output may add to the log. 0 keeps it out of the log.
    #[schemars(extend("default" = 65_536))]
    log_bytes_per_second: Option<Bounded<0, 1_073_741_824>>,
    /// Microseconds that a request may occupy a loop thread. After that, it continues on another thread.
    #[schemars(extend("default" = 1_000))]
    inline_budget_us: Option<Bounded<50, 1_000_000>>,
    /// Requests of the tenant that may be in progress at a time.
    #[schemars(extend("default" = 64))]
    concurrent_requests: Option<Bounded<1, 65_536>>,
    /// How much of one processor the tenant's programs may use between requests, all its workers together, as a share.
    /// 0: they stand still until a request. Only for a tenant that keeps its state and has `"serve": "connections"`.
    #[schemars(extend("default" = 0.05))]
    background_cpu: Option<CpuShare>,
}

impl LimitsPatch {
    /// These limits, completed by those of `base`.
    pub(crate) fn or(self, base: Self) -> Self {
        Self {
            boot_ms: self.boot_ms.or(base.boot_ms),
            boot_memory_mib: self.boot_memory_mib.or(base.boot_memory_mib),
            cpu_ms: self.cpu_ms.or(base.cpu_ms),
            wall_ms: self.wall_ms.or(base.wall_ms),
            memory_mib: self.memory_mib.or(base.memory_mib),
            request_kib: self.request_kib.or(base.request_kib),
            response_kib: self.response_kib.or(base.response_kib),
            work_set_kib: self.work_set_kib.or(base.work_set_kib),
            descriptors: self.descriptors.or(base.descriptors),
            threads: self.threads.or(base.threads),
            mappings: self.mappings.or(base.mappings),
            files_mib: self.files_mib.or(base.files_mib),
            log_bytes_per_second: self.log_bytes_per_second.or(base.log_bytes_per_second),
            inline_budget_us: self.inline_budget_us.or(base.inline_budget_us),
            concurrent_requests: self.concurrent_requests.or(base.concurrent_requests),
            background_cpu: self.background_cpu.or(base.background_cpu),
        }
    }

    /// These limits, completed by the built-in ones in `base`.
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
        // A bound that the operator has set is kept whatever memory there is.
        machine.retains_more &= self.work_set_kib.is_none();
        set(&mut machine.descriptors, self.descriptors, |number| number as u32);
        set(&mut machine.threads, self.threads, |number| number as u32);
        set(&mut machine.mappings, self.mappings, |number| number as u32);
        set(&mut machine.files_bytes, self.files_mib, mib);
        set(&mut limits.log_bytes_per_second, self.log_bytes_per_second, |bytes| bytes);
        set(&mut limits.inline_budget, self.inline_budget_us, Duration::from_micros);
        set(&mut limits.concurrent_requests, self.concurrent_requests, |requests| requests as u32);
        limits.background_cpu = self.background_cpu.unwrap_or(limits.background_cpu);
        limits
    }

    /// Whether these limits themselves let programs run between requests.
    pub(crate) fn wants_background(&self) -> bool {
        self.background_cpu.is_some_and(|share| share != CpuShare::NONE)
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
