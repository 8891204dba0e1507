// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creates pipes, event counters and timers.

use crate::base::arguments::int;
use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::ids::PollableId;
use crate::event::events::{Counter, Event};
use crate::event::queue::{End, PIPE_BYTES, Queue};
use crate::event::timer::Timer;
use crate::fs::object::Object;
use crate::fs::open_files::OpenFile;
use crate::kernel::call::Call;
use crate::pollables::table::PollableKind;
use crate::time::calls::clocks::read_duration;

/// `/proc/sys/fs/pipe-max-size`.
const PIPE_BYTES_MAX: usize = 1 << 20;

/// Installs a descriptor for a new pollable; drops the pollable if there is no free descriptor.
pub(crate) fn install(call: &mut Call<'_, '_>, id: PollableId, flags: i32, close_on_exec: bool) -> Result<i32, Errno> {
    // The path is derived when it is read.
    let open = OpenFile::new(Object::Pollable(id), b"", flags);
    let result = call.process.files.edit().install(open, close_on_exec);
    if result.is_err() {
        call.process.pollables.edit().close(id);
    }
    result
}

/// Installs descriptors for two pollables and writes them to `address`; undoes all of it on an error.
pub(crate) fn install_pair(
    call: &mut Call<'_, '_>,
    address: u64,
    ids: [PollableId; 2],
    flags: [i32; 2],
    close_on_exec: bool,
) -> CallResult {
    let [first_id, second_id] = ids;
    let [first_flags, second_flags] = flags;
    let first = match install(call, first_id, first_flags, close_on_exec) {
        Ok(first) => first,
        Err(error) => {
            call.process.pollables.edit().close(second_id);
            return Err(error.into());
        }
    };
    let second = match install(call, second_id, second_flags, close_on_exec) {
        Ok(second) => second,
        Err(error) => {
            uninstall(call, first);
            return Err(error.into());
        }
    };
    let numbers = [first.to_le_bytes(), second.to_le_bytes()].concat();
    if let Err(halt) = call.user().write(address, &numbers) {
        uninstall(call, first);
        uninstall(call, second);
        return Err(halt);
    }
    Ok(0)
}

fn uninstall(call: &mut Call<'_, '_>, fd: i32) {
    if let Ok(Some(Object::Pollable(id))) = call.process.files.edit().close(fd) {
        call.process.pollables.edit().close(id);
    }
}

/// `pipe(2)`.
pub(crate) fn pipe(call: &mut Call<'_, '_>) -> CallResult {
    let [address, ..] = call.args;
    make_pipe(call, address, 0)
}

/// `pipe2(2)`.
pub(crate) fn pipe2(call: &mut Call<'_, '_>) -> CallResult {
    let [address, flags, ..] = call.args;
    make_pipe(call, address, int(flags))
}

