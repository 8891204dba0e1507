// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant at run time: its generations, their workers, its counters and its routes.

pub(crate) mod background_budget;
pub(crate) mod failure;
pub(crate) mod fixed_workers;
pub(crate) mod generation;
pub(crate) mod leg_timer;
pub(crate) mod meter;
pub(crate) mod outcome;
pub(crate) mod permits;
pub(crate) mod route;
pub(crate) mod slot_permit;
pub(crate) mod slots;
pub(crate) mod store;
pub(crate) mod tenant;
pub(crate) mod tenant_log;
pub(crate) mod worker_mailbox;
