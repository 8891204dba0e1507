// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers are numbers here.

use proptest::prelude::*;

use super::*;

const NONE: Option<u64> = None;

fn opened(count: usize) -> Slots<usize> {
    let mut slots = Slots::default();
    assert!(slots.open((0..count).map(Some).collect(), |_, _| {}).is_empty());
    slots
}

fn number(slots: &Slots<usize>, index: usize) -> SlotNumber {
    SlotNumber { serial: slots.slots[index].serial, index }
}

/// A key of the slot, of `count`.
fn key(index: usize, count: usize) -> Option<u64> {
    (0..64).map(|key: u64| key << 58).find(|key| index_of(*key, count) == index)
}

#[test]
fn without_slots_there_is_no_worker() {
    let mut slots = Slots::<usize>::default();
    assert_eq!((slots.take(NONE, 0), slots.take(Some(7), 3)), (Take::Closed, Take::Closed));
    assert_eq!(slots.next_due(), None);
}

#[test]
fn a_request_without_a_key_gets_any_worker_and_preferably_that_of_its_loop() {
    let mut slots = opened(3);
    assert_eq!(slots.take(NONE, 4), Take::Worker(1));
    assert_eq!(slots.take(NONE, 4), Take::Worker(2));
    assert_eq!(slots.take(NONE, 4), Take::Worker(0));
    assert_eq!(slots.take(NONE, 4), Take::Busy);
    assert_eq!(slots.give_back(number(&slots, 2), 2), GivenBack::Kept);
    assert_eq!(slots.take(NONE, 0), Take::Worker(2));
}

#[test]
fn a_key_has_one_worker_and_keys_are_spread_evenly() {
    let mut counts = [0; 5];
    for number in 0..5000_u64 {
        counts[index_of(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), 5)] += 1;
    }
    assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    assert_eq!((index_of(0, 3), index_of(u64::MAX, 3)), (0, 2));
    let mut slots = opened(2);
    assert_eq!(slots.take(key(1, 2), 0), Take::Worker(1));
    assert_eq!(slots.take(key(1, 2), 0), Take::Busy, "the other worker is idle, and not this key's");
    assert_eq!(slots.take(key(0, 2), 0), Take::Worker(0));
}

#[test]
fn a_worker_that_runs_without_a_request_is_taken_and_goes_to_the_request_that_waits() {
    let mut slots = opened(2);
    let (first, second) = (number(&slots, 0), number(&slots, 1));
    assert_eq!(slots.idle_at(first), Some(&0));
    assert_eq!(slots.take_idle(first), Some(0));
    assert_eq!(slots.idle_at(first), None);
    assert_eq!(slots.take_idle(first), None);
    assert_eq!(slots.take(NONE, 0), Take::Worker(1));
    assert_eq!(slots.take_idle(second), None, "it has a request");
    assert_eq!(slots.enqueue(Ticket(1), NONE, 0), None);
    assert_eq!(slots.give_back(first, 0), GivenBack::Next(Ticket(1), 0));
    assert!(slots.vacate(first));
    assert_eq!(slots.take_idle(first), None, "a vacant slot has none");
    assert_eq!(slots.open(vec![Some(7)], |_, _| {}), Vec::<usize>::new());
    assert_eq!(slots.take_idle(first), None, "the slot is another one now");
    assert_eq!(slots.idle_at(first), None);
}

#[test]
fn tickets_are_served_in_order_and_no_request_overtakes() {
    let mut slots = opened(2);
    let _ = (slots.take(NONE, 0), slots.take(NONE, 0));
    for (ticket, key) in [(1, NONE), (2, key(0, 2)), (3, key(1, 2)), (4, NONE)] {
        assert_eq!(slots.enqueue(Ticket(ticket), key, 0), None);
    }
    assert_eq!(slots.waiting(), 4);
    assert_eq!(slots.give_back(number(&slots, 1), 1), GivenBack::Next(Ticket(1), 1));
    assert_eq!(slots.give_back(number(&slots, 1), 1), GivenBack::Next(Ticket(3), 1), "the second is not its");
    assert_eq!(slots.take(key(1, 2), 0), Take::Busy);
    assert_eq!(slots.give_back(number(&slots, 1), 1), GivenBack::Next(Ticket(4), 1));
    assert_eq!(slots.give_back(number(&slots, 1), 1), GivenBack::Kept);
    assert_eq!(slots.give_back(number(&slots, 0), 0), GivenBack::Next(Ticket(2), 0));
    assert_eq!(slots.waiting(), 0);
}

