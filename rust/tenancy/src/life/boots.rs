// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which tenants boot when, and the requests that wait for that.
//!
//! A few threads boot programs side by side. A thread whose program waits for a file gives its place to another one. A
//! request that needs a boot waits until that has ended, and then gets its worker as any other request.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mayfly_files::Unfinished;

use crate::host::resources;
use crate::life::boot::boot;
use crate::life::env::BootEnv;
use crate::model::failure::Failure;
use crate::model::tenant::{State, Tenant};
use crate::run::reply::{INTERNAL_ERROR, SHUTTING_DOWN};
use crate::schedule::background::Background;
use crate::schedule::deferred::Job;

/// Programs that boot side by side, besides those that wait for a file.
const BOOT_THREADS: usize = 4;
/// What a boot may take: more than two of the longest that can be configured. A file that holds it up is noticed after
/// a second.
const BOOT_MOST: Duration = Duration::from_secs(1800);
/// Pause after a boot that could not begin.
const BOOT_PAUSE: Duration = Duration::from_secs(1);

/// The boots of a server's tenants.
#[derive(Debug)]
pub(crate) struct Boots {
    /// What it takes; otherwise the reason why no tenant can boot on this host, which each client gets.
    env: Result<BootEnv, String>,
    background: Arc<Background>,
    queue: Mutex<Queue>,
    ended: Condvar,
    /// Requests that wait for a boot, by the address of the tenant, which they keep alive.
    waiting: Mutex<HashMap<usize, Vec<Job>>>,
}

#[derive(Debug, Default)]
struct Queue {
    tenants: VecDeque<Arc<Tenant>>,
    /// Threads that boot.
    threads: usize,
    /// Threads whose program waits for a file; others boot in their place.
    slow: usize,
    is_closed: bool,
}

impl Boots {
    /// # Errors
    ///
    /// If the system gives no thread to save snapshots on.
    pub(crate) fn start(env: Result<BootEnv, String>, background: &Arc<Background>) -> io::Result<Arc<Self>> {
        if let Ok(BootEnv { snapshots: Some(snapshots), .. }) = &env {
            let snapshots = Arc::clone(snapshots);
            background.threads.spawn("mayfly-saver", move || snapshots.save_all())?;
        }
        Ok(Arc::new(Self {
            env,
            background: Arc::clone(background),
            queue: Mutex::default(),
            ended: Condvar::new(),
            waiting: Mutex::default(),
        }))
    }

    /// What booting takes, or why no tenant can boot.
    pub(crate) fn env(&self) -> Result<&BootEnv, &str> {
        self.env.as_ref().map_err(String::as_str)
    }

    /// Serves a request for which there is no worker, after its tenant's boot if that is due or goes on.
    pub(crate) fn submit(self: &Arc<Self>, job: Job) {
        if job.tenant.claim_boot(true) {
            self.boot(Arc::clone(&job.tenant));
        }
        if let Some(job) = self.hold(job) {
            self.background.submit(job);
        }
    }

    /// Boots a tenant whose boot the caller has claimed.
    pub(crate) fn boot(self: &Arc<Self>, tenant: Arc<Tenant>) {
        let mut queue = self.queue();
        if queue.is_closed {
            return tenant.fail_for_ever(SHUTTING_DOWN);
        }
        if queue.threads < BOOT_THREADS {
            match self.spawn() {
                Ok(()) => queue.threads += 1,
                // Another thread gets to it.
                Err(_) if queue.threads > 0 => {}
                Err(error) => {
                    let reason = format!("no thread to boot on: {}", resources::with_advice(&error));
                    return tenant.fail(reason, Instant::now());
                }
            }
        }
        queue.tenants.push_back(tenant);
    }

    /// Waits until no program boots, or for a time.
    pub(crate) fn wait(&self, at_most: Duration) {
        let is_booting = |queue: &mut Queue| queue.threads + queue.slow > 0;
        drop(self.ended.wait_timeout_while(self.queue(), at_most, is_booting));
    }

    /// Boots no more, and answers the requests that wait for boots.
    pub(crate) fn close(&self) {
        {
            let mut queue = self.queue();
            queue.is_closed = true;
            queue.tenants.clear();
        }
        if let Ok(BootEnv { snapshots: Some(snapshots), .. }) = &self.env {
            snapshots.close();
        }
        self.refuse_waiting();
    }

    /// Answers the requests that wait for boots that have been left behind.
    pub(crate) fn refuse_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting());
        for job in waiting.into_values().flatten() {
            job.refuse(Failure::Unavailable, SHUTTING_DOWN);
        }
    }

    fn spawn(self: &Arc<Self>) -> io::Result<()> {
        let this = Arc::clone(self);
        self.background.threads.spawn("mayfly-boot", move || this.boot_all())
    }

    fn boot_all(self: &Arc<Self>) {
        let mut has_place = true;
        loop {
            let mut queue = self.queue();
            let next = if has_place { queue.tenants.pop_front() } else { None };
            let Some(tenant) = next else {
                *(if has_place { &mut queue.threads } else { &mut queue.slow }) -= 1;
                self.ended.notify_all();
                return;
            };
            drop(queue);
            has_place = self.boot_one(&tenant);
            // Whether it booted or not: the deferred threads find out, and answer.
            for job in self.take_waiting(&tenant) {
                self.background.submit(job);
            }
        }
    }

    /// Boots a tenant, and waits for that while it makes progress. Returns whether this thread still has its place: it
    /// gives that away when a file is slow to answer.
    fn boot_one(self: &Arc<Self>, tenant: &Arc<Tenant>) -> bool {
        let (this, booting) = (Arc::clone(self), Arc::clone(tenant));
        let errand = move || match this.env() {
            Ok(env) => boot(&booting, env, &this.background),
            Err(reason) => booting.fail_for_ever(reason),
        };
        let mut has_place = true;
        let begun = match tenant.errands.begin(BOOT_MOST, errand) {
            Ok(begun) => begun,
            Err(unfinished) => {
                tenant.fail(unfinished.to_string(), Instant::now() + BOOT_PAUSE);
                return has_place;
            }
        };
        match begun.wait_or_tell(|| has_place = !self.give_place_away()) {
            Ok(()) => {}
            Err(Unfinished::Lost) => tenant.fail_for_ever(INTERNAL_ERROR),
            Err(hang) => tenant.leave_boot(&hang),
        }
        has_place
    }

    /// Has another thread boot in the place of this one; returns whether it does.
    fn give_place_away(self: &Arc<Self>) -> bool {
        let mut queue = self.queue();
        let given = queue.tenants.is_empty() || self.spawn().is_ok();
        if given {
            queue.slow += 1;
            if queue.tenants.is_empty() {
                queue.threads -= 1;
            }
        }
        given
    }

    /// Keeps a request until its tenant's boot has ended, or gives it back if none goes on.
    fn hold(&self, job: Job) -> Option<Job> {
        let goes_on = |job: &Job| matches!(job.tenant.state(), State::Booting { holds: true });
        if !goes_on(&job) {
            return Some(job);
        }
        let mut waiting = self.waiting();
        // Again, under the lock: the thread that ends the boot takes the list after it has set the state.
        if !goes_on(&job) {
            return Some(job);
        }
        waiting.entry(address(&job.tenant)).or_default().push(job);
        None
    }

    fn take_waiting(&self, tenant: &Arc<Tenant>) -> Vec<Job> {
        self.waiting().remove(&address(tenant)).unwrap_or_default()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<usize, Vec<Job>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole even if a thread panicked while it held the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(tenant: &Arc<Tenant>) -> usize {
    Arc::as_ptr(tenant).addr()
}
