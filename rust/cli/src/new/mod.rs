// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly new`: a project of one program, which runs at once.

mod create;
mod runtime;
mod templates;

pub use create::new;
