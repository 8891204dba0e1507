// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server's bookkeeping adds to a request: routes, limits, counters, and finding the worker.
//!
//! One thread calls a worker and resets it, and calls a loop's pool for the same program, in turns. The pool belongs to
//! a server with [`TENANTS`] tenants; the request is for one of them. Two workers never cost exactly the same (their
//! memory lies elsewhere), so the comparison is repeated with fresh workers, and a second worker that is called without
//! a server shows how much equal workers differ.

use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use mayfly_sandbox::{CallError, Request, ResponseSink, Snapshot, Worker};
use mayfly_tenancy::{
    BootWhen, Config, DeferredReply, HostPattern, LoopPool, Outcome, Route, RoutePath, Server, TenantName,
};

use crate::bench::plan::{fit, within};
use crate::bench::sink::Discarded;
use crate::bench::stats::Samples;
use crate::bench::subject::fork;
use crate::failure::Failure;

/// Tenants of the server; only one is called.
const TENANTS: usize = 1_000;
/// Sides of the comparison: two workers, and the pool.
const SIDES: u32 = 3;
/// How often the comparison is made, each time with fresh workers on all sides.
const PARTS: u32 = 10;
/// Calls on each side that are compared with each other: few, so that a slow millisecond slows all of them.
const CALLS: u32 = 20;
/// Calls before anything is measured, of each fresh worker.
const WARM_UP: u32 = 200;
/// How often a pool may have no worker, or a request leave its loop, before the measurement gives up.
const PATIENCE: u32 = 100;
/// A request that takes longer is not compared: what a server adds to it, less than a microsecond, is lost in its noise.
pub const REQUEST_MOST: Duration = Duration::from_micros(500);
/// A program that boots for longer is not compared: the server boots it again.
pub const BOOT_MOST: Duration = Duration::from_secs(2);
/// How long a request may occupy its loop here: the longest time that a configuration can set. A request that leaves it
/// is not compared.
const INLINE_BUDGET: Duration = Duration::from_secs(1);

/// Nanoseconds a request; medians of differences.
pub struct Overhead {
    /// [`LoopPool::call`] above [`Worker::call`].
    pub added_ns: f64,
    /// One [`Worker::call`] above another: the resolution of the comparison.
    pub equals_differ_ns: f64,
}

/// The extent of the comparison.
#[derive(Clone, Copy)]
pub struct Extent {
    /// At most about this many requests on each side.
    pub requests: u32,
    /// What a request takes.
    pub each: Duration,
    /// How long the comparison may take, approximately.
    pub time: Duration,
}

impl Extent {
    /// Calls of each side, in each part, before anything is measured.
    fn warm_up(self) -> u32 {
        // A tenth of the time.
        fit(self.time / 10 / PARTS / SIDES, self.each).clamp(1, WARM_UP)
    }

    /// Rounds of each part.
    fn rounds(self) -> u32 {
        self.requests.min(fit(self.time / SIDES, self.each)).div_ceil(PARTS * CALLS)
    }
}

/// Compares `snapshot`'s workers with those of a server that has `config`'s only tenant. The inner error says why the
/// program's requests cannot be compared.
pub fn measure(
    config: &Config,
    snapshot: &Snapshot,
    request: &Request<'_>,
    extent: Extent,
) -> Result<Result<Overhead, &'static str>, Failure> {
    let server = Server::start(with_neighbours(config)?).map_err(Failure::host)?;
    let compared = compare(&server, snapshot, request, extent);
    server.shutdown();
    match compared {
        Ok(overhead) => Ok(Ok(overhead)),
        Err(Incomparable::LeavesLoop) => Ok(Err("its requests wait, and so leave their loop")),
        Err(Incomparable::Failed(failure)) => Err(failure),
    }
}

/// Why there is no comparison.
enum Incomparable {
    /// The program answers, and its requests leave the loop each time.
    LeavesLoop,
    Failed(Failure),
}

impl From<Failure> for Incomparable {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn compare(
    server: &Server,
    snapshot: &Snapshot,
    request: &Request<'_>,
    extent: Extent,
) -> Result<Overhead, Incomparable> {
    let rounds = extent.rounds();
    let (mut added, mut equals) = (Vec::new(), Vec::new());
    for part in within(extent.time, 1, PARTS) {
        let mut sides = Sides {
            worker: fork(snapshot)?,
            other: fork(snapshot)?,
            pool: server.loop_pool(),
            request,
            response: Discarded::new(snapshot.limits().response_bytes),
            next_id: 0,
        };
        for _ in 0..extent.warm_up() {
            sides.worker()?;
            sides.other()?;
            sides.pool()?;
        }
        for round in 0..rounds {
            // Each side goes first as often as last.
            let times = if (part + round) % 2 == 0 {
                let worker = median(|| sides.worker())?;
                let other = median(|| sides.other())?;
                [worker, other, median(|| sides.pool())?]
            } else {
                let pool = median(|| sides.pool())?;
                let other = median(|| sides.other())?;
                [median(|| sides.worker())?, other, pool]
            };
            added.push(times[2] - times[0]);
            equals.push(times[1] - times[0]);
        }
    }
    Ok(Overhead { added_ns: middle(added), equals_differ_ns: middle(equals) })
}

/// The sides of the comparison.
struct Sides<'a> {
    worker: Worker,
    other: Worker,
    pool: LoopPool,
    request: &'a Request<'a>,
    response: Discarded,
    next_id: u64,
}

