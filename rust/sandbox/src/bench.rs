// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's own costs, for benchmarks; not for servers.

use mayfly_engine::{CreateError, RunError, floor};

use crate::host::Host;

/// The smallest program that leaves its processor, and is entered again.
#[derive(Debug)]
pub struct Floor(floor::Floor);

impl Floor {
    /// Makes it on this host's engine.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the engine refuses.
    pub fn new(host: &Host) -> Result<Self, CreateError> {
        floor::Floor::new(&host.machine).map(Self)
    }

    /// Into the program and out again.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine fails.
    #[inline]
    pub fn round_trip(&mut self) -> Result<(), RunError> {
        self.0.round_trip()
    }
}

/// Makes bare machines, with nothing of a program's.
#[derive(Debug)]
pub struct BareMachines(floor::BareMachines);

impl BareMachines {
    /// Prepares what they share.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the engine refuses.
    pub fn new(host: &Host) -> Result<Self, CreateError> {
        floor::BareMachines::new(&host.machine).map(Self)
    }

    /// Makes one, which ends when it is dropped.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the engine refuses.
    pub fn create(&self) -> Result<floor::BareMachine, CreateError> {
        self.0.create()
    }
}

const PAGE: usize = mayfly_machine::PAGE_SIZE as usize;
/// Pages lie this many pages apart: side by side, as the work set of the tenant that is measured (`tenants/workset`).
/// Further apart a copy takes longer (45 to 57 ns a page for 1 to 17), which would flatter the reset.
const STRIDE: usize = 1;

/// Pages that are copied one by one: a lower bound for the cost of restoring them.
///
/// ```
/// use mayfly_sandbox::bench::ScatteredPages;
///
/// let mut pages = ScatteredPages::new(16);
/// let start = std::time::Instant::now();
/// pages.copy();
/// println!("{:?}", start.elapsed());
/// ```
#[derive(Debug)]
pub struct ScatteredPages {
    from: Vec<u8>,
    to: Vec<u8>,
    /// Where the pages start in `from` and in `to`.
    places: Vec<(usize, usize)>,
}

impl ScatteredPages {
    /// Prepares `pages` pages; all are touched.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        let bytes = (pages * STRIDE + 1) * PAGE;
        let (from, to) = (vec![1; bytes], vec![2; bytes]);
        let aligned = |buffer: &[u8]| buffer.as_ptr().align_offset(PAGE);
        let (first_from, first_to) = (aligned(&from), aligned(&to));
        let place = |page: usize| page * STRIDE * PAGE;
        let places = (0..pages).map(|page| (first_from + place(page), first_to + place(page))).collect();
        Self { from, to, places }
    }

    /// Copies every page once.
    pub fn copy(&mut self) {
        for &(from, to) in &self.places {
            self.to[to..to + PAGE].copy_from_slice(&self.from[from..from + PAGE]);
        }
        std::hint::black_box(&mut self.to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_copied_and_nothing_else() {
        let mut pages = ScatteredPages::new(3);
        pages.copy();
        assert_eq!(pages.to.iter().filter(|&&byte| byte == 1).count(), 3 * PAGE);
        assert!(
            pages
                .places
                .iter()
                .all(|&(from, to)| (pages.from.as_ptr() as usize + from).is_multiple_of(PAGE) && pages.to[to] == 1)
        );
    }
}