/// Packet mode (O_DIRECT) is refused, as on kernels without it.
fn make_pipe(call: &mut Call<'_, '_>, address: u64, flags: i32) -> CallResult {
    if flags & !(libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    call.process.files.check_room()?;
    let pollables = call.process.pollables.edit();
    let queue = pollables.add_queue(Queue::pipe(PIPE_BYTES, End::Gone, End::Gone));
    let ids = [pollables.add(PollableKind::PipeReader(queue)), pollables.add(PollableKind::PipeWriter(queue))];
    if let Some(queue) = pollables.queue_mut(queue) {
        let [reader, writer] = ids;
        (queue.reader, queue.writer) = (End::Inside(reader), End::Inside(writer));
    }
    let status = flags & libc::O_NONBLOCK;
    let ends = [libc::O_RDONLY | status, libc::O_WRONLY | status];
    install_pair(call, address, ids, ends, flags & libc::O_CLOEXEC != 0)
}

/// F_GETPIPE_SZ and F_SETPIPE_SZ of `fcntl(2)`.
pub(crate) fn capacity(call: &mut Call<'_, '_>, fd: i32, new: Option<u64>) -> Result<i32, Errno> {
    let Object::Pollable(id) = call.process.files.open_file(fd)?.object else { return Err(Errno::EBADF) };
    let pollables = &mut call.process.pollables;
    let Some(PollableKind::PipeReader(queue) | PollableKind::PipeWriter(queue) | PollableKind::PipeBoth(queue)) =
        pollables.kind(id)
    else {
        return Err(Errno::EBADF);
    };
    let queue = *queue;
    let Some(new) = new else {
        let capacity = pollables.queue(queue).map_or(0, |queue| queue.capacity);
        return Ok(i32::try_from(capacity).unwrap_or(i32::MAX));
    };
    let new = usize::try_from(new & u64::from(u32::MAX)).map_err(|_| Errno::EINVAL)?;
    if new > 1 << 31 {
        return Err(Errno::EINVAL);
    }
    let new = new.max(crate::base::pages::PAGE_BYTES).next_power_of_two();
    if new > PIPE_BYTES_MAX {
        return Err(Errno::EPERM);
    }
    let queue = pollables.edit().queue_mut(queue).ok_or(Errno::EBADF)?;
    if queue.capacity.saturating_sub(queue.room()) > new {
        return Err(Errno::EBUSY);
    }
    queue.capacity = new;
    call.note_change();
    Ok(i32::try_from(new).unwrap_or(i32::MAX))
}

/// `eventfd(2)`.
pub(crate) fn eventfd(call: &mut Call<'_, '_>) -> CallResult {
    let [value, ..] = call.args;
    make_counter(call, value, 0)
}

/// `eventfd2(2)`.
pub(crate) fn eventfd2(call: &mut Call<'_, '_>) -> CallResult {
    let [value, flags, ..] = call.args;
    make_counter(call, value, int(flags))
}

fn make_counter(call: &mut Call<'_, '_>, value: u64, flags: i32) -> CallResult {
    if flags & !(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK | libc::EFD_SEMAPHORE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    call.process.files.check_room()?;
    let value = int(value).cast_unsigned().into();
    let kind = PollableKind::Counter(Counter { value, semaphore: flags & libc::EFD_SEMAPHORE != 0 });
    make(call, kind, flags & libc::EFD_NONBLOCK, flags & libc::EFD_CLOEXEC != 0)
}

/// Creates a pollable with a descriptor.
pub(crate) fn make(call: &mut Call<'_, '_>, kind: PollableKind, status: i32, close_on_exec: bool) -> CallResult {
    let id = call.process.pollables.edit().add(kind);
    let fd = install(call, id, libc::O_RDWR | status, close_on_exec)?;
    Ok(fd.unsigned_abs().into())
}

/// `timerfd_create(2)`. Alarm clocks, which wake suspended machines, need a privilege that no program has.
pub(crate) fn timerfd_create(call: &mut Call<'_, '_>) -> CallResult {
    let [clock, flags, ..] = call.args;
    let (clock, flags) = (int(clock), int(flags));
    if flags & !(libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME => {}
        libc::CLOCK_REALTIME_ALARM | libc::CLOCK_BOOTTIME_ALARM => return Err(Errno::EPERM.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    call.process.files.check_room()?;
    let kind = PollableKind::Timer(Timer { clock, ..Timer::default() });
    make(call, kind, flags & libc::TFD_NONBLOCK, flags & libc::TFD_CLOEXEC != 0)
}

fn timer(call: &Call<'_, '_>, fd: u64) -> Result<(PollableId, Timer), Errno> {
    let Object::Pollable(id) = call.process.files.open_file(int(fd))?.object else { return Err(Errno::EINVAL) };
    match call.process.pollables.kind(id) {
        Some(PollableKind::Timer(timer)) => Ok((id, *timer)),
        _ => Err(Errno::EINVAL),
    }
}

/// `timerfd_settime(2)`.
pub(crate) fn timerfd_settime(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, flags, new, old, ..] = call.args;
    let flags = int(flags);
    if flags & !(libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let interval_ns = read_duration(call, new)?;
    let value = read_duration(call, new.checked_add(16).ok_or(Errno::EFAULT)?)?;
    let (id, before) = timer(call, fd)?;
    let now = clock::now_ns();
    let next_ns = match value {
        0 => None,
        value if flags & libc::TFD_TIMER_ABSTIME == 0 => Some(now.saturating_add(value)),
        value if before.clock == libc::CLOCK_REALTIME => Some(clock::from_unix_ns(value)),
        value if before.clock == libc::CLOCK_MONOTONIC => Some(call.process.to_host_ns(value)),
        value => Some(value),
    };
    if old != 0 {
        write_setting(call, old, before, now)?;
    }
    let pollables = call.process.pollables.edit();
    if let Some(PollableKind::Timer(timer)) = pollables.get_mut(id).map(|pollable| &mut pollable.kind) {
        *timer = Timer { next_ns, interval_ns, ..before };
    }
    pollables.record_event(id, Event::State);
    // Waiting threads compute their next deadline again.
    call.note_change();
    Ok(0)
}

/// `timerfd_gettime(2)`.
pub(crate) fn timerfd_gettime(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, buffer, ..] = call.args;
    let (_, timer) = timer(call, fd)?;
    write_setting(call, buffer, timer, clock::now_ns())?;
    Ok(0)
}

/// `struct itimerspec`.
fn write_setting(call: &mut Call<'_, '_>, address: u64, timer: Timer, now: u64) -> Result<(), Halt> {
    let left = timer.next(now).map_or(0, |next| next.saturating_sub(now));
    let [interval, left] = [timer.interval_ns, left].map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000]);
    call.user().write_words(address, &[interval, left].concat())
}
