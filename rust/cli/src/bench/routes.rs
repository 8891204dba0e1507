// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly bench-routes`: what it costs to find a request's tenant, among one and among many.
//!
//! Look-ups in tables of 1 and of [`MANY`] tenants are measured in turns, so that a machine that slows down for a while
//! slows all figures. A sample is the time of a batch of look-ups; a figure is the median of the samples, for one
//! look-up.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use mayfly_sandbox::Hosts;
use mayfly_tenancy::bench::Routes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::bench::stats::Samples;
use crate::failure::Failure;
use crate::host::HostFacts;
use crate::options::BenchRoutesOptions;

/// Tenants in the large tables.
const MANY: usize = 10_000;
/// Look-ups that are timed together.
const BATCH: usize = 1_000;
const ROUNDS: usize = 500;
/// Steps through the tenants in an order that no prefetcher predicts. It shares no factor with [`MANY`], so each tenant
/// has its turn.
const STRIDE: usize = 7_919;

/// All figures, in nanoseconds for one look-up. The names are part of the command's interface.
#[derive(Debug, Serialize)]
struct Figures {
    by_path: Table,
    by_host: Table,
    tenants: usize,
    rounds: usize,
    host: HostFacts,
}

/// The figures for one kind of route.
#[derive(Debug, Serialize)]
struct Table {
    /// One tenant, the same request again and again.
    one_ns: f64,
    /// Many tenants, the same request again and again: the same work, with the table's used part in the cache.
    many_ns: f64,
    /// Many tenants in turns: each part of the table was last read many look-ups ago.
    many_in_turn_ns: f64,
}

pub fn bench_routes(options: &BenchRoutesOptions) -> Result<(), Failure> {
    let mut by_path = Bench::new(|tenant| json!({ "path": format!("/tenants/t{tenant}") }), by_path)?;
    let mut by_host = Bench::new(|tenant| json!({ "hosts": [format!("t{tenant}.example")] }), by_host)?;
    for _ in 0..ROUNDS {
        by_path.round();
        by_host.round();
    }
    let hosts = Hosts::new();
    let engine = hosts.auto().host.ok().map(|host| host.engine());
    let figures = Figures {
        by_path: by_path.figures(),
        by_host: by_host.figures(),
        tenants: MANY,
        rounds: ROUNDS,
        host: HostFacts::read(&hosts, engine),
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&figures).unwrap_or_default());
    } else {
        print!("{figures}");
    }
    Ok(())
}

fn by_path(tenant: usize) -> Asked {
    Asked { host: b"127.0.0.1:8080".to_vec(), path: format!("/tenants/t{tenant}/index.html").into_bytes() }
}

fn by_host(tenant: usize) -> Asked {
    Asked { host: format!("T{tenant}.example:8080").into_bytes(), path: b"/index.html".to_vec() }
}

/// The parts of a request that the router reads.
struct Asked {
    host: Vec<u8>,
    path: Vec<u8>,
}

struct Bench {
    one: Routes,
    many: Routes,
    requests: Vec<Asked>,
    next: usize,
    one_samples: Samples,
    many_samples: Samples,
    in_turn_samples: Samples,
}

impl Bench {
    fn new(route: impl Fn(usize) -> Value, request: impl Fn(usize) -> Asked) -> Result<Self, Failure> {
        let table = |tenants: usize| {
            let tenants: Vec<Value> = (0..tenants)
                .map(|tenant| {
                    let mut config = route(tenant);
                    config["name"] = format!("t{tenant}").into();
                    config["program"] = "p".into();
                    config
                })
                .collect();
            Routes::new(&json!({ "tenants": tenants })).map_err(Failure::usage)
        };
        Ok(Self {
            one: table(1)?,
            many: table(MANY)?,
            requests: (0..MANY).map(request).collect(),
            next: 0,
            one_samples: Samples::with_capacity(ROUNDS),
            many_samples: Samples::with_capacity(ROUNDS),
            in_turn_samples: Samples::with_capacity(ROUNDS),
        })
    }

    fn round(&mut self) {
        let first = &self.requests[0];
        self.one_samples.add(batch(|_| found(&self.one, first, 0)));
        self.many_samples.add(batch(|_| found(&self.many, first, 0)));
        let (start, many) = (self.next, &self.many);
        self.in_turn_samples.add(batch(|look_up| {
            let tenant = (start + look_up * STRIDE) % MANY;
            found(many, &self.requests[tenant], tenant);
        }));
        self.next = (start + BATCH * STRIDE) % MANY;
    }

    fn figures(mut self) -> Table {
        let one = |samples: &mut Samples| samples.median().unwrap_or_default() / BATCH as f64;
        Table {
            one_ns: one(&mut self.one_samples),
            many_ns: one(&mut self.many_samples),
            many_in_turn_ns: one(&mut self.in_turn_samples),
        }
    }
}

/// Looks up and checks the result: a wrong result might be a fast one.
fn found(routes: &Routes, asked: &Asked, tenant: usize) {
    assert_eq!(routes.find(black_box(&asked.host), black_box(&asked.path)), Some(tenant));
}

/// The time of a batch, in nanoseconds.
fn batch(mut look_up: impl FnMut(usize)) -> u64 {
    let start = Instant::now();
    (0..BATCH).for_each(&mut look_up);
    start.elapsed().as_nanos() as u64
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "one look-up among 1 and among {} tenants, in {} rounds\n", self.tenants, self.rounds)?;
        for (name, table) in [("by path", &self.by_path), ("by host", &self.by_host)] {
            writeln!(f, "  {name}   1 tenant                {:>8.1} ns", table.one_ns)?;
            writeln!(f, "            one of {:<16} {:>8.1} ns", self.tenants, table.many_ns)?;
            writeln!(f, "            all of them in turn     {:>8.1} ns", table.many_in_turn_ns)?;
        }
        writeln!(f, "\n  {}, Linux {}", self.host.cpu, self.host.kernel)
    }
}
