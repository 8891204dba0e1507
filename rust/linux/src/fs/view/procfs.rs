// SPDX-License-Identifier: MIT OR Apache-2.0
//! Synthetic files: devices, `/proc`, `/sys`, and the few in `/etc` that C libraries look for.
//!
//! They show the process and its own limits, and nothing of the host. Opening a file creates its text
//! (`crate::fs::calls::texts`), which then stays the same. `/proc`, `/dev` and `/sys` have no other files; a mount
//! takes precedence over those of `/etc`.

use crate::base::identity::PID;
use crate::fs::mounts::Mount;
use crate::fs::object::Object;
use crate::host::attributes::Attributes;
use crate::kernel::hosts;
use crate::kernel::process::Process;

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
    /// `/proc/thread-self`.
    CurrentThread,
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

/// A file whose text is made when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Fixed(&'static str),
    Hosts,
    Zone,
    Auxv,
    CommandLine,
    Environ,
    /// Of the process, or of the thread with this number.
    Comm(Option<u32>),
    Stat(Option<u32>),
    Status(Option<u32>),
    Statm,
    Io,
    Maps,
    Smaps,
    SmapsRollup,
    MountInfo,
    Mounts,
    Limits,
    /// `/proc/self/fdinfo/N` of an open descriptor.
    DescriptorInfo(i32),
    Net(NetText),
    SystemStat,
    LoadAverage,
    MemInfo,
    CpuInfo,
    Uptime,
    OsRelease,
    Version,
    Uuid,
    MemoryMax,
    MemoryCurrent,
    MemoryStat,
    CpuStat,
    ThreadsMax,
    ThreadsCurrent,
}

