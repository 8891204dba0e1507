// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compiles small programs and runs them on the lane's engine, and natively for comparison.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

pub mod compared;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use mayfly_engine::{Machine, testing};
use mayfly_linux::{Context, Elf, Limits, MountPoint, Mounts, Network, Output, Process, Program, Step, Stream};
use mayfly_machine::Exit;

/// A C library and a way of linking with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linking {
    /// glibc, at a fixed address.
    Glibc,
    /// glibc, position-independent.
    GlibcPie,
    /// musl, at a fixed address.
    Musl,
    /// glibc, dynamic: needs the machine's libraries.
    GlibcDynamic,
    /// musl, dynamic.
    MuslDynamic,
    /// C++, dynamic.
    Cpp,
    /// No C library; the program has `_start`.
    Freestanding,
}

/// Whether a whole system is there to compare with. The hardware lane has little but the tests.
pub fn has_whole_system() -> bool {
    std::env::var_os("MAYFLY_LANE").is_none_or(|lane| lane != "svm")
}

/// The directories of this machine's dynamic libraries that exist.
pub fn libraries() -> Vec<&'static Path> {
    ["/lib", "/lib64", "/usr/lib"].into_iter().map(Path::new).filter(|path| path.is_dir()).collect()
}

pub const WITH_LIBRARY: [Linking; 3] = [Linking::Glibc, Linking::GlibcPie, Linking::Musl];

/// The programs in `tests/programs`, and how their tests link them.
pub const PROGRAMS: [(&str, &[Linking]); 35] = [
    ("interruptions", &[Linking::Glibc, Linking::Musl, Linking::GlibcDynamic]),
    ("interfaces", &[Linking::Glibc]),
    ("scatter", &[Linking::Glibc]),
    ("crowd", &[Linking::Glibc]),
    ("remote", &[Linking::Glibc, Linking::Musl, Linking::GlibcDynamic]),
    ("server", &[Linking::Glibc]),
    ("sockets", &[Linking::Glibc]),
    ("datagrams", &[Linking::Glibc]),
    ("fifos", &[Linking::Glibc]),
    ("resolve", &[Linking::Musl, Linking::GlibcDynamic]),
    ("pollables", &[Linking::Glibc]),
    ("threads", &[Linking::Glibc, Linking::Musl, Linking::GlibcDynamic]),
    ("signals", &[Linking::Glibc, Linking::Musl, Linking::GlibcDynamic]),
    ("start", &[Linking::Glibc, Linking::GlibcPie, Linking::Musl, Linking::GlibcDynamic, Linking::MuslDynamic]),
    ("library", &[Linking::Cpp]),
    ("calls", &[Linking::Glibc]),
    ("odds", &[Linking::Glibc]),
    ("memfd", &[Linking::Glibc]),
    ("sparse", &[Linking::Glibc]),
    ("cpu", &[Linking::Glibc]),
    ("locks", &[Linking::Glibc]),
    ("splices", &[Linking::Glibc]),
    ("clocks", &[Linking::Glibc, Linking::GlibcPie, Linking::Musl, Linking::GlibcDynamic, Linking::MuslDynamic]),
    ("files", &[Linking::Glibc, Linking::GlibcDynamic]),
    ("memory", &[Linking::Glibc, Linking::GlibcDynamic]),
    ("writing", &[Linking::Glibc]),
    ("fill", &[Linking::Glibc]),
    ("mapping", &[Linking::Glibc]),
    ("open", &[Linking::Glibc]),
    ("tree", &[Linking::Glibc]),
    ("virtual", &[Linking::Glibc]),
    ("figures", &[Linking::Glibc, Linking::GlibcDynamic]),
    ("sharing", &[Linking::Glibc]),
    ("families", &[Linking::Glibc]),
    ("end", &[Linking::Glibc, Linking::Musl]),
];

