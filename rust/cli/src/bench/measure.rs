// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly bench`: what one request costs, without HTTP.
//!
//! Figures that are compared are measured in turns: a round takes some samples of each, so that a machine that slows
//! down for a while slows all of them. Every figure is a median over all rounds. After the rounds, the same number of
//! requests is served again without interruption, between two lines on standard error: there a tracer can count the
//! system calls of requests, since nothing else happens.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use mayfly_sandbox::bench::{BareMachines, Floor, ScatteredPages};
use mayfly_sandbox::{Client, Engine, Header, Host, Hosts, Request, Snapshot, Worker};
use rustix::time::{ClockId, clock_gettime};

use crate::bench::first_response::first_response_ms;
use crate::bench::memory::{anonymous_kib, with_kernel_kib};
use crate::bench::overhead;
use crate::bench::plan::{Plan, REQUESTS_MIN};
use crate::bench::report::{Figures, Latency};
use crate::bench::sink::Discarded;
use crate::bench::stats::Samples;
use crate::bench::subject::{Subject, fork};
use crate::failure::Failure;
use crate::host::HostFacts;
use crate::options::BenchOptions;

/// Samples of each figure in a round: few, so that a machine that is slow for some milliseconds slows all figures
/// alike.
const SAMPLES_A_ROUND: u32 = 20;
/// Requests before the measurement: after them caches, branch predictors and the work set are in their steady state.
const WARM_UP: u32 = 500;
/// Machines of each kind that are created in turns, for the two figures of that; each costs half a millisecond.
const FORKS: u32 = 100;
/// Resets, and copies to compare them with, that are timed together: a single one takes little longer than reading the
/// clock.
const BATCH: u32 = 32;
/// Workers that are kept idle to measure the memory of one; fewer if together they would need more than [`IDLE_BYTES`].
const IDLE_WORKERS: u64 = 16;
const IDLE_BYTES: u64 = 512 << 20;
/// The same for the memory of one together with the kernel's: many, since the kernel charges in batches, and other
/// processes may be part of the figure.
const IDLE_WORKERS_WITH_KERNEL: u64 = 256;
/// After this time the kernel has freed what it keeps of workers that have ended.
const SETTLE: Duration = Duration::from_millis(50);
/// At least this many machines are created, however long they take.
const FORKS_MIN: u32 = 3;

/// Roughly what a browser or wrk sends: 300 bytes.
const HEADERS: [Header<'_>; 5] = [
    Header { name: b"host", value: b"127.0.0.1:8080" },
    Header { name: b"user-agent", value: b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0" },
    Header { name: b"accept", value: b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8" },
    Header { name: b"accept-language", value: b"en-GB,en;q=0.5" },
    Header { name: b"accept-encoding", value: b"gzip, deflate, br" },
];

/// Requests over connections have one: what it costs to tell the program about it belongs to the overhead.
const CLIENT: Client =
    Client { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 123)), 45_678), is_encrypted: false };

pub fn bench(options: &BenchOptions) -> Result<(), Failure> {
    let subject = Subject::new(options)?;
    let hosts = Hosts::new();
    let host = hosts.choose(subject.tenant().engine).map_err(Failure::host)?;
    let path = options.path.as_bytes();
    let (path, query) = match path.iter().position(|&byte| byte == b'?') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &b""[..]),
    };
    let request = Request { method: b"GET", path, query, headers: &HEADERS, body: b"", client: Some(CLIENT) };
    let plan = Plan { requests: options.requests, time: options.seconds.map(Duration::from_secs) };
    let figures = Bench::new(&host, &subject, request, plan)?.measure(&host, &subject)?;
    let figures = Figures { host: HostFacts::read(&hosts, Some(host.engine())), ..figures };
    if options.json {
        println!("{}", figures.json());
    } else {
        print!("{figures}");
    }
    Ok(())
}

