// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers of requests.

use crate::model::failure::RequestId;

/// Generates the request ids of one pool.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) next: u64,
}

impl Ids {
    /// The finaliser of SplitMix64 is a bijection: different numbers stay different, and consecutive ones look
    /// unrelated.
    pub(super) fn next(&mut self) -> RequestId {
        self.next = self.next.wrapping_add(1);
        let mut x = self.next;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        RequestId(x ^ (x >> 31))
    }
}
