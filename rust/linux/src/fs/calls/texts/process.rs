// SPDX-License-Identifier: MIT OR Apache-2.0
//! Texts about the process and its threads: proc(5).

use std::fmt::Write;

use mayfly_machine::{PAGE_SIZE, Prot};

use crate::base::arguments::count;
use crate::base::errno::Errno;
use crate::base::identity::{CLOCK_TICKS, GID, PARENT_PID, PID, UID};
use crate::kernel::call::Call;
use crate::kernel::figures::Resident;
use crate::kernel::process::Process;
use crate::mm::address_space::AddressSpace;
use crate::mm::vma::{Vma, VmaKind};
use crate::sched::threads::{Thread, ThreadState};

const KIB: u64 = 1024;
const PAGE_KIB: u64 = PAGE_SIZE / KIB;

/// Nanoseconds in clock ticks.
pub(super) fn ticks(ns: u64) -> u64 {
    ns / (1_000_000_000 / CLOCK_TICKS)
}

/// The thread with this number, or the first one: the process.
fn thread(process: &Process, tid: Option<u32>) -> Option<(usize, &Thread)> {
    let index = process.threads.by_tid(tid.unwrap_or(PID)).unwrap_or(0);
    process.threads.get(index).map(|thread| (index, thread))
}

/// A thread's name.
pub(super) fn name(process: &Process, tid: Option<u32>) -> String {
    let name = thread(process, tid).map_or([0; 16], |(_, thread)| thread.name);
    String::from_utf8_lossy(name.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

/// Whether the thread runs: the one that reads does.
fn is_running(process: &Process, tid: Option<u32>) -> bool {
    thread(process, tid)
        .is_some_and(|(index, thread)| index == process.threads.current || matches!(thread.state, ThreadState::Ready))
}

/// Sizes of mappings in KiB, by what `/proc/self/status` calls them.
#[derive(Default)]
struct Sizes {
    data: u64,
    stack: u64,
    code: u64,
    libraries: u64,
}

fn sizes(process: &Process) -> Sizes {
    let mut sizes = Sizes::default();
    for Vma { range, prot, kind, .. } in process.memory.all() {
        let kib = range.len() / KIB;
        match *kind {
            VmaKind::Stack => sizes.stack = sizes.stack.saturating_add(kib),
            VmaKind::File { file, .. } if prot.contains(Prot::EXEC) => {
                let mapped = process.memory.mapped_file(file);
                let is_own = mapped.is_some_and(|mapped| &*mapped.path == process.shared.executable.as_bytes());
                let sum = if is_own { &mut sizes.code } else { &mut sizes.libraries };
                *sum = sum.saturating_add(kib);
            }
            VmaKind::Private | VmaKind::File { shared: false, .. } if prot.contains(Prot::WRITE) => {
                sizes.data = sizes.data.saturating_add(kib);
            }
            _ => {}
        }
    }
    sizes
}

/// `stat`.
pub(super) fn stat(call: &mut Call<'_, '_>, tid: Option<u32>) -> Result<String, Errno> {
    let rss = call.resident()?.pages();
    let process = &*call.process;
    let (index, own) = thread(process, tid).ok_or(Errno::ESRCH)?;
    let number = tid.unwrap_or(PID);
    let cpu_ns = if tid.is_some() { process.thread_cpu_ns(index).unwrap_or(0) } else { process.cpu_ns() };
    let [ignored, handled] = process.signals.ignored_and_handled();
    let nice = u64::from(process.resources.nice.unsigned_abs());
    // These fields have the signals below 32 only.
    let low = |set: crate::signal::signals::SignalSet| set.bits() & 0x7fff_ffff;
    let fields: [u64; 49] = [
        PARENT_PID.into(),
        PID.into(),
        PID.into(),
        // No terminal: tty_nr, and tpgid, which is -1.
        0,
        u64::MAX,
        0x40_0000,
        0,
        0,
        0,
        0,
        ticks(cpu_ns),
        0,
        0,
        0,
        nice.saturating_add(20),
        nice,
        count(process.threads.len()),
        0,
        ticks(process.shared.started_boottime_ns),
        process.memory.mapped_bytes(),
        rss,
        u64::MAX,
        0,
        0,
        AddressSpace::stack_top(),
        0,
        0,
        low(own.signals.pending.set()),
        low(own.signals.blocked),
        low(ignored),
        low(handled),
        0,
        0,
        0,
        // exit_signal, which is SIGCHLD; processor, real-time priority, policy.
        17,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        process.memory.heap().start,
        0,
        0,
        0,
        0,
        0,
    ];
    let state = if is_running(process, tid) { 'R' } else { 'S' };
    let mut text = format!("{number} ({}) {state}", name(process, tid));
    for (position, field) in fields.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = match (position, *field) {
            // tpgid is signed.
            (4, _) => write!(text, " -1"),
            (_, field) => write!(text, " {field}"),
        };
    }
    text.push('\n');
    Ok(text)
}

/// `statm`.
pub(super) fn statm(call: &mut Call<'_, '_>) -> Result<String, Errno> {
    let resident = call.resident()?;
    let process = &*call.process;
    let size = process.memory.mapped_bytes() / PAGE_SIZE;
    let sizes = sizes(process);
    Ok(format!(
        "{size} {} {} {} 0 {} 0\n",
        resident.pages(),
        resident.file.saturating_add(resident.shared),
        sizes.code / PAGE_KIB,
        sizes.data.saturating_add(sizes.stack) / PAGE_KIB,
    ))
}

/// `status`.
pub(super) fn status(call: &mut Call<'_, '_>, tid: Option<u32>) -> Result<String, Errno> {
    let resident = call.resident()?;
    let process = &*call.process;
    let (_, own) = thread(process, tid).ok_or(Errno::ESRCH)?;
    let state = if is_running(process, tid) { "R (running)" } else { "S (sleeping)" };
    let mut text = format!(
        "Name:\t{}\nUmask:\t{:04o}\nState:\t{state}\nTgid:\t{PID}\nNgid:\t0\nPid:\t{}\nPPid:\t{PARENT_PID}\nTracerPid:\t0\n\
         Uid:\t{UID}\t{UID}\t{UID}\t{UID}\nGid:\t{GID}\t{GID}\t{GID}\t{GID}\nFDSize:\t{}\nGroups:\t \n",
        name(process, tid),
        process.resources.umask,
        tid.unwrap_or(PID),
        process.files.limit(),
    );
    let kib = |pages: u64| pages.saturating_mul(PAGE_KIB);
    let size = process.memory.mapped_bytes() / KIB;
    let Resident { anonymous, file, shared } = resident;
    let sizes = sizes(process);
    for (label, value) in [
        ("VmPeak", size),
        ("VmSize", size),
        ("VmLck", 0),
        ("VmPin", 0),
        ("VmHWM", kib(process.figures.peak_pages)),
        ("VmRSS", kib(resident.pages())),
        ("RssAnon", kib(anonymous)),
        ("RssFile", kib(file)),
        ("RssShmem", kib(shared)),
        ("VmData", sizes.data),
        ("VmStk", sizes.stack),
        ("VmExe", sizes.code),
        ("VmLib", sizes.libraries),
        ("VmPTE", kib(resident.pages() / 512)),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ] {
        let _ = writeln!(text, "{label}:\t{value:>8} kB");
    }
    let [ignored, handled] = process.signals.ignored_and_handled();
    let _ = write!(
        text,
        "Threads:\t{}\nSigQ:\t0/128\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
        process.threads.len(),
        own.signals.pending.set().bits(),
        process.signals.pending.set().bits(),
        own.signals.blocked.bits(),
        ignored.bits(),
        handled.bits(),
    );
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let _ = writeln!(text, "{capabilities}:\t{:016x}", 0);
    }
    text.push_str(
        "NoNewPrivs:\t1\nSeccomp:\t0\nSeccomp_filters:\t0\nCpus_allowed:\t1\nCpus_allowed_list:\t0\n\
         Mems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n",
    );
    Ok(text)
}

