// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queue of boots, and the requests that wait for them.
//!
//! A few threads boot programs in parallel. A thread whose program waits for a file passes its slot to another thread.
//! A request that needs a boot waits until that has finished, and then gets its worker like any other request.

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
use crate::schedule::job::Job;

/// Programs that boot in parallel, not counting those that wait for a file.
const BOOT_THREADS: usize = 4;
/// How long a boot may take: more than twice the longest boot time that can be configured. A wait for a file is noticed
/// after a second.
const BOOT_MOST: Duration = Duration::from_secs(1800);
/// Pause after a boot that could not start.
const BOOT_PAUSE: Duration = Duration::from_secs(1);

/// The boots of a server's tenants.
#[derive(Debug)]
pub(crate) struct Boots {
    env: BootEnv,
    background: Arc<Background>,
    queue: Mutex<Queue>,
    ended: Condvar,
    /// Requests that wait for a boot, by the address of their tenant, which they keep alive.
    waiting: Mutex<HashMap<usize, Vec<Job>>>,
}

#[derive(Debug, Default)]
struct Queue {
    tenants: VecDeque<Arc<Tenant>>,
    /// Threads that have a slot to boot.
    threads: usize,
    /// Threads whose program waits for a file, and which have passed on their slot.
    slow: usize,
    is_closed: bool,
}

impl Boots {
    /// # Errors
    ///
    /// If the thread that saves snapshots cannot be created.
    pub(crate) fn start(env: BootEnv, background: &Arc<Background>) -> io::Result<Arc<Self>> {
        if let Some(snapshots) = &env.snapshots {
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

    /// What boots need.
    pub(crate) fn env(&self) -> &BootEnv {
        &self.env
    }

    /// Serves a request for which there is no worker, after its tenant's boot if that is due or in progress.
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
                // One of the running threads will boot it.
                Err(_) if queue.threads > 0 => {}
                Err(error) => {
                    let reason =
                        format!("cannot start a thread to boot the program: {}", resources::with_advice(&error));
                    return tenant.fail(reason, Instant::now());
                }
            }
        }
        queue.tenants.push_back(tenant);
    }

    /// Waits until no program boots, up to `at_most`.
    pub(crate) fn wait(&self, at_most: Duration) {
        let is_booting = |queue: &mut Queue| queue.threads + queue.slow > 0;
        drop(self.ended.wait_timeout_while(self.queue(), at_most, is_booting));
    }

    /// Starts no more boots, and answers the requests that wait for boots.
    pub(crate) fn close(&self) {
        {
            let mut queue = self.queue();
            queue.is_closed = true;
            queue.tenants.clear();
        }
        if let Some(snapshots) = &self.env.snapshots {
            snapshots.close();
        }
        self.refuse_waiting();
    }

    /// Answers the requests that wait for abandoned boots.
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
        let mut has_slot = true;
        loop {
            let mut queue = self.queue();
            let next = if has_slot { queue.tenants.pop_front() } else { None };
            let Some(tenant) = next else {
                *(if has_slot { &mut queue.threads } else { &mut queue.slow }) -= 1;
                self.ended.notify_all();
                return;
            };
            drop(queue);
            has_slot = self.boot_one(&tenant);
            // Whether it booted or not: the deferred threads check, and answer.
            for job in self.take_waiting(&tenant) {
                self.background.submit(job);
            }
        }
    }

    /// Boots a tenant, and waits for it while it makes progress. Returns whether this thread still has its slot, which
    /// it passes on when a file is slow to respond.
    fn boot_one(self: &Arc<Self>, tenant: &Arc<Tenant>) -> bool {
        let (this, booting) = (Arc::clone(self), Arc::clone(tenant));
        let errand = move || boot(&booting, this.env(), &this.background);
        let mut has_slot = true;
        let begun = match tenant.errands.begin(BOOT_MOST, errand) {
            Ok(begun) => begun,
            Err(unfinished) => {
                tenant.fail(unfinished.to_string(), Instant::now() + BOOT_PAUSE);
                return has_slot;
            }
        };
        match begun.wait_or_tell(|| has_slot = !self.pass_slot_on()) {
            Ok(()) => {}
            Err(Unfinished::Lost) => tenant.fail_for_ever(INTERNAL_ERROR),
            Err(hang) => tenant.leave_boot(&hang),
        }
        has_slot
    }

    /// Passes this thread's slot to another thread; returns whether that succeeded.
    fn pass_slot_on(self: &Arc<Self>) -> bool {
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

    /// Keeps a request until its tenant's boot has finished, or returns it if no boot is in progress.
    fn hold(&self, job: Job) -> Option<Job> {
        let is_booting = |job: &Job| matches!(job.tenant.state(), State::Booting { holds: true });
        if !is_booting(&job) {
            return Some(job);
        }
        let mut waiting = self.waiting();
        // Checked again under the lock: the thread that finishes the boot takes the list after it has set the state.
        if !is_booting(&job) {
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
        // The queue is consistent even if a thread panicked while it held the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(tenant: &Arc<Tenant>) -> usize {
    Arc::as_ptr(tenant).addr()
}
