// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest SDK for Rust: how a program inside Mayfly gets its requests and answers them.
//!
//! ```
//! use mayfly_guest::{Response, serve};
//!
//! // Initialise here: files, tables, caches. This part runs once.
//! serve(|request| Response::text(format!("Hello {}!", request.path_lossy())))
//! ```
//!
//! The first wait for a request ends the boot: Mayfly freezes the program inside it, and each request resumes in a copy
//! of the frozen program, which is rolled back when the request has been answered. (A tenant whose workers keep their
//! state is served by the same program.) One request is one exit of the machine.
//!
//! [`serve`] is for most programs. [`Host`] is below it: it neither allocates nor needs `std` (disable the feature
//! `std`), only a C library with `getauxval(3)`.
//!
//! # What must not repeat
//!
//! All requests start from the same memory, so a generator that was seeded at boot gives each the same numbers.
//! `rand`'s thread-local generator is one. Draw from the system (`getrandom`, `OsRng`), which is fresh in each request,
//! or seed a generator in the request from [`Request::entropy`].
//!
//! # Invariants
//!
//! There is only one [`Request`] at a time, and answering it consumes it: its parts cannot be kept any longer, and it
//! cannot be answered twice.

#![cfg_attr(not(feature = "std"), no_std)]

mod abi;
mod host;
mod request;
#[cfg(feature = "std")]
mod serve;

pub use host::{Host, OpenError};
pub use request::{CallError, Headers, Origin, Refused, Request};
#[cfg(feature = "std")]
pub use serve::{Response, serve};
