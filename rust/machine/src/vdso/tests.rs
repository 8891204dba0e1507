// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vDSO as loaders see it, and its functions called natively over a control line of the test's.
#![allow(clippy::unwrap_used)]

use std::ffi::CStr;

use crate::layout::{CONTROL, VDSO};
use crate::{ClockLine, PAGE_SIZE, read_tsc};

use super::*;

const OBJECT: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";

fn number(at: usize, bytes: usize) -> u64 {
    image()[at..at + bytes].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn text(at: u64) -> &'static str {
    CStr::from_bytes_until_nul(&image()[at as usize..]).unwrap().to_str().unwrap()
}

/// Value of an entry of the dynamic section, found as a loader finds it: by the program header.
fn dynamic(tag: u64) -> u64 {
    let headers = number(32, 8) as usize;
    assert_eq!((number(headers, 4), number(headers + 56, 4)), (1, 2), "PT_LOAD, then PT_DYNAMIC");
    assert_eq!((number(headers + 8, 8), number(headers + 16, 8)), (0, 0), "addresses are offsets");
    let mut at = number(headers + 56 + 16, 8) as usize;
    loop {
        match number(at, 8) {
            found if found == tag => return number(at + 8, 8),
            0 => panic!("no entry {tag:#x}"),
            _ => at += 16,
        }
    }
}

/// Hash function of the System V gABI.
fn elf_hash(name: &str) -> u64 {
    let hash = name.bytes().fold(0_u32, |hash, byte| {
        let hash = (hash << 4) + u32::from(byte);
        let top = hash & 0xf000_0000;
        (hash ^ top >> 24) & !top
    });
    hash.into()
}

/// Address of a function, looked up by DT_HASH, with the version that it must have.
fn find(name: &str) -> Option<u64> {
    let (hash, symbols, names) = (dynamic(4) as usize, dynamic(6), dynamic(5));
    let (buckets, chains) = (number(hash, 4), number(hash + 4, 4));
    let mut index = number(hash + 8 + 4 * (elf_hash(name) % buckets) as usize, 4);
    while index != 0 {
        assert!(index < chains);
        let symbol = (symbols + 24 * index) as usize;
        if text(names + number(symbol, 4)) == name {
            assert_eq!(number(symbol + 4, 1), 0x12, "a global function");
            assert_ne!(number(symbol + 6, 2), 0, "defined");
            let version = number(dynamic(0x6fff_fff0) as usize + 2 * index as usize, 2);
            assert_eq!(version, 2);
            let (start, size) = (number(symbol + 8, 8), number(symbol + 16, 8));
            assert!(size > 0 && start + size <= image().len() as u64);
            return Some(start);
        }
        index = number(hash + 8 + 4 * (buckets + index) as usize, 4);
    }
    None
}

const FUNCTIONS: [&str; 5] =
    ["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu", "__vdso_clock_getres"];

#[test]
fn it_fits_its_page() {
    assert!(image().len() as u64 <= PAGE_SIZE);
}

#[test]
fn loaders_find_every_function() {
    assert_eq!(&image()[..4], b"\x7fELF");
    let names = dynamic(5);
    assert_eq!(text(names + dynamic(14)), OBJECT);
    for name in FUNCTIONS {
        assert!(find(name).is_some(), "{name}");
    }
    assert_eq!(find("__vdso_getrandom"), None);
    // Version definitions: the object's own, then the one that all functions have.
    assert_eq!(dynamic(0x6fff_fffd), 2);
    let mut at = dynamic(0x6fff_fffc) as usize;
    for (index, flags, name) in [(1, 1, OBJECT), (2, 0, VERSION)] {
        assert_eq!((number(at, 2), number(at + 2, 2), number(at + 4, 2)), (1, flags, index));
        assert_eq!(number(at + 8, 4), elf_hash(name));
        assert_eq!(text(names + number(at + number(at + 12, 4) as usize, 4)), name);
        at += number(at + 16, 4) as usize;
    }
}

#[test]
fn vdso_h_and_the_layout_agree() {
    let header = include_str!("vdso.h");
    let value = |name: &str| {
        let line = header.lines().find(|line| line.starts_with(&format!("#define {name} "))).unwrap();
        let value = line.split_whitespace().nth(2).unwrap();
        value.strip_prefix("0x").map_or_else(|| value.parse().unwrap(), |hex| u64::from_str_radix(hex, 16).unwrap())
    };
    assert_eq!(value("MAYFLY_VDSO_CONTROL"), CONTROL - VDSO);
    assert_eq!(value("MAYFLY_CLOCK_SHIFT"), u64::from(ClockLine::SHIFT));
    let line = ClockLine { tsc: 1, monotonic_ns: 2, realtime_ns: 3, boottime_ns: 4, raw_ns: 5, rate: 6, raw_rate: 7 };
    assert_eq!(ClockLine::from_words(line.words()), line);
    let bytes: Vec<u8> = line.words().iter().flat_map(|word| word.to_le_bytes()).collect();
    for (name, expected) in
        [("TSC", 1), ("MONOTONIC", 2), ("REALTIME", 3), ("BOOTTIME", 4), ("RAW", 5), ("RATE", 6), ("RAW_RATE", 7)]
    {
        let at = value(&format!("MAYFLY_CLOCK_{name}")) - ClockLine::OFFSET;
        assert_eq!(bytes[at as usize], expected, "{name}");
    }
    assert!(ClockLine::OFFSET + bytes.len() as u64 <= crate::layout::CONTROL_BYTES);
}

