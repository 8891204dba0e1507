// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads signals from descriptors: `signalfd(2)`; and encodes reads of notification descriptors.
//!
//! Only the program changes files while it serves a request, and its own changes are not reported: an inotify is never
//! ready, except for watches that are removed from it. See decision 0183.

use super::pipes;
use crate::base::arguments::{count, int};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Wait};
use crate::event::events::Event;
use crate::fs::object::Object;
use crate::kernel::buffers::{self, Buffer};
use crate::kernel::call::Call;
use crate::pollables::table::PollableKind;
use crate::signal::signals::{Info, SI_TIMER, SignalSet};

/// Size of `struct signalfd_siginfo`.
const SIGNAL_BYTES: u64 = 128;
/// Most signals that one read returns.
const SIGNALS_MAX: u64 = 64;

/// `signalfd4(2)`.
pub(crate) fn signalfd4(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, mask, size, flags, ..] = call.args;
    let flags = int(flags);
    if flags & !(libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) != 0 || size != 8 {
        return Err(Errno::EINVAL.into());
    }
    let [mask] = call.user().read_words(mask)?;
    let mask = SignalSet::mask(mask);
    if int(fd) == -1 {
        call.process.files.check_room()?;
        return pipes::make(
            call,
            PollableKind::Signals(mask),
            flags & libc::SFD_NONBLOCK,
            flags & libc::SFD_CLOEXEC != 0,
        );
    }
    let Object::Pollable(id) = call.process.files.open_file(int(fd))?.object else { return Err(Errno::EINVAL.into()) };
    let pollables = &mut call.process.pollables;
    if !matches!(pollables.kind(id), Some(PollableKind::Signals(_))) {
        return Err(Errno::EINVAL.into());
    }
    let pollables = pollables.edit();
    if let Some(PollableKind::Signals(old)) = pollables.get_mut(id).map(|pollable| &mut pollable.kind) {
        *old = mask;
    }
    pollables.record_event(id, Event::Input);
    call.note_change();
    Ok(int(fd).unsigned_abs().into())
}

/// Takes signals that are pending for the thread or for the process.
pub(crate) fn read_signals(
    call: &mut Call<'_, '_>,
    mask: SignalSet,
    buffers: &[Buffer],
    nonblocking: bool,
) -> CallResult {
    let room = (buffers::total(buffers) / SIGNAL_BYTES).min(SIGNALS_MAX);
    if room == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = Vec::new();
    for _ in 0..room {
        let own = call.process.threads.current().signals.pending.set();
        if own.or(call.process.signals.pending.set()).and(mask).is_empty() {
            break;
        }
        let taken = call.process.threads.edit().current_mut().signals.pending.take(mask);
        let Some(info) = taken.or_else(|| call.process.signals.edit().pending.take(mask)) else { break };
        bytes.extend(describe(&call.process.note_taken(info)));
    }
    if bytes.is_empty() {
        if nonblocking {
            return Err(Errno::EAGAIN.into());
        }
        return Err(Wait { call: "read", until_ns: None, look_ns: None }.into());
    }
    write_fitting(call, buffers, &bytes)
}

/// `struct signalfd_siginfo`.
fn describe(info: &Info) -> [u8; 128] {
    let [first, second, ..] = info.fields;
    let (low, high, value) = (int(first), int(first >> 32), int(second));
    // signo, errno, code, pid, uid, fd, tid, band, overrun, trapno, status, int; ptr.
    let (pid, uid, timer, overrun) = if info.code == SI_TIMER { (0, 0, low, high) } else { (low, high, 0, 0) };
    let words = [info.signal.number(), 0, info.code, pid, uid, 0, timer, 0, overrun, 0, 0, value];
    let mut bytes = [0; 128];
    let all = words.iter().flat_map(|word| word.to_le_bytes()).chain(second.to_le_bytes());
    for (slot, byte) in bytes.iter_mut().zip(all) {
        *slot = byte;
    }
    bytes
}

/// Writes to a read's buffers as many bytes as fit.
pub(crate) fn write_fitting(call: &mut Call<'_, '_>, buffers: &[Buffer], bytes: &[u8]) -> CallResult {
    let mut rest = bytes;
    for (address, len) in buffers::behind(buffers, 0) {
        let (part, more) = rest.split_at(len.min(rest.len()));
        call.user().write(address, part)?;
        rest = more;
    }
    Ok(count(bytes.len().saturating_sub(rest.len())))
}
