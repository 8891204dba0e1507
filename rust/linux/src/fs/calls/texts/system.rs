// SPDX-License-Identifier: MIT OR Apache-2.0
//! Texts about the system: `/proc`, and the cgroup's files. There is one processor, on which the program alone runs;
//! its memory is the tenant's limit.

use std::fmt::Write;

use mayfly_machine::PAGE_SIZE;

use super::process::ticks;
use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::identity;
use crate::kernel::call::Call;
use crate::kernel::process::Process;

/// `/proc/cpuinfo`.
pub(super) const PROCESSORS: &str = "\
processor\t: 0\n\
vendor_id\t: Mayfly\n\
cpu family\t: 6\n\
model\t\t: 0\n\
model name\t: Mayfly virtual processor\n\
stepping\t: 0\n\
cpu MHz\t\t: 1000.000\n\
cache size\t: 0 KB\n\
physical id\t: 0\n\
siblings\t: 1\n\
core id\t\t: 0\n\
cpu cores\t: 1\n\
fpu\t\t: yes\n\
wp\t\t: yes\n\
flags\t\t: fpu tsc cx8 cmov mmx fxsr sse sse2 syscall nx lm\n\
bogomips\t: 2000.00\n\
clflush size\t: 64\n\
address sizes\t: 36 bits physical, 48 bits virtual\n\
\n\
";

/// `/proc/stat`: the program's CPU time, and the rest since the system's start as idle time.
pub(super) fn stat(process: &Process) -> String {
    let up_ns = clock::boottime_ns();
    let (used, up) = (ticks(process.cpu_ns()), ticks(up_ns));
    let idle = up.saturating_sub(used);
    // To the nearest second: two readings of the two clocks must not differ.
    let began = clock::realtime_ns().saturating_sub(up_ns).saturating_add(500_000_000) / 1_000_000_000;
    format!(
        "cpu  {used} 0 0 {idle} 0 0 0 0 0 0\ncpu0 {used} 0 0 {idle} 0 0 0 0 0 0\nintr 0\nctxt 0\nbtime {began}\n\
         processes 2\nprocs_running 1\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n"
    )
}

/// `/proc/loadavg`.
pub(super) fn load_average(process: &Process) -> String {
    let threads = process.threads.len();
    format!("0.00 0.00 0.00 1/{threads} {}\n", process.threads.iter().map(|thread| thread.tid).max().unwrap_or(0))
}

/// `/proc/uptime`: since the system's start, and how long the processor was idle.
pub(super) fn uptime(process: &Process) -> String {
    let up_ns = clock::boottime_ns();
    let hundredths = |ns: u64| ns / 10_000_000;
    let [up, idle] = [hundredths(up_ns), hundredths(up_ns.saturating_sub(process.cpu_ns()))];
    format!("{}.{:02} {}.{:02}\n", up / 100, up % 100, idle / 100, idle % 100)
}

/// `/proc/meminfo`. Pages of files come from the host's page cache and do not count.
pub(super) fn memory(call: &mut Call<'_, '_>) -> Result<String, Errno> {
    let resident = call.resident()?;
    let kib = |pages: u64| pages.saturating_mul(PAGE_SIZE / 1024);
    let total = call.process.shared.limits.memory_bytes / 1024;
    let used = kib(resident.anonymous.saturating_add(resident.shared));
    let free = total.saturating_sub(used);
    let cached = kib(resident.file).min(total.saturating_sub(free));
    let mut text = String::new();
    for (label, value) in [
        ("MemTotal:", total),
        ("MemFree:", free),
        ("MemAvailable:", free),
        ("Buffers:", 0),
        ("Cached:", cached),
        ("SwapCached:", 0),
        ("Active:", used),
        ("Inactive:", cached),
        ("SwapTotal:", 0),
        ("SwapFree:", 0),
        ("Dirty:", 0),
        ("AnonPages:", kib(resident.anonymous)),
        ("Mapped:", kib(resident.file)),
        ("Shmem:", kib(resident.shared)),
        ("Slab:", 0),
        ("SReclaimable:", 0),
        ("CommitLimit:", total),
        ("Committed_AS:", used),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{label:<15} {value:>8} kB");
    }
    text.push_str("HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n");
    Ok(text)
}

