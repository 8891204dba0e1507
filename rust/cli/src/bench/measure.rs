// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly bench`: what one request costs, without HTTP.
//!
//! Figures that are compared are measured in turns: a round takes some samples of each, so that a machine that slows
//! down for a while slows all of them. Every figure is a median over all rounds. After the rounds, the same number of
//! requests is served again without interruption, between two lines on standard error: there a tracer can count the
//! system calls of requests, since nothing else happens.
//!
//! Each step has a part of the plan's time, and together they take the whole. A step that fails leaves its figures out;
//! what the others have measured is printed, and the command fails.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use mayfly_sandbox::bench::{BareMachines, Floor, ScatteredPages};
use mayfly_sandbox::{Client, Engine, Header, Host, Hosts, Request, Snapshot, Worker, heap};
use rustix::time::{ClockId, clock_gettime};

use crate::bench::first_response::first_response_ms;
use crate::bench::memory::{anonymous_kib, with_kernel_kib};
use crate::bench::overhead;
use crate::bench::plan::{Plan, REQUESTS_MIN, fit, within};
use crate::bench::progress::{self, Progress};
use crate::bench::report::{Figures, Latency};
use crate::bench::sink::Discarded;
use crate::bench::stats::Samples;
use crate::bench::subject::{Subject, fork};
use crate::failure::Failure;
use crate::host::HostFacts;
use crate::options::BenchOptions;

/// Most samples of each figure in a round: few, so that a machine that is slow for some milliseconds slows all figures
/// alike.
const SAMPLES_A_ROUND: u32 = 20;
/// Requests before the measurement: after them caches, branch predictors and the work set are in their steady state.
const WARM_UP: u32 = 500;
/// Machines of each kind that are created in turns, for the two figures of that; each costs half a millisecond.
const FORKS: u32 = 100;
/// Resets, and copies to compare them with, that are timed together: a single one takes little longer than reading the
/// clock.
const BATCH: u32 = 32;
/// Workers that are kept idle to measure the memory of one; fewer if together they would need more than [`IDLE_BYTES`],
/// or too much time.
const IDLE_WORKERS: u32 = 16;
const IDLE_WORKERS_MIN: u32 = 2;
const IDLE_BYTES: u64 = 512 << 20;
/// The same for the memory of one together with the kernel's: many, since the kernel charges in batches, and other
/// processes may be part of the figure.
const IDLE_WORKERS_WITH_KERNEL: u32 = 256;
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
    let snapshot = subject.boot(&host, progress::is_shown(options))?;
    let plan = Plan::new(options.requests, options.seconds);
    let mut bench = Bench::new(&host, &subject, snapshot, request, plan, Progress::new(options))?;
    let failed = bench.measure();
    let figures = Figures { host: HostFacts::read(&hosts, Some(host.engine())), ..bench.figures };
    if options.json {
        println!("{}", figures.json());
    } else {
        print!("{figures}");
    }
    failed.map_or(Ok(()), Err)
}

/// A worker in its steady state, a request for it, the baselines, and what has been measured.
struct Bench<'a> {
    host: &'a Host,
    subject: &'a Subject,
    snapshot: Snapshot,
    worker: Worker,
    floor: Floor,
    bare_machines: BareMachines,
    request: Request<'a>,
    plan: Plan,
    progress: Progress,
    figures: Figures,
    /// What a request with its reset takes.
    each: Duration,
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
}

impl Times {
    fn new(requests: u32) -> Self {
        let many = || Samples::with_capacity(requests as usize);
        Self { floor: many(), call_reset: many(), call: many(), reset: many(), resets: many(), copies: many() }
    }
}

impl<'a> Bench<'a> {
    fn new(
        host: &'a Host,
        subject: &'a Subject,
        snapshot: Snapshot,
        request: Request<'a>,
        plan: Plan,
        progress: Progress,
    ) -> Result<Self, Failure> {
        let figures = Figures {
            program: subject.tenant().program.display().to_string(),
            tenant: subject.is_of_file.then(|| subject.tenant().name.to_string()),
            boot_ms: snapshot.boot_time().as_secs_f64() * 1e3,
            snapshot_mib: snapshot.image_bytes() as f64 / f64::from(1 << 20),
            ..Figures::default()
        };
        Ok(Self {
            host,
            subject,
            worker: fork(&snapshot)?,
            floor: Floor::new(host).map_err(Failure::host)?,
            bare_machines: BareMachines::new(host).map_err(Failure::host)?,
            request,
            plan,
            progress,
            figures,
            each: Duration::ZERO,
            response: Discarded::new(snapshot.limits().response_bytes),
            snapshot,
            next_id: 0,
            exits: 0,
        })
    }

