// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots, replaces, stores and stops tenants' programs.

pub(crate) mod boot;
pub(crate) mod boots;
pub(crate) mod env;
pub(crate) mod eviction;
pub(crate) mod health;
pub(crate) mod program;
pub(crate) mod reload;
mod save_snapshot;
pub(crate) mod snapshots;
pub(crate) mod uploads;
