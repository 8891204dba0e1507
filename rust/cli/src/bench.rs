// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly bench`: what one request costs, without HTTP.
//!
//! What is compared is measured in turns: a round takes some samples of every figure, so that a machine that slows down for a while
//! slows all of them. Every figure is a median over all rounds. After the rounds come as many requests again in one go, between two
//! lines on standard error: whoever traces the process can count system calls there, for nothing else happens.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_sandbox::bench::{BareVms, Floor, ScatteredPages};
use mayfly_sandbox::{Header, Host, Limits, NoLog, Program, Request, ResponseSink, Snapshot, Worker};
use mayfly_tenancy::Config;

use crate::Failure;
use crate::bench_overhead;
use crate::host::HostFacts;
use crate::memory::anonymous_kib;
use crate::options::BenchOptions;
use crate::report::{Figures, Latency};
use crate::stats::Samples;

/// Samples of each figure in a round: few, so that a machine which is slow for some milliseconds is slow for all figures alike.
const SAMPLES_A_ROUND: u32 = 20;
/// Requests before anything is measured: caches, branch predictors and the work set are as they will stay.
const WARM_UP: u32 = 500;
/// Machines of each kind that are created in turn, for the two figures on that; each costs half a millisecond.
const FORKS: u32 = 100;
/// Resets, and copies to compare them with, that are timed together: one alone takes little longer than reading the clock.
const BATCH: u32 = 32;
/// Workers that are kept idle to see what one of them weighs.
const IDLE_WORKERS: u64 = 16;

/// What a browser or wrk sends, roughly: 300 bytes.
const HEADERS: [Header<'_>; 5] = [
    Header { name: b"host", value: b"127.0.0.1:8080" },
    Header { name: b"user-agent", value: b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0" },
    Header { name: b"accept", value: b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8" },
    Header { name: b"accept-language", value: b"en-GB,en;q=0.5" },
    Header { name: b"accept-encoding", value: b"gzip, deflate, br" },
];

pub fn bench(options: &BenchOptions) -> Result<(), Failure> {
    let config = options.program.settings.config(&options.program.program)?;
    let host = Host::open().map_err(|error| Failure::Host(error.to_string()))?;
    let tenant = &config.tenants[0];
    let program = tenant.launch().map_err(|error| Failure::Program(error.to_string()))?;
    let path = options.path.as_bytes();
    let (path, query) = match path.iter().position(|&byte| byte == b'?') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &b""[..]),
    };
    let request = Request { method: b"GET", path, query, headers: &HEADERS, body: b"" };
    let figures = Bench::new(&host, &program, &tenant.limits.machine, request)?.measure(&config, options.requests)?;
    let figures =
        Figures { program: tenant.program.display().to_string(), host: HostFacts::read(host.report().kvm), ..figures };
    if options.json {
        println!("{}", figures.json());
    } else {
        print!("{figures}");
    }
    Ok(())
}

/// A worker in its steady state, a request for it, and what it is compared with.
struct Bench<'a> {
    snapshot: Snapshot,
    worker: Worker,
    floor: Floor,
    bare_vms: BareVms,
    copied: ScatteredPages,
    request: Request<'a>,
    response: Discarded,
    next_id: u64,
    exits: u64,
}

/// One list of samples for each figure.
struct Times {
    floor: Samples,
    call_reset: Samples,
    call: Samples,
    reset: Samples,
    resets: Samples,
    copies: Samples,
    fork: Samples,
    create_vm: Samples,
}

impl Times {
    fn new(requests: u32) -> Self {
        let many = || Samples::with_capacity(requests as usize);
        let few = || Samples::with_capacity(FORKS as usize);
        Self {
            floor: many(),
            call_reset: many(),
            call: many(),
            reset: many(),
            resets: many(),
            copies: many(),
            fork: few(),
            create_vm: few(),
        }
    }
}

impl<'a> Bench<'a> {
    fn new(host: &Host, program: &Program, limits: &Limits, request: Request<'a>) -> Result<Self, Failure> {
        let snapshot = Snapshot::boot(host, program, limits, Arc::new(NoLog))
            .map_err(|error| Failure::Program(error.to_string()))?;
        let mut bench = Self {
            worker: fork(&snapshot)?,
            snapshot,
            floor: Floor::new().map_err(host_failure)?,
            bare_vms: BareVms::new().map_err(host_failure)?,
            copied: ScatteredPages::new(0),
            request,
            response: Discarded::new(limits.response_bytes),
            next_id: 0,
            exits: 0,
        };
        for _ in 0..WARM_UP {
            bench.call_and_reset()?;
        }
        bench.copied = ScatteredPages::new(bench.worker.work_pages());
        Ok(bench)
    }

    fn call(&mut self) -> Result<(), Failure> {
        self.next_id += 1;
        let stats =
            self.worker.call_without_reset(self.next_id, &self.request, &mut self.response).map_err(no_response)?;
        self.exits += stats.exits;
        Ok(())
    }

    fn call_and_reset(&mut self) -> Result<(), Failure> {
        self.next_id += 1;
        let stats = self.worker.call(self.next_id, &self.request, &mut self.response).map_err(no_response)?;
        self.exits += stats.exits;
        Ok(())
    }

