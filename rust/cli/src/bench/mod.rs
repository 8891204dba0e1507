// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly bench` and `mayfly bench-routes`.

mod first_response;
mod measure;
mod memory;
mod overhead;
mod plan;
mod progress;
mod report;
mod routes;
mod sink;
mod stats;
mod subject;

pub use measure::bench;
pub use routes::bench_routes;