    /// Takes all steps. Returns what failed: the steps of requests are the last ones if they fail, since the others
    /// need requests, too.
    fn measure(&mut self) -> Option<Failure> {
        type Step = for<'a, 'b> fn(&'a mut Bench<'b>) -> Result<(), Failure>;
        const STEPS: [(&str, bool, Step); 7] = [
            ("the requests before the measurement", true, |bench| bench.warm_up()),
            ("the requests", true, |bench| bench.rounds()),
            ("forks", false, |bench| bench.create()),
            ("the memory of idle workers", false, |bench| bench.memory()),
            ("routes and limits", false, |bench| bench.overhead()),
            ("the steady state", true, |bench| bench.steady_state()),
            ("the first response from a snapshot file", false, |bench| bench.first_response()),
        ];
        let mut failed = Vec::new();
        for (name, is_needed, step) in STEPS {
            self.progress.say(|| format!("measures {name}"));
            if let Err(failure) = step(self) {
                failed.push(format!("not measured: {name}: {failure}"));
                if is_needed {
                    break;
                }
            }
        }
        self.figures.status = self.response.status;
        self.figures.failed = (!failed.is_empty()).then(|| failed.join("; "));
        // The program has booted, so whatever the reason was, the host can run it.
        self.figures.failed.clone().map(Failure::Program)
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

    /// Serves requests that are not measured, and fits the plan to the time that they take.
    fn warm_up(&mut self) -> Result<(), Failure> {
        let mut times = Samples::with_capacity(WARM_UP as usize);
        for done in within(self.plan.step(), REQUESTS_MIN, WARM_UP) {
            self.progress.say(|| format!("has served {done} of {WARM_UP} requests before the measurement"));
            times.time(|| self.call_and_reset())?;
        }
        self.each = Duration::from_nanos(times.median().unwrap_or_default() as u64);
        self.plan = self.plan.for_requests_of(self.each);
        Ok(())
    }

    /// Measures all figures of requests. What was measured before a failure counts. The requests that fit into the time
    /// were planned by a call and its reset alone, so the clock counts, too.
    fn rounds(&mut self) -> Result<(), Failure> {
        let requests = self.plan.requests;
        let mut copied = ScatteredPages::new(self.worker.work_pages());
        let mut times = Times::new(requests);
        let rounds = requests.div_ceil(SAMPLES_A_ROUND);
        let mut result = Ok(());
        for round in within(self.plan.rounds().unwrap_or(Duration::MAX), 1, rounds) {
            self.progress.say(|| format!("has measured {round} of {rounds} rounds of requests"));
            result = self.round(requests.min(SAMPLES_A_ROUND), &mut times, &mut copied);
            if result.is_err() {
                break;
            }
            self.figures.rounds += 1;
        }
        self.tell_times(times);
        // As many are served again in the steady state.
        self.plan.requests = self.figures.requests.max(1);
        result
    }

    /// Fills in the figures of requests.
    fn tell_times(&mut self, mut times: Times) {
        let pages = self.worker.work_pages();
        let measured = u32::try_from(times.call_reset.len()).unwrap_or(u32::MAX);
        let latency = |times: &mut Samples| {
            Some(Latency {
                p50: times.median_us()?,
                p90: times.quantile_us(0.9)?,
                p99: times.quantile_us(0.99)?,
                p999: times.quantile_us(0.999)?,
            })
        };
        let figures = &mut self.figures;
        figures.requests = measured;
        figures.floor_us = times.floor.median_us();
        figures.latency_us = latency(&mut times.call_reset);
        figures.call_reset_us = times.call_reset.median_us();
        figures.call_us = times.call.median_us();
        figures.reset_us = times.reset.median_us();
        figures.workset_pages = (measured > 0).then_some(pages);
        figures.reset_ns_per_page = times.resets.median().map(|batch| per_page(batch, pages));
        figures.memcpy_ns_per_page = times.copies.median().map(|batch| per_page(batch, pages));
    }

    /// Takes samples of every figure of requests. The last round drops those beyond the number of requests.
    fn round(&mut self, samples: u32, times: &mut Times, copied: &mut ScatteredPages) -> Result<(), Failure> {
        for _ in 0..samples {
            times.floor.time(|| self.floor.round_trip()).map_err(Failure::host)?;
        }
        for done in 0..samples {
            self.progress.say(|| format!("has served {done} of {samples} requests of a round"));
            times.call_reset.try_time(|| self.call_and_reset())?;
        }
        for done in 0..samples {
            self.progress.say(|| format!("has served {done} of {samples} requests of a round, without their resets"));
            times.call.try_time(|| self.call())?;
            times.reset.try_time(|| self.worker.reset()).map_err(Failure::program)?;
        }
        times.resets.try_time(|| reset_batch(&mut self.worker))?;
        times.copies.time(|| (0..BATCH).for_each(|_| copied.copy()));
        Ok(())
    }

    /// Creates machines and workers in turn.
    fn create(&mut self) -> Result<(), Failure> {
        let mut bare = Samples::with_capacity(FORKS as usize);
        let mut forks = Samples::with_capacity(FORKS as usize);
        for done in within(self.plan.step(), FORKS_MIN, FORKS) {
            self.progress.say(|| format!("has made {done} of {FORKS} forks"));
            // The time of dropping the machines is not measured.
            let _bare = bare.try_time(|| self.bare_machines.create()).map_err(Failure::host)?;
            let _worker = forks.try_time(|| fork(&self.snapshot))?;
        }
        self.figures.create_vm_us = bare.median_us();
        self.figures.fork_us = forks.median_us();
        Ok(())
    }

    fn memory(&mut self) -> Result<(), Failure> {
        let (forked, served) = self.idle_worker_kib(IDLE_WORKERS, anonymous_kib)?;
        self.figures.worker_private_kib = Some(forked);
        self.figures.worker_served_private_kib = Some(served);
        if !self.subject.is_of_file {
            let (forked, served) = self.idle_worker_kib(IDLE_WORKERS_WITH_KERNEL, with_kernel_kib)?;
            self.figures.worker_total_kib = Some(forked);
            self.figures.worker_served_total_kib = Some(served);
        }
        Ok(())
    }

    /// Memory of one forked worker, before any request and after one: how much `used_kib` grows for each of `most`.
    fn idle_worker_kib(&mut self, most: u32, used_kib: fn() -> Result<u64, String>) -> Result<(f64, f64), Failure> {
        // Half of the time to fork them, half for their requests.
        let time = self.plan.step() / 2;
        let fit_bytes = u32::try_from(IDLE_BYTES / self.worker.private_bytes().max(1)).unwrap_or(u32::MAX);
        let count = fit_bytes.min(fit(time, self.each)).clamp(IDLE_WORKERS_MIN, most);
        let mut workers = Vec::with_capacity(count as usize);
        // Workers in memory that was freed before would seem to need none.
        heap::give_back();
        thread::sleep(SETTLE);
        // The first reading allocates memory itself.
        used_kib().map_err(Failure::Host)?;
        let before = used_kib().map_err(Failure::Host)?;
        for done in within(time, IDLE_WORKERS_MIN, count) {
            self.progress.say(|| format!("has forked {done} of {count} workers that stay idle"));
            workers.push(fork(&self.snapshot)?);
        }
        let count = workers.len();
        let forked = used_kib().map_err(Failure::Host)?;
        for (done, worker) in workers.iter_mut().enumerate() {
            self.progress.say(|| format!("has served a request by {done} of {count} idle workers"));
            self.next_id += 1;
            worker.call(self.next_id, &self.request, &mut self.response).map_err(Failure::program)?;
        }
        let served = used_kib().map_err(Failure::Host)?;
        let each = |after: u64| after.saturating_sub(before) as f64 / count as f64;
        Ok((each(forked), each(served)))
    }

    /// What a server adds to a request.
    fn overhead(&mut self) -> Result<(), Failure> {
        if self.subject.is_of_file {
            return Ok(());
        }
        if self.each > overhead::REQUEST_MOST {
            let why = format!("a request takes longer than {:?}", overhead::REQUEST_MOST);
            self.figures.overhead_unknown = Some(why);
            return Ok(());
        }
        if self.snapshot.boot_time() > overhead::BOOT_MOST {
            let why =
                format!("the server would boot the program again, which takes longer than {:?}", overhead::BOOT_MOST);
            self.figures.overhead_unknown = Some(why);
            return Ok(());
        }
        let extent = overhead::Extent { requests: self.plan.requests, each: self.each, time: self.plan.step() };
        match overhead::measure(&self.subject.config, &self.snapshot, &self.request, extent)? {
            Ok(overhead) => {
                self.figures.overhead_ns = Some(overhead.added_ns);
                self.figures.overhead_equals_ns = Some(overhead.equals_differ_ns);
            }
            Err(why) => self.figures.overhead_unknown = Some(why.to_owned()),
        }
        Ok(())
    }

    /// Serves requests and does nothing else: the number of exits of one, and this thread's CPU time for it.
    fn steady_state(&mut self) -> Result<(), Failure> {
        let requests = self.plan.requests;
        self.exits = 0;
        // Outside of the two lines, since it is a system call.
        let before = thread_cpu_us();
        say("mayfly-bench: steady begin\n");
        for _ in 0..requests {
            self.call_and_reset()?;
        }
        say("mayfly-bench: steady end\n");
        let used = thread_cpu_us() - before;
        let exits = self.exits as f64 / f64::from(requests);
        self.figures.exits_per_request = Some(exits);
        // Every exit ends one KVM_RUN, and a worker makes no other ioctl. The benchmark's report counts from outside.
        self.figures.ioctls_per_request = (self.host.engine() == Engine::Kvm).then_some(exits);
        self.figures.cpu_us = Some(used / f64::from(requests));
        Ok(())
    }

    fn first_response(&mut self) -> Result<(), Failure> {
        let time = self.plan.step();
        let ms = first_response_ms(self.host, self.subject, &self.snapshot, &self.request, time, &mut self.progress)?;
        self.figures.snapshot_first_response_ms = ms;
        Ok(())
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
