// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interface for operators and tenants' owners, over HTTP.

pub(crate) mod answer;
pub(crate) mod api;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod endpoint;
pub(crate) mod listener;
pub(crate) mod patience;
