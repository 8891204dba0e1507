// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns, sleepers and bounds of the overflow.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};

use mayfly_sandbox::{Allowance, BufferedResponse, Request, ResponseSink};
use serde_json::{Value, json};

use super::timetable::{DueLeg, LegPlace};
use super::*;
use crate::model::failure::RequestId;
use crate::model::leg_timer::LegTimer;
use crate::model::permits::PermitKind;
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::{Answer, CameBack, Joined};
use crate::run::call::Call;
use crate::run::in_flight::InFlight;
use crate::run::reply::DeferredReply;
use crate::{Config, Outcome, Server};

struct Reply {
    response: BufferedResponse,
    sender: Sender<(u64, BufferedResponse)>,
}

impl ResponseSink for Reply {
    fn body(&mut self, len: usize) -> &mut [u8] {
        self.response.body(len)
    }

    fn status(&mut self, status: u16) {
        self.response.status(status);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        self.response.header(name, value);
    }
}

impl DeferredReply for Reply {
    fn send(self: Box<Self>) {
        let _ = self.sender.send((monotonic_ns(), self.response));
    }
}

const TIME: Duration = Duration::from_secs(120);

fn server() -> Server {
    server_of(json!({"limits": {"cpu_ms": 60_000, "wall_ms": 60_000}}))
}

fn server_of(more: Value) -> Server {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/faults/faults");
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    let mut tenant = json!({"name": "a", "path": "/", "program": program});
    tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config = json!({"overflow_threads": 1, "tenants": [tenant]});
    let server = Server::start(Config::from_value(&config).unwrap()).unwrap();
    server.boots().wait(TIME);
    server
}

/// Starts a request that spins for a while, and pauses it after the first millisecond: on a busy machine this thread,
/// or the one that pauses it, may wait for a processor meanwhile.
fn begun(server: &Server) -> (Parked, Receiver<(u64, BufferedResponse)>) {
    let tenant = Arc::clone(&server.set().tenants[0]);
    let mut call = Call::new(tenant.fork(None).unwrap(), RequestId(1));
    let request = Request { method: b"GET", path: b"/spin", query: b"700", headers: &[], body: b"", client: None };
    let (sender, receiver) = mpsc::channel();
    let mut reply = Box::new(Reply { response: BufferedResponse::default(), sender });
    let slice = Slice::non_blocking(Duration::from_millis(1));
    let context = CallContext {
        tenant: &tenant,
        counters: &tenant.background,
        stores: &server.background().overflow,
        slice,
        mode_header: false,
        may_defer_reset: false,
    };
    assert_eq!(call.begin(context, &request, &mut TrackedSink::new(&mut *reply)), CallStep::Paused);
    let in_flight = InFlight::enter(&tenant, 10_000).unwrap();
    let mailbox = tenant.new_mailbox();
    let in_flight = Some(in_flight);
    let (permit, may_block, mode_header, preparation) = (None, false, false, None);
    let has_used_turn = false;
    let parked =
        Parked { tenant, call, reply, mailbox, in_flight, permit, may_block, mode_header, has_used_turn, preparation };
    (parked, receiver)
}

#[test]
fn a_sleeper_continues_at_its_time_and_occupies_no_thread_meanwhile() {
    let server = server();
    let overflow = &server.background().overflow;
    let now = monotonic_ns();
    // All on one thread, and not in the order of their times.
    let ends: Vec<_> = [6000, 4000, 5000]
        .into_iter()
        .map(|after_ms| {
            let (parked, receiver) = begun(&server);
            let until_ns = now + after_ms * 1_000_000;
            overflow.settle(parked, CallStep::Sleeps { until_ns });
            (until_ns, receiver)
        })
        .collect();
    assert_eq!(server.report().overflow, 3);
    let (awake, receiver) = begun(&server);
    overflow.settle(awake, CallStep::Paused);
    let (_, response) = receiver.recv_timeout(TIME).unwrap();
    assert_eq!(response.status, 200);
    for (until_ns, receiver) in ends {
        let (end_ns, response) = receiver.recv_timeout(TIME).unwrap();
        assert_eq!(response.status, 200);
        assert!(end_ns >= until_ns, "{} ns early", until_ns - end_ns);
    }
    assert_eq!((server.report().overflow, server.report().tenants[0].in_flight), (0, 0));
}

