// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of the tenants file and of programs: how they are noticed and put in force.

mod inotify;
pub(crate) mod reload;
pub(crate) mod watch;