/// The vDSO in this process, with a control line of its own.
struct Loaded(*mut u8);

const SPAN: usize = (CONTROL - VDSO + PAGE_SIZE) as usize;

impl Loaded {
    fn new(line: &ClockLine) -> Self {
        // SAFETY: a new mapping; what is written lies within it.
        unsafe {
            let rw = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(std::ptr::null_mut(), SPAN, rw, flags, -1, 0).cast::<u8>();
            assert_ne!(start.cast(), libc::MAP_FAILED);
            start.copy_from_nonoverlapping(image().as_ptr(), image().len());
            let page = PAGE_SIZE as usize;
            assert_eq!(libc::mprotect(start.cast(), page, libc::PROT_READ | libc::PROT_EXEC), 0);
            let loaded = Self(start);
            loaded.set(line);
            loaded
        }
    }

    fn set(&self, line: &ClockLine) {
        let at = (CONTROL - VDSO + ClockLine::OFFSET) as usize;
        // SAFETY: the line lies in the mapping's last page, which is writable.
        unsafe { self.0.add(at).cast::<[u64; 6]>().write_volatile(line.words()) };
    }

    fn at(&self, name: &str) -> *const u8 {
        // SAFETY: the function lies within the image.
        unsafe { self.0.add(find(name).unwrap() as usize) }
    }

    fn clock_gettime(&self, clock: i32) -> (i32, [i64; 2]) {
        let mut now = [-1; 2];
        // SAFETY: that is the function's type, and it writes what it is given.
        let result = unsafe {
            let function: extern "sysv64" fn(i32, *mut [i64; 2]) -> i32 =
                std::mem::transmute(self.at("__vdso_clock_gettime"));
            function(clock, &raw mut now)
        };
        (result, now)
    }

    fn time(&self) -> i64 {
        // SAFETY: as above; a null pointer is allowed.
        unsafe {
            let function: extern "sysv64" fn(*mut i64) -> i64 = std::mem::transmute(self.at("__vdso_time"));
            function(std::ptr::null_mut())
        }
    }

    fn gettimeofday(&self) -> [i64; 2] {
        let (mut now, mut zone) = ([-1; 2], [7_i32; 2]);
        // SAFETY: as above.
        let result = unsafe {
            let function: extern "sysv64" fn(*mut [i64; 2], *mut [i32; 2]) -> i32 =
                std::mem::transmute(self.at("__vdso_gettimeofday"));
            assert_eq!(function(std::ptr::null_mut(), std::ptr::null_mut()), 0);
            function(&raw mut now, &raw mut zone)
        };
        assert_eq!((result, zone), (0, [0, 0]));
        now
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made.
        unsafe { libc::munmap(self.0.cast(), SPAN) };
    }
}

/// A line on which every clock stands still: the counter never gets to where they go on.
fn frozen(nanoseconds: [u64; 4]) -> ClockLine {
    let [monotonic_ns, realtime_ns, boottime_ns, raw_ns] = nanoseconds;
    ClockLine { tsc: u64::MAX, monotonic_ns, realtime_ns, boottime_ns, raw_ns, rate: 1 << 30, raw_rate: 1 << 29 }
}

#[test]
fn each_clock_has_its_reading_in_seconds_and_nanoseconds() {
    let loaded = Loaded::new(&frozen([1_000_000_001, 2_999_999_999, 3, 4_000_000_000]));
    for (clock, expected) in [
        (libc::CLOCK_MONOTONIC, [1, 1]),
        (libc::CLOCK_MONOTONIC_COARSE, [1, 1]),
        (libc::CLOCK_REALTIME, [2, 999_999_999]),
        (libc::CLOCK_REALTIME_COARSE, [2, 999_999_999]),
        (libc::CLOCK_BOOTTIME, [0, 3]),
        (libc::CLOCK_MONOTONIC_RAW, [4, 0]),
    ] {
        assert_eq!(loaded.clock_gettime(clock), (0, expected), "clock {clock}");
    }
    assert_eq!((loaded.time(), loaded.gettimeofday()), (2, [2, 999_999]));
}

