// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much freed memory a process keeps. These tests measure the whole process, so nothing else may run in it: they
//! are a program of their own, and take turns.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test, which reads /proc")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use mayfly_memory::heap::{give_back, keep_little, keeps_much};

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn small_blocks_that_were_freed_count_until_they_are_given_back() {
    let _alone = alone();
    // The last one stays, so that the arena cannot shrink by itself.
    let mut blocks: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 4096]).collect();
    let last = blocks.pop();
    drop(blocks);
    assert!(keeps_much());
    let before = anonymous_kib();
    give_back();
    let less = before.saturating_sub(anonymous_kib());
    assert!(less > 64 << 10, "{less} KiB");
    drop(last);
}

#[test]
fn memory_that_threads_freed_goes_back_to_the_system() {
    let _alone = alone();
    keep_little();
    let before = anonymous_kib();
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..4 {
                    let mut file: Vec<u8> = Vec::new();
                    (0..15 * 16).for_each(|_| file.extend_from_slice(&[round; 64 << 10]));
                    barrier.wait();
                    drop(file);
                    // A block that stays allocated behind the large one.
                    std::mem::forget(vec![round; 1000]);
                }
                barrier.wait();
            });
        }
    });
    let kept = anonymous_kib().saturating_sub(before);
    assert!(kept < 24 << 10, "{kept} KiB");
}
