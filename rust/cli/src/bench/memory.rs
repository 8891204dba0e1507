// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of the process, and that of the kernel for it.

use std::path::Path;

/// Anonymous memory of the process in KiB: pages that were written and belong to no file, wherever they are mapped.
///
/// It includes pages of the snapshot that a worker has made private, and the worker's part of the heap, but neither the
/// snapshot itself nor the kernel's memory. See proc_pid_smaps(5).
///
/// # Errors
///
/// A sentence, if the kernel does not report it.
pub fn anonymous_kib() -> Result<u64, String> {
    Lines::read("/proc/self/smaps_rollup")?.kib("Anonymous:")
}

/// Memory in use in KiB, the kernel's for processes and machines included, without pages of files: that of the process's
/// memory cgroup, or of the machine where it has none.
///
/// The cgroup does not see what other processes of the machine allocate, and counts page by page. The machine's memory
/// is as steady as the machine is quiet. See proc_meminfo(5) and the kernel's admin-guide/cgroup-v2.
///
/// # Errors
///
/// A sentence, if the kernel does not report it.
pub fn with_kernel_kib() -> Result<u64, String> {
    if let Some(kib) = cgroup_kib() {
        return Ok(kib);
    }
    let lines = Lines::read("/proc/meminfo")?;
    Ok(lines.kib("MemTotal:")?.saturating_sub(lines.kib("MemAvailable:")?))
}

/// Memory that the process's cgroup is charged for. None if it is not below the root of a hierarchy with a memory
/// controller that is mounted at its usual place.
fn cgroup_kib() -> Option<u64> {
    let groups = mayfly_files::kernel_text("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        // Number, controllers, path. Version 2 names no controllers here.
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (mounted, usage): (_, &'static str) = match (number, controllers) {
            ("0", "") => ("/sys/fs/cgroup", "memory.current"),
            (_, controllers) if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.usage_in_bytes")
            }
            _ => return None,
        };
        let directory = Path::new(mounted).join(path.trim_start_matches('/'));
        let used: u64 = mayfly_files::cgroup_text(&directory, usage).ok()?.trim().parse().ok()?;
        let stat = mayfly_files::cgroup_text(&directory, "memory.stat").ok()?;
        let files = stat.lines().filter_map(|line| match line.split_once(' ')? {
            ("inactive_file" | "active_file", bytes) => bytes.parse::<u64>().ok(),
            _ => None,
        });
        Some(used.saturating_sub(files.sum()) / 1024)
    })
}

/// A file of the kernel's with a name and a size in each line.
struct Lines {
    path: &'static str,
    text: String,
}

impl Lines {
    fn read(path: &'static str) -> Result<Self, String> {
        let text = mayfly_files::kernel_text(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        Ok(Self { path, text })
    }

    fn kib(&self, name: &str) -> Result<u64, String> {
        self.text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())
            .ok_or_else(|| format!("{} has no line \"{name}\"", self.path))
    }
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

    #[test]
    fn written_memory_is_counted_with_the_kernel_s() {
        let before = super::anonymous_kib().unwrap();
        let written = vec![1_u8; 64 << 20];
        assert!(super::with_kernel_kib().unwrap() > super::anonymous_kib().unwrap() - before);
        drop(written);
    }
}