/// Compiles `tests/programs/NAME.c` and returns the path of the program.
///
/// The hardware lane has no compiler. It gets what `every_program_compiles` left at the same path.
pub fn compile(name: &str, linking: Linking) -> PathBuf {
    let known = PROGRAMS.iter().any(|(known, linkings)| *known == name && linkings.contains(&linking));
    assert!(known, "the hardware lane gets what PROGRAMS names, and {name} with {linking:?} is not there");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    let program = directory.join(format!("{name}-{linking:?}"));
    if std::env::var_os("MAYFLY_LANE").is_some_and(|lane| lane == "svm") {
        return program;
    }
    // One compilation per process is enough; other threads wait for the first.
    static COMPILED: Mutex<Vec<(String, Linking)>> = Mutex::new(Vec::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (name.to_owned(), linking);
    if compiled.contains(&key) {
        return program;
    }
    compile_to(&program, name, linking);
    compiled.push(key);
    program
}

fn compile_to(program: &Path, name: &str, linking: Linking) {
    let extension = if linking == Linking::Cpp { "cc" } else { "c" };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name).with_extension(extension);
    let (compiler, flags): (_, &[&str]) = match linking {
        Linking::Glibc => ("cc", &["-static", "-no-pie", "-pthread"]),
        Linking::GlibcPie => ("cc", &["-static-pie", "-fPIE"]),
        Linking::Musl => ("musl-gcc", &["-static", "-no-pie"]),
        Linking::GlibcDynamic => ("cc", &["-pie", "-fPIE", "-pthread"]),
        Linking::MuslDynamic => ("musl-gcc", &["-pie", "-fPIE"]),
        Linking::Cpp => ("c++", &["-pie", "-fPIE", "-std=c++17"]),
        Linking::Freestanding => ("cc", &["-static", "-no-pie", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]),
    };
    // Test processes run at the same time, some of them with the same program: it appears atomically.
    let directory = program.parent().unwrap();
    std::fs::create_dir_all(directory).unwrap();
    let unfinished = tempfile::tempdir_in(directory).unwrap();
    let compiled = unfinished.path().join(name);
    let output = Command::new(compiler)
        // Many of the programs use bad sizes and pointers on purpose.
        .args([
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-stringop-overflow",
            "-Wno-stringop-overread",
            "-D_GNU_SOURCE",
            "-o",
        ])
        .arg(&compiled)
        .args(flags)
        .arg(&source)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} is needed to build test programs: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&compiled, program).unwrap();
}

/// A program's output, and its end.
#[derive(Debug)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub end: Step,
    /// Numbers of the system calls that it made.
    pub calls: BTreeSet<u64>,
}

/// Collects a program's output.
#[derive(Debug, Default)]
pub struct Log {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output for Log {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        assert!(bytes.len() <= 4096, "a page at most");
        match stream {
            Stream::Stdout => self.stdout.extend(bytes),
            Stream::Stderr => self.stderr.extend(bytes),
        }
    }
}

/// A machine with a program.
#[derive(Debug)]
pub struct Guest {
    pub machine: Machine,
    pub process: Process,
    pub log: Log,
    /// Counts the calls of `getrandom`; its bytes are this counter.
    pub random: u8,
    /// Whether [`Guest::run`] also waits for remote connections.
    pub waits_outside: bool,
    /// Numbers of the system calls that the program made.
    pub calls: BTreeSet<u64>,
}

/// Value of AT_RANDOM in these tests: the inbox, which programs can read and which is all zeroes here.
pub const AT_RANDOM: u64 = mayfly_machine::layout::INBOX;

impl Guest {
    /// Loads `program`, named by its own path, with these arguments and limits, into a machine of `memory_bytes`.
    pub fn load(program: &Path, args: &[&str], limits: &Limits, memory_bytes: u64) -> Self {
        Self::load_with(program, args, limits, memory_bytes, &[])
    }

    /// As [`Guest::load`], with some of the host's directories mounted at their own paths, read-only.
    pub fn load_with(program: &Path, args: &[&str], limits: &Limits, memory_bytes: u64, mounts: &[&Path]) -> Self {
        Self::load_mounted(program, args, limits, memory_bytes, &at_their_own_paths(mounts))
    }