/// `io`. Nothing is read from or written to a disk on behalf of the program alone.
pub(super) fn io(process: &Process) -> String {
    let figures = &process.figures;
    format!(
        "rchar: {}\nwchar: {}\nsyscr: {}\nsyscw: {}\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n",
        figures.read.bytes, figures.written.bytes, figures.read.calls, figures.written.calls,
    )
}

/// `limits`.
pub(super) fn limits(process: &Process) -> String {
    const ROWS: [(&str, libc::__rlimit_resource_t, &str); 16] = [
        ("Max cpu time", libc::RLIMIT_CPU, "seconds"),
        ("Max file size", libc::RLIMIT_FSIZE, "bytes"),
        ("Max data size", libc::RLIMIT_DATA, "bytes"),
        ("Max stack size", libc::RLIMIT_STACK, "bytes"),
        ("Max core file size", libc::RLIMIT_CORE, "bytes"),
        ("Max resident set", libc::RLIMIT_RSS, "bytes"),
        ("Max processes", libc::RLIMIT_NPROC, "processes"),
        ("Max open files", libc::RLIMIT_NOFILE, "files"),
        ("Max locked memory", libc::RLIMIT_MEMLOCK, "bytes"),
        ("Max address space", libc::RLIMIT_AS, "bytes"),
        ("Max file locks", libc::RLIMIT_LOCKS, "locks"),
        ("Max pending signals", libc::RLIMIT_SIGPENDING, "signals"),
        ("Max msgqueue size", libc::RLIMIT_MSGQUEUE, "bytes"),
        ("Max nice priority", libc::RLIMIT_NICE, ""),
        ("Max realtime priority", libc::RLIMIT_RTPRIO, ""),
        ("Max realtime timeout", libc::RLIMIT_RTTIME, "us"),
    ];
    let mut text = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let value = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
    for (label, number, unit) in ROWS {
        let Some(limit) = usize::try_from(number).ok().and_then(|number| process.resources.all.get(number)) else {
            continue;
        };
        let _ = writeln!(text, "{label:<25} {:<20} {:<20} {unit:<10}", value(limit.soft), value(limit.hard));
    }
    text
}

/// `fdinfo` of an open descriptor.
pub(super) fn descriptor(call: &Call<'_, '_>, fd: i32) -> Result<String, Errno> {
    let files = &call.process.files;
    let open = files.open_file(fd)?;
    let attributes = open.object.attributes(call.view())?;
    let flags = if files.get(fd)?.close_on_exec { open.flags | libc::O_CLOEXEC } else { open.flags };
    Ok(format!(
        "pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{}\n",
        open.offset, attributes.device, attributes.inode
    ))
}
