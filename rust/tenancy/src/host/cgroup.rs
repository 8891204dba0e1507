// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cgroups of the process that limit a resource, as far as they are visible: version 2 and version 1.

use std::path::{Path, PathBuf};

/// A cgroup, and the version that determines the names of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup {
    directory: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A cgroup's limit and use of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) most: u64,
    /// Memory in use, without what the kernel reclaims before it kills a process: file pages and its own caches.
    pub(crate) used: u64,
}

/// What cgroups limit here. The name is the controller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Processes,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
        }
    }
}

/// The process's cgroup and its ancestors that have this controller, innermost first.
pub(crate) fn own(controller: Controller) -> Vec<Cgroup> {
    let read = |path: &'static str| mayfly_files::kernel_text(path).unwrap_or_default();
    find(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"), controller)
}

/// `groups` is the text of /proc/self/cgroup, `mounts` that of /proc/self/mountinfo.
fn find(groups: &str, mounts: &str, controller: Controller) -> Vec<Cgroup> {
    let mut found = Vec::new();
    for line in groups.lines() {
        // Number, controllers, path. Version 2 names no controllers here.
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let version = match (number, controllers) {
            ("0", "") => Version::Two,
            (_, controllers) if controllers.split(',').any(|one| one == controller.name()) => Version::One,
            _ => continue,
        };
        let Some((root, mounted)) = mount(mounts, version, controller) else { continue };
        // If the mount shows only a part of the tree, as in a container, the groups above that part are not visible.
        let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
        let sane = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let below = if sane { below } else { Path::new("") };
        found.extend(below.ancestors().map(|part| Cgroup { directory: mounted.join(part), version }));
    }
    found
}

/// The root within the tree and the mount point of the hierarchy with the controller.
fn mount(mounts: &str, version: Version, controller: Controller) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut back = back.split(' ');
        let kind = back.next()?;
        let has_it = back.nth(1).is_some_and(|options| options.split(',').any(|one| one == controller.name()));
        let fits = match version {
            Version::Two => kind == "cgroup2",
            Version::One => kind == "cgroup" && has_it,
        };
        let mut front = front.split(' ').skip(3);
        fits.then_some(())?;
        Some((unescape(front.next()?).into(), unescape(front.next()?).into()))
    })
}

/// Decodes a path of mountinfo, in which some characters are octal escapes.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, char)| text.replace(code, char))
}

impl Cgroup {
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// Its limit and use of memory; `None` if it has no limit or cannot be read.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let read = |name: &'static str| mayfly_files::cgroup_text(&self.directory, name).ok();
        let number = |name: &'static str| read(name)?.trim().parse::<u64>().ok();
        let (limits, usage, stat): (&[&'static str], _, _) = match self.version {
            // Above memory.high the kernel throttles the process, so that counts as a limit, too.
            Version::Two => {
                (&["memory.max", "memory.high"], "memory.current", ["inactive_file", "active_file", "slab_reclaimable"])
            }
            Version::One => {
                (&["memory.limit_in_bytes"], "memory.usage_in_bytes", ["total_inactive_file", "total_active_file", ""])
            }
        };
        // No limit is "max", or in version 1 a number larger than any memory.
        let most = limits.iter().filter_map(|limit| number(limit)).min().filter(|most| *most < 1 << 60)?;
        let reclaimable = read("memory.stat").map_or(0, |text| sum_of(&text, &stat));
        Some(Usage { most, used: number(usage)?.saturating_sub(reclaimable) })
    }
}

impl Cgroup {
    /// Its limit on processes and threads; `None` if it has none or cannot be read.
    pub(crate) fn most_processes(&self) -> Option<u64> {
        mayfly_files::cgroup_text(&self.directory, "pids.max").ok()?.trim().parse().ok()
    }
}

