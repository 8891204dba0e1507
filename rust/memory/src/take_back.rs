// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes frames from the guest: makes it forget its cached translations to them, and drops their content.
//!
//! The kernel works on ranges, and a call for each costs microseconds. The program decides where frames lie: a boot can
//! fill two mappings in turns, and one `mprotect` of one of them then names every second frame of hundreds of
//! megabytes. So one call takes back scattered frames with all that lies between them, which costs the guest a fault
//! for each of the others. Content cannot be dropped that way; where dropping can wait, it waits: see
//! [`Memory::release_dirty`].

use mayfly_machine::MemoryError;

use crate::layout::{PAGE, Reach};
use crate::memory::{Backing, Memory};

/// What [`Memory::take_back`] does with the frames' content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The frames keep their content; only the guest's cached translations go.
    Keep,
    /// The frames get their first content again: the image's, or zero.
    Drop,
}

/// Runs of frames in a row, of sorted frames; one that is listed twice counts once.
fn runs(frames: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    frames.chunk_by(|a, b| b - a <= 1).filter_map(|run| {
        let (first, last) = (*run.first()?, *run.last()?);
        Some((first, last - first + 1))
    })
}

impl Memory {
    /// Whether frames (sorted in place) lie scattered: in more than [`RUNS_MAX`](crate::memory::RUNS_MAX) runs.
    pub fn are_scattered(&self, frames: &mut [u64]) -> bool {
        frames.sort_unstable();
        runs(frames).nth(self.runs_max).is_some()
    }

    /// Makes the guest forget its cached translations to `frames` (sorted in place), and drops or keeps their content.
    ///
    /// Every downgrade of a guest page-table entry needs this: the kernel's MMU notifiers reach the shadow tables of
    /// paging-based KVM and the combined TLB of hardware KVM alike. Of a process, which has mappings of
    /// its own ([`Reach::Files`]), the caller updates those, address by address.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Host`] if the kernel refuses; the machine must not be used again then.
    pub fn take_back(&mut self, frames: &mut [u64], content: Content) -> Result<(), MemoryError> {
        frames.sort_unstable();
        // Files' frames come after all others, and those of files that are mapped shared after these.
        let is_files = |frame: &u64| self.is_file(*frame) || self.is_shared_file(*frame);
        let (own, files) = frames.split_at(frames.partition_point(|frame| !is_files(frame)));
        let (files, shared) = files.split_at(files.partition_point(|frame| !self.is_shared_file(*frame)));
        // Files' frames are never written, and what is written to shared ones stays: there is nothing to drop.
        for (part, content) in [(own, content), (files, Content::Keep), (shared, Content::Keep)] {
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            if content == Content::Keep && runs(part).nth(self.runs_max).is_some() {
                self.take_back_run(*first, last - first + 1, content)?;
                continue;
            }
            for (first, count) in runs(part) {
                self.take_back_run(first, count, content)?;
            }
        }
        Ok(())
    }

    fn take_back_run(&mut self, first: u64, count: u64, content: Content) -> Result<(), MemoryError> {
        #[cfg(any(test, feature = "testing"))]
        testing::TAKEN.with(|taken| taken.set(taken.get() + 1));
        if self.reach() == Reach::Files && content == Content::Keep {
            return Ok(());
        }
        if self.is_file(first) || self.is_shared_file(first) {
            let done = match self.is_file(first) {
                true => self.files.forget(first, count),
                false => self.shared_files.forget(first, count),
            };
            return done.map_err(|error| MemoryError::Host { errno: error.raw_os_error().unwrap_or(0) });
        }
        debug_assert!(first + count <= self.frames);
        if content == Content::Drop {
            self.disown(first, count);
        }
        let len = count as usize * PAGE;
        let host = |result: i32| {
            if result == 0 {
                Ok(())
            } else {
                let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
                Err(MemoryError::Host { errno })
            }
        };
        // SAFETY: the frames lie within the mapping (asserted by the callers' frame numbers, which never come from a
        // guest).
        let start = unsafe { self.mapping.address().add(first as usize * PAGE) }.cast();
        match (content, &self.backing) {
            (Content::Keep, _) => {
                // SAFETY: our own mapping; the vCPU does not run, and nothing of ours reads it between the two calls.
                host(unsafe { libc::mprotect(start, len, libc::PROT_READ) })?;
                // SAFETY: as above.
                host(unsafe { libc::mprotect(start, len, libc::PROT_READ | libc::PROT_WRITE) })
            }
            // On a shared mapping MADV_DONTNEED would keep the content; MADV_REMOVE punches a hole.
            (Content::Drop, Backing::Boot(_) | Backing::File { .. }) => {
                // SAFETY: our own mapping.
                host(unsafe { libc::madvise(start, len, libc::MADV_REMOVE) })
            }
            // SAFETY: our own mapping.
            (Content::Drop, Backing::Fork(_)) => host(unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) }),
        }
    }
}

/// Counters for tests.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use std::cell::Cell;

    thread_local! {
        /// Runs that this thread has taken back.
        pub static TAKEN: Cell<u64> = const { Cell::new(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::RUNS_MAX;

    #[test]
    fn runs_are_found_whatever_is_listed_twice() {
        let found: Vec<_> = runs(&[1, 1, 2, 3, 3, 5, 7, 7, 8]).collect();
        assert_eq!(found, [(1, 3), (5, 1), (7, 2)]);
    }

    #[test]
    fn frames_in_many_runs_are_scattered() {
        let memory = Memory::boot(1, &crate::ledger::Account::default(), crate::layout::Reach::Mapping).unwrap();
        let runs = |count: u64| (0..count).rev().flat_map(|run| [3 * run, 3 * run + 1]).collect::<Vec<_>>();
        assert!(!memory.are_scattered(&mut runs(RUNS_MAX as u64)));
        assert!(memory.are_scattered(&mut runs(RUNS_MAX as u64 + 1)));
    }
}