#[test]
fn steps_that_block_leave_threads_for_the_rest() {
    let server = server();
    let parked = |may_block| Parked { may_block, ..begun(&server).0 };
    let mut queue = Queue { blocked: Blocked::of(4), ..Queue::default() };
    for may_block in [true, true, true, false] {
        queue.push(parked(may_block));
    }
    let key = *queue.turns.front().unwrap();
    assert!(queue.pop().is_some() && queue.pop().is_some());
    assert!(queue.pop().is_none(), "half of the threads may be blocked for this tenant");
    queue.blocked.leave(key);
    assert!(queue.pop().is_some());
    assert!(queue.pop().is_some_and(|parked| !parked.may_block), "that one does not block");
    // At most all threads but one may block, whichever tenants they work for.
    assert!(queue.blocked.has_room(key + 1));
    queue.blocked.enter(key + 1);
    assert!(!queue.blocked.has_room(key + 2));
    (0..2).for_each(|_| queue.blocked.leave(key));
    queue.blocked.leave(key + 1);
    assert!(queue.blocked.by_tenant.is_empty() && queue.blocked.has_room(key));
    // A single thread does everything.
    assert!(Blocked::of(1).has_room(key));
}

#[test]
fn a_worker_that_keeps_state_is_replaced_if_its_request_is_refused() {
    let limits = json!({"wall_ms": 60_000, "inline_budget_us": 1_000_000});
    let server = server_of(json!({"ephemeral": false, "limits": limits}));
    let tenant = Arc::clone(&server.set().tenants[0]);
    let permits = || server.background().overflow.permits.take(PermitKind::Sleep, &tenant.permits);
    let _all: Vec<_> = std::iter::from_fn(permits).collect();
    let mut pool = server.loop_pool();
    let mut call = |path| {
        let mut response = BufferedResponse::default();
        let request = Request { method: b"GET", path, query: b"", headers: &[], body: b"", client: None };
        (pool.call(&request, &mut response), response.status)
    };
    let wait_for_worker = |call: &mut dyn FnMut(&'static [u8]) -> (Outcome, u16)| {
        let end = Instant::now() + TIME;
        while call(b"/ok") != (Outcome::Done, 200) {
            assert!(Instant::now() < end, "a worker is forked ahead");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait_for_worker(&mut call);
    assert_eq!(call(b"/sleep"), (Outcome::Done, 503));
    wait_for_worker(&mut call);
}

#[test]
fn sleepers_are_bounded_and_answered_at_shutdown() {
    let server = server();
    let overflow = &server.background().overflow;
    let tenant = Arc::clone(&server.set().tenants[0]);
    let share = std::iter::from_fn(|| overflow.permits.take(PermitKind::Sleep, &tenant.permits));
    let mut taken: Vec<_> = share.collect();
    assert_eq!(taken.len(), 64, "half of one thread's permits");
    let (parked, receiver) = begun(&server);
    overflow.settle(parked, CallStep::Sleeps { until_ns: 0 });
    assert_eq!(receiver.recv_timeout(TIME).unwrap().1.status, 503);
    taken.pop();
    let (parked, receiver) = begun(&server);
    overflow.settle(parked, CallStep::Sleeps { until_ns: u64::MAX });
    drop(taken);
    assert_eq!(server.report().overflow, 1);
    server.shutdown();
    assert_eq!(receiver.recv_timeout(TIME).unwrap().1.status, 503);
    assert_eq!(server.report().overflow, 0);
}

/// A tenant whose workers are asked for a hook that takes long.
fn hooked() -> (Server, Arc<Tenant>) {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let server = server_of(json!({
        "program": "/usr/bin/python3", "args": ["-S", "/app/moment.py"], "serve": "connections", "port": 8000,
        "settle_ms": 0, "after_restore": "/restore?2000", "env": {"PYTHONDONTWRITEBYTECODE": "1"},
        "limits": {"boot_ms": 60_000, "cpu_ms": 20_000, "wall_ms": 60_000},
        "mounts": [{"host": programs, "at": "/app"}, {"host": "/lib"}, {"host": "/lib64"}, {"host": "/usr"}],
    }));
    let tenant = Arc::clone(&server.set().tenants[0]);
    (server, tenant)
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + TIME;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_worker_is_prepared_ahead_if_it_is_kept_afterwards_and_there_is_room_and_else_given_back() {
    let (server, tenant) = hooked();
    let overflow = &server.background().overflow;
    let fork = || tenant.fork(overflow.workers.permit()).unwrap();
    let of_loop = tenant.new_mailbox();
    let mailbox = Arc::clone(&of_loop);
    let prepare = |forked| overflow.prepare(&tenant, forked, &mailbox, false);
    let before = server.workers().1;

    assert!(prepare(tenant.fork(None).unwrap()).is_err(), "a worker without a permit is not kept");
    assert!(overflow.prepare(&tenant, fork(), &tenant.new_mailbox(), false).is_err(), "the loop is gone");
    let forked = fork();
    tenant.account.ledger().allow(Allowance { most: 0, band: 0, share: u64::MAX, alarm: u64::MAX });
    assert!(prepare(forked).is_err(), "memory is short");
    tenant.account.ledger().allow(Allowance { most: u64::MAX, band: 0, share: u64::MAX, alarm: u64::MAX });
    assert_eq!(server.workers().1, before, "what was refused is dropped here");

    // Two at a time.
    assert!(prepare(fork()).is_ok() && prepare(fork()).is_ok());
    assert!(prepare(fork()).is_err());
    assert!(!mailbox.is_empty(), "no worker is forked while some are prepared");
    wait_until("they are prepared", || server.workers().1 == before + 2 && !mailbox.is_preparing());
    // Four with those that wait already.
    assert!(prepare(fork()).is_ok() && prepare(fork()).is_ok());
    wait_until("they are prepared", || !mailbox.is_preparing());
    assert!(prepare(fork()).is_err(), "the mailbox has as many as it keeps");
    assert_eq!(server.workers().1, before + 4);

    let number = tenant.generation();
    for _ in 0..3 {
        assert!(!mailbox.take(number).unwrap().needs_hook());
    }
    // Prepared ones come first.
    mailbox.put(fork());
    let old = mailbox.take_younger(number, Duration::ZERO).unwrap();
    assert!(old.needs_hook(), "it was prepared too long ago");
    assert!(mailbox.take(number).unwrap().needs_hook() && mailbox.is_empty());
    drop(old);
    assert_eq!(server.workers().1, before);
}

#[test]
fn answers_wait_for_the_end_of_the_line_and_then_find_the_worker_in_its_place() {
    let server = server_of(json!({"ephemeral": false}));
    let overflow = &server.background().overflow;
    let tenant = Arc::clone(&server.set().tenants[0]);
    let mailbox = tenant.new_mailbox();
    let leg = || DueLeg { tenant: Arc::downgrade(&tenant), place: LegPlace::Mailbox(Arc::downgrade(&mailbox)) };
    let entry = overflow.timetable.add(0, leg());
    let number = entry.number;
    let mut forked = tenant.fork(overflow.workers.permit()).unwrap();
    forked.legs = Some(Box::new(LegTimer { entry: Some(entry), ..LegTimer::default() }));
    mailbox.lend(forked);
    let (sender, receiver) = mpsc::channel();
    let answer = |name: &'static str| {
        let (sender, mailbox) = (sender.clone(), Arc::downgrade(&mailbox));
        // Of a mailbox that is gone, nothing is there.
        let has_worker = move || mailbox.upgrade().is_some_and(|mailbox| mailbox.has_leg(number));
        Some(Box::new(move || sender.send((name, has_worker())).unwrap()) as Answer)
    };
    let away = || mailbox.take_for_leg(number).unwrap();
    let join = |ticket| assert!(matches!(mailbox.join(Ticket(ticket), tenant.generation()), Joined::InLine));
    let wait_for = |ticket, came: CameBack| {
        let (next, worker) = came.next.unwrap();
        assert_eq!(next, Ticket(ticket));
        (worker, came.answers)
    };

    let worker = away();
    (1..4).for_each(join);
    let (worker, answers) = wait_for(1, mailbox.come_back(worker, None, 10));
    assert!(answers.is_empty());
    let (worker, answers) = wait_for(2, mailbox.come_back(worker, answer("1"), 20));
    assert!(answers.is_empty(), "the client would join the line again");
    // Unless it takes long.
    let (worker, answers) = wait_for(3, mailbox.come_back(worker, answer("2"), 200_000_000));
    answers.into_iter().for_each(|answer| answer());
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [("1", false), ("2", false)]);
    overflow.return_to_mailbox(&mailbox, worker, answer("3"));
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [("3", true)]);

    // Also if the worker is lost, before or after its mailbox.
    let worker = away();
    (4..6).for_each(join);
    let (worker, _) = wait_for(4, mailbox.come_back(worker, None, 0));
    let (worker, _) = wait_for(5, mailbox.come_back(worker, answer("4"), 0));
    drop(worker);
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [("4", false)]);
    let mut forked = tenant.fork(overflow.workers.permit()).unwrap();
    let entry = overflow.timetable.add(0, leg());
    let number = entry.number;
    forked.legs = Some(Box::new(LegTimer { entry: Some(entry), ..LegTimer::default() }));
    mailbox.lend(forked);
    let worker = mailbox.take_for_leg(number).unwrap();
    (6..8).for_each(join);
    let (worker, _) = wait_for(6, mailbox.come_back(worker, None, 0));
    let (worker, _) = wait_for(7, mailbox.come_back(worker, answer("6"), 0));
    drop(mailbox);
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [("6", false)]);
    drop(worker);
}
