// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that are refused, with an error that names the cause.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod support;

use mayfly_engine::testing;
use mayfly_linux::{Elf, ExecError, Limits, Mounts, Network, Process, Program, StackError};
use mayfly_machine::MemoryError;
use support::{AT_RANDOM, Linking, MEMORY, compile};

fn refusal(elf: &[u8], name: &str, limits: &Limits, memory: u64) -> ExecError {
    let program = Program {
        elf: elf.into(),
        name,
        args: &[],
        env: &[],
        mounts: &Mounts::default(),
        network: &Network::default(),
    };
    let mut machine = testing::boot_machine(memory);
    Process::exec(&mut machine, &program, &[], AT_RANDOM, limits).unwrap_err()
}

fn hello() -> Vec<u8> {
    std::fs::read(compile("start", Linking::Glibc)).unwrap()
}

#[test]
fn a_dynamic_program_is_refused_with_advice() {
    let dynamic = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let error = refusal(&dynamic, "dynamic", &Limits::default(), MEMORY);
    assert!(matches!(&error, ExecError::Interpreter { path, .. } if path.contains("ld-linux")));
    assert!(error.to_string().contains("mount"), "{error}");
    assert!(error.to_string().contains("-static"), "{error}");
}

#[test]
fn a_truncated_program_is_refused() {
    let whole = hello();
    for len in [0, 10, 64, 200, whole.len() / 2] {
        let error = refusal(&whole[..len], "cut", &Limits::default(), MEMORY);
        assert!(matches!(error, ExecError::Elf(_)), "{len}: {error}");
    }
}

#[test]
fn a_name_that_cannot_be_passed_is_refused() {
    let error = refusal(&hello(), "a\0b", &Limits::default(), MEMORY);
    assert!(matches!(error, ExecError::Stack(StackError::Text { .. })), "{error}");
}

#[test]
fn limits_that_are_too_low_for_the_program_are_named() {
    for limits in [
        Limits { mappings: 3, ..Limits::default() },
        Limits { address_space_bytes: 8 << 20, ..Limits::default() },
        Limits { stack_bytes: 0, ..Limits::default() },
        Limits { stack_bytes: 4096, ..Limits::default() },
        Limits { stack_bytes: u64::MAX, ..Limits::default() },
    ] {
        let error = refusal(&hello(), "large", &limits, MEMORY);
        assert!(matches!(error, ExecError::AddressSpace { .. }), "{limits:?}: {error}");
    }
}

#[test]
fn a_machine_with_too_little_memory_is_named() {
    let error = refusal(&hello(), "large", &Limits::default(), 400 << 10);
    assert!(matches!(error, ExecError::Memory(MemoryError::Limit { .. })), "{error}");
}

#[test]
fn a_file_that_is_not_a_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    let whole = hello();
    let refusal = |file: &std::fs::File| {
        let mounts = Mounts::default();
        let program = Program {
            elf: Elf::File(file),
            name: "program",
            args: &[],
            env: &[],
            mounts: &mounts,
            network: &Network::default(),
        };
        let mut machine = testing::boot_machine(MEMORY);
        Process::exec(&mut machine, &program, &[], AT_RANDOM, &Limits::default())
    };
    for len in [0, 10, 64, 200, whole.len() / 2] {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = refusal(&std::fs::File::open(&path).unwrap()).unwrap_err();
        assert!(matches!(error, ExecError::Elf(_)), "{len}: {error}");
    }
    for path in [directory.path(), std::path::Path::new("/dev/null")] {
        let error = refusal(&std::fs::File::open(path).unwrap()).unwrap_err();
        assert!(matches!(error, ExecError::File(_)), "{}: {error}", path.display());
    }
    // Open for writing only: it cannot be read.
    std::fs::write(&path, &whole).unwrap();
    let error = refusal(&std::fs::File::options().append(true).open(&path).unwrap()).unwrap_err();
    assert!(matches!(error, ExecError::Elf(_)), "{error}");
    assert!(refusal(&std::fs::File::open(&path).unwrap()).is_ok());
}
