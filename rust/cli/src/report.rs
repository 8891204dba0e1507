// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of `mayfly bench`, for programs (JSON) and for people (a table).

use std::fmt;

use serde::Serialize;

use crate::host::HostFacts;

/// All figures. The names are part of the command's interface.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub program: String,
    pub requests: u32,
    pub rounds: u32,
    pub floor_us: f64,
    pub call_reset_us: f64,
    pub call_us: f64,
    pub reset_us: f64,
    pub exits_per_request: f64,
    pub ioctls_per_request: f64,
    pub workset_pages: usize,
    pub reset_ns_per_page: f64,
    pub memcpy_ns_per_page: f64,
    pub fork_us: f64,
    pub create_vm_us: f64,
    pub worker_private_kib: f64,
    /// What a server's routes, limits and counters add to a request.
    pub overhead_ns: f64,
    /// The same between two workers without a server: what the comparison cannot tell from nothing.
    pub overhead_equals_ns: f64,
    pub boot_ms: f64,
    pub latency_us: Latency,
    /// What the program answered; in the table only.
    #[serde(skip)]
    pub status: u16,
    pub host: HostFacts,
}

/// Of a call with its reset.
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
        writeln!(f, "{}: {requests} requests in {rounds} rounds, last status {status}\n", self.program)?;
        let mut row = |name: &str, value: f64, unit: &str, note: &str| {
            writeln!(f, "  {}", format!("{name:<20} {value:>9.2} {unit:<6} {note}").trim_end())
        };
        let above = self.call_reset_us - self.floor_us;
        row("floor", self.floor_us, "us", "a bare KVM_RUN round trip")?;
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
        row("exits", self.exits_per_request, "", "a request")?;
        if self.workset_pages > 0 {
            let ratio = self.reset_ns_per_page / self.memcpy_ns_per_page;
            let note = format!("{ratio:.2} x memcpy, {:.0} ns", self.memcpy_ns_per_page);
            row("reset of a page", self.reset_ns_per_page, "ns", &note)?;
        }
        let ratio = self.fork_us / self.create_vm_us;
        row("fork", self.fork_us, "us", &format!("{ratio:.2} x a bare VM, {:.0} us", self.create_vm_us))?;
        row("idle worker", self.worker_private_kib, "KiB", "private memory")?;
        let note = format!("added to a request; equals differ by {:.0} ns", self.overhead_equals_ns);
        row("routes and limits", self.overhead_ns, "ns", &note)?;
        row("boot", self.boot_ms, "ms", "")?;
        writeln!(f, "\n  {}, Linux {}, {} KVM", host.cpu, host.kernel, host.kvm)?;
        writeln!(f, "  mitigations: {}", host.mitigations)
    }
}