/// The sum of the named lines of a `memory.stat`.
fn sum_of(text: &str, names: &[&str]) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let values = lines.filter(|(name, _)| names.contains(name)).filter_map(|(_, value)| value.parse::<u64>().ok());
    values.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(found: &[Cgroup]) -> Vec<&str> {
        found.iter().map(|group| group.directory.to_str().unwrap()).collect()
    }

    const TWO: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const ONE: &str = "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n35 31 0:32 / /sys/fs/cgroup/memory rw shared:7 - cgroup cgroup rw,memory\n";

    #[test]
    fn all_ancestor_cgroups_count() {
        let found = find("0::/system.slice/mayfly.service\n", TWO, Controller::Memory);
        let expected = ["/sys/fs/cgroup/system.slice/mayfly.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/"];
        assert_eq!(paths(&found), expected);
        let found =
            find("9:name=systemd:/\n4:cpu:/x\n3:memory:/a/b\n0::/c\n", &format!("{ONE}{TWO}"), Controller::Memory);
        let memory = ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory/"];
        assert_eq!(paths(&found)[..3], memory);
        assert_eq!(paths(&found)[3..], ["/sys/fs/cgroup/c", "/sys/fs/cgroup/"]);
    }

    #[test]
    fn the_hierarchy_is_the_controllers() {
        let pids = "36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let (groups, mounts) = ("4:pids:/p\n3:memory:/m\n", format!("{ONE}{pids}"));
        assert_eq!(
            paths(&find(groups, &mounts, Controller::Processes)),
            ["/sys/fs/cgroup/pids/p", "/sys/fs/cgroup/pids/"]
        );
        assert_eq!(paths(&find(groups, &mounts, Controller::Memory))[0], "/sys/fs/cgroup/memory/m");
    }

    #[test]
    fn a_cgroup_may_bound_processes() {
        let directory = tempfile::tempdir().unwrap();
        let group = Cgroup { directory: directory.path().to_owned(), version: Version::Two };
        assert_eq!(group.most_processes(), None);
        for (text, most) in [("max\n", None), ("2048\n", Some(2048)), ("-1\n", None)] {
            std::fs::write(directory.path().join("pids.max"), text).unwrap();
            assert_eq!(group.most_processes(), most);
        }
    }

    #[test]
    fn in_a_container_the_mounted_part_counts() {
        let mounts = "29 23 0:26 /docker/ab\\040c /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(
            paths(&find("0::/docker/ab c/in\n", mounts, Controller::Memory)),
            ["/sys/fs/cgroup/in", "/sys/fs/cgroup/"]
        );
        // A cgroup namespace whose root is elsewhere.
        for group in ["0::/\n", "0::/../other\n"] {
            assert_eq!(paths(&find(group, mounts, Controller::Memory)), ["/sys/fs/cgroup/"], "{group}");
        }
        assert_eq!(find("", mounts, Controller::Memory), []);
        assert_eq!(find("0::/a\n", "", Controller::Memory), []);
    }

    #[test]
    fn file_pages_do_not_count_as_memory_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let group = |version| Cgroup { directory: directory.path().to_owned(), version };
        assert_eq!(group(Version::Two).usage(), None);
        write("memory.current", "5000\n");
        write("memory.max", "max\n");
        write("memory.high", "max\n");
        assert_eq!(group(Version::Two).usage(), None);
        write("memory.max", "9000\n");
        write("memory.stat", "anon 1\nfile 3000\ninactive_file 200\nactive_file 100\nslab_reclaimable 7\nshmem 2700\n");
        assert_eq!(group(Version::Two).usage(), Some(Usage { most: 9000, used: 4693 }));
        write("memory.high", "8000\n");
        assert_eq!(group(Version::Two).usage(), Some(Usage { most: 8000, used: 4693 }));

        write("memory.usage_in_bytes", "700\n");
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(group(Version::One).usage(), None);
        write("memory.limit_in_bytes", "1000\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 100\ntotal_active_file 50\ntotal_shmem 5\n");
        assert_eq!(group(Version::One).usage(), Some(Usage { most: 1000, used: 550 }));
    }
}