#[test]
fn divisions_are_exact() {
    let loaded = Loaded::new(&frozen([0; 4]));
    let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    let seconds = (0..4000_u64).flat_map(|number| {
        let second = number * number * 1_000_003 % 9_000_000_000 * 1_000_000_000;
        [second, second + 1, second + 999, second + 1000, second + 999_999_999]
    });
    for ns in edges.chain(seconds).filter(|&ns| ns < 1 << 63) {
        loaded.set(&frozen([ns, ns, ns, ns]));
        let expected = [(ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64];
        assert_eq!(loaded.clock_gettime(libc::CLOCK_REALTIME).1, expected, "{ns}");
        assert_eq!(loaded.gettimeofday(), [expected[0], expected[1] / 1000], "{ns}");
    }
}

#[test]
fn clocks_go_at_their_rate() {
    let origin = read_tsc();
    let line =
        ClockLine { tsc: origin, monotonic_ns: 5, raw_ns: 5, rate: 1 << 30, raw_rate: 1 << 29, ..frozen([5; 4]) };
    let loaded = Loaded::new(&line);
    for (clock, shift) in [(libc::CLOCK_MONOTONIC, 1), (libc::CLOCK_MONOTONIC_RAW, 2)] {
        let before = read_tsc();
        let (_, [seconds, nanoseconds]) = loaded.clock_gettime(clock);
        let after = read_tsc();
        let read = (seconds * 1_000_000_000 + nanoseconds) as u64 - 5;
        assert!(((before - origin) >> shift..=(after - origin) >> shift).contains(&read), "clock {clock}");
    }
    // Hours of cycles do not overflow.
    loaded.set(&ClockLine { tsc: origin.wrapping_sub(1 << 46), ..line });
    if origin > 1 << 46 {
        let (_, [seconds, _]) = loaded.clock_gettime(libc::CLOCK_MONOTONIC);
        assert!(seconds >= (1 << 45) / 1_000_000_000);
    }
}

#[test]
fn what_it_does_not_know_goes_to_the_kernel() {
    let loaded = Loaded::new(&frozen([1; 4]));
    let host = |clock| {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a valid place for the result.
        unsafe { libc::clock_gettime(clock, &raw mut now) };
        now.tv_sec
    };
    for clock in [libc::CLOCK_TAI, libc::CLOCK_PROCESS_CPUTIME_ID, libc::CLOCK_THREAD_CPUTIME_ID] {
        let (result, [seconds, _]) = loaded.clock_gettime(clock);
        assert_eq!(result, 0);
        assert!(host(clock) - seconds <= 1, "clock {clock}");
    }
    for clock in [i32::MAX, 1000, -1] {
        assert_eq!(loaded.clock_gettime(clock).0, -libc::EINVAL, "clock {clock}");
    }
    // Nor does it know any without rates.
    loaded.set(&ClockLine { rate: 0, raw_rate: 0, ..frozen([1; 4]) });
    for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_MONOTONIC_RAW, libc::CLOCK_BOOTTIME] {
        let (result, [seconds, _]) = loaded.clock_gettime(clock);
        assert_eq!(result, 0);
        assert!(host(clock) - seconds <= 1, "clock {clock}");
    }
    let now = host(libc::CLOCK_REALTIME);
    assert!((now..=now + 2).contains(&loaded.time()));
    assert!((now..=now + 2).contains(&loaded.gettimeofday()[0]));
}

#[test]
fn there_is_one_processor() {
    let loaded = Loaded::new(&ClockLine::default());
    let (mut cpu, mut node) = (7_u32, 7_u32);
    // SAFETY: that is the function's type, and it writes what it is given.
    let result = unsafe {
        let function: extern "sysv64" fn(*mut u32, *mut u32, *const u8) -> i64 =
            std::mem::transmute(loaded.at("__vdso_getcpu"));
        assert_eq!(function(std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null()), 0);
        function(&raw mut cpu, &raw mut node, std::ptr::null())
    };
    assert_eq!((result, cpu, node), (0, 0, 0));
}

#[test]
fn resolutions_are_the_kernels() {
    let loaded = Loaded::new(&ClockLine::default());
    // SAFETY: that is the function's type, and it writes what it is given.
    let function: extern "sysv64" fn(i32, *mut [i64; 2]) -> i32 =
        unsafe { std::mem::transmute(loaded.at("__vdso_clock_getres")) };
    for clock in 0..9 {
        let mut ours = [-1; 2];
        let result = function(clock, &raw mut ours);
        let mut hosts = libc::timespec { tv_sec: -1, tv_nsec: -1 };
        // SAFETY: a valid place for the result.
        let known = unsafe { libc::clock_getres(clock, &raw mut hosts) } == 0;
        assert_eq!((result == 0, ours), (known, [hosts.tv_sec, hosts.tv_nsec]), "clock {clock}");
    }
}
