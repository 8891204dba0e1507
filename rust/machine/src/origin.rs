// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose a page is.

use serde::{Deserialize, Serialize};

/// Who a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// The snapshot's layout: the page stays over resets, its content is restored.
    Snapshot,
    /// This request: reset takes the page, or the change, away.
    Request,
}
