// SPDX-License-Identifier: MIT OR Apache-2.0
//! The facts about the host that every figure depends on: processor, kernel, kind of KVM, mitigations.

use std::fs;

use serde::Serialize;

/// The host, as reports describe it.
#[derive(Debug, Default, Serialize)]
pub struct HostFacts {
    pub cpu: String,
    pub kernel: String,
    /// `hardware`, `paging`, or `none`.
    pub kvm: String,
    /// The kernel's state for each known vulnerability that affects this processor, as in `spectre_v2: Mitigation: …`.
    pub mitigations: String,
}

impl HostFacts {
    pub fn read(kvm: &str) -> Self {
        Self { cpu: cpu(), kernel: kernel(), kvm: kvm.to_owned(), mitigations: mitigations() }
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
