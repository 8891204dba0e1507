// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a page belongs to the snapshot or to a request.

use serde::{Deserialize, Serialize};

/// What a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// The snapshot's layout: the page stays over resets, its content is restored.
    Snapshot,
    /// This request: reset takes the page, or the change, away.
    Request,
}