/// A file of `/proc/self/net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetText {
    Tcp,
    Tcp6,
    Udp,
    Udp6,
    Unix,
    Dev,
    Route,
    Addresses6,
    Sockets,
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
    ("/etc/hostname", SyntheticFile::Text(Text::Fixed("mayfly\n"))),
    ("/etc/localtime", SyntheticFile::Text(Text::Zone)),
    ("/etc/nsswitch.conf", SyntheticFile::Text(Text::Fixed("passwd: files\ngroup: files\nhosts: files dns\n"))),
    ("/etc/passwd", SyntheticFile::Text(Text::Fixed("root:x:0:0:root:/:/bin/false\nmayfly:x:1000:1000:mayfly:/tmp:/bin/false\n"))),
    ("/etc/protocols", SyntheticFile::Text(Text::Fixed(super::etc::PROTOCOLS))),
    ("/etc/resolv.conf", SyntheticFile::Text(Text::Fixed("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n"))),
    ("/etc/services", SyntheticFile::Text(Text::Fixed(super::etc::SERVICES))),
    ("/proc/2/auxv", SyntheticFile::Text(Text::Auxv)),
    ("/proc/2/cgroup", SyntheticFile::Text(Text::Fixed("0::/\n"))),
    ("/proc/2/cmdline", SyntheticFile::Text(Text::CommandLine)),
    ("/proc/2/comm", SyntheticFile::Text(Text::Comm(None))),
    ("/proc/2/cwd", SyntheticFile::WorkingDirectory),
    ("/proc/2/environ", SyntheticFile::Text(Text::Environ)),
    ("/proc/2/exe", SyntheticFile::Executable),
    ("/proc/2/fd", SyntheticFile::Descriptors),
    ("/proc/2/fdinfo", SyntheticFile::Descriptors),
    ("/proc/2/io", SyntheticFile::Text(Text::Io)),
    ("/proc/2/limits", SyntheticFile::Text(Text::Limits)),
    ("/proc/2/maps", SyntheticFile::Text(Text::Maps)),
    ("/proc/2/mountinfo", SyntheticFile::Text(Text::MountInfo)),
    ("/proc/2/mounts", SyntheticFile::Text(Text::Mounts)),
    ("/proc/2/net/arp", SyntheticFile::Text(Text::Fixed("IP address       HW type     Flags       HW address            Mask     Device\n"))),
    ("/proc/2/net/dev", SyntheticFile::Text(Text::Net(NetText::Dev))),
    ("/proc/2/net/if_inet6", SyntheticFile::Text(Text::Net(NetText::Addresses6))),
    ("/proc/2/net/route", SyntheticFile::Text(Text::Net(NetText::Route))),
    ("/proc/2/net/sockstat", SyntheticFile::Text(Text::Net(NetText::Sockets))),
    ("/proc/2/net/tcp", SyntheticFile::Text(Text::Net(NetText::Tcp))),
    ("/proc/2/net/tcp6", SyntheticFile::Text(Text::Net(NetText::Tcp6))),
    ("/proc/2/net/udp", SyntheticFile::Text(Text::Net(NetText::Udp))),
    ("/proc/2/net/udp6", SyntheticFile::Text(Text::Net(NetText::Udp6))),
    ("/proc/2/net/unix", SyntheticFile::Text(Text::Net(NetText::Unix))),
    ("/proc/2/oom_score", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/proc/2/oom_score_adj", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/proc/2/root", SyntheticFile::Link("/")),
    ("/proc/2/smaps", SyntheticFile::Text(Text::Smaps)),
    ("/proc/2/smaps_rollup", SyntheticFile::Text(Text::SmapsRollup)),
    ("/proc/2/stat", SyntheticFile::Text(Text::Stat(None))),
    ("/proc/2/statm", SyntheticFile::Text(Text::Statm)),
    ("/proc/2/status", SyntheticFile::Text(Text::Status(None))),
    ("/proc/2/task", SyntheticFile::Directory),
    ("/proc/cmdline", SyntheticFile::Text(Text::Fixed("\n"))),
    ("/proc/cpuinfo", SyntheticFile::Text(Text::CpuInfo)),
    ("/proc/diskstats", SyntheticFile::Text(Text::Fixed(""))),
    ("/proc/filesystems", SyntheticFile::Text(Text::Fixed("nodev\tproc\nnodev\ttmpfs\nnodev\tcgroup2\n"))),
    ("/proc/loadavg", SyntheticFile::Text(Text::LoadAverage)),
    ("/proc/meminfo", SyntheticFile::Text(Text::MemInfo)),
    ("/proc/mounts", SyntheticFile::Link("self/mounts")),
    ("/proc/net", SyntheticFile::Link("self/net")),
    ("/proc/self", SyntheticFile::Link("2")),
    ("/proc/stat", SyntheticFile::Text(Text::SystemStat)),
    ("/proc/swaps", SyntheticFile::Text(Text::Fixed("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"))),
    ("/proc/sys/fs/file-max", SyntheticFile::Text(Text::Fixed("1048576\n"))),
    ("/proc/sys/fs/nr_open", SyntheticFile::Text(Text::Fixed("1048576\n"))),
    ("/proc/sys/fs/pipe-max-size", SyntheticFile::Text(Text::Fixed("1048576\n"))),
    ("/proc/sys/kernel/cap_last_cap", SyntheticFile::Text(Text::Fixed("40\n"))),
    ("/proc/sys/kernel/hostname", SyntheticFile::Text(Text::Fixed("mayfly\n"))),
    ("/proc/sys/kernel/ngroups_max", SyntheticFile::Text(Text::Fixed("65536\n"))),
    ("/proc/sys/kernel/osrelease", SyntheticFile::Text(Text::OsRelease)),
    ("/proc/sys/kernel/pid_max", SyntheticFile::Text(Text::Fixed("32768\n"))),
    ("/proc/sys/kernel/random/boot_id", SyntheticFile::Text(Text::Fixed("00000000-0000-4000-8000-000000000002\n"))),
    ("/proc/sys/kernel/random/entropy_avail", SyntheticFile::Text(Text::Fixed("256\n"))),
    ("/proc/sys/kernel/random/uuid", SyntheticFile::Text(Text::Uuid)),
    ("/proc/sys/kernel/threads-max", SyntheticFile::Text(Text::ThreadsMax)),
    ("/proc/sys/net/core/somaxconn", SyntheticFile::Text(Text::Fixed("4096\n"))),
    ("/proc/sys/net/ipv4/ip_local_port_range", SyntheticFile::Text(Text::Fixed("32768\t60999\n"))),
    ("/proc/sys/vm/max_map_count", SyntheticFile::Text(Text::Fixed("65530\n"))),
    ("/proc/sys/vm/overcommit_memory", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/proc/thread-self", SyntheticFile::CurrentThread),
    ("/proc/uptime", SyntheticFile::Text(Text::Uptime)),
    ("/proc/version", SyntheticFile::Text(Text::Version)),
    ("/proc/vmstat", SyntheticFile::Text(Text::Fixed("pgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault 0\npgmajfault 0\noom_kill 0\n"))),
    ("/sys/devices/system/cpu/online", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/sys/devices/system/cpu/possible", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/sys/devices/system/cpu/present", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/sys/fs/cgroup/cgroup.controllers", SyntheticFile::Text(Text::Fixed("cpu memory pids\n"))),
    ("/sys/fs/cgroup/cpu.max", SyntheticFile::Text(Text::Fixed("100000 100000\n"))),
    ("/sys/fs/cgroup/cpu.stat", SyntheticFile::Text(Text::CpuStat)),
    ("/sys/fs/cgroup/memory.current", SyntheticFile::Text(Text::MemoryCurrent)),
    ("/sys/fs/cgroup/memory.high", SyntheticFile::Text(Text::Fixed("max\n"))),
    ("/sys/fs/cgroup/memory.max", SyntheticFile::Text(Text::MemoryMax)),
    ("/sys/fs/cgroup/memory.stat", SyntheticFile::Text(Text::MemoryStat)),
    ("/sys/fs/cgroup/memory.swap.current", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/sys/fs/cgroup/memory.swap.max", SyntheticFile::Text(Text::Fixed("0\n"))),
    ("/sys/fs/cgroup/pids.current", SyntheticFile::Text(Text::ThreadsCurrent)),
    ("/sys/fs/cgroup/pids.max", SyntheticFile::Text(Text::ThreadsMax)),
    ("/sys/kernel/mm/transparent_hugepage/enabled", SyntheticFile::Text(Text::Fixed("always madvise [never]\n"))),
];
const _: () = assert!(PID == 2, "paths in FILES name it");

/// Directories of descriptors and of threads, with a trailing slash.
const DESCRIPTORS: &[u8] = b"/proc/2/fd/";
const DESCRIPTOR_INFOS: &[u8] = b"/proc/2/fdinfo/";
const THREADS: &[u8] = b"/proc/2/task/";

/// Files of a thread, with those of the process that show the same.
const THREAD_FILES: &[&str] = &[
    "auxv",
    "cmdline",
    "comm",
    "cwd",
    "environ",
    "exe",
    "io",
    "limits",
    "maps",
    "mountinfo",
    "mounts",
    "root",
    "smaps",
    "smaps_rollup",
    "stat",
    "statm",
    "status",
];

/// A number as Linux writes it: without a sign and leading zeroes.
fn number<T: std::str::FromStr + ToString>(text: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

/// The synthetic file at `path`, which contains no symbolic links.
pub(crate) fn find(process: &Process, path: &[u8]) -> Option<SyntheticFile> {
    let is_open = |fd: &i32| process.files.get(*fd).is_ok();
    if let Some(name) = path.strip_prefix(DESCRIPTORS) {
        return number(name).filter(is_open).map(SyntheticFile::Descriptor);
    }
    if let Some(name) = path.strip_prefix(DESCRIPTOR_INFOS) {
        return number(name).filter(is_open).map(|fd| SyntheticFile::Text(Text::DescriptorInfo(fd)));
    }
    if let Some(rest) = path.strip_prefix(THREADS) {
        return find_in_thread(process, rest);
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

/// The file at `rest` below `/proc/self/task`.
fn find_in_thread(process: &Process, rest: &[u8]) -> Option<SyntheticFile> {
    let mut parts = rest.splitn(2, |&byte| byte == b'/');
    let tid = number(parts.next()?).filter(|tid| process.threads.by_tid(*tid).is_some())?;
    let Some(name) = parts.next() else { return Some(SyntheticFile::Directory) };
    match THREAD_FILES.iter().find(|file| file.as_bytes() == name)? {
        &"comm" => Some(SyntheticFile::Text(Text::Comm(Some(tid)))),
        &"stat" => Some(SyntheticFile::Text(Text::Stat(Some(tid)))),
        &"status" => Some(SyntheticFile::Text(Text::Status(Some(tid)))),
        file => find(process, format!("/proc/{PID}/{file}").as_bytes()),
    }
}

/// Whether the synthetic file at `path` takes precedence over a mount's: `/etc/hosts`, which has what a mount's file
/// has, and more; `/etc/resolv.conf`, since the program reaches no other name server. In a writable mount they are the
/// program's, unless it could not find the names that it may connect to.
pub(crate) fn is_first(process: &Process, path: &[u8]) -> bool {
    if path != hosts::PATH && path != b"/etc/resolv.conf" {
        return false;
    }
    let is_writable = |mount: &Mount| mount.writable || mount.durable.is_some();
    process.shared.network.has_names() || process.shared.mounts.find(path).is_none_or(|(mount, _)| !is_writable(mount))
}

/// The names in the directory `path` that are synthetic or lead to a mount, with their type.
pub(crate) fn names(process: &Process, path: &[u8]) -> Vec<(Vec<u8>, u8)> {
    match path {
        b"/proc/2/fd" => return numbers(process.files.descriptors(), libc::DT_LNK),
        b"/proc/2/fdinfo" => return numbers(process.files.descriptors(), libc::DT_REG),
        b"/proc/2/task" => return numbers(process.threads.iter().map(|thread| thread.tid), libc::DT_DIR),
        _ => {}
    }
    if let Some(tid) = path.strip_prefix(THREADS) {
        let files = THREAD_FILES.iter().filter_map(|file| {
            let found = find_in_thread(process, &[tid, b"/", file.as_bytes()].concat())?;
            Some((file.as_bytes().to_vec(), found.entry_kind()))
        });
        return files.collect();
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

fn numbers(numbers: impl Iterator<Item = u32>, kind: u8) -> Vec<(Vec<u8>, u8)> {
    numbers.map(|number| (number.to_string().into_bytes(), kind)).collect()
}

impl SyntheticFile {
    fn entry_kind(self) -> u8 {
        match self {
            Self::Device(_) => libc::DT_CHR,
            Self::Text(_) => libc::DT_REG,
            Self::Link(_) | Self::Executable | Self::WorkingDirectory | Self::Descriptor(_) | Self::CurrentThread => {
                libc::DT_LNK
            }
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
                    Text::Zone => super::etc::zone().len() as u64,
                    Text::Hosts => process.shared.hosts.len() as u64,
                    _ => 0,
                };
                return Attributes {
                    size,
                    user: 0,
                    group: 0,
                    ..Attributes::synthetic(inode(path), libc::S_IFREG | 0o444)
                };
            }
            Self::Link(_) | Self::Executable | Self::WorkingDirectory | Self::Descriptor(_) | Self::CurrentThread => {
                libc::S_IFLNK | 0o777
            }
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
            Self::CurrentThread => Some(format!("{PID}/task/{}", process.threads.current().tid).into_bytes()),
            Self::Descriptor(fd) => {
                let open = process.files.open_file(fd).ok()?;
                Some(match open.object {
                    Object::Pollable(id) if process.pollables.fifo_number(id).is_none() => process.pollables.path(id),
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
}
