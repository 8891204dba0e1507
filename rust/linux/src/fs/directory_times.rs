// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modification times of directories that a program has changed the entries of, and that are not the overlay's own: a
//! mount's directories, and `/tmp` itself. The overlay's directories have their time themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::attributes::Time;

/// Most bytes of all paths together. Times of further directories stay as they were.
const BYTES_MAX: usize = 128 << 10;

/// Times by plain path.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DirectoryTimes {
    times: BTreeMap<Vec<u8>, Time>,
    /// Sizes of the paths.
    bytes: usize,
}

impl DirectoryTimes {
    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    pub(crate) fn get(&self, path: &[u8]) -> Option<Time> {
        self.times.get(path).copied()
    }

    pub(crate) fn set(&mut self, path: &[u8], time: Time) {
        if let Some(known) = self.times.get_mut(path) {
            *known = time;
            return;
        }
        let bytes = self.bytes.saturating_add(path.len()).saturating_add(1);
        if bytes <= BYTES_MAX {
            self.times.insert(path.to_vec(), time);
            self.bytes = bytes;
        }
    }

    /// To be called when the directory is removed.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        if self.times.remove(path).is_some() {
            self.bytes = self.bytes.saturating_sub(path.len()).saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_counts_and_the_number_is_bounded() {
        let mut times = DirectoryTimes::default();
        let at = |seconds| Time { seconds, nanoseconds: 0 };
        for number in 0..100_000 {
            times.set(format!("/tmp/{number:06}").as_bytes(), at(1));
        }
        let most = BYTES_MAX / 12;
        assert_eq!((times.times.len(), times.get(b"/tmp/099999")), (most, None));
        times.set(b"/tmp/000005", at(2));
        assert_eq!(times.get(b"/tmp/000005"), Some(at(2)));
        times.forget(b"/tmp/000005");
        times.forget(b"/tmp/000005");
        assert_eq!(times.get(b"/tmp/000005"), None);
        times.set(b"/tmp/099999", at(3));
        assert_eq!((times.times.len(), times.get(b"/tmp/099999")), (most, Some(at(3))));
    }
}
