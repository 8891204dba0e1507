// SPDX-License-Identifier: MIT OR Apache-2.0
//! The facts about the host that every figure depends on: processor, kernel, engine, mitigations.

use std::fs;

use mayfly_sandbox::{Engine, EngineReport, Hosts};
use serde::Serialize;

/// The host, as reports describe it.
#[derive(Debug, Default, Serialize)]
pub struct HostFacts {
    pub cpu: String,
    pub kernel: String,
    /// The engine that programs run on: `kvm`, `process`, or `none` if there is none.
    pub engine: &'static str,
    /// The kind of KVM: `hardware`, `paging`, or `none` if it cannot be used or was not tried.
    pub kvm: &'static str,
    /// The kernel's state for each known vulnerability that affects this processor, as in `spectre_v2: Mitigation: …`.
    pub mitigations: String,
}

impl HostFacts {
    /// The facts about a host on which programs run on `engine`. Of `hosts`, only engines that are open are reported.
    pub fn read(hosts: &Hosts, engine: Option<Engine>) -> Self {
        let kvm = match hosts.report(Engine::Kvm) {
            EngineReport::Usable { kind, .. } => kind,
            EngineReport::Unopened | EngineReport::Unusable { .. } => "none",
        };
        let engine = engine.map_or("none", Engine::name);
        Self { cpu: cpu(), kernel: kernel(), engine, kvm, mitigations: mitigations() }
    }
}

fn cpu() -> String {
    let text = mayfly_files::kernel_text("/proc/cpuinfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn kernel() -> String {
    mayfly_files::kernel_text("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Sorted by name, so that reports of one host can be compared as text.
fn mitigations() -> String {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return "unknown".to_owned();
    };
    let mut lines: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            #[allow(clippy::disallowed_methods, reason = "the kernel's files, in a directory of its own")]
            let state = fs::read_to_string(entry.path()).ok()?;
            let state = state.trim();
            (state != "Not affected").then(|| format!("{}: {state}", entry.file_name().to_string_lossy()))
        })
        .collect();
    lines.sort_unstable();
    if lines.is_empty() { "not affected".to_owned() } else { lines.join("; ") }
}