#[test]
fn a_ticket_that_waits_no_more_is_forgotten() {
    let mut slots = opened(1);
    let _ = slots.take(NONE, 0);
    for ticket in 1..4 {
        assert_eq!(slots.enqueue(Ticket(ticket), NONE, 0), None);
    }
    slots.forget(Ticket(2), NONE);
    slots.forget(Ticket(9), Some(1));
    assert_eq!(slots.give_back(number(&slots, 0), 0), GivenBack::Next(Ticket(1), 0));
    assert_eq!(slots.give_back(number(&slots, 0), 0), GivenBack::Next(Ticket(3), 0));
}

#[test]
fn a_lost_worker_is_missing_until_its_taker_has_another_one() {
    let mut slots = opened(1);
    let _ = slots.take(NONE, 0);
    assert_eq!(slots.enqueue(Ticket(1), NONE, 0), None);
    let lost = number(&slots, 0);
    assert!(slots.vacate(lost));
    assert!(!slots.vacate(lost), "once");
    assert_eq!(slots.take(NONE, 0), Take::Busy, "the waiting request is first");
    assert_eq!(slots.next_due(), Some(Due::Fork(lost, Some(Ticket(1)))));
    assert_eq!(slots.next_due(), None);
    assert_eq!(slots.give_back(lost, 7), GivenBack::Kept);
    assert_eq!(slots.take(NONE, 0), Take::Worker(7));
    assert!(slots.vacate(lost));
    assert_eq!(slots.take(NONE, 0), Take::Vacant(lost), "a request may have the worker forked");
}

#[test]
fn a_new_program_closes_the_workers_of_the_former_one() {
    let mut slots = opened(3);
    let _ = slots.take(NONE, 0);
    let former = number(&slots, 0);
    let told = std::cell::Cell::new(0);
    let closed = slots.open(vec![Some(10), None], |_, _| told.set(told.get() + 1));
    assert_eq!((closed, told.get()), (vec![1, 2], 1));
    assert_eq!(slots.give_back(former, 0), GivenBack::Close(0));
    assert!(!slots.vacate(former));
    assert_eq!(slots.take(NONE, 0), Take::Worker(10));
    assert!(matches!(slots.take(NONE, 0), Take::Vacant(_)));
}

#[test]
fn requests_that_wait_get_the_workers_of_a_new_program() {
    let mut slots = opened(2);
    let _ = (slots.take(NONE, 0), slots.take(NONE, 0));
    for (ticket, key) in [(1, key(1, 2)), (2, NONE), (3, NONE)] {
        assert_eq!(slots.enqueue(Ticket(ticket), key, 0), None);
    }
    assert!(slots.open(vec![Some(10), Some(11)], |_, _| {}).is_empty());
    assert_eq!(slots.take(NONE, 0), Take::Busy, "no request overtakes");
    assert_eq!(slots.next_due(), Some(Due::Serve(Ticket(2), 10)));
    assert_eq!(slots.next_due(), Some(Due::Serve(Ticket(1), 11)));
    assert_eq!(slots.next_due(), None);
    assert_eq!(slots.give_back(number(&slots, 1), 11), GivenBack::Next(Ticket(3), 11));
}

#[test]
fn requests_that_wait_stay_in_line_when_the_number_changes() {
    let mut slots = opened(2);
    let _ = (slots.take(NONE, 0), slots.take(NONE, 0));
    let (first, second) = (number(&slots, 0), number(&slots, 1));
    for (ticket, key) in [(1, key(1, 2)), (2, NONE), (3, key(0, 2))] {
        assert_eq!(slots.enqueue(Ticket(ticket), key, 0), None);
    }
    assert!(slots.resize(1).is_empty());
    assert_eq!(slots.give_back(second, 1), GivenBack::Close(1));
    for ticket in 1..4 {
        assert_eq!(slots.give_back(first, 0), GivenBack::Next(Ticket(ticket), 0));
    }
    assert!(slots.resize(2).is_empty());
    assert_eq!(slots.give_back(second, 1), GivenBack::Close(1), "another slot is at its place");
    assert_eq!(slots.give_back(first, 0), GivenBack::Kept);
    assert_eq!(slots.resize(0), [0]);
    assert_eq!(slots.take(NONE, 0), Take::Closed);
}

#[test]
fn without_slots_waiting_requests_leave_the_line() {
    let mut slots = opened(1);
    let _ = slots.take(NONE, 0);
    assert_eq!(slots.enqueue(Ticket(1), Some(5), 0), None);
    assert!(slots.open(vec![], |_, _| {}).is_empty());
    assert_eq!(slots.next_due(), Some(Due::Leave(Ticket(1))));
    assert_eq!(slots.next_due(), None);
}