    /// As [`Guest::load_with`], with the program mapped from its file.
    pub fn load_mapped(program: &Path, args: &[&str], limits: &Limits, memory_bytes: u64, mounts: &[&Path]) -> Self {
        let file = std::fs::File::open(program).unwrap();
        let mounts = at_their_own_paths(mounts);
        Self::load_elf(Elf::File(&file), program, args, limits, memory_bytes, &mounts)
    }

    pub fn load_mounted(program: &Path, args: &[&str], limits: &Limits, memory_bytes: u64, mounts: &Mounts) -> Self {
        let elf = std::fs::read(program).unwrap();
        Self::load_elf((&elf).into(), program, args, limits, memory_bytes, mounts)
    }

    /// As [`Guest::load_mounted`], with the program in memory or in a file.
    pub fn load_elf(
        elf: Elf<'_>,
        program: &Path,
        args: &[&str],
        limits: &Limits,
        memory_bytes: u64,
        mounts: &Mounts,
    ) -> Self {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let env = [("LANG".to_owned(), "C".to_owned()), ("MAYFLY_TEST".to_owned(), "a=b c".to_owned())];
        let name = program.to_str().unwrap();
        Self::load_program(
            &Program { elf, name, args: &args, env: &env, mounts, network: &Network::default() },
            limits,
            memory_bytes,
        )
    }

    pub fn load_program(program: &Program<'_>, limits: &Limits, memory_bytes: u64) -> Self {
        let mut machine = testing::boot_machine(memory_bytes);
        let process = Process::exec(&mut machine, program, &[(0x4d59_464c, 42)], AT_RANDOM, limits).unwrap();
        Self { machine, process, log: Log::default(), random: 0, waits_outside: true, calls: BTreeSet::new() }
    }

    /// Continues after something has arrived from outside, as [`Guest::run`].
    pub fn wake(&mut self) -> Option<Step> {
        let mut rng = |bytes: &mut [u8]| bytes.fill(0);
        let mut context = Context { output: &mut self.log, rng: &mut rng, may_block: true };
        match self.process.wake(&mut self.machine, &mut context) {
            Step::Continue => self.run(),
            end => Some(end),
        }
    }

    /// Runs until the program ends or rings the doorbell (`None`).
    pub fn run(&mut self) -> Option<Step> {
        loop {
            let exit = self.machine.run().unwrap();
            if exit == Exit::Doorbell {
                return None;
            }
            if exit == Exit::Syscall {
                self.calls.insert(self.machine.regs().rax & u64::from(u32::MAX));
            }
            let random = &mut self.random;
            let mut rng = |bytes: &mut [u8]| {
                *random += 1;
                bytes.fill(*random);
            };
            let mut context = Context { output: &mut self.log, rng: &mut rng, may_block: true };
            let mut step = match exit {
                // An unrelated signal to this process, or one of the test's own kicks.
                Exit::Kicked => self.process.rotate(&mut self.machine, &mut context),
                _ => self.process.handle(&mut self.machine, &exit, &mut context),
            };
            while let Step::Waits { until_ns, .. } = step {
                let wait = Duration::from_nanos(until_ns.unwrap_or(u64::MAX).saturating_sub(monotonic_ns()));
                match self.process.remote_events().filter(|_| self.waits_outside) {
                    Some(outside) => {
                        let timeout = wait.min(LONGEST_WAIT).try_into().unwrap();
                        let mut polled = [PollFd::from_borrowed_fd(outside, PollFlags::IN)];
                        rustix::event::poll(&mut polled, Some(&timeout)).unwrap();
                    }
                    None if wait > LONGEST_WAIT => break,
                    None => std::thread::sleep(wait),
                }
                step = self.process.wake(&mut self.machine, &mut context);
            }
            match step {
                Step::Continue => {}
                end => return Some(end),
            }
        }
    }

