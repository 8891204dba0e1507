// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the format about how a program runs: the host's files that it sees, and how requests reach it.
//!
//! The doc comments are the descriptions in the published schema.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use mayfly_sandbox::{Choice, DurableLimits, MOUNTS_MAX, MonotonicClock, MountAccess, MountPoint, Outbound};
use schemars::JsonSchema;
use serde::Deserialize;

use super::ConfigError;
use crate::config::destination::Destination;
use crate::config::json::Key;
use crate::config::values::{Bounded, FilePath, MountPath};

/// A directory of the host that a program sees.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Mount {
    /// The host's directory, relative to the root.
    host: FilePath,
    /// The path at which the program sees it. Default: the same path as on the host.
    at: Option<MountPath>,
    /// Whether the program may write to it. `true`: what it writes is private to the worker and undone by the reset; the
    /// host's files never change. "durable": it writes the host's files, for good, and all workers see it.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    writable: Writable,
    /// Of a durable mount: MiB that its files may take together; sizes count, in pages, holes included.
    #[schemars(extend("default" = DURABLE_MIB))]
    mib: Option<Bounded<1, 1_048_576>>,
    /// Of a durable mount: how many files, directories and links it may have.
    #[schemars(extend("default" = DURABLE_FILES))]
    files: Option<Bounded<1, 1_000_000>>,
}

/// Default limits of a durable mount.
const DURABLE_MIB: u64 = 1024;
const DURABLE_FILES: u64 = 10_000;

/// What a program may write in a mount.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(untagged, expecting = "expected true, false or \"durable\"")]
enum Writable {
    /// Nothing, or privately.
    Privately(bool),
    /// The host's files.
    ForGood(Durable),
}

impl Default for Writable {
    fn default() -> Self {
        Self::Privately(false)
    }
}

/// The word for a durable mount.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Durable {
    /// Writes go to the host's files.
    Durable,
}

impl Mount {
    fn check(self, root: &Path) -> Result<MountPoint, ConfigError> {
        let host = root.join(self.host.as_str());
        let guest = match self.at {
            Some(at) => at,
            None => {
                same_path_as_on_the_host(&host).map_err(|problem| ConfigError::new(&[Key::from("host")], problem))?
            }
        };
        let access = match self.writable {
            Writable::ForGood(Durable::Durable) => MountAccess::Durable(DurableLimits {
                bytes: self.mib.map_or(DURABLE_MIB, Bounded::get) << 20,
                files: self.files.map_or(DURABLE_FILES, Bounded::get),
            }),
            Writable::Privately(writable) => {
                for (key, is_set) in [("mib", self.mib.is_some()), ("files", self.files.is_some())] {
                    if is_set {
                        let problem = "only for mounts with `\"writable\": \"durable\"`";
                        return Err(ConfigError::new(&[Key::from(key)], problem));
                    }
                }
                if writable { MountAccess::Private } else { MountAccess::ReadOnly }
            }
        };
        Ok(MountPoint { guest: guest.into(), host, access })
    }
}

/// The mount point of a mount without `at`. The error is the message for the user.
fn same_path_as_on_the_host(host: &Path) -> Result<MountPath, String> {
    let place = host.to_str().and_then(|path| MountPath::try_from(path.to_owned()).ok());
    place.ok_or_else(|| {
        let why = if host.is_absolute() { "" } else { ", because it is relative, and so is the root" };
        format!(
            "a program cannot see \"{}\" at the same path as on the host{why}: expected `at`, an absolute path",
            host.display()
        )
    })
}

/// `mounts` merged into those of `base`, of which those at the same mount point are replaced. Errors are relative to
/// the object that has the mounts.
pub(super) fn mounts(mounts: Vec<Mount>, base: &[MountPoint], root: &Path) -> Result<Vec<MountPoint>, ConfigError> {
    let mut own: Vec<MountPoint> = Vec::with_capacity(mounts.len());
    for (index, mount) in mounts.into_iter().enumerate() {
        let place = [Key::from("mounts"), Key::from(index)];
        let mount = mount.check(root).map_err(|error| error.below(&place))?;
        if let Some(first) = own.iter().position(|other| other.guest == mount.guest) {
            let problem = format!("\"{}\" is already the mount point of mounts[{first}]", mount.guest);
            return Err(ConfigError::new(&place, problem));
        }
        own.push(mount);
    }
    let others = base.iter().filter(|mount| own.iter().all(|other| other.guest != mount.guest)).cloned();
    let all: Vec<MountPoint> = others.chain(own.iter().cloned()).collect();
    if all.len() > MOUNTS_MAX {
        let problem =
            format!("{} with those of the group and the defaults; a program has at most {MOUNTS_MAX}", all.len());
        return Err(ConfigError::new(&[Key::from("mounts")], problem));
    }
    Ok(all)
}

/// The host's paths of `paths`, which are in the program's view.
pub(super) fn watch(paths: &[MountPath], mounts: &[MountPoint]) -> Result<Vec<PathBuf>, ConfigError> {
    let host_path = |path: &str| {
        let below = mounts.iter().filter_map(|mount| {
            let rest = path.strip_prefix(mount.guest.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then_some((mount, rest))
        });
        // The program sees the innermost mount.
        let (mount, rest) = below.max_by_key(|(mount, _)| mount.guest.len())?;
        Some(match rest.trim_start_matches('/') {
            "" => mount.host.clone(),
            rest => mount.host.join(rest),
        })
    };
    let resolved = paths.iter().enumerate().map(|(index, path)| {
        host_path(path.as_str()).ok_or_else(|| {
            let problem = format!(
                "\"{}\" is in none of the tenant's mounts: expected a path as the program sees it",
                path.as_str()
            );
            ConfigError::new(&[Key::from("watch"), Key::from(index)], problem)
        })
    });
    resolved.collect()
}

/// `destinations` added to those of `base`, without duplicates.
pub(super) fn outbound(destinations: Vec<Destination>, base: &[Outbound]) -> Vec<Outbound> {
    let mut all = base.to_vec();
    for destination in destinations.into_iter().map(Outbound::from) {
        if !all.contains(&destination) {
            all.push(destination);
        }
    }
    all
}

/// Where a program runs.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Engine {
    /// KVM of hardware virtualisation if the host has it, else processes, else KVM of the paging kind.
    #[default]
    Auto,
    /// In virtual machines.
    Kvm,
    /// In processes of the host, which may make no system call of their own.
    Process,
}

impl From<Engine> for Choice {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Auto => Self::Auto,
            Engine::Kvm => Self::Only(mayfly_sandbox::Engine::Kvm),
            Engine::Process => Self::Only(mayfly_sandbox::Engine::Process),
        }
    }
}

/// How requests reach a program.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Serve {
    /// It waits for them at the doorbell, through the SDK.
    #[default]
    Doorbell,
    /// It is an HTTP server: it listens, and requests arrive on connections to it.
    Connections,
}

/// What a program's monotonic clock does while the program is frozen.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Monotonic {
    /// It continues, as the realtime clock does.
    Runs,
    /// It stops, as on a suspended machine, and so do the timers based on it, so that they have not all expired when a
    /// request arrives.
    Suspends,
}

/// The configured behaviour, or the default for the kind of program: servers and runtimes have timers.
pub(super) fn monotonic(configured: Option<Monotonic>, is_server: bool) -> MonotonicClock {
    match configured {
        Some(Monotonic::Runs) => MonotonicClock::Runs,
        None if !is_server => MonotonicClock::Runs,
        Some(Monotonic::Suspends) | None => MonotonicClock::Suspends,
    }
}
