// SPDX-License-Identifier: MIT OR Apache-2.0
//! Synthetic files: devices, `/proc`, `/sys`, and the few in `/etc` that C libraries look for.
//!
//! They show the process and its own limits, and nothing of the host. Opening a file creates its text, which then stays
//! the same. `/proc`, `/dev` and `/sys` have no other files; a mount takes precedence over those of `/etc`.

use std::fmt::Write;

use mayfly_machine::{PAGE_SIZE, Prot, layout};

use crate::base::identity::{self, GID, PARENT_PID, PID, UID};
use crate::fs::object::Object;
use crate::host::attributes::Attributes;
use crate::kernel::process::Process;
use crate::mm::vma::VmaKind;

/// A synthetic file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyntheticFile {
    Device(Device),
    Text(Text),
    /// A symbolic link to a fixed path.
    Link(&'static str),
    /// `/proc/self/exe`.
    Executable,
    /// `/proc/self/cwd`.
    WorkingDirectory,
    /// `/proc/self/fd`.
    Descriptors,
    /// `/proc/self/fd/N` of an open descriptor.
    Descriptor(i32),
    /// A directory on the path to another synthetic file or to a mount.
    Directory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Null,
    Zero,
    Full,
    Random,
    Urandom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Fixed(&'static str),
    Hosts,
    Zone,
    Auxv,
    CommandLine,
    Comm,
    Maps,
    MountInfo,
    Mounts,
    Stat,
    Statm,
    Status,
    Limits,
    MemInfo,
    CpuInfo,
    Uptime,
    OsRelease,
    Version,
    Uuid,
    MemoryMax,
}

#[rustfmt::skip]
const FILES: &[(&str, SyntheticFile)] = &[
    ("/dev/fd", SyntheticFile::Link("/proc/self/fd")),
    ("/dev/full", SyntheticFile::Device(Device::Full)),
    ("/dev/null", SyntheticFile::Device(Device::Null)),
    ("/dev/random", SyntheticFile::Device(Device::Random)),
    ("/dev/stderr", SyntheticFile::Link("/proc/self/fd/2")),
    ("/dev/stdin", SyntheticFile::Link("/proc/self/fd/0")),
    ("/dev/stdout", SyntheticFile::Link("/proc/self/fd/1")),
    ("/dev/urandom", SyntheticFile::Device(Device::Urandom)),
    ("/dev/zero", SyntheticFile::Device(Device::Zero)),
    ("/etc/group", SyntheticFile::Text(Text::Fixed("root:x:0:\nmayfly:x:1000:\n"))),
    ("/etc/hosts", SyntheticFile::Text(Text::Hosts)),
    ("/etc/localtime", SyntheticFile::Text(Text::Zone)),
    ("/etc/nsswitch.conf", SyntheticFile::Text(Text::Fixed("passwd: files\ngroup: files\nhosts: files dns\n"))),
    ("/etc/passwd", SyntheticFile::Text(Text::Fixed("root:x:0:0:root:/:/bin/false\nmayfly:x:1000:1000:mayfly:/tmp:/bin/false\n"))),
    ("/etc/resolv.conf", SyntheticFile::Text(Text::Fixed("# There are no name servers.\noptions timeout:1 attempts:1\n"))),
    ("/proc/2/auxv", SyntheticFile::Text(Text::Auxv)),
    ("/proc/2/cgroup", SyntheticFile::Text(Text::Fixed("0::/\n"))),
    ("/proc/2/cmdline", SyntheticFile::Text(Text::CommandLine)),
    ("/proc/2/comm", SyntheticFile::Text(Text::Comm)),
    ("/proc/2/cwd", SyntheticFile::WorkingDirectory),
    ("/proc/2/exe", SyntheticFile::Executable),
    ("/proc/2/fd", SyntheticFile::Descriptors),
    ("/proc/2/limits", SyntheticFile::Text(Text::Limits)),
    ("/proc/2/maps", SyntheticFile::Text(Text::Maps)),
    ("/proc/2/mountinfo", SyntheticFile::Text(Text::MountInfo)),
    ("/proc/2/mounts", SyntheticFile::Text(Text::Mounts)),
    ("/proc/2/root", SyntheticFile::Link("/")),
    ("/proc/2/stat", SyntheticFile::Text(Text::Stat)),
    ("/proc/2/statm", SyntheticFile::Text(Text::Statm)),
    ("/proc/2/status", SyntheticFile::Text(Text::Status)),
    ("/proc/cpuinfo", SyntheticFile::Text(Text::CpuInfo)),
    ("/proc/filesystems", SyntheticFile::Text(Text::Fixed("nodev\tproc\nnodev\ttmpfs\nnodev\tcgroup2\n"))),
    ("/proc/loadavg", SyntheticFile::Text(Text::Fixed("0.00 0.00 0.00 1/1 2\n"))),
    ("/proc/meminfo", SyntheticFile::Text(Text::MemInfo)),
    ("/proc/mounts", SyntheticFile::Link("self/mounts")),
    ("/proc/self", SyntheticFile::Link("2")),
    ("/proc/stat", SyntheticFile::Text(Text::Fixed("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\nctxt 0\nbtime 0\nprocesses 2\nprocs_running 1\nprocs_blocked 0\n"))),
    ("/proc/sys/kernel/hostname", SyntheticFile::Text(Text::Fixed("mayfly\n"))),
    ("/proc/sys/kernel/osrelease", SyntheticFile::Text(Text::OsRelease)),
    ("/proc/sys/kernel/pid_max", SyntheticFile::Text(Text::Fixed("32768\n"))),
    ("/proc/sys/kernel/random/boot_id", SyntheticFile::Text(Text::Fixed("00000000-0000-4000-8000-000000000002\n"))),
    ("/proc/sys/kernel/random/entropy_avail", SyntheticFile::Text(Text::Fixed("256\n"))),
    ("/proc/sys/kernel/random/uuid", SyntheticFile::Text(Text::Uuid)),
    ("/proc/sys/net/core/somaxconn", SyntheticFile::Text(Text::Fixed("4096\n"))),
    ("/proc/sys/vm/max_map_count", SyntheticFile::Text(Text::Fixed("65530\n"))),
    ("/proc/sys/vm/overcommit_memory", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/proc/uptime", SyntheticFile::Text(Text::Uptime)),
    ("/proc/version", SyntheticFile::Text(Text::Version)),
    ("/sys/devices/system/cpu/online", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/sys/devices/system/cpu/possible", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/sys/devices/system/cpu/present", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/sys/fs/cgroup/cgroup.controllers", SyntheticFile::Text(Text::Fixed("cpu memory\n"))),
    ("/sys/fs/cgroup/cpu.max", SyntheticFile::Text(Text::Fixed("100000 100000\n"))),
    ("/sys/fs/cgroup/memory.high", SyntheticFile::Text(Text::Fixed("max\n"))),
    ("/sys/fs/cgroup/memory.max", SyntheticFile::Text(Text::MemoryMax)),
    ("/sys/fs/cgroup/memory.swap.max", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/sys/kernel/mm/transparent_hugepage/enabled", SyntheticFile::Text(Text::Fixed("always madvise [never]\n"))),
];
const _: () = assert!(PID == 2, "paths in FILES name it");

/// The directory of descriptors, with a trailing slash.
const DESCRIPTORS: &[u8] = b"/proc/2/fd/";

/// The synthetic file at `path`, which contains no symbolic links.
pub(crate) fn find(process: &Process, path: &[u8]) -> Option<SyntheticFile> {
    if let Some(number) = path.strip_prefix(DESCRIPTORS) {
        let text = std::str::from_utf8(number).ok()?;
        let fd = text.parse().ok().filter(|fd: &i32| fd.to_string() == text)?;
        return process.files.get(fd).ok().map(|_| SyntheticFile::Descriptor(fd));
    }
    if let Some((_, found)) = FILES.iter().find(|(place, _)| place.as_bytes() == path) {
        return Some(*found);
    }
    let above = |place: &[u8]| place.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
    let leads_on = path.is_empty()
        || FILES.iter().any(|(place, _)| above(place.as_bytes()))
        || process.shared.mounts.iter().any(|mount| above(&mount.guest));
    leads_on.then_some(SyntheticFile::Directory)
}

/// Whether the synthetic file at `path` takes precedence over a mount's: no other `/etc/hosts` has the names that the
/// program may connect to.
pub(crate) fn is_first(process: &Process, path: &[u8]) -> bool {
    path == b"/etc/hosts" && process.shared.network.has_names()
}

/// The names in the directory `path` that are synthetic or lead to a mount, with their type.
pub(crate) fn names(process: &Process, path: &[u8]) -> Vec<(Vec<u8>, u8)> {
    if path == b"/proc/2/fd" {
        return process.files.descriptors().map(|fd| (fd.to_string().into_bytes(), libc::DT_LNK)).collect();
    }
    let places = FILES.iter().map(|(place, file)| (place.as_bytes(), file.entry_kind()));
    let mounts = process.shared.mounts.iter().map(|mount| (mount.guest.as_slice(), libc::DT_DIR));
    let mut found = Vec::new();
    for (place, kind) in places.chain(mounts) {
        let Some(rest) = place.strip_prefix(path).and_then(|rest| rest.strip_prefix(b"/")) else { continue };
        match rest.iter().position(|&byte| byte == b'/') {
            Some(end) => found.push((rest.get(..end).unwrap_or_default().to_vec(), libc::DT_DIR)),
            None if !rest.is_empty() => found.push((rest.to_vec(), kind)),
            None => {}
        }
    }
    found
}

impl SyntheticFile {
    fn entry_kind(self) -> u8 {
        match self {
            Self::Device(_) => libc::DT_CHR,
            Self::Text(_) => libc::DT_REG,
            Self::Link(_) | Self::Executable | Self::WorkingDirectory | Self::Descriptor(_) => libc::DT_LNK,
            Self::Descriptors | Self::Directory => libc::DT_DIR,
        }
    }

    /// Attributes of the file at `path`, for `lstat`.
    pub(crate) fn attributes(self, process: &Process, path: &[u8]) -> Attributes {
        let mode = match self {
            Self::Device(device) => return device.object().device_attributes(),
            // Linux too reports files of /proc as empty; those of /etc have a size.
            Self::Text(text) => {
                let size = match text {
                    Text::Fixed(text) if path.starts_with(b"/etc/") => text.len() as u64,
                    Text::Zone => zone().len() as u64,
                    Text::Hosts => process.shared.network.hosts().len() as u64,
                    _ => 0,
                };
                return Attributes {
                    size,
                    user: 0,
                    group: 0,
                    ..Attributes::synthetic(inode(path), libc::S_IFREG | 0o444)
                };
            }
            Self::Link(_) | Self::Executable | Self::WorkingDirectory | Self::Descriptor(_) => libc::S_IFLNK | 0o777,
            Self::Descriptors | Self::Directory => libc::S_IFDIR | 0o555,
        };
        Attributes { user: 0, group: 0, ..Attributes::synthetic(inode(path), mode) }
    }

    /// The target of a symbolic link.
    pub(crate) fn link_target(self, process: &Process) -> Option<Vec<u8>> {
        match self {
            Self::Link(target) => Some(target.as_bytes().to_vec()),
            Self::Executable => Some(process.shared.executable.clone().into_bytes()),
            Self::WorkingDirectory => Some(process.files.directory().to_vec()),
            Self::Descriptor(fd) => {
                let open = process.files.open_file(fd).ok()?;
                Some(match open.object {
                    Object::Pollable(id) => process.pollables.path(id),
                    _ => open.path.to_vec(),
                })
            }
            Self::Device(_) | Self::Text(_) | Self::Descriptors | Self::Directory => None,
        }
    }
}

impl Device {
    pub(crate) fn object(self) -> Object {
        match self {
            Self::Null => Object::Null,
            Self::Zero => Object::Zero,
            Self::Full => Object::Full,
            Self::Random => Object::Random { urandom: false },
            Self::Urandom => Object::Random { urandom: true },
        }
    }
}

/// An inode number for `path`, always the same (FNV-1a).
pub(crate) fn inode(path: &[u8]) -> u64 {
    path.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        >> 16
}

/// The present content of a file.
pub(crate) fn content(process: &Process, rng: &mut dyn FnMut(&mut [u8]), text: Text) -> Vec<u8> {
    let shared = &process.shared;
    let memory = shared.limits.memory_bytes;
    let kib = memory / 1024;
    let pages = process.memory.mapped_bytes() / 4096;
    let name =
        || String::from_utf8_lossy(process.threads.current().name.split(|&byte| byte == 0).next().unwrap_or_default());
    match text {
        Text::Fixed(text) => text.to_owned(),
        Text::Hosts => shared.network.hosts(),
        Text::Zone => return zone(),
        Text::Auxv => return shared.auxv.clone(),
        Text::CommandLine => return shared.command_line.clone(),
        Text::Comm => format!("{}\n", name()),
        Text::Maps => maps(process),
        Text::MountInfo => mount_lines(process, true),
        Text::Mounts => mount_lines(process, false),
        Text::Stat => {
            let stack = crate::mm::address_space::AddressSpace::stack_top();
            format!(
                "{PID} ({}) R {PARENT_PID} {PID} {PID} 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 0 {} {pages} {} 0 0 {stack} 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
                name(),
                pages.saturating_mul(4096),
                u64::MAX,
            )
        }
        Text::Statm => format!("{pages} {pages} 0 0 0 {pages} 0\n"),
        Text::Status => {
            let size = pages.saturating_mul(4);
            format!(
                "Name:\t{}\nUmask:\t{:04o}\nState:\tR (running)\nTgid:\t{PID}\nNgid:\t0\nPid:\t{PID}\nPPid:\t{PARENT_PID}\nTracerPid:\t0\nUid:\t{UID}\t{UID}\t{UID}\t{UID}\nGid:\t{GID}\t{GID}\t{GID}\t{GID}\nFDSize:\t{}\nGroups:\t\nVmPeak:\t{size} kB\nVmSize:\t{size} kB\nVmHWM:\t{} kB\nVmRSS:\t{} kB\nThreads:\t{}\nNoNewPrivs:\t1\nSeccomp:\t0\nCpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed_list:\t0\n",
                name(),
                process.resources.umask,
                process.files.limit(),
                size.min(kib),
                size.min(kib),
                process.threads.len(),
            )
        }
        Text::Limits => format!(
            "Limit                     Soft Limit           Hard Limit           Units     \nMax stack size            {stack:<20} {stack:<20} bytes     \nMax open files            {files:<20} {files:<20} files     \nMax address space         {space:<20} {space:<20} bytes     \n",
            stack = shared.limits.stack_bytes,
            files = process.files.limit(),
            space = shared.limits.address_space_bytes,
        ),
        Text::MemInfo => format!(
            "MemTotal:       {kib:>8} kB\nMemFree:        {kib:>8} kB\nMemAvailable:   {kib:>8} kB\nBuffers:               0 kB\nCached:                0 kB\nSwapCached:            0 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\nShmem:                 0 kB\nSReclaimable:          0 kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n"
        ),
        Text::CpuInfo => "processor\t: 0\nvendor_id\t: Mayfly\ncpu family\t: 6\nmodel\t\t: 0\nmodel name\t: Mayfly virtual processor\nstepping\t: 0\ncpu MHz\t\t: 1000.000\ncache size\t: 0 KB\nphysical id\t: 0\nsiblings\t: 1\ncore id\t\t: 0\ncpu cores\t: 1\nfpu\t\t: yes\nwp\t\t: yes\nflags\t\t: fpu tsc cx8 cmov mmx fxsr sse sse2 syscall nx lm\nbogomips\t: 2000.00\nclflush size\t: 64\naddress sizes\t: 36 bits physical, 48 bits virtual\n\n".to_owned(),
        Text::Uptime => {
            let up = shared.started.elapsed();
            format!("{}.{:02} 0.00\n", up.as_secs(), up.subsec_millis() / 10)
        }
        Text::OsRelease => format!("{}\n", identity::RELEASE),
        Text::Version => format!("{} version {} {}\n", identity::SYSTEM, identity::RELEASE, identity::VERSION),
        Text::Uuid => uuid(rng),
        Text::MemoryMax => format!("{memory}\n"),
    }
    .into_bytes()
}

/// A random UUID, version 4.
fn uuid(rng: &mut dyn FnMut(&mut [u8])) -> String {
    let mut bytes = [0; 16];
    rng(&mut bytes);
    let number = u128::from_be_bytes(bytes);
    let number = (number & !(0xf << 76 | 0b11 << 62)) | 4 << 76 | 0b10 << 62;
    let digits = format!("{number:032x}");
    let part = |from, to| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}\n", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// `/proc/self/maps`.
fn maps(process: &Process) -> String {
    let space = &process.memory;
    let heap = space.heap();
    let mut text = String::new();
    for vma in space.all() {
        let flag = |prot, letter| if vma.prot.contains(prot) { letter } else { '-' };
        let is_shared = matches!(
            vma.kind,
            VmaKind::Shared | VmaKind::Overlay { shared: true, .. } | VmaKind::File { shared: true, .. }
        );
        let shared = if is_shared { 's' } else { 'p' };
        let (offset, device, inode, name) = match vma.kind {
            VmaKind::Stack => (0, 0, 0, "[stack]".into()),
            VmaKind::Private if heap.contains(&vma.range.start()) => (0, 0, 0, "[heap]".into()),
            VmaKind::Private | VmaKind::Shared => (0, 0, 0, String::new()),
            // Only the file's descriptors know its name.
            VmaKind::Overlay { offset, .. } => (offset, 0, 0, String::new()),
            VmaKind::File { file, offset, .. } => match space.mapped_file(file) {
                Some(mapped) => {
                    let (device, inode) = mapped.file.identity();
                    (offset, device, inode, String::from_utf8_lossy(&mapped.path).replace('\n', "\\012"))
                }
                None => (0, 0, 0, String::new()),
            },
        };
        let line = format!(
            "{:x}-{:x} {}{}{}{shared} {offset:08x} 00:{device:02x} {inode} ",
            vma.range.start(),
            vma.range.end(),
            flag(Prot::READ, 'r'),
            flag(Prot::WRITE, 'w'),
            flag(Prot::EXEC, 'x'),
        );
        // Linux puts names in column 74.
        let _ = if name.is_empty() { writeln!(text, "{line}") } else { writeln!(text, "{line:<73}{name}") };
    }
    let line = format!("{:x}-{:x} r-xp 00000000 00:00 0 ", layout::VDSO, layout::VDSO.saturating_add(PAGE_SIZE));
    let _ = writeln!(text, "{line:<73}[vdso]");
    text
}

/// `/proc/self/mountinfo`, or `/proc/self/mounts`.
fn mount_lines(process: &Process, with_numbers: bool) -> String {
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
        (path, kind, if mount.writable { "rw" } else { "ro" }, mount.device)
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

/// UTC in the format of tzfile(5): version 2, one type of time, no transitions.
fn zone() -> Vec<u8> {
    let mut part = b"TZif2".to_vec();
    part.extend([0; 15]);
    for count in [0_u32, 0, 0, 0, 1, 4] {
        part.extend(count.to_be_bytes());
    }
    part.extend([0; 6]);
    part.extend(b"UTC\0");
    let mut file = part.clone();
    file.extend(part);
    file.extend(b"\nUTC0\n");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_is_listed_twice() {
        let mut paths: Vec<_> = FILES.iter().map(|(path, _)| path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), FILES.len());
    }

    #[test]
    fn uuids_are_of_version_4() {
        assert_eq!(uuid(&mut |bytes| bytes.fill(0xff)), "ffffffff-ffff-4fff-bfff-ffffffffffff\n");
        assert_eq!(uuid(&mut |bytes| bytes.fill(0)), "00000000-0000-4000-8000-000000000000\n");
    }

    #[test]
    fn utc_is_as_long_as_the_zone_compilers() {
        assert_eq!(zone().len(), 114);
    }
}