impl Sides<'_> {
    fn worker(&mut self) -> Result<(), Incomparable> {
        self.next_id += 1;
        call(&mut self.worker, self.next_id, self.request, &mut self.response).map_err(Failure::program)?;
        Ok(())
    }

    fn other(&mut self) -> Result<(), Incomparable> {
        self.next_id += 1;
        call(&mut self.other, self.next_id, self.request, &mut self.response).map_err(Failure::program)?;
        Ok(())
    }

    /// One request of the pool: the pool has no worker until one is forked, and if the machine stalls for a moment, a
    /// request may leave its loop.
    fn pool(&mut self) -> Result<(), Incomparable> {
        let mut last = 0;
        for _ in 0..PATIENCE {
            if self.pool.call(self.request, &mut self.response) == Outcome::Done {
                return match self.response.status {
                    status @ 500.. => Err(answers(status)),
                    _ => Ok(()),
                };
            }
            let (answered, answer) = mpsc::channel();
            self.pool.call_later(self.request, Box::new(Later { answered, status: 0, body: Vec::new() }));
            last = answer.recv().unwrap_or_default();
        }
        match last {
            0 => Err(Failure::Program("the server does not answer".to_owned()).into()),
            status @ 500.. => Err(answers(status)),
            _ => Err(Incomparable::LeavesLoop),
        }
    }
}

fn answers(status: u16) -> Incomparable {
    Failure::Program(format!("the server answers {status}")).into()
}

/// Not inlined, like the pool's call.
#[inline(never)]
fn call(worker: &mut Worker, id: u64, request: &Request<'_>, response: &mut Discarded) -> Result<(), CallError> {
    worker.call(id, request, response).map(drop)
}

/// The median time of [`CALLS`] calls, in nanoseconds.
fn median(mut call: impl FnMut() -> Result<(), Incomparable>) -> Result<f64, Incomparable> {
    let mut samples = Samples::with_capacity(CALLS as usize);
    for _ in 0..CALLS {
        let start = Instant::now();
        call()?;
        samples.add(start.elapsed().as_nanos() as u64);
    }
    Ok(samples.median().unwrap_or_default())
}

fn middle(mut differences: Vec<f64>) -> f64 {
    differences.sort_unstable_by(f64::total_cmp);
    differences.get(differences.len() / 2).copied().unwrap_or(0.0)
}

/// The configuration, with its tenant on the host of the benchmark's request, and with as many other tenants as a busy
/// server has.
fn with_neighbours(config: &Config) -> Result<Config, Failure> {
    let tenant = &config.tenants[0];
    let host = |host: &str| HostPattern::try_from(host).map_err(|error| Failure::Usage(error.to_owned()));
    let mut tenants = Vec::with_capacity(TENANTS);
    for number in 0..TENANTS {
        let mut tenant = tenant.clone();
        let at = match number {
            0 => "127.0.0.1".to_owned(),
            _ => {
                tenant.name =
                    TenantName::try_from(format!("t{number}")).map_err(|error| Failure::Usage(error.to_owned()))?;
                tenant.boot = BootWhen::FirstCall;
                format!("t{number}.example")
            }
        };
        tenant.limits.inline_budget = INLINE_BUDGET;
        tenant.routes = vec![Route { host: host(&at)?, path: RoutePath::root() }];
        tenants.push(tenant);
    }
    Ok(Config { tenants, watch: false, ..config.clone() })
}

/// Reports the status of an answer, and drops the rest.
struct Later {
    answered: Sender<u16>,
    status: u16,
    body: Vec<u8>,
}

impl ResponseSink for Later {
    fn body(&mut self, len: usize) -> &mut [u8] {
        self.body.resize(len, 0);
        &mut self.body
    }

    fn status(&mut self, status: u16) {
        self.status = status;
    }

    fn header(&mut self, _: &[u8], _: &[u8]) {}
}

impl DeferredReply for Later {
    fn send(self: Box<Self>) {
        // It fails if the receiver does not wait any more.
        let _ = self.answered.send(self.status);
    }
}
