// SPDX-License-Identifier: MIT OR Apache-2.0
//! Zygotes with images, and files that stubs map by order.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use mayfly_machine::layout::{CONTROL, DOORBELL, PAGE_SIZE, SHARED, VDSO};
use mayfly_machine::{Prot, Regs};

use super::programs::{CODE, SYSCALL, bell, code_page, code_region, memory, nursery, start, stub};
use crate::error::{ForkError, RingError, StartError};
use crate::host::Host;
use crate::ring::order::Order;
use crate::ring::ring::Event;
use crate::stub::{Nursery, Stub, StubFiles};
use crate::sys::memory::{memfd, sealed};
use crate::sys::socket;
use crate::zygote::zygote::Region;
use crate::{doorbell_page, layout};

const DATA: u64 = 0x10_0000_0000;
const RW: Prot = Prot::from_bits(3).unwrap();

/// Loads from RDI, stores RSI there, rings with both.
fn exchange() -> Vec<u8> {
    [&[0x48, 0x8b, 0x17, 0x48, 0x89, 0x37, 0x48, 0x89, 0xd7][..], &bell()].concat()
}

/// Loads from RDI, and rings.
fn load() -> Vec<u8> {
    [&[0x48, 0x8b, 0x3f][..], &bell()].concat()
}

/// A file whose pages start with their numbers, from 1 on.
fn numbered(pages: u64) -> File {
    let file = memfd(c"numbered").unwrap();
    file.set_len(pages * PAGE_SIZE).unwrap();
    (0..pages).for_each(|page| file.write_all_at(&(page + 1).to_le_bytes(), page * PAGE_SIZE).unwrap());
    file
}

fn word(file: &File, page: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, page * PAGE_SIZE).unwrap();
    u64::from_le_bytes(bytes)
}

