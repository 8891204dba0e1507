// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs for stubs, and a host for them.

use std::fs::File;
use std::os::fd::AsFd;

use mayfly_machine::layout::{CONTROL, DOORBELL, DOORBELL_ENTRY, PAGE_SIZE, USER_MIN};
use mayfly_machine::{Prot, Regs};

use crate::code::doorbell_page;
use crate::host::Host;
use crate::stub::{Nursery, Stub, StubFiles};
use crate::sys::memory::sealed;
use crate::zygote::zygote::Region;

/// Where a test's program lies.
pub(super) const CODE: u64 = USER_MIN;

/// `syscall`.
pub(super) const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// `jmp .`
pub(super) const SPIN: [u8; 2] = [0xeb, 0xfe];

/// `mov $value, %eax`.
pub(super) fn mov_eax(value: u32) -> Vec<u8> {
    [&[0xb8][..], &value.to_le_bytes()].concat()
}

/// Jumps to the doorbell.
pub(super) fn bell() -> Vec<u8> {
    [&[0x48, 0xb9][..], &DOORBELL_ENTRY.to_le_bytes(), &[0xff, 0xe1]].concat()
}

/// Stubs whose `/proc` can be read without privilege.
pub(super) fn nursery() -> Nursery {
    nursery_on(&Host::probe().unwrap())
}

/// The same on a host that was probed.
pub(super) fn nursery_on(host: &Host) -> Nursery {
    Nursery::start(host, host.report().wake, true).unwrap()
}

/// A page of code.
pub(super) fn code_page(code: &[u8]) -> File {
    let mut page = code.to_vec();
    page.resize(PAGE_SIZE as usize, 0xcc);
    sealed(c"test", &page).unwrap()
}

/// The region of such a page.
pub(super) fn code_region(file: &File) -> Region<'_> {
    let prot = Prot::READ | Prot::EXEC;
    Region { file: file.as_fd(), offset: 0, address: CODE, bytes: PAGE_SIZE, prot }
}

/// A file as a stub's memory.
pub(super) fn memory(file: &File) -> StubFiles<'_> {
    StubFiles { memory: file.as_fd(), image: None }
}

/// A stub with this program, and a doorbell whose code does not rewind; it waits.
pub(super) fn stub(nursery: &Nursery, code: &[u8]) -> Stub {
    let mut pages = code.to_vec();
    pages.resize(PAGE_SIZE as usize, 0xcc);
    pages.extend(doorbell_page());
    pages.resize(3 * PAGE_SIZE as usize, 0);
    let file = sealed(c"test", &pages).unwrap();
    let code = code_region(&file);
    let doorbell = Region { offset: PAGE_SIZE, address: DOORBELL, ..code };
    let control = Region { offset: 2 * PAGE_SIZE, address: CONTROL, prot: Prot::READ, ..code };
    nursery.stub(&[code, doorbell, control], memory(&file)).unwrap()
}

/// Registers of the program's start.
pub(super) fn start() -> Regs {
    Regs { rip: CODE, ..Regs::default() }
}

/// A stub that runs this program from its start.
pub(super) fn run(nursery: &Nursery, code: &[u8]) -> Stub {
    let mut stub = stub(nursery, code);
    stub.start(&start(), 0, 0).unwrap();
    stub
}