    fn measure(mut self, config: &Config, requests: u32) -> Result<Figures, Failure> {
        let mut times = Times::new(requests);
        let rounds = requests.div_ceil(SAMPLES_A_ROUND);
        for _ in 0..rounds {
            self.round(&mut times)?;
        }
        self.create(&mut times)?;
        let worker_private_kib = self.idle_worker_kib()?;
        let overhead = bench_overhead::measure(config, &self.snapshot, &self.request, requests)?;
        let exits_per_request = self.steady_state(requests)?;

        let us = |nanoseconds: f64| nanoseconds / 1e3;
        let pages = self.worker.work_pages();
        Ok(Figures {
            program: String::new(),
            requests,
            rounds,
            floor_us: us(times.floor.median()),
            call_reset_us: us(times.call_reset.median()),
            call_us: us(times.call.median()),
            reset_us: us(times.reset.median()),
            exits_per_request,
            // Every exit is the end of one KVM_RUN, and a worker makes no other ioctl; the benchmark's report counts from outside.
            ioctls_per_request: exits_per_request,
            workset_pages: pages,
            reset_ns_per_page: per_page(times.resets.median(), pages),
            memcpy_ns_per_page: per_page(times.copies.median(), pages),
            fork_us: us(times.fork.median()),
            create_vm_us: us(times.create_vm.median()),
            worker_private_kib,
            overhead_ns: overhead.added_ns,
            overhead_equals_ns: overhead.equals_differ_ns,
            boot_ms: self.snapshot.boot_time().as_secs_f64() * 1e3,
            latency_us: Latency {
                p50: us(times.call_reset.median()),
                p90: us(times.call_reset.quantile(0.9)),
                p99: us(times.call_reset.quantile(0.99)),
                p999: us(times.call_reset.quantile(0.999)),
            },
            status: self.response.status,
            host: HostFacts::default(),
        })
    }

    /// Takes samples of every figure about requests. Those beyond the number of requests, in the last round, are left out.
    fn round(&mut self, times: &mut Times) -> Result<(), Failure> {
        for _ in 0..SAMPLES_A_ROUND {
            times.floor.time(|| self.floor.round_trip()).map_err(host_failure)?;
        }
        for _ in 0..SAMPLES_A_ROUND {
            times.call_reset.time(|| self.call_and_reset())?;
        }
        for _ in 0..SAMPLES_A_ROUND {
            times.call.time(|| self.call())?;
            times.reset.time(|| self.worker.reset()).map_err(no_response)?;
        }
        times.resets.time(|| reset_batch(&mut self.worker))?;
        times.copies.time(|| (0..BATCH).for_each(|_| self.copied.copy()));
        Ok(())
    }

    /// Creates machines and workers in turn.
    fn create(&self, times: &mut Times) -> Result<(), Failure> {
        for _ in 0..FORKS {
            // Dropping the machines is not part of it.
            let _bare = times.create_vm.time(|| self.bare_vms.create()).map_err(host_failure)?;
            let _worker = times.fork.time(|| fork(&self.snapshot))?;
        }
        Ok(())
    }

    /// Memory of one forked worker that has not been called, seen from outside: the process grows by so much for each.
    fn idle_worker_kib(&self) -> Result<f64, Failure> {
        let mut workers = Vec::with_capacity(IDLE_WORKERS as usize);
        // The first look at the process's memory allocates for itself.
        anonymous_kib().map_err(Failure::Host)?;
        let before = anonymous_kib().map_err(Failure::Host)?;
        for _ in 0..IDLE_WORKERS {
            workers.push(fork(&self.snapshot)?);
        }
        let after = anonymous_kib().map_err(Failure::Host)?;
        Ok(after.saturating_sub(before) as f64 / IDLE_WORKERS as f64)
    }

    /// Serves requests and does nothing else. Returns the number of exits a request.
    fn steady_state(&mut self, requests: u32) -> Result<f64, Failure> {
        self.exits = 0;
        say("mayfly-bench: steady begin\n");
        for _ in 0..requests {
            self.call_and_reset()?;
        }
        say("mayfly-bench: steady end\n");
        Ok(self.exits as f64 / f64::from(requests))
    }
}

fn reset_batch(worker: &mut Worker) -> Result<(), Failure> {
    (0..BATCH).try_for_each(|_| worker.reset().map(drop)).map_err(no_response)
}

/// What one page of one reset, or copy, takes of a batch.
fn per_page(batch_nanoseconds: f64, pages: usize) -> f64 {
    if pages == 0 { 0.0 } else { batch_nanoseconds / f64::from(BATCH) / pages as f64 }
}

/// One `write` to standard error.
fn say(line: &str) {
    // Who closed standard error does not count system calls.
    let _ = io::stderr().write_all(line.as_bytes());
}

pub fn fork(snapshot: &Snapshot) -> Result<Worker, Failure> {
    Worker::fork(snapshot).map_err(host_failure)
}

pub fn host_failure(error: impl std::error::Error) -> Failure {
    Failure::Host(error.to_string())
}

pub fn no_response(error: mayfly_sandbox::CallError) -> Failure {
    Failure::Program(error.to_string())
}

impl Samples {
    /// Does `work` and adds the time it took.
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        let took: Duration = start.elapsed();
        self.add(took.as_nanos() as u64);
        result
    }
}

/// Takes a response as a server would, and allocates nothing for it.
pub struct Discarded {
    pub status: u16,
    body: Vec<u8>,
}

impl Discarded {
    /// Room for a body of that many bytes.
    pub fn new(most: u64) -> Self {
        Self { status: 0, body: vec![0; most as usize] }
    }
}

impl ResponseSink for Discarded {
    fn body(&mut self, len: usize) -> &mut [u8] {
        &mut self.body[..len]
    }

    fn status(&mut self, status: u16) {
        self.status = status;
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        std::hint::black_box((name, value));
    }
}
