// SPDX-License-Identifier: MIT OR Apache-2.0
//! Indices into the tables of a process.

use serde::{Deserialize, Serialize};

/// Index of a pollable in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PollableId(pub(crate) usize);

/// Index of a queue in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueId(pub(crate) usize);

/// A connection from outside the machine. Its number is not reused before the process is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub(crate) u64);

/// Index of a file of the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InodeId(pub(crate) usize);

/// Index of an open file in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct OpenId(pub(crate) usize);
