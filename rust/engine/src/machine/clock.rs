// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clocks in a machine's control line.

use mayfly_machine::ClockLine;

use crate::machine::machine::Machine;

impl Machine {
    /// Whether the program's clock line is the one with this `tsc`.
    #[inline]
    #[must_use]
    pub fn has_clock(&self, tsc: u64) -> bool {
        self.memory.read_u64(self.inbox.control() + ClockLine::OFFSET) == tsc
    }

    /// The line from which the program computes the time.
    #[must_use]
    pub fn clock(&self) -> ClockLine {
        let at = self.inbox.control() + ClockLine::OFFSET;
        ClockLine::from_words(std::array::from_fn(|word| self.memory.read_u64(at + 8 * word as u64)))
    }

    /// Sets the line from which the program computes the time; without rates where the guest's counter is not the
    /// host's.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// use mayfly_machine::{ClockLine, read_tsc};
    ///
    /// let tsc = read_tsc();
    /// machine.set_clock(&ClockLine { tsc, monotonic_ns: 1_000, ..ClockLine::default() });
    /// assert!(machine.has_clock(tsc));
    /// assert_eq!(machine.clock().monotonic_ns, 1_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_clock(&mut self, line: &ClockLine) {
        let mut line = *line;
        if !self.processor.shares_tsc() {
            (line.rate, line.raw_rate) = (0, 0);
        }
        let at = (self.inbox.control() + ClockLine::OFFSET..).step_by(8);
        for (word, at) in line.words().into_iter().zip(at) {
            self.memory.write_u64(at, word);
        }
    }
}
