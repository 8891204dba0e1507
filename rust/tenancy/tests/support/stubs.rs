// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes that run programs.

#![allow(clippy::disallowed_methods, reason = "a test, which reads /proc")]

use std::fs;

/// Of `/proc/PID/stat`: the command's name, the parent, and the nice value (proc_pid_stat(5)).
fn process(pid: u32) -> Option<(String, u32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some((name.to_owned(), fields.get(1)?.parse().ok()?, fields.get(16)?.parse().ok()?))
}

/// The nice values of the stubs below this process.
pub fn stubs() -> Vec<i32> {
    let is_below = |mut pid| {
        while let Some((_, parent, _)) = process(pid) {
            if parent == std::process::id() {
                return true;
            }
            pid = parent;
        }
        false
    };
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let found = numbers.filter_map(|pid| Some((pid, process(pid)?)));
    found.filter(|(pid, (name, ..))| name == "mayfly-stub" && is_below(*pid)).map(|(_, (.., nice))| nice).collect()
}
