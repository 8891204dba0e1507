// SPDX-License-Identifier: MIT OR Apache-2.0
//! The private memory of the process.

/// Anonymous memory of the process in KiB: pages that were written and belong to no file, wherever they are mapped.
///
/// It includes pages of the snapshot that a worker has made private, and the worker's part of the heap, but neither the
/// snapshot itself nor the kernel's memory. See proc_pid_smaps(5).
///
/// # Errors
///
/// A sentence, if the kernel does not report it.
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
    fn written_memory_is_counted() {
        let before = super::anonymous_kib().unwrap();
        let written = vec![1_u8; 8 << 20];
        let after = super::anonymous_kib().unwrap();
        assert!(after >= before + (7 << 10), "{before} {after}");
        drop(written);
    }
}
