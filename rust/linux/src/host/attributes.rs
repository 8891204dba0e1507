// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attributes of files as programs see them: the content and layout of `stat` and `statx`.
//!
//! Sources: `<asm/stat.h>`, `<linux/stat.h>`; stat(2), statx(2).

use serde::{Deserialize, Serialize};

use crate::base::identity::{GID, UID};

/// A file's time stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// What a call sets of a file's time stamps; nothing stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) accessed: Option<Time>,
    pub(crate) modified: Option<Time>,
}

impl Times {
    /// Both at once.
    pub(crate) fn both(time: Time) -> Self {
        Self { accessed: Some(time), modified: Some(time) }
    }
}

/// Attributes of a file, for `stat` and `statx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    /// Minor number of the file's device; its major number is 0. Not the host's device number.
    pub(crate) device: u32,
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// A device file's own major and minor number.
    pub(crate) special: (u32, u32),
    pub(crate) size: u64,
    /// What it takes, in units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) accessed: Time,
    /// The time of the last change, too.
    pub(crate) modified: Time,
}

impl Attributes {
    const BLOCK_SIZE: u32 = 4096;

    /// Attributes of a synthetic file: owned by the program, empty, with times 0.
    pub(crate) fn synthetic(inode: u64, mode: u32) -> Self {
        Self {
            device: 0,
            inode,
            mode,
            links: 1,
            user: UID,
            group: GID,
            special: (0, 0),
            size: 0,
            blocks: 0,
            accessed: Time::default(),
            modified: Time::default(),
        }
    }

    /// The same, owned by the program, which may see when the file was last accessed.
    pub(crate) fn owned(self, accessed: Time) -> Self {
        Self { user: UID, group: GID, accessed, ..self }
    }

    /// The file type bits of the mode.
    pub(crate) fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// `struct stat`: 144 bytes.
    pub(crate) fn stat(&self) -> [u8; 144] {
        let (major, minor) = self.special;
        let special = (u64::from(major) << 8) | u64::from(minor & 0xff);
        let [accessed, modified]: [[u64; 2]; 2] =
            [self.accessed, self.modified].map(|time| [time.seconds.cast_unsigned(), time.nanoseconds.into()]);
        let words = [
            u64::from(self.device & 0xff),
            self.inode,
            self.links.into(),
            u64::from(self.mode) | u64::from(self.user) << 32,
            self.group.into(),
            special,
            self.size,
            Self::BLOCK_SIZE.into(),
            self.blocks,
        ];
        let mut bytes = [0; 144];
        for (slot, word) in
            bytes.chunks_exact_mut(8).zip(words.into_iter().chain([accessed, modified, modified].concat()))
        {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `struct statx`: 256 bytes.
    pub(crate) fn statx(&self) -> [u8; 256] {
        let mut bytes = [0; 256];
        let mut put = |offset: usize, value: &[u8]| {
            if let Some(slot) = bytes.get_mut(offset..offset.saturating_add(value.len())) {
                slot.copy_from_slice(value);
            }
        };
        put(0, &libc::STATX_BASIC_STATS.to_le_bytes());
        put(4, &Self::BLOCK_SIZE.to_le_bytes());
        put(16, &self.links.to_le_bytes());
        put(20, &self.user.to_le_bytes());
        put(24, &self.group.to_le_bytes());
        // A 16-bit field, followed by 16 bits of padding.
        put(28, &self.mode.to_le_bytes());
        put(32, &self.inode.to_le_bytes());
        put(40, &self.size.to_le_bytes());
        put(48, &self.blocks.to_le_bytes());
        // Access, change and modification; there is no birth time.
        for (offset, time) in [(64_usize, self.accessed), (96, self.modified), (112, self.modified)] {
            put(offset, &time.seconds.to_le_bytes());
            put(offset.saturating_add(8), &time.nanoseconds.to_le_bytes());
        }
        put(128, &self.special.0.to_le_bytes());
        put(132, &self.special.1.to_le_bytes());
        put(140, &self.device.to_le_bytes());
        bytes
    }
}

/// The current time, for time stamps of files.
pub(crate) fn now() -> Time {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Time { seconds: time.tv_sec, nanoseconds: u32::try_from(time.tv_nsec).unwrap_or_default() }
}
