// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers of things in the tables of a process.

use serde::{Deserialize, Serialize};

/// Number of a pollable in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PollableId(pub(crate) usize);

/// Number of a queue in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueId(pub(crate) usize);

/// A connection from outside. Its number is not used again before the process is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub(crate) u64);

/// Number of a written file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InodeId(pub(crate) usize);

/// Number of an open file in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct OpenId(pub(crate) usize);