    /// As [`Guest::run`], with constant interruptions, as if slices ended: threads that spin take turns, and get their
    /// signals.
    pub fn run_interrupted(&mut self) -> Option<Step> {
        interruptible();
        let done = AtomicBool::new(false);
        // SAFETY: pthread_self has no arguments.
        let thread = unsafe { libc::pthread_self() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(2));
                    // SAFETY: the thread is joined at the end of the scope, so it exists; the signal has a handler.
                    unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                }
            });
            // A test that panics must not wait for the interrupting thread for ever.
            let _done = OnDrop(|| done.store(true, Ordering::Relaxed));
            self.run()
        })
    }

    pub fn outcome(mut self) -> Outcome {
        let end = self.run().expect("these programs ring no doorbell");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { stdout: text(self.log.stdout), stderr: text(self.log.stderr), end, calls: self.calls }
    }
}

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Makes SIGUSR1 interrupt system calls, and nothing else.
fn interruptible() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: a zeroed sigaction is a valid one, and the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
}

/// A program that sleeps for longer than this ends with that sleep.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The clock of deadlines.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Mounts of some of the host's directories at their own paths, read-only.
fn at_their_own_paths(mounts: &[&Path]) -> Mounts {
    let mount = |path: &&Path| MountPoint {
        guest: path.to_str().unwrap().to_owned(),
        host: path.to_path_buf(),
        access: mayfly_linux::MountAccess::ReadOnly,
    };
    Mounts::open(&mounts.iter().map(mount).collect::<Vec<_>>()).unwrap()
}

/// Memory of a test machine: enough for any program here.
pub const MEMORY: u64 = 64 << 20;

/// Runs a program in a machine.
pub fn run(program: &Path, args: &[&str]) -> Outcome {
    Guest::load(program, args, &Limits::default(), MEMORY).outcome()
}

/// Runs a program natively, with the same arguments, environment and kinds of descriptors.
///
/// # Panics
///
/// If it has not ended within a minute.
pub fn run_natively(program: &Path, args: &[&str]) -> std::process::Output {
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .env("LANG", "C")
        .env("MAYFLY_TEST", "a=b c")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    if let Ok(output) = end.recv_timeout(Duration::from_secs(60)) {
        return output.unwrap();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    panic!("{} hangs natively: {:?}", program.display(), end.recv());
}

/// Runs a program in a machine and natively, with each C library; both must print the same and end with status 0.
pub fn agrees_with_native(name: &str, linkings: &[Linking]) {
    agrees_with_native_on(name, linkings, &[], &[]);
}

/// As [`agrees_with_native`], with `args`, and with some of the host's directories mounted read-only.
pub fn agrees_with_native_on(name: &str, linkings: &[Linking], args: &[&str], mounts: &[&Path]) {
    agrees_with_native_in(name, linkings, args, mounts, &Limits::default());
}

/// As [`agrees_with_native_on`], within `limits`.
pub fn agrees_with_native_in(name: &str, linkings: &[Linking], args: &[&str], mounts: &[&Path], limits: &Limits) {
    for &linking in linkings {
        let program = compile(name, linking);
        let native = run_natively(&program, args);
        assert!(native.status.success(), "{linking:?}, natively: {native:?}");
        for is_mapped in [false, true] {
            let guest = if is_mapped {
                Guest::load_mapped(&program, args, limits, MEMORY, mounts)
            } else {
                Guest::load_with(&program, args, limits, MEMORY, mounts)
            };
            let inside = guest.outcome();
            let native_out = String::from_utf8_lossy(&native.stdout);
            let kind = if is_mapped { "mapped" } else { "copied" };
            for (line, (inside, native)) in inside.stdout.lines().zip(native_out.lines()).enumerate() {
                assert_eq!(inside, native, "{linking:?}, {kind}: line {line} in the machine and natively");
            }
            assert_eq!(inside.stdout.lines().count(), native_out.lines().count(), "{linking:?}, {kind}: {inside:?}");
            assert_eq!(inside.end, Step::Exited { status: 0 }, "{linking:?}, {kind}: {inside:?}");
            assert_eq!(inside.stderr, String::from_utf8_lossy(&native.stderr), "{linking:?}, {kind}");
            compared::check(name, linking, &inside.calls);
        }
    }
}