#[test]
fn when_they_are_closed_workers_serve_those_that_wait_and_no_more() {
    let mut slots = opened(2);
    let _ = slots.take(NONE, 0);
    assert_eq!(slots.close(), [1]);
    let first = number(&slots, 0);
    assert_eq!(slots.enqueue(Ticket(1), key(0, 2), 0), None);
    assert_eq!(slots.give_back(first, 0), GivenBack::Next(Ticket(1), 0));
    assert_eq!(slots.give_back(first, 0), GivenBack::Close(0));
    assert_eq!(slots.next_due(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Take(Option<u64>),
    Enqueue(Option<u64>),
    GiveBack(usize),
    Vacate(usize),
    Fill,
    Resize(usize),
    Open(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || prop::option::of(any::<u64>());
    prop::collection::vec(
        prop_oneof![
            key().prop_map(Step::Take),
            key().prop_map(Step::Enqueue),
            (0..8_usize).prop_map(Step::GiveBack),
            (0..8_usize).prop_map(Step::Vacate),
            Just(Step::Fill),
            (1..5_usize).prop_map(Step::Resize),
            (1..5_usize).prop_map(Step::Open),
        ],
        0..60,
    )
}

proptest! {
    /// No worker is in two places, and no ticket is served twice or lost.
    #[test]
    fn workers_and_tickets_are_neither_doubled_nor_lost(steps in steps()) {
        let mut slots: Slots<(usize, Option<SlotNumber>)> = Slots::default();
        let tell = |worker: &mut (usize, Option<SlotNumber>), number| worker.1 = Some(number);
        let (mut made, mut tickets, mut served) = (2, 0, 0);
        let mut out = Vec::new();
        slots.open(vec![Some((0, None)), Some((1, None))], tell);
        let mut has_changed;
        for step in steps {
            has_changed = false;
            match step {
                Step::Take(key) => match slots.take(key, 0) {
                    Take::Worker(worker) => out.push(worker),
                    Take::Vacant(number) => { out.push((made, Some(number))); made += 1; }
                    Take::Busy | Take::Closed => {}
                },
                Step::Enqueue(key) => {
                    tickets += 1;
                    match slots.enqueue(Ticket(tickets), key, 0) {
                        None => {}
                        Some(take) => {
                            served += 1;
                            match take {
                                Take::Worker(worker) => out.push(worker),
                                Take::Vacant(number) => { out.push((made, Some(number))); made += 1; }
                                other => prop_assert!(false, "{other:?}"),
                            }
                        }
                    }
                }
                Step::GiveBack(at) if !out.is_empty() => {
                    let worker = out.swap_remove(at % out.len());
                    match slots.give_back(worker.1.unwrap(), worker) {
                        GivenBack::Next(_, worker) => { served += 1; out.push(worker); }
                        GivenBack::Kept | GivenBack::Close(_) => {}
                    }
                }
                Step::Vacate(at) if !out.is_empty() => {
                    let worker = out.swap_remove(at % out.len());
                    slots.vacate(worker.1.unwrap());
                }
                Step::GiveBack(_) | Step::Vacate(_) => {}
                Step::Fill => has_changed = true,
                Step::Resize(count) => { slots.resize(count); has_changed = true; }
                Step::Open(count) => {
                    has_changed = true;
                    slots.open((made..made + count).map(|worker| Some((worker, None))).collect(), tell);
                    made += count;
                }
            }
            let taken = slots.slots.iter().filter(|slot| matches!(slot.place, Place::Taken)).count();
            let live = out.iter().filter(|worker| slots.is_taken(worker.1.unwrap())).count();
            prop_assert_eq!(taken, live, "each taken slot has one taker");
            prop_assert_eq!(tickets, served + slots.waiting() as u64);
            while has_changed && let Some(due) = slots.next_due() {
                match due {
                    Due::Serve(_, worker) => { served += 1; out.push(worker); }
                    Due::Fork(number, ticket) => {
                        served += u64::from(ticket.is_some());
                        out.push((made, Some(number)));
                        made += 1;
                    }
                    Due::Leave(_) => prop_assert!(false, "there are slots"),
                }
            }
            for index in 0..slots.count() {
                let is_idle = matches!(slots.slots[index].place, Place::Idle(_));
                prop_assert!(!is_idle || slots.next_line(index).is_none(), "no request waits for an idle worker");
            }
        }
    }
}