fn rings(stub: &mut Stub) -> [u64; 3] {
    match stub.receive().unwrap() {
        Event::Doorbell([a, b, c, ..]) => [a, b, c],
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_of_three_thousand_regions_is_there_in_every_stub() {
    const REGIONS: u64 = 3_000;
    let file = numbered(REGIONS);
    let code = sealed(c"code", &[load(), vec![0xcc; PAGE_SIZE as usize]].concat()[..PAGE_SIZE as usize]).unwrap();
    let bell = sealed(c"bell", &doorbell_page()).unwrap();
    let executable = Prot::READ | Prot::EXEC;
    let page = |file, address, prot| Region { file, offset: 0, address, bytes: PAGE_SIZE, prot };
    let mut regions = vec![page(code.as_fd(), CODE, executable), page(bell.as_fd(), DOORBELL, executable)];
    regions.push(page(bell.as_fd(), VDSO, executable));
    regions.push(page(bell.as_fd(), layout::RESUME, Prot::READ));
    regions.push(page(file.as_fd(), SHARED, RW));
    // Every other page, in the file's reverse order, so that nothing is merged.
    let address = |n: u64| DATA + n * 2 * PAGE_SIZE;
    let last = (REGIONS - 1) * PAGE_SIZE;
    regions.extend(
        (0..REGIONS).map(|n| Region { offset: last - n * PAGE_SIZE, ..page(file.as_fd(), address(n), Prot::READ) }),
    );
    let nursery = Nursery::with_image(&Host::probe().unwrap(), &regions).unwrap();
    for n in [0, 1, 57, 58, REGIONS / 2, REGIONS - 1] {
        let control = page(file.as_fd(), CONTROL, Prot::READ);
        let mut stub = nursery.stub(&[control], memory(&file)).unwrap();
        stub.start(&Regs { rdi: address(n), ..start() }, 0, 0).unwrap();
        assert_eq!(rings(&mut stub)[0], REGIONS - n);
    }
}

#[test]
fn an_image_that_cannot_be_mapped_is_an_error_that_names_the_call_and_the_address() {
    let host = Host::probe().unwrap();
    let (ours, _theirs) = socket::pair().unwrap();
    let file = code_page(&[]);
    let fine = code_region(&file);
    let socket = Region { file: ours.as_fd(), address: DATA, ..fine };
    match Nursery::with_image(&host, &[fine, socket]) {
        Err(StartError::Image(why)) => {
            assert!(why.starts_with("system call 9: ") && why.contains("0x1000000000"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    let outside = Region { address: layout::FRAMES, ..fine };
    assert!(matches!(Nursery::with_image(&host, &[fine, outside]), Err(StartError::Region { .. })));
}

#[test]
fn files_are_mapped_by_order_shared_and_private() {
    let nursery = nursery();
    let (memory, image, passing) = (numbered(4), numbered(8), numbered(2));
    let code = code_page(&[exchange(), SYSCALL.to_vec()].concat());
    let bell = sealed(c"bell", &doorbell_page()).unwrap();
    let control = sealed(c"control", &[0; PAGE_SIZE as usize]).unwrap();
    let code = code_region(&code);
    let regions = [
        code,
        Region { file: bell.as_fd(), address: DOORBELL, ..code },
        Region { file: control.as_fd(), address: CONTROL, prot: Prot::READ, ..code },
    ];
    let files = StubFiles { memory: memory.as_fd(), image: Some(image.as_fd()) };
    let run = |orders: &[Order], with: Option<&File>, address: u64| {
        let mut stub = nursery.stub(&regions, files).unwrap();
        match with {
            Some(file) => stub.with_file(file.as_fd(), orders).unwrap(),
            None => stub.order(orders).unwrap(),
        }
        stub.start(&Regs { rdi: address, rsi: 0x5555, ..start() }, 0, 0).unwrap();
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", stub.pid())).unwrap().count();
        assert_eq!(descriptors, 2);
        rings(&mut stub)[0]
    };
    let map =
        |descriptor, page, shared| Order::map_file(descriptor, page * PAGE_SIZE, DATA, PAGE_SIZE, RW, shared).unwrap();
    assert_eq!(run(&[map(0, 3, true)], None, DATA), 4);
    assert_eq!(word(&memory, 3), 0x5555, "shared");
    assert_eq!(run(&[map(1, 6, false)], None, DATA), 7);
    assert_eq!(word(&image, 6), 7, "private");
    assert_eq!(run(&[map(2, 1, true)], Some(&passing), DATA), 2);
    assert_eq!(word(&passing, 1), 0x5555);
}

#[test]
fn a_file_is_closed_when_its_orders_fail() {
    let nursery = nursery();
    let mut stub = stub(&nursery, &exchange());
    let file = numbered(1);
    // Nothing is mapped there.
    let failing = Order::protect(DATA, PAGE_SIZE, Prot::READ).unwrap();
    let map = Order::map_file(2, 0, DATA, PAGE_SIZE, RW, true).unwrap();
    for _ in 0..3 {
        assert!(matches!(stub.with_file(file.as_fd(), &[failing]), Err(RingError::OrderFailed { .. })));
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", stub.pid())).unwrap().count();
        assert_eq!(descriptors, 1);
        assert!(matches!(stub.order(&[map]), Err(RingError::OrderFailed { .. })), "no such descriptor");
    }
    stub.with_file(file.as_fd(), &[map]).unwrap();
    stub.start(&Regs { rdi: DATA, rsi: 9, ..start() }, 0, 0).unwrap();
    assert_eq!((rings(&mut stub)[0], word(&file, 0)), (1, 9));
}

#[test]
fn a_worker_has_many_regions_of_its_own_from_few_files() {
    let nursery = nursery();
    let file = numbered(48);
    let region = |n: u64| Region {
        file: file.as_fd(),
        offset: n * PAGE_SIZE,
        address: DATA + n * 2 * PAGE_SIZE,
        bytes: PAGE_SIZE,
        prot: RW,
    };
    let regions: Vec<_> = (0..48).map(region).collect();
    let stub = nursery.stub(&regions, memory(&file)).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", stub.pid())).unwrap();
    assert_eq!(maps.lines().filter(|line| line.contains("rw-s") && line.starts_with("10000")).count(), 48, "{maps}");
    let more = nursery.stub(&[&regions[..], &regions[..1]].concat(), memory(&file));
    assert!(matches!(more, Err(ForkError::Regions { most: 48 })));
}

#[test]
fn orders_and_the_program_behind_them_take_one_ring_less() {
    let nursery = nursery();
    // Stores, has a call trapped, loads from RDI.
    let mut stub = stub(&nursery, &[&SYSCALL[..], &exchange()].concat());
    stub.start(&Regs { rdi: DATA, rsi: 3, ..start() }, 0x1000, 0x2000).unwrap();
    let Event::Signal(seen) = stub.receive().unwrap() else { panic!("no signal") };
    let maps: Vec<_> = (0..100).map(|n| Order::map_zero(DATA + n * 2 * PAGE_SIZE, PAGE_SIZE, RW).unwrap()).collect();
    let failing = Order::protect(DATA + PAGE_SIZE, PAGE_SIZE, Prot::READ).unwrap();
    // One that fails among others leaves the stub waiting.
    let orders = [&[failing][..], &maps].concat();
    assert!(matches!(stub.order_and_resume(&orders, &seen.regs, None), Err(RingError::OrderFailed { .. })));
    stub.order_and_resume(&maps, &Regs { rsi: 4, ..seen.regs }, Some((0x3000, 0x4000))).unwrap();
    assert_eq!(rings(&mut stub)[..2], [0, 4]);
    let seen = stub.stop(0).unwrap();
    assert_eq!((seen.fs_base, seen.gs_base), (0x3000, 0x4000));
    // The last one's failure is one that a program could forge.
    stub.order_and_resume(&[failing], &seen.regs, None).unwrap();
    let outcome = stub.receive();
    assert!(matches!(outcome, Err(RingError::Poisoned(crate::Poison::LastOrder { .. }))), "{outcome:?}");
}
