// SPDX-License-Identifier: MIT OR Apache-2.0
//! The probe on this host, and below filters as a container has them.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::*;
use crate::filter::asm::{Instruction, Label, Line, assemble};

/// Prints what the probe says, too: the tests of refusals start it below a filter, and read that.
#[test]
fn this_host_runs_stubs_and_says_how() {
    let probed = Host::probe();
    match &probed {
        Ok(host) => println!("\nsays {:?}", host.report()),
        Err(missing) => println!("\nsays {missing}"),
    }
    let host = probed.unwrap();
    let report = host.report().to_string();
    assert!(report.contains(&host.report().kernel), "{report}");
    assert_eq!(host.filter_flags() & FLAG_KILLABLE != 0, host.report().killable);
}

/// What the probe says where this filter is in force.
fn says(lines: &[Line]) -> String {
    let program: Vec<Instruction> = assemble(lines).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "probe::tests::this_host_runs_stubs_and_says_how", "--nocapture"]);
    let install = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
        // SAFETY: plain calls, with a program that lives until they return.
        unsafe {
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
            check(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter))?;
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls, and allocates nothing.
    let output = unsafe { command.pre_exec(install) }.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("says ")).unwrap_or_else(|| panic!("{output:?}")).to_owned()
}

const ALLOW: Line = Line::Return(libc::SECCOMP_RET_ALLOW);
const NUMBER: Line = Line::Load(0);

fn refuse(errno: i32) -> Line {
    Line::Return(libc::SECCOMP_RET_ERRNO | errno as u32)
}

fn says_without(number: i64, errno: i32) -> String {
    let allowed = Label(0);
    says(&[NUMBER, Line::JumpUnlessEqual(number as u32, allowed), refuse(errno), Line::At(allowed), ALLOW])
}

#[test]
fn a_refused_call_is_named_with_what_to_do() {
    for (number, what) in [
        (libc::SYS_seccomp, "seccomp(2)"),
        (libc::SYS_memfd_create, "memory that can be sealed"),
        (libc::SYS_execveat, "a zygote's process"),
    ] {
        let said = says_without(number, libc::EPERM);
        assert!(said.starts_with("this host cannot run programs in processes") && said.contains(what), "{said}");
        assert!(said.ends_with(CONTAINER), "{said}");
    }
    let said = says_without(libc::SYS_close_range, libc::ENOSYS);
    assert!(said.contains("cannot run programs"), "{said}");
    let said = says_without(libc::SYS_seccomp, libc::ENOSYS);
    assert!(said.ends_with(UPGRADE), "{said}");
}

#[test]
fn without_synchronous_wake_ups_stubs_are_pinned() {
    let (allowed, refused) = (Label(0), Label(1));
    // The low half of ioctl's second argument is the request.
    let said = says(&[
        NUMBER,
        Line::JumpUnlessEqual(libc::SYS_ioctl as u32, allowed),
        Line::Load(24),
        Line::JumpIfEqual(libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS as u32, refused),
        Line::At(allowed),
        ALLOW,
        Line::At(refused),
        refuse(libc::EINVAL),
    ]);
    assert!(said.contains("wake: Pinned"), "{said}");
}

#[test]
fn without_killable_calls_the_report_says_so() {
    let (allowed, refused) = (Label(0), Label(1));
    // As Linux before 5.19: the flag is unknown. Flags are seccomp's second argument.
    let known = FLAGS as u32;
    let said = says(&[
        NUMBER,
        Line::JumpUnlessEqual(libc::SYS_seccomp as u32, allowed),
        Line::Load(24),
        Line::JumpIfEqual(known | FLAG_KILLABLE as u32, refused),
        Line::At(allowed),
        ALLOW,
        Line::At(refused),
        refuse(libc::EINVAL),
    ]);
    assert!(said.contains("killable: false"), "{said}");
}

#[test]
fn a_supervisor_above_is_named() {
    // Linux has one listener in a chain of filters.
    let said = says_without(libc::SYS_clone, libc::EAGAIN);
    assert!(said.contains("cannot run programs"), "{said}");
}

#[test]
fn whether_waiting_ends_goes_by_the_release() {
    for (release, ends) in [
        ("6.18.44-fc", true),
        ("6.11.0", true),
        ("7.0", true),
        ("6.10.9", false),
        ("6.1.0-37-amd64", false),
        ("x", false),
    ] {
        assert_eq!(waiting_ends(release), ends, "{release}");
    }
}

#[test]
fn a_trial_that_hangs_is_left_behind() {
    assert_eq!(bounded(|| 7), Some(7));
    assert_eq!(bounded(|| -> i32 { panic!("on purpose") }), None);
}
