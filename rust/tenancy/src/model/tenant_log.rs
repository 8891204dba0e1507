// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant's output in the log: whole lines, of bounded length, at a bounded rate, without control characters.
//! Messages about its failures are bounded too: a program that crashes on every request must not fill the disk.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use mayfly_sandbox::{LogSink, RefusedProcesses, Stream};

use crate::config::values::TenantName;
use crate::model::failure::{Failure, RequestId};

/// A longer line is split into several.
const LINE_BYTES: usize = 4096;
/// Approximate size of what the log writes before a tenant's own text: time, level, name. It counts, so that empty
/// lines are not free.
const LINE_OVERHEAD: u64 = 96;
/// Size of a page in KiB.
const PAGE_KIB: u64 = 4;
/// Failed requests that are logged individually per second; the others appear only in the counters.
const FAILURES_PER_SECOND: u64 = 20;

/// The log of all workers of a tenant: its name, its incomplete lines, and how much it may still log in this second.
///
/// A program that writes nothing costs one atomic load per request.
#[derive(Debug)]
pub(crate) struct TenantLog {
    tenant: TenantName,
    bytes_per_second: u64,
    start: Instant,
    state: Mutex<State>,
    has_partial_lines: AtomicBool,
    dropped_lines: AtomicU64,
    violations: AtomicU64,
    /// The last second with an alarm, counted from 1 at the start.
    alarmed: AtomicU64,
    /// Whether the tenant has been told that its work set is too large to keep.
    told_work_set: AtomicBool,
    /// Lines that were processed one by one.
    #[cfg(test)]
    processed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Incomplete lines. A request runs on one thread, so the bytes that one thread brings belong together.
    partial: HashMap<(ThreadId, Stream), Vec<u8>>,
    output: Allowance,
    failures: Allowance,
}

/// A budget for one second, and the number of lines dropped for lack of it.
#[derive(Debug, Default)]
struct Allowance {
    /// The second, since the start, that the other fields count for.
    second: u64,
    used: u64,
    dropped: u64,
}

/// The decision of an [`Allowance`] about one line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Log,
    /// Drop it, and log that lines are dropped from here on.
    DropAndReport,
    Drop,
}

impl Allowance {
    /// Begins a new second if `second` is one; returns how many lines the previous one dropped.
    fn advance(&mut self, second: u64) -> u64 {
        if self.second == second {
            return 0;
        }
        self.second = second;
        self.used = 0;
        std::mem::take(&mut self.dropped)
    }

    fn spend(&mut self, cost: u64, limit: u64) -> Verdict {
        if self.used + cost <= limit {
            self.used += cost;
            return Verdict::Log;
        }
        // Once the limit is reached, shorter lines are dropped as well.
        self.used = limit;
        self.dropped += 1;
        if self.dropped == 1 { Verdict::DropAndReport } else { Verdict::Drop }
    }

    /// Whether all further lines of this second are dropped, and the drop has been logged.
    fn is_spent(&self, second: u64, limit: u64) -> bool {
        self.second == second && self.used >= limit && self.dropped > 0
    }
}

impl TenantLog {
    pub(crate) fn new(tenant: TenantName, bytes_per_second: u64) -> Self {
        Self {
            tenant,
            bytes_per_second,
            start: Instant::now(),
            state: Mutex::default(),
            has_partial_lines: AtomicBool::new(false),
            dropped_lines: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            alarmed: AtomicU64::new(0),
            told_work_set: AtomicBool::new(false),
            #[cfg(test)]
            processed: AtomicU64::new(0),
        }
    }

    /// Lines that the limit has dropped since the start.
    pub(crate) fn dropped_lines(&self) -> u64 {
        self.dropped_lines.load(Relaxed)
    }

