// SPDX-License-Identifier: MIT OR Apache-2.0
//! A sink for the responses of a measurement.

use mayfly_sandbox::ResponseSink;

/// Takes a response as a server would, and allocates nothing for it.
pub struct Discarded {
    pub status: u16,
    body: Vec<u8>,
}

impl Discarded {
    /// Room for a body of `most` bytes.
    pub fn new(most: u64) -> Self {
        Self { status: 0, body: vec![0; most as usize] }
    }
}

impl ResponseSink for Discarded {
    fn body(&mut self, len: usize) -> &mut [u8] {
        &mut self.body[..len]
    }

    fn status(&mut self, status: u16) {
        self.status = status;
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        std::hint::black_box((name, value));
    }
}
