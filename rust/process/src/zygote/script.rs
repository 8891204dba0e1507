// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripts: lists of system calls that a zygote makes, and that a stub makes before its filter.
//!
//! The process has no code but code.S's loop over entries; what is done, and in which order, is decided here.
//!
//! ```text
//! 0x0000  entries 0 to 61   the script
//! 0x1f00  entry 62          tells the server that the script is at its end
//! 0x1f80  entry 63          waits for the next script
//! 0x2000  data              what the calls point to
//! 0x3ff8  the byte that is read and written
//! ```
//!
//! The last two entries are never rewritten: where to go on after a call is read when the call has returned, and as
//! soon as the server hears of the end, it may write the next script.

use crate::error::ScriptTooLong;
use crate::layout::{SCRIPT, SCRIPT_BYTES};
use crate::sys::memory::SharedPages;

/// Words of an entry.
const WORDS: usize = 16;
const ENTRY_BYTES: u64 = WORDS as u64 * 8;
const END: u64 = 62;
const WAIT: u64 = END + 1;
const DATA: u64 = (WAIT + 1) * ENTRY_BYTES;
const BYTE: u64 = SCRIPT_BYTES - 8;
/// The word of an entry that holds the call's result.
const RESULT: u64 = 12 * 8;

/// An entry's place in its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step(pub(crate) u64);

impl Step {
    /// Where a script goes at its end.
    pub(crate) const END: Self = Self(END);

    fn address(self) -> u64 {
        SCRIPT + self.0 * ENTRY_BYTES
    }
}

/// What a call's result is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// This value.
    Is(u64),
    /// Not an error.
    NotNegative,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    number: i64,
    arguments: [u64; 6],
    check: Check,
    if_zero: Option<Step>,
    next: Option<Step>,
    if_failed: Option<Step>,
}

impl Entry {
    /// A call that must have this result; else the process ends.
    pub(crate) fn call<const N: usize>(number: i64, arguments: [u64; N], check: Check) -> Self {
        let mut all = [0; 6];
        for (place, argument) in all.iter_mut().zip(arguments) {
            *place = argument;
        }
        Self { number, arguments: all, check, if_zero: None, next: None, if_failed: None }
    }

    /// A call that must return 0.
    pub(crate) fn zero<const N: usize>(number: i64, arguments: [u64; N]) -> Self {
        Self::call(number, arguments, Check::Is(0))
    }

    /// No call: the process, which has its filter now, becomes a stub.
    pub(crate) fn born() -> Self {
        Self::zero(-1, [])
    }

    /// Goes there after a result of 0 that passes the check.
    pub(crate) fn if_zero(self, step: Step) -> Self {
        Self { if_zero: Some(step), ..self }
    }

    /// Goes there after another result that passes.
    pub(crate) fn then(self, step: Step) -> Self {
        Self { next: Some(step), ..self }
    }

    /// Goes there if the check fails, instead of ending the process.
    pub(crate) fn if_failed(self, step: Step) -> Self {
        Self { if_failed: Some(step), ..self }
    }

    fn words(&self) -> [u64; WORDS] {
        let (check, expected) = match self.check {
            Check::Is(value) => (0, value),
            Check::NotNegative => (1, 0),
        };
        let [a, b, c, d, e, f] = self.arguments;
        let address = |step: Option<Step>| step.map_or(0, Step::address);
        let (zero, next, failed) = (address(self.if_zero), address(self.next), address(self.if_failed));
        [self.number as u64, a, b, c, d, e, f, check, expected, zero, next, failed, 0, 0, 0, 0]
    }

    /// What an error of this call is about.
    pub(crate) fn number(&self) -> i64 {
        self.number
    }

    /// Its arguments.
    pub(crate) fn arguments(&self) -> [u64; 6] {
        self.arguments
    }
}