/// A worker in its steady state, a request for it, and the baselines.
struct Bench<'a> {
    snapshot: Snapshot,
    worker: Worker,
    floor: Floor,
    bare_machines: BareMachines,
    copied: ScatteredPages,
    request: Request<'a>,
    plan: Plan,
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
    fn new(host: &Host, subject: &Subject, request: Request<'a>, plan: Plan) -> Result<Self, Failure> {
        let snapshot = subject.boot(host)?;
        let mut bench = Self {
            worker: fork(&snapshot)?,
            floor: Floor::new(host).map_err(Failure::host)?,
            bare_machines: BareMachines::new(host).map_err(Failure::host)?,
            copied: ScatteredPages::new(0),
            request,
            plan,
            response: Discarded::new(snapshot.limits().response_bytes),
            snapshot,
            next_id: 0,
            exits: 0,
        };
        let mut warm_up = Samples::with_capacity(WARM_UP as usize);
        let end = plan.share(4);
        let started = Instant::now();
        for done in 0..WARM_UP {
            if done >= REQUESTS_MIN && started.elapsed() > end {
                break;
            }
            warm_up.time(|| bench.call_and_reset())?;
        }
        bench.plan = plan.for_requests_of(Duration::from_nanos(warm_up.median() as u64));
        bench.copied = ScatteredPages::new(bench.worker.work_pages());
        Ok(bench)
    }

    fn call(&mut self) -> Result<(), Failure> {
        self.next_id += 1;
        let stats = self
            .worker
            .call_without_reset(self.next_id, &self.request, &mut self.response)
            .map_err(Failure::program)?;
        self.exits += stats.exits;
        Ok(())
    }

    fn call_and_reset(&mut self) -> Result<(), Failure> {
        self.next_id += 1;
        let stats = self.worker.call(self.next_id, &self.request, &mut self.response).map_err(Failure::program)?;
        self.exits += stats.exits;
        Ok(())
    }

    fn measure(mut self, host: &Host, subject: &Subject) -> Result<Figures, Failure> {
        let requests = self.plan.requests;
        let mut times = Times::new(requests);
        let rounds = requests.div_ceil(SAMPLES_A_ROUND);
        for _ in 0..rounds {
            self.round(&mut times)?;
        }
        self.create(&mut times)?;
        let (worker_private_kib, worker_served_private_kib) = self.idle_worker_kib(IDLE_WORKERS, anonymous_kib)?;
        let (with_kernel, overhead) = if subject.is_of_file {
            (None, None)
        } else {
            let with_kernel = self.idle_worker_kib(IDLE_WORKERS_WITH_KERNEL, with_kernel_kib)?;
            (Some(with_kernel), Some(overhead::measure(&subject.config, &self.snapshot, &self.request, requests)?))
        };
        let (exits_per_request, cpu_us) = self.steady_state(requests)?;

        let first_response_ms = first_response_ms(host, subject, &self.snapshot, &self.request)?;
        let us = |nanoseconds: f64| nanoseconds / 1e3;
        let pages = self.worker.work_pages();
        Ok(Figures {
            program: subject.tenant().program.display().to_string(),
            tenant: subject.is_of_file.then(|| subject.tenant().name.to_string()),
            requests,
            rounds,
            floor_us: us(times.floor.median()),
            call_reset_us: us(times.call_reset.median()),
            call_us: us(times.call.median()),
            reset_us: us(times.reset.median()),
            cpu_us,
            exits_per_request,
            // Every exit ends one KVM_RUN, and a worker makes no other ioctl. The benchmark's report counts from
            // outside.
            ioctls_per_request: (host.engine() == Engine::Kvm).then_some(exits_per_request),
            workset_pages: pages,
            reset_ns_per_page: per_page(times.resets.median(), pages),
            memcpy_ns_per_page: per_page(times.copies.median(), pages),
            fork_us: us(times.fork.median()),
            create_vm_us: us(times.create_vm.median()),
            worker_private_kib,
            worker_served_private_kib,
            worker_total_kib: with_kernel.map(|(forked, _)| forked),
            worker_served_total_kib: with_kernel.map(|(_, served)| served),
            overhead_ns: overhead.as_ref().map(|overhead| overhead.added_ns),
            overhead_equals_ns: overhead.as_ref().map(|overhead| overhead.equals_differ_ns),
            boot_ms: self.snapshot.boot_time().as_secs_f64() * 1e3,
            snapshot_mib: self.snapshot.image_bytes() as f64 / f64::from(1 << 20),
            snapshot_first_response_ms: first_response_ms,
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

    /// Takes samples of every figure of requests. The last round drops those beyond the number of requests.
    fn round(&mut self, times: &mut Times) -> Result<(), Failure> {
        for _ in 0..SAMPLES_A_ROUND {
            times.floor.time(|| self.floor.round_trip()).map_err(Failure::host)?;
        }
        for _ in 0..SAMPLES_A_ROUND {
            times.call_reset.time(|| self.call_and_reset())?;
        }
        for _ in 0..SAMPLES_A_ROUND {
            times.call.time(|| self.call())?;
            times.reset.time(|| self.worker.reset()).map_err(Failure::program)?;
        }
        times.resets.time(|| reset_batch(&mut self.worker))?;
        times.copies.time(|| (0..BATCH).for_each(|_| self.copied.copy()));
        Ok(())
    }

    /// Creates machines and workers in turn.
    fn create(&self, times: &mut Times) -> Result<(), Failure> {
        let end = self.plan.share(4);
        let started = Instant::now();
        for done in 0..FORKS {
            if done >= FORKS_MIN && started.elapsed() > end {
                break;
            }
            // The time of dropping the machines is not measured.
            let _bare = times.create_vm.time(|| self.bare_machines.create()).map_err(Failure::host)?;
            let _worker = times.fork.time(|| fork(&self.snapshot))?;
        }
        Ok(())
    }

    /// Memory of one forked worker, before any request and after one: how much `used_kib` grows for each of `most`.
    fn idle_worker_kib(&mut self, most: u64, used_kib: fn() -> Result<u64, String>) -> Result<(f64, f64), Failure> {
        let count = (IDLE_BYTES / self.worker.private_bytes().max(1)).clamp(2, most);
        let mut workers = Vec::with_capacity(count as usize);
        thread::sleep(SETTLE);
        // The first reading allocates memory itself.
        used_kib().map_err(Failure::Host)?;
        let before = used_kib().map_err(Failure::Host)?;
        for _ in 0..count {
            workers.push(fork(&self.snapshot)?);
        }
        let forked = used_kib().map_err(Failure::Host)?;
        for worker in &mut workers {
            self.next_id += 1;
            worker.call(self.next_id, &self.request, &mut self.response).map_err(Failure::program)?;
        }
        let served = used_kib().map_err(Failure::Host)?;
        let each = |after: u64| after.saturating_sub(before) as f64 / count as f64;
        Ok((each(forked), each(served)))
    }

    /// Serves requests and does nothing else. Returns, for one request, the number of exits, and this thread's CPU time
    /// in microseconds.
    fn steady_state(&mut self, requests: u32) -> Result<(f64, f64), Failure> {
        self.exits = 0;
        // Outside of the two lines, since it is a system call.
        let before = thread_cpu_us();
        say("mayfly-bench: steady begin\n");
        for _ in 0..requests {
            self.call_and_reset()?;
        }
        say("mayfly-bench: steady end\n");
        let used = thread_cpu_us() - before;
        Ok((self.exits as f64 / f64::from(requests), used / f64::from(requests)))
    }
}

/// The CPU time of this thread, time in a machine included.
fn thread_cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn reset_batch(worker: &mut Worker) -> Result<(), Failure> {
    (0..BATCH).try_for_each(|_| worker.reset().map(drop)).map_err(Failure::program)
}

/// The time of one page of one reset, or copy, in a batch.
fn per_page(batch_nanoseconds: f64, pages: usize) -> f64 {
    if pages == 0 { 0.0 } else { batch_nanoseconds / f64::from(BATCH) / pages as f64 }
}

/// One `write` to standard error.
fn say(line: &str) {
    // It fails if standard error is closed; then nothing counts system calls either.
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_counts_spinning_and_not_sleeping() {
        let spin = |wanted_us: f64| {
            let before = thread_cpu_us();
            while thread_cpu_us() - before < wanted_us {}
            thread_cpu_us() - before
        };
        assert!(spin(5_000.0) >= 5_000.0);
        let before = thread_cpu_us();
        std::thread::sleep(Duration::from_millis(50));
        assert!(thread_cpu_us() - before < 25_000.0);
    }
}