    /// Logs the incomplete lines of this thread's request, which will not be continued.
    pub(crate) fn end_partial_lines(&self) {
        // A thread sees its own writes, and must not end other threads' lines.
        if self.has_partial_lines.load(Relaxed) {
            let mut state = self.state();
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(line) = state.partial.remove(&(thread::current().id(), stream)) {
                    self.line(&mut state, self.second(), stream, &line);
                }
            }
            self.has_partial_lines.store(!state.partial.is_empty(), Relaxed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent even if a thread panicked while it held the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless another thread has locked it: a loop that refuses a tenant's requests does not wait for the
    /// tenant's log.
    fn state_now(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => {
                self.dropped_lines.fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// Logs that a request reached a limit which the program sees as an error, and may handle.
    pub(crate) fn limit_hit(&self, id: RequestId, limit: &'static str, times: u32) {
        let tenant = &self.tenant;
        let Some(mut state) = self.state_now() else { return };
        state.failures.advance(self.second());
        if state.failures.spend(1, FAILURES_PER_SECOND) == Verdict::Log {
            tracing::warn!(target: "mayfly::request", %tenant, request = %id, limit, times, "the program has reached a limit");
        }
    }

    /// Logs that a worker gave its work set back, `pages` pages: once, since every such request does.
    #[cold]
    pub(crate) fn work_set_given_back(&self, id: RequestId, pages: u64) {
        if self.told_work_set.swap(true, Relaxed) {
            return;
        }
        let tenant = &self.tenant;
        let kib = pages.saturating_mul(PAGE_KIB);
        tracing::warn!(
            target: "mayfly::request", %tenant, request = %id, kib,
            "a request has changed more memory than its worker may keep, so the next one takes a fault for each page again: raise `work_set_kib`, or leave it out and raise `memory_mib`"
        );
    }

    /// Logs that a request's program was refused other processes: its response may be wrong, although it succeeded.
    pub(crate) fn refused_processes(&self, id: RequestId, refused: RefusedProcesses) {
        let tenant = &self.tenant;
        let RefusedProcesses { forks, execs } = refused;
        let Some(mut state) = self.state_now() else { return };
        state.failures.advance(self.second());
        if state.failures.spend(1, FAILURES_PER_SECOND) == Verdict::Log {
            tracing::warn!(
                target: "mayfly::request", %tenant, request = %id, forks, execs,
                "the program was refused another process, and its response may lack a command's result"
            );
        }
    }

    /// Counts a violation and raises the alarm, without a lock: at most once a second, independent of the tenant's
    /// other log lines.
    pub(crate) fn violation(&self, id: RequestId, what: &str) {
        let violations = self.violations.fetch_add(1, Relaxed).wrapping_add(1);
        let second = self.second().saturating_add(1);
        if self.alarmed.swap(second, Relaxed) == second {
            return;
        }
        let tenant = &self.tenant;
        tracing::error!(
            target: "mayfly::request", %tenant, request = %id, violations, error = Failure::Violation.word(),
            "ALARM: a tenant's program may be attacking the sandbox: {what}"
        );
    }

    /// Violations since the start.
    pub(crate) fn violations(&self) -> u64 {
        self.violations.load(Relaxed)
    }

    /// Logs that a request failed, or counts it as dropped.
    pub(crate) fn failed(&self, id: RequestId, failure: Failure, reason: &str) {
        if failure == Failure::Violation {
            return self.violation(id, reason);
        }
        if self.may_log_failure() {
            let tenant = &self.tenant;
            tracing::warn!(target: "mayfly::request", %tenant, request = %id, error = failure.word(), "{reason}");
        }
    }

    /// Logs that a worker could not be prepared for a request, or counts it as dropped.
    pub(crate) fn not_prepared(&self, failure: Failure, reason: &str) {
        self.failed_alone(failure, "a worker was not prepared ahead of its request", reason);
    }

    /// Logs that a worker was lost between two requests, or counts it as dropped.
    pub(crate) fn lost_between_requests(&self, failure: Failure, reason: &str) {
        self.failed_alone(failure, "a worker was lost between two requests, and is replaced without its state", reason);
    }

    /// Logs a failure that no request has, or counts it as dropped.
    fn failed_alone(&self, failure: Failure, what: &str, reason: &str) {
        if failure == Failure::Violation {
            return self.violation(RequestId::NONE, reason);
        }
        if self.may_log_failure() {
            let tenant = &self.tenant;
            tracing::warn!(target: "mayfly::request", %tenant, error = failure.word(), "{what}: {reason}");
        }
    }

    /// Whether a failure may be logged now; otherwise it is counted as dropped.
    fn may_log_failure(&self) -> bool {
        let tenant = &self.tenant;
        let Some(mut state) = self.state_now() else { return false };
        let dropped = state.failures.advance(self.second());
        if dropped > 0 {
            tracing::warn!(target: "mayfly::request", %tenant, requests = dropped, "more requests failed in the previous second");
        }
        state.failures.spend(1, FAILURES_PER_SECOND) == Verdict::Log
    }

    fn second(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    /// Logs one line of output, or counts it as dropped.
    fn line(&self, state: &mut State, second: u64, stream: Stream, line: &[u8]) {
        #[cfg(test)]
        self.processed.fetch_add(1, Relaxed);
        let tenant = &self.tenant;
        let dropped = state.output.advance(second);
        if dropped > 0 {
            tracing::warn!(target: "mayfly::tenant", %tenant, lines = dropped, "lines were dropped");
        }
        let verdict = state.output.spend(line.len() as u64 + LINE_OVERHEAD, self.bytes_per_second);
        if verdict == Verdict::Log {
            let stream = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            tracing::info!(target: "mayfly::tenant", %tenant, stream, "{}", Printable(line));
            return;
        }
        self.dropped_lines.fetch_add(1, Relaxed);
        if verdict == Verdict::DropAndReport && self.bytes_per_second > 0 {
            tracing::warn!(
                target: "mayfly::tenant", %tenant, log_bytes_per_second = self.bytes_per_second,
                "log limit reached: lines are dropped for the rest of this second"
            );
        }
    }

    /// Counts the lines in `bytes` as dropped, all at once. `line` holds the incomplete line before and after.
    fn drop_lines(&self, state: &mut State, line: &mut Vec<u8>, bytes: &[u8]) {
        let mut dropped = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let begun = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                line.clear();
                bytes.get(end + 1..).unwrap_or_default()
            }
            None => bytes,
        };
        for chunk in begun.chunks(LINE_BYTES) {
            if line.len() + chunk.len() > LINE_BYTES {
                dropped += 1;
                line.clear();
            }
            line.extend_from_slice(chunk);
        }
        state.output.dropped += dropped;
        self.dropped_lines.fetch_add(dropped, Relaxed);
    }
}

impl LogSink for TenantLog {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.state();
        let key = (thread::current().id(), stream);
        let mut line = state.partial.remove(&key).unwrap_or_default();
        let second = self.second();
        let mut rest = bytes;
        while !rest.is_empty() {
            // A program can write a million lines in one call.
            if state.output.is_spent(second, self.bytes_per_second) {
                self.drop_lines(&mut state, &mut line, rest);
                break;
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (text, more) = match end {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, &[][..]),
            };
            for chunk in text.chunks(LINE_BYTES) {
                if line.len() + chunk.len() > LINE_BYTES {
                    self.line(&mut state, second, stream, &line);
                    line.clear();
                }
                line.extend_from_slice(chunk);
            }
            if end.is_some() {
                self.line(&mut state, second, stream, &line);
                line.clear();
            }
            rest = more;
        }
        if !line.is_empty() {
            state.partial.insert(key, line);
        }
        self.has_partial_lines.store(!state.partial.is_empty(), Relaxed);
    }
}

/// A tenant's text, escaped so that it can neither control a terminal nor fake another line.
struct Printable<'a>(&'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                if char.is_control() && char != '\t' {
                    write!(f, "{}", char.escape_default())?;
                } else {
                    f.write_char(char)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;
    use tracing_subscriber::fmt::MakeWriter;

    fn log(bytes_per_second: u64) -> TenantLog {
        TenantLog::new("shop".to_owned().try_into().unwrap(), bytes_per_second)
    }

    /// Collects the process's log.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(work: impl FnOnce()) -> String {
        let written = Written::default();
        let subscriber =
            tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(written.clone()).finish();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_violation_raises_an_alarm_once_a_second_and_whatever_else_failed() {
        let text = logged(|| {
            let log = log(1 << 20);
            for _ in 0..10 * FAILURES_PER_SECOND {
                log.failed(RequestId(1), Failure::Faulted, "killed by SIGILL at 0x0");
            }
            // Each second that this takes has one alarm.
            let began = log.second();
            for _ in 0..1000 {
                log.failed(RequestId(2), Failure::Violation, "exception 6 in the guest kernel");
            }
            assert_eq!(log.violations(), 1000);
            let seconds = log.second() - began + 1;
            tracing::info!("seconds={seconds}");
        });
        let alarms =
            text.lines().filter(|line| line.contains("ERROR") && line.contains("ALARM: a tenant's program")).count();
        let seconds = text.rsplit("seconds=").next().unwrap().trim().parse().unwrap();
        assert!((1..=seconds).contains(&alarms), "{text}");
        let first = text.lines().find(|line| line.contains("ALARM")).unwrap();
        for part in
            ["tenant=shop", "request=0000000000000002", "violations=1 ", "violation", "exception 6 in the guest kernel"]
        {
            assert!(first.contains(part), "{part}: {first}");
        }
    }

    #[test]
    fn pieces_become_lines_with_the_tenants_name() {
        let text = logged(|| {
            let log = log(1 << 20);
            log.write(Stream::Stdout, b"hel");
            log.write(Stream::Stderr, b"oops");
            log.write(Stream::Stdout, b"lo\nwor");
            log.end_partial_lines();
            log.end_partial_lines();
        });
        let lines: Vec<_> = text.lines().collect();
        let expected = [("stdout", "hello"), ("stdout", "wor"), ("stderr", "oops")];
        assert_eq!(lines.len(), expected.len(), "{text}");
        for (line, (stream, words)) in lines.iter().zip(expected) {
            assert!(line.contains("INFO mayfly::tenant: ") && line.contains(words), "{line}");
            assert!(line.contains("tenant=shop") && line.contains(&format!("stream=\"{stream}\"")), "{line}");
        }
    }

    #[test]
    fn threads_do_not_mix_their_lines() {
        let log = log(1 << 20);
        log.write(Stream::Stdout, b"mine");
        thread::scope(|scope| {
            scope.spawn(|| {
                log.write(Stream::Stdout, b"theirs");
                log.end_partial_lines();
            });
        });
        assert_eq!(log.state().partial.values().collect::<Vec<_>>(), [b"mine"]);
    }

    #[test]
    fn control_characters_and_broken_text_are_escaped() {
        let text = Printable(b"a\tb\x1b[31m\r\xff\xc3\xa9").to_string();
        assert_eq!(text, "a\tb\\u{1b}[31m\\r\\xffé");
    }

    #[test]
    fn a_line_is_bounded_however_it_is_written() {
        let log = log(u64::MAX);
        for size in [1, 4095, 4096, 4097, 100_000] {
            log.write(Stream::Stdout, &vec![b'x'; size]);
            assert!(log.state().partial.values().all(|line| line.len() <= LINE_BYTES));
        }
        log.write(Stream::Stdout, b"\n\n");
        assert!(log.state().partial.is_empty());
    }

    #[test]
    fn lines_above_the_rate_are_dropped_counted_and_reported_once() {
        let log = log(10 * (LINE_OVERHEAD + 4));
        let text = logged(|| (0..1000).for_each(|_| log.write(Stream::Stdout, b"line\n")));
        // Ten lines per second. If the loop runs into another second, there are twenty lines and two notices.
        let kept = text.lines().filter(|line| line.contains("INFO")).count();
        assert!(kept == 10 || kept == 20, "{text}");
        assert_eq!(log.dropped_lines(), 1000 - kept as u64);
        assert_eq!(text.matches("log limit reached").count(), kept / 10, "{text}");
    }

    /// One `write` can carry a million lines, on a loop thread.
    #[test]
    fn dropped_lines_are_not_processed_one_by_one() {
        let log = log(10 * (LINE_OVERHEAD + 4));
        let (pages, lines) = (256, 4096 / 5);
        let mut page = b"line\n".repeat(lines);
        page.extend(b"l");
        let text = logged(|| {
            for _ in 0..pages {
                log.write(Stream::Stdout, &page);
            }
            log.write(Stream::Stdout, b"ast\n");
        });
        let kept = text.lines().filter(|line| line.contains("INFO")).count() as u64;
        assert!(kept > 0 && kept.is_multiple_of(10), "{text}");
        assert_eq!(log.dropped_lines(), (pages * lines) as u64 + 1 - kept);
        let processed = log.processed.load(Relaxed);
        assert!(processed <= 2 * kept, "{processed}");
        assert!(log.state().partial.is_empty());
    }

    #[test]
    fn failures_are_logged_one_by_one_up_to_a_rate() {
        let log = log(0);
        let text = logged(|| (0..500).for_each(|id| log.failed(RequestId(id), Failure::Exited, "it ended")));
        assert!(
            text.lines().next().unwrap().contains("tenant=shop request=0000000000000000 error=\"exited\""),
            "{text}"
        );
        let logged = text.matches("it ended").count() as u64;
        assert!(logged == FAILURES_PER_SECOND || logged == 2 * FAILURES_PER_SECOND, "{text}");
    }

    #[test]
    fn a_tenant_without_an_allowance_logs_nothing() {
        let log = log(0);
        assert_eq!(logged(|| log.write(Stream::Stderr, b"line\n")), "");
        assert_eq!(log.dropped_lines(), 1);
    }
}
