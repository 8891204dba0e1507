// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on one worker, and its reply.

mod address_text;
pub(crate) mod call;
pub(crate) mod client_fields;
pub(crate) mod client_key;
pub(crate) mod gate;
pub(crate) mod in_flight;
pub(crate) mod reply;
pub(crate) mod request;
