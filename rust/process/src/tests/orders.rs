// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders: a stub's memory, changed by its own calls.

use mayfly_machine::layout::PAGE_SIZE;
use mayfly_machine::{Prot, Regs};

use super::programs::{SYSCALL, bell, nursery, start, stub};
use crate::code::places;
use crate::error::RingError;
use crate::ring::order::Order;
use crate::ring::ring::Event;
use crate::stub::Stub;

const DATA: u64 = 0x10_0000_0000;
const RW: Prot = Prot::from_bits(3).unwrap();

/// Stores RDI at RSI, has a call trapped, loads from there, and rings with what it found.
fn program() -> Vec<u8> {
    [&[0x48, 0x89, 0x3e][..], &SYSCALL, &[0x48, 0x8b, 0x3e], &bell()].concat()
}

fn signal(stub: &mut Stub) -> crate::Interrupted {
    match stub.receive().unwrap() {
        Event::Signal(seen) => seen,
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_comes_goes_and_changes_by_orders() {
    let nursery = nursery();
    let mut stub = stub(&nursery, &program());
    stub.order(&[Order::map_zero(DATA, 4 * PAGE_SIZE, RW).unwrap()]).unwrap();
    let regs = Regs { rdi: 42, rsi: DATA, ..start() };
    stub.start(&regs, 0, 0).unwrap();
    let trapped = signal(&mut stub);
    assert_eq!(trapped.signal, libc::SIGSYS);
    // A program that a signal interrupted keeps its registers over orders.
    stub.order(&[Order::protect(DATA, PAGE_SIZE, Prot::READ).unwrap()]).unwrap();
    stub.resume(&trapped.regs, None).unwrap();
    assert!(matches!(stub.receive().unwrap(), Event::Doorbell([42, DATA, 0, ..])));
    stub.answer(0).unwrap();
    // The doorbell's `ret` without a stack.
    let fault = signal(&mut stub);
    assert_eq!((fault.signal, fault.regs.rip), (libc::SIGSEGV, crate::frozen_rip(places().bell_after)));
}

#[test]
fn a_fault_names_its_address_and_is_retried() {
    let nursery = nursery();
    let mut stub = stub(&nursery, &program());
    stub.start(&Regs { rdi: 42, rsi: DATA + 8, ..start() }, 0, 0).unwrap();
    let fault = signal(&mut stub);
    const WRITE_OF_USER: u64 = 6;
    assert_eq!((fault.signal, fault.address, fault.vector), (libc::SIGSEGV, DATA + 8, 14));
    assert_eq!(fault.code, WRITE_OF_USER);
    stub.order(&[Order::map_zero(DATA, PAGE_SIZE, RW).unwrap()]).unwrap();
    stub.resume(&fault.regs, None).unwrap();
    let trapped = signal(&mut stub);
    assert_eq!(trapped.signal, libc::SIGSYS);
    assert_eq!((trapped.address, trapped.vector, trapped.code), (0, 0, 0), "words of the earlier fault");
    stub.order(&[Order::unmap(DATA, PAGE_SIZE).unwrap()]).unwrap();
    stub.resume(&trapped.regs, None).unwrap();
    assert_eq!(signal(&mut stub).address, DATA + 8);
}

#[test]
fn an_order_that_fails_ends_its_row_and_not_the_stub() {
    let nursery = nursery();
    let mut stub = stub(&nursery, &program());
    // Nothing is mapped there.
    let failing = Order::protect(DATA, PAGE_SIZE, Prot::READ).unwrap();
    let map = Order::map_zero(DATA, PAGE_SIZE, RW).unwrap();
    match stub.order(&[failing, map]) {
        Err(RingError::OrderFailed { result }) => assert_eq!(result as i64, -i64::from(libc::ENOMEM)),
        other => panic!("{other:?}"),
    }
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", stub.pid())).unwrap();
    assert!(!maps.contains("1000000000-"), "the order behind it was made: {maps}");
    assert!(matches!(
        stub.order(&[map, Order::unmap(DATA, PAGE_SIZE).unwrap(), failing]),
        Err(RingError::OrderFailed { .. })
    ));
    stub.start(&Regs { rsi: DATA, ..start() }, 0, 0).unwrap();
    assert_eq!(signal(&mut stub).signal, libc::SIGSEGV, "it is unmapped");
}

#[test]
fn more_orders_than_fit_a_page_are_carried_out() {
    let nursery = nursery();
    let mut stub = stub(&nursery, &program());
    let orders: Vec<Order> =
        (0..200).map(|page| Order::map_zero(DATA + page * 2 * PAGE_SIZE, PAGE_SIZE, RW).unwrap()).collect();
    stub.order(&orders).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", stub.pid())).unwrap();
    assert_eq!(maps.lines().filter(|line| line.starts_with("100")).count(), 200, "{maps}");
    stub.order(&[]).unwrap();
}

#[test]
fn a_call_that_was_not_ordered_is_never_made() {
    let nursery = nursery();
    let mut stub = stub(&nursery, &program());
    let map = Order::map_zero(DATA, PAGE_SIZE, RW).unwrap();
    let other = Order::map_zero(DATA + PAGE_SIZE, PAGE_SIZE, RW).unwrap();
    let poisoned = stub.order_otherwise(&[map], &[other]);
    assert!(matches!(poisoned, Err(RingError::Poisoned(crate::Poison::Order { .. }))), "{poisoned:?}");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", stub.pid())).unwrap();
    assert!(!maps.contains("1000000000-"), "{maps}");
    assert!(matches!(stub.receive(), Err(RingError::Poisoned(_))));
    assert!(stub.order(&[map]).is_err());
}
