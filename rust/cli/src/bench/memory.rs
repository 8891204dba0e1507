// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory the process has to itself.

/// Anonymous memory of the process in KiB: pages that were written and belong to no file, wherever they are mapped.
///
/// A page of the snapshot that a worker has made private is one of them, and so is what the worker costs on the heap; the snapshot
/// itself is not, nor is the kernel's share. See proc_pid_smaps(5).
///
/// # Errors
///
/// A sentence, when the kernel does not say.
pub fn anonymous_kib() -> Result<u64, String> {
    let path = "/proc/self/smaps_rollup";
    let text = mayfly_files::kernel_text(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix(" kB")?.parse().ok())
        .ok_or_else(|| format!("{path} has no line \"Anonymous\""))
}

#[cfg(test)]
mod tests {
    #[test]
    fn written_memory_is_seen() {
        let before = super::anonymous_kib().unwrap();
        let written = vec![1_u8; 8 << 20];
        let after = super::anonymous_kib().unwrap();
        assert!(after >= before + (7 << 10), "{before} {after}");
        drop(written);
    }
}
