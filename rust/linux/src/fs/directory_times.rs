// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modification times of directories that a program has changed the entries of, and that are not the overlay's own: a
//! mount's directories, and `/tmp` itself. The overlay's directories have their time themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::attributes::Time;

/// Most directories. Times of further ones stay as they were.
const DIRECTORIES_MAX: usize = 1024;

/// Times by plain path.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DirectoryTimes {
    times: BTreeMap<Vec<u8>, Time>,
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
        } else if self.times.len() < DIRECTORIES_MAX {
            self.times.insert(path.to_vec(), time);
        }
    }

    /// To be called when the directory is removed.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        self.times.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_counts_and_the_number_is_bounded() {
        let mut times = DirectoryTimes::default();
        let at = |seconds| Time { seconds, nanoseconds: 0 };
        for number in 0..2 * DIRECTORIES_MAX {
            times.set(format!("/tmp/{number}").as_bytes(), at(1));
        }
        assert_eq!(times.times.len(), DIRECTORIES_MAX);
        assert_eq!(times.get(b"/tmp/2000"), None);
        times.set(b"/tmp/5", at(2));
        assert_eq!(times.get(b"/tmp/5"), Some(at(2)));
        times.forget(b"/tmp/5");
        assert_eq!(times.get(b"/tmp/5"), None);
    }
}
