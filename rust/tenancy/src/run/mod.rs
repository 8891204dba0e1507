// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on one worker, and its reply.

pub(crate) mod call;
pub(crate) mod gate;
pub(crate) mod in_flight;
pub(crate) mod reply;
pub(crate) mod request;
