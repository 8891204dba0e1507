// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps a page at a second address: see `aliases.rs`.

use mayfly_machine::{MemoryError, PAGE_SIZE, Prot};
use mayfly_memory::tables::Entry;

use crate::machine::machine::Machine;

impl Machine {
    /// Maps the page at `of`, which the program can reach, at `address` too. Both show the same content from then on,
    /// and each has its own protection. In a worker the second address belongs to the request.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// use mayfly_machine::{Origin, Prot};
    ///
    /// machine.map_zero(0x50_0000, Prot::READ | Prot::WRITE, Origin::Snapshot)?;
    /// machine.map_alias(0x70_0000, Prot::READ | Prot::EXEC, 0x50_0000)?;
    /// machine.write(0x50_0000, b"seen")?;
    /// let mut seen = [0; 4];
    /// machine.read(0x70_0000, &mut seen)?;
    /// assert_eq!(&seen, b"seen");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MemoryError::Absent`] if there is no page at `of`, or if it is a file's from the page cache or the
    /// shared page of zeroes, which can be mapped as often as wanted; otherwise as [`Machine::map_zero`].
    pub fn map_alias(&mut self, address: u64, prot: Prot, of: u64) -> Result<(), MemoryError> {
        Self::check_range(address, PAGE_SIZE)?;
        Self::check_range(of, PAGE_SIZE)?;
        let source = self.tables.entry(&self.memory, of);
        let own = |frame: &u64| source.is_user() && *frame < self.memory.frames() && !self.memory.is_zero_frame(*frame);
        let frame = source.frame().filter(own).ok_or(MemoryError::Absent { address: of })?;
        self.translations.clear();
        let (slot, old) = self.vacant(address)?;
        self.record(slot, address, old);
        let entry = Entry::user(frame, prot);
        // The first write to an image page must fault, so that it is recorded.
        let faults = self.changes.recorded && self.memory.is_image(frame) && !source.is_writable();
        self.memory.write_u64(slot, if faults { entry.read_only() } else { entry }.0);
        self.changes.aliases.add(frame, of, address);
        self.cover()
    }

    /// All addresses of the frame behind the page at `address`, if it has several.
    #[must_use]
    pub fn addresses_of_frame(&self, address: u64) -> &[u64] {
        if self.changes.aliases.is_empty() {
            return &[];
        }
        let frame = self.tables.entry(&self.memory, address).frame();
        frame.map_or(&[], |frame| self.changes.aliases.of(frame))
    }

    /// Has the processor forget all addresses of frames that have several.
    pub(crate) fn forget_aliases(&mut self, frames: &[u64]) {
        if self.changes.aliases.is_empty() {
            return;
        }
        for frame in frames {
            self.changes.aliases.of(*frame).iter().for_each(|address| self.processor.forget(*address));
        }
    }

    /// Makes the first write to a frame fault again, at all addresses of it.
    pub(crate) fn protect_aliases(&mut self, frame: u64) {
        for address in self.changes.aliases.of(frame) {
            if let Some(slot) = self.tables.slot(&self.memory, *address) {
                let entry = Entry(self.memory.read_u64(slot));
                self.memory.write_u64(slot, entry.read_only().0);
                self.processor.forget(*address);
            }
        }
    }
}
