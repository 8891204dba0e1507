// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of `mayfly bench`, for programs (JSON) and for people (a table).

use std::fmt;

use serde::Serialize;

use crate::host::HostFacts;

/// All figures. The names are part of the command's interface. A figure is none if its step was not taken, or failed.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    pub program: String,
    /// None for a program from the command line.
    pub tenant: Option<String>,
    pub requests: u32,
    pub rounds: u32,
    pub floor_us: Option<f64>,
    pub call_reset_us: Option<f64>,
    pub call_us: Option<f64>,
    pub reset_us: Option<f64>,
    /// CPU time of the serving thread, for a call with its reset.
    pub cpu_us: Option<f64>,
    pub exits_per_request: Option<f64>,
    /// None without KVM.
    pub ioctls_per_request: Option<f64>,
    pub workset_pages: Option<usize>,
    pub reset_ns_per_page: Option<f64>,
    pub memcpy_ns_per_page: Option<f64>,
    pub fork_us: Option<f64>,
    pub create_vm_us: Option<f64>,
    pub worker_private_kib: Option<f64>,
    /// The same for a worker that has served one request.
    pub worker_served_private_kib: Option<f64>,
    /// The same two with the kernel's memory for the worker, as its cgroup is charged. None for a tenant of a file.
    pub worker_total_kib: Option<f64>,
    pub worker_served_total_kib: Option<f64>,
    /// What a server's routes, limits and counters add to a request. None for a tenant of a file, since it does not
    /// depend on the program.
    pub overhead_ns: Option<f64>,
    /// The same between two workers without a server: the resolution of the comparison.
    pub overhead_equals_ns: Option<f64>,
    /// Why these two cannot be measured with this program; only in the table.
    #[serde(skip)]
    pub overhead_unknown: Option<String>,
    pub boot_ms: f64,
    /// The snapshot's memory, which all workers share.
    pub snapshot_mib: f64,
    /// From nothing to the first response, from a snapshot file. None for programs that have none.
    pub snapshot_first_response_ms: Option<f64>,
    pub latency_us: Option<Latency>,
    /// The status of the program's last answer; only in the table.
    #[serde(skip)]
    pub status: u16,
    /// The steps that failed, and why. The table does not have it, since it is the command's error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
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
        let Self { requests, rounds, status, host, .. } = self;
        let of = self.tenant.as_ref().map(|tenant| format!(" as {tenant}")).unwrap_or_default();
        let last = if *status == 0 { String::new() } else { format!(", last status {status}") };
        writeln!(f, "{}{of}: {} in {}{last}\n", self.program, count(*requests, "request"), count(*rounds, "round"))?;
        let is_kvm = host.engine == "kvm";
        let (floor, bare) =
            if is_kvm { ("a bare KVM_RUN round trip", "VM") } else { ("a bare round trip to a process", "process") };
        let above = self.call_reset_us.zip(self.floor_us).map(|(both, floor)| both - floor);
        let pages = self.workset_pages.map(|pages| format!("of {}", count(pages as u32, "page")));
        let latency = |quantile: fn(&Latency) -> f64| self.latency_us.as_ref().map(quantile);
        let mut row = |name: &str, value: Option<f64>, unit: &str, note: Option<&str>| match value {
            Some(value) => {
                let line = format!("{name:<20} {value:>9.2} {unit:<6} {}", note.unwrap_or_default());
                writeln!(f, "  {}", line.trim_end())
            }
            None => Ok(()),
        };
        row("floor", self.floor_us, "us", Some(floor))?;
        row(
            "call and reset",
            self.call_reset_us,
            "us",
            above.map(|us| format!("{us:.2} us above the floor")).as_deref(),
        )?;
        row("  call", self.call_us, "us", Some("request in, response out"))?;
        row("  reset", self.reset_us, "us", pages.as_deref())?;
        row("  p90", latency(|latency| latency.p90), "us", None)?;
        row("  p99", latency(|latency| latency.p99), "us", None)?;
        row("  p99.9", latency(|latency| latency.p999), "us", None)?;
        row("  CPU", self.cpu_us, "us", Some("of the thread that serves"))?;
        row("exits", self.exits_per_request, "", Some("a request"))?;
        if self.workset_pages.is_some_and(|pages| pages > 0) {
            let compared = self.reset_ns_per_page.zip(self.memcpy_ns_per_page);
            let compared = compared.map(|(reset, copy)| format!("{:.2} x memcpy, {copy:.0} ns", reset / copy));
            row("reset of a page", self.reset_ns_per_page, "ns", compared.as_deref())?;
        }
        let compared = self.fork_us.zip(self.create_vm_us);
        let compared = compared.map(|(fork, create)| format!("{:.2} x a bare {bare}, {create:.0} us", fork / create));
        row("fork", self.fork_us, "us", compared.as_deref())?;
        let served = |kib: Option<f64>, what: &str| kib.map(|kib| format!("{what}{kib:.2} once it has served"));
        let private = served(self.worker_served_private_kib, "private memory; ");
        row("idle worker", self.worker_private_kib, "KiB", private.as_deref())?;
        row("  with the kernel's", self.worker_total_kib, "KiB", served(self.worker_served_total_kib, "").as_deref())?;
        let equals = self.overhead_equals_ns.map(|ns| format!("added to a request; equals differ by {ns:.0} ns"));
        row("routes and limits", self.overhead_ns, "ns", equals.as_deref())?;
        row("boot", Some(self.boot_ms), "ms", None)?;
        row("snapshot", Some(self.snapshot_mib), "MiB", Some("shared by all workers"))?;
        row("first response", self.snapshot_first_response_ms, "ms", Some("from a snapshot file"))?;
        if let Some(why) = &self.overhead_unknown {
            writeln!(f, "  routes and limits    not measured: {why}")?;
        }
        let engine = if is_kvm { format!("{} KVM", host.kvm) } else { "processes".to_owned() };
        writeln!(f, "\n  {}, Linux {}, {engine}", host.cpu, host.kernel)?;
        writeln!(f, "  mitigations: {}", host.mitigations)
    }
}

/// As in "1 page", "2 pages".
fn count(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
