// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures that a program can read about itself, and that no call of its own sets.

use serde::{Deserialize, Serialize};

/// Figures of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// The largest number of resident pages that the program was told.
    pub(crate) peak_pages: u64,
    /// The last count of resident pages for a call that programs make often.
    #[serde(skip)]
    pub(crate) recent: RecentCount,
    /// Bytes and calls of reading and writing: `/proc/self/io`.
    pub(crate) read: Transfers,
    pub(crate) written: Transfers,
}

/// Resident pages by kind: `RssAnon`, `RssFile` and `RssShmem` of `/proc/self/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    /// Pages that are the program's alone, copies of files' pages included.
    pub(crate) anonymous: u64,
    /// Pages of mounted files.
    pub(crate) file: u64,
    /// Pages of shared mappings, anonymous or of written files.
    pub(crate) shared: u64,
}

impl Resident {
    pub(crate) fn pages(self) -> u64 {
        self.anonymous.saturating_add(self.file).saturating_add(self.shared)
    }
}

/// A count of resident pages, and the time until which it is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecentCount {
    pub(crate) resident: Resident,
    pub(crate) until_ns: u64,
}

/// Transfers in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfers {
    pub(crate) bytes: u64,
    pub(crate) calls: u64,
}

impl Transfers {
    fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_add(bytes);
        self.calls = self.calls.wrapping_add(1);
    }
}

impl Figures {
    /// Counts a call that has transferred `bytes`, if it is one that Linux counts in `/proc/self/io`. Calls on sockets
    /// alone are not.
    pub(crate) fn count_transfer(&mut self, number: u64, bytes: u64) {
        match number.cast_signed() {
            libc::SYS_read | libc::SYS_readv | libc::SYS_pread64 | libc::SYS_preadv | libc::SYS_preadv2 => {
                self.read.add(bytes);
            }
            libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 | libc::SYS_pwritev | libc::SYS_pwritev2 => {
                self.written.add(bytes);
            }
            libc::SYS_sendfile | libc::SYS_copy_file_range => {
                self.read.add(bytes);
                self.written.add(bytes);
            }
            _ => {}
        }
    }
}
