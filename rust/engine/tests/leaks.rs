// SPDX-License-Identifier: MIT OR Apache-2.0
//! What forks leave behind: alone in its process, whose descriptors and mappings it counts.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test, which reads /proc")]

use mayfly_engine::{Image, Machine, testing};
use mayfly_machine::{Exit, Origin, Prot, Regs};

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;

#[test]
fn forks_that_have_served_leave_no_descriptor_and_no_mapping() {
    // 1: syscall; inc qword [DATA]; jmp 1b
    let code = [0x0f, 0x05, 0x48, 0xff, 0x04, 0x25, 0, 0, 0x50, 0, 0xeb, 0xf4];
    let mut machine = testing::boot_machine(1 << 20);
    machine.map_zero(CODE, Prot::READ | Prot::EXEC, Origin::Snapshot).unwrap();
    machine.load(CODE, &code).unwrap();
    machine.map_zero(DATA, Prot::READ | Prot::WRITE, Origin::Snapshot).unwrap();
    machine.set_regs(&Regs { rip: CODE, ..Regs::default() });
    assert_eq!(machine.run().unwrap(), Exit::Syscall);
    let context = machine.context().unwrap().unwrap();
    machine.set_context(&context).unwrap();
    let image = Image::freeze(machine, 0).unwrap();
    let serve = || {
        let mut worker = Machine::fork(&image, 64, &[]).unwrap();
        loop {
            match worker.run().unwrap() {
                Exit::PageFault { address, .. } => worker.make_writable(address & !0xfff, Origin::Snapshot).unwrap(),
                exit => break assert_eq!(exit, Exit::Syscall),
            }
        }
        worker.reset().unwrap();
    };
    let entries = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    serve();
    let (descriptors, mapped) = (entries(), mappings());
    (0..500).for_each(|_| serve());
    assert_eq!(entries(), descriptors);
    // The allocator may have mapped some more.
    assert!(mappings() < mapped + 50, "{} of {mapped}", mappings());
}
