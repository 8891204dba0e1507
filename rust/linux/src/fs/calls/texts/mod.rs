// SPDX-License-Identifier: MIT OR Apache-2.0
//! Texts of synthetic files, made when a program opens them.

mod maps;
mod net;
mod process;
mod system;

use crate::base::errno::Errno;
use crate::fs::view::procfs::Text;
use crate::fs::view::{etc, lookup};
use crate::kernel::call::Call;
use crate::kernel::hosts;

/// The present content of a file.
pub(crate) fn content(call: &mut Call<'_, '_>, text: Text) -> Result<Vec<u8>, Errno> {
    Ok(match text {
        Text::Fixed(text) => text.to_owned(),
        Text::Hosts => return hosts(call),
        Text::Zone => return Ok(etc::zone()),
        Text::Auxv => return Ok(call.process.shared.auxv.clone()),
        Text::CommandLine => return Ok(call.process.shared.command_line.clone()),
        Text::Environ => return Ok(call.process.shared.environment.clone()),
        Text::Comm(tid) => format!("{}\n", process::name(call.process, tid)),
        Text::Stat(tid) => process::stat(call, tid)?,
        Text::Status(tid) => process::status(call, tid)?,
        Text::Statm => process::statm(call)?,
        Text::Io => process::io(call.process),
        Text::Limits => process::limits(call.process),
        Text::DescriptorInfo(fd) => process::descriptor(call, fd)?,
        Text::Maps => maps::maps(call.process),
        Text::Smaps => maps::smaps(call)?,
        Text::SmapsRollup => maps::rollup(call)?,
        Text::MountInfo => system::mount_lines(call.process, true),
        Text::Mounts => system::mount_lines(call.process, false),
        Text::Net(text) => net::text(call.process, text),
        Text::SystemStat => system::stat(call.process),
        Text::LoadAverage => system::load_average(call.process),
        Text::MemInfo => system::memory(call)?,
        Text::CpuInfo => system::PROCESSORS.to_owned(),
        Text::Uptime => system::uptime(call.process),
        Text::OsRelease => system::release(),
        Text::Version => system::version(),
        Text::Uuid => system::uuid(call.context.rng),
        Text::MemoryMax => format!("{}\n", call.process.shared.limits.memory_bytes),
        Text::MemoryCurrent => system::memory_current(call)?,
        Text::MemoryStat => system::memory_stat(call)?,
        Text::CpuStat => system::cpu_stat(call.process),
        Text::ThreadsMax => format!("{}\n", call.process.shared.limits.threads),
        Text::ThreadsCurrent => format!("{}\n", call.process.threads.len()),
    }
    .into_bytes())
}

/// `/etc/hosts`. What a program reads while it boots is noted, a mount's file as well.
fn hosts(call: &Call<'_, '_>) -> Result<Vec<u8>, Errno> {
    let mounts = &call.process.shared.mounts;
    if let Some((mount, rest)) = mounts.find(hosts::PATH).filter(|(mount, _)| mount.root.is_some())
        && let Err(Errno::NOT_HERE) = lookup::look_in(call.view(), mount, rest)
    {
        return Err(Errno::NOT_HERE);
    }
    Ok(call.process.shared.hosts.clone())
}
