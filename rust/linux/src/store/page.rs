// SPDX-License-Identifier: MIT OR Apache-2.0
//! A page of a file's content.

use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use crate::base::pages::PAGE_BYTES;

/// The bytes of a page. Snapshot and workers share it until one of them writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub(crate) struct Page(Arc<[u8; PAGE_BYTES]>);

static ZEROES: LazyLock<Page> = LazyLock::new(|| Page(Arc::new([0; PAGE_BYTES])));

impl Page {
    /// Zeroes, which all pages that were reserved and not written yet share.
    pub(crate) fn zeroes() -> Self {
        ZEROES.clone()
    }

    /// A page with these bytes, at most a page, and zeroes behind them.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut page = [0; PAGE_BYTES];
        for (to, from) in page.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self(Arc::new(page))
    }

    pub(crate) fn bytes(&self) -> &[u8; PAGE_BYTES] {
        &self.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; PAGE_BYTES] {
        Arc::make_mut(&mut self.0)
    }

    /// Whether it was reserved and not written yet.
    pub(crate) fn is_reserved(&self) -> bool {
        Arc::ptr_eq(&self.0, &ZEROES.0)
    }
}

impl TryFrom<Vec<u8>> for Page {
    type Error = &'static str;

    /// An empty one stands for a reserved page.
    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        match bytes.len() {
            0 => Ok(Self::zeroes()),
            PAGE_BYTES => Ok(Self::of(&bytes)),
            _ => Err("not a page"),
        }
    }
}

impl From<Page> for Vec<u8> {
    fn from(page: Page) -> Self {
        if page.is_reserved() { Self::new() } else { page.0.to_vec() }
    }
}
