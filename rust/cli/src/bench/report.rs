// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of `mayfly bench`, for programs (JSON) and for people (a table).

use std::fmt;

use serde::Serialize;

use crate::host::HostFacts;

/// All figures. The names are part of the command's interface.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub program: String,
    /// None for a program from the command line.
    pub tenant: Option<String>,
    pub requests: u32,
    pub rounds: u32,
    pub floor_us: f64,
    pub call_reset_us: f64,
    pub call_us: f64,
    pub reset_us: f64,
    /// CPU time of the serving thread, for a call with its reset.
    pub cpu_us: f64,
    pub exits_per_request: f64,
    /// None without KVM.
    pub ioctls_per_request: Option<f64>,
    pub workset_pages: usize,
    pub reset_ns_per_page: f64,
    pub memcpy_ns_per_page: f64,
    pub fork_us: f64,
    pub create_vm_us: f64,
    pub worker_private_kib: f64,
    /// The same for a worker that has served one request.
    pub worker_served_private_kib: f64,
    /// The same two with the kernel's memory for the worker, as its cgroup is charged. None for a tenant of a file.
    pub worker_total_kib: Option<f64>,
    pub worker_served_total_kib: Option<f64>,
    /// What a server's routes, limits and counters add to a request. None for a tenant of a file, since it does not
    /// depend on the program.
    pub overhead_ns: Option<f64>,
    /// The same between two workers without a server: the resolution of the comparison.
    pub overhead_equals_ns: Option<f64>,
    pub boot_ms: f64,
    /// The snapshot's memory, which all workers share.
    pub snapshot_mib: f64,
    /// From nothing to the first response, from a snapshot file. None for programs that have none.
    pub snapshot_first_response_ms: Option<f64>,
    pub latency_us: Latency,
    /// The status of the program's last answer; only in the table.
    #[serde(skip)]
    pub status: u16,
    pub host: HostFacts,
}

/// Latency of a call with its reset.
#[derive(Debug, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Figures {
    pub fn json(&self) -> String {
        // A structure of numbers and strings always serialises.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, rounds, status, latency_us: latency, host, .. } = self;
        let of = self.tenant.as_ref().map(|tenant| format!(" as {tenant}")).unwrap_or_default();
        writeln!(f, "{}{of}: {requests} requests in {rounds} rounds, last status {status}\n", self.program)?;
        let mut row = |name: &str, value: f64, unit: &str, note: &str| {
            writeln!(f, "  {}", format!("{name:<20} {value:>9.2} {unit:<6} {note}").trim_end())
        };
        let is_kvm = host.engine == "kvm";
        let above = self.call_reset_us - self.floor_us;
        let (floor, bare) =
            if is_kvm { ("a bare KVM_RUN round trip", "VM") } else { ("a bare round trip to a process", "process") };
        row("floor", self.floor_us, "us", floor)?;
        row("call and reset", self.call_reset_us, "us", &format!("{above:.2} us above the floor"))?;
        row("  call", self.call_us, "us", "request in, response out")?;
        row(
            "  reset",
            self.reset_us,
            "us",
            &match self.workset_pages {
                1 => "of 1 page".to_owned(),
                pages => format!("of {pages} pages"),
            },
        )?;
        row("  p90", latency.p90, "us", "")?;
        row("  p99", latency.p99, "us", "")?;
        row("  p99.9", latency.p999, "us", "")?;
        row("  CPU", self.cpu_us, "us", "of the thread that serves")?;
        row("exits", self.exits_per_request, "", "a request")?;
        if self.workset_pages > 0 {
            let ratio = self.reset_ns_per_page / self.memcpy_ns_per_page;
            let note = format!("{ratio:.2} x memcpy, {:.0} ns", self.memcpy_ns_per_page);
            row("reset of a page", self.reset_ns_per_page, "ns", &note)?;
        }
        let ratio = self.fork_us / self.create_vm_us;
        row("fork", self.fork_us, "us", &format!("{ratio:.2} x a bare {bare}, {:.0} us", self.create_vm_us))?;
        let note = format!("private memory; {:.2} once it has served", self.worker_served_private_kib);
        row("idle worker", self.worker_private_kib, "KiB", &note)?;
        if let (Some(total), Some(served)) = (self.worker_total_kib, self.worker_served_total_kib) {
            row("  with the kernel's", total, "KiB", &format!("{served:.2} once it has served"))?;
        }
        if let (Some(added), Some(equals)) = (self.overhead_ns, self.overhead_equals_ns) {
            let note = format!("added to a request; equals differ by {equals:.0} ns");
            row("routes and limits", added, "ns", &note)?;
        }
        row("boot", self.boot_ms, "ms", "")?;
        row("snapshot", self.snapshot_mib, "MiB", "shared by all workers")?;
        if let Some(ms) = self.snapshot_first_response_ms {
            row("first response", ms, "ms", "from a snapshot file")?;
        }
        let engine = if is_kvm { format!("{} KVM", host.kvm) } else { "processes".to_owned() };
        writeln!(f, "\n  {}, Linux {}, {engine}", host.cpu, host.kernel)?;
        writeln!(f, "  mitigations: {}", host.mitigations)
    }
}