/// Bytes that count towards the tenant's memory limit as the program sees it.
fn charged(call: &mut Call<'_, '_>) -> Result<(u64, u64, u64), Errno> {
    let resident = call.resident()?;
    let bytes = |pages: u64| pages.saturating_mul(PAGE_SIZE);
    let files = bytes(resident.shared).saturating_add(call.process.overlay.inodes().bytes());
    Ok((bytes(resident.anonymous), files, bytes(resident.file)))
}

/// `memory.current` of the cgroup.
pub(super) fn memory_current(call: &mut Call<'_, '_>) -> Result<String, Errno> {
    let (anonymous, files, _) = charged(call)?;
    Ok(format!("{}\n", anonymous.saturating_add(files)))
}

/// `memory.stat` of the cgroup.
pub(super) fn memory_stat(call: &mut Call<'_, '_>) -> Result<String, Errno> {
    let (anonymous, files, mapped) = charged(call)?;
    Ok(format!(
        "anon {anonymous}\nfile {files}\nkernel 0\nshmem {files}\nfile_mapped {mapped}\nfile_dirty 0\ninactive_anon 0\n\
         active_anon {anonymous}\ninactive_file 0\nactive_file 0\nslab 0\npgfault 0\npgmajfault 0\n"
    ))
}

/// `cpu.stat` of the cgroup.
pub(super) fn cpu_stat(process: &Process) -> String {
    let used = process.cpu_ns() / 1000;
    format!("usage_usec {used}\nuser_usec {used}\nsystem_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
}

/// `/proc/sys/kernel/osrelease`.
pub(super) fn release() -> String {
    format!("{}\n", identity::RELEASE)
}

/// `/proc/version`.
pub(super) fn version() -> String {
    format!("{} version {} {}\n", identity::SYSTEM, identity::RELEASE, identity::VERSION)
}

/// A random UUID, version 4.
pub(super) fn uuid(rng: &mut dyn FnMut(&mut [u8])) -> String {
    let mut bytes = [0; 16];
    rng(&mut bytes);
    let number = u128::from_be_bytes(bytes);
    let number = (number & !(0xf << 76 | 0b11 << 62)) | 4 << 76 | 0b10 << 62;
    let digits = format!("{number:032x}");
    let part = |from, to| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}\n", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// `/proc/self/mountinfo`, or `/proc/self/mounts`.
pub(super) fn mount_lines(process: &Process, with_numbers: bool) -> String {
    let fixed: [(&[u8], &str, &str); 4] = [
        (b"/", "tmpfs", "ro"),
        (b"/proc", "proc", "rw"),
        (b"/dev", "tmpfs", "ro"),
        (b"/sys/fs/cgroup", "cgroup2", "ro"),
    ];
    let fixed = fixed.into_iter().map(|(path, kind, mode)| (path, kind, mode, 0));
    let tenants = process.shared.mounts.iter().map(|mount| {
        let path: &[u8] = if mount.guest.is_empty() { b"/" } else { &mount.guest };
        let kind = if mount.root.is_some() { "mayfly" } else { "tmpfs" };
        (path, kind, if mount.writable || mount.durable.is_some() { "rw" } else { "ro" }, mount.device)
    });
    let mut text = String::new();
    for (number, (path, kind, mode, device)) in (20_u32..).zip(fixed.chain(tenants)) {
        // mountinfo escapes blanks as octal numbers.
        let path = String::from_utf8_lossy(path).replace('\\', "\\134").replace(' ', "\\040").replace('\n', "\\012");
        let _ = if with_numbers {
            writeln!(text, "{number} 20 0:{device} / {path} {mode},relatime - {kind} {kind} {mode}")
        } else {
            writeln!(text, "{kind} {path} {kind} {mode},relatime 0 0")
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_4() {
        assert_eq!(uuid(&mut |bytes| bytes.fill(0xff)), "ffffffff-ffff-4fff-bfff-ffffffffffff\n");
        assert_eq!(uuid(&mut |bytes| bytes.fill(0)), "00000000-0000-4000-8000-000000000000\n");
    }
}