/// A script, as it is put together.
#[derive(Debug)]
pub(crate) struct Script {
    entries: Vec<Entry>,
    data: Vec<u8>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), data: Vec::new() }
    }

    /// Adds an entry.
    pub(crate) fn push(&mut self, entry: Entry) -> Step {
        self.entries.push(entry);
        Step(self.entries.len() as u64 - 1)
    }

    /// Where the next entry will be.
    pub(crate) fn next(&self) -> Step {
        Step(self.entries.len() as u64)
    }

    /// The entry there again.
    pub(crate) fn change(&mut self, step: Step, change: impl FnOnce(Entry) -> Entry) {
        if let Some(entry) = self.entries.get_mut(step.0 as usize) {
            *entry = change(*entry);
        }
    }

    /// Its entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Step, &Entry)> {
        self.entries.iter().zip(0..).map(|(entry, index)| (Step(index), entry))
    }

    /// Adds data, 16-byte aligned; returns its address in the zygote.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> u64 {
        let offset = self.data.len();
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(16), 0);
        SCRIPT + DATA + offset as u64
    }

    /// Adds words.
    pub(crate) fn words<const N: usize>(&mut self, words: [u64; N]) -> u64 {
        self.data(words.map(u64::to_le_bytes).as_flattened())
    }

    /// Adds a `msghdr` of one byte and this control message.
    pub(crate) fn message(&mut self, control: &[u8]) -> u64 {
        let vector = self.words([SCRIPT + BYTE, 1]);
        let control_at = self.data(control);
        self.words([0, 0, vector, 1, control_at, control.len() as u64, 0])
    }

    /// Writes the script where the zygote reads it. The zygote must be waiting, or not have started.
    pub(crate) fn store(&self, pages: &SharedPages) -> Result<(), ScriptTooLong> {
        if self.entries.len() as u64 > END || DATA + self.data.len() as u64 > BYTE {
            return Err(ScriptTooLong);
        }
        let entries = self.entries().all(|(step, entry)| pages.set_words(step.0 * ENTRY_BYTES, entry.words()));
        if entries && pages.write(DATA, &self.data) { Ok(()) } else { Err(ScriptTooLong) }
    }
}

/// Writes the entries behind every script; once, before the zygote starts.
pub(crate) fn store_end(pages: &SharedPages) -> Result<(), ScriptTooLong> {
    let reply = Entry::call(libc::SYS_write, [0, SCRIPT + BYTE, 1], Check::Is(1));
    let wait = Entry::call(libc::SYS_read, [0, SCRIPT + BYTE, 1], Check::Is(1)).then(Step(0));
    let stored = pages.set_words(END * ENTRY_BYTES, reply.words()) && pages.set_words(WAIT * ENTRY_BYTES, wait.words());
    if stored { Ok(()) } else { Err(ScriptTooLong) }
}

/// The result of an entry; 0 if it was 0, or the call was not made.
pub(crate) fn result(pages: &SharedPages, step: Step) -> i64 {
    pages.words(step.0 * ENTRY_BYTES + RESULT).map_or(0, |[word]| word as i64)
}

/// Four bytes of a script's data.
pub(crate) fn read_int(pages: &SharedPages, address: u64) -> i32 {
    let mut bytes = [0; 4];
    let there = address.checked_sub(SCRIPT).is_some_and(|offset| pages.read(offset, &mut bytes));
    if there { i32::from_le_bytes(bytes) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_does_not_fit_is_refused() {
        let (pages, _file) = SharedPages::new(c"script", SCRIPT_BYTES).unwrap();
        let mut script = Script::new();
        for _ in 0..62 {
            script.push(Entry::zero(libc::SYS_getppid, []));
        }
        script.data(&vec![1; (BYTE - DATA - 8) as usize]);
        assert_eq!(script.store(&pages), Ok(()));
        script.data(&[1]);
        assert_eq!(script.store(&pages), Err(ScriptTooLong));
        let mut script = Script::new();
        for _ in 0..63 {
            script.push(Entry::zero(libc::SYS_getppid, []));
        }
        assert_eq!(script.store(&pages), Err(ScriptTooLong), "the entries behind it are not overwritten");
    }
}
