// SPDX-License-Identifier: MIT OR Apache-2.0
//! Walks the state inventory: dirty each entry, reset, compare with a fresh fork.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;

use common::{snapshot, text};
use mayfly_sandbox::inventory::INVENTORY;
use mayfly_sandbox::{Worker, WorkerState};

/// `name value` lines.
fn state(worker: &mut Worker, target: &str) -> BTreeMap<String, String> {
    text(worker, target)
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

#[test]
fn the_test_program_knows_the_same_entries() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    let program: Vec<String> = text(&mut worker, "/states").lines().map(Into::into).collect();
    let table: Vec<&str> = INVENTORY.iter().map(|item| item.name).collect();
    assert_eq!(program, table);
}

#[test]
fn reset_restores_every_entry() {
    let snapshot = snapshot("faults");
    let fresh = state(&mut Worker::fork(&snapshot).unwrap(), "/state");
    let mut worker = Worker::fork(&snapshot).unwrap();
    let mut unseen = Vec::new();
    for item in INVENTORY {
        let dirty = state(&mut worker, &format!("/dirty-{}", item.name));
        if dirty[item.name] == fresh[item.name] {
            unseen.push(item.name);
        }
        assert_eq!(worker.differences(), 0, "pages after {}", item.name);
        assert_eq!(worker.state(), WorkerState::Ready, "{}", item.name);
        let after = state(&mut worker, "/state");
        for (name, value) in &fresh {
            assert_eq!(&after[name], value, "{name} after {} ({})", item.name, item.what);
        }
    }
    println!("dirt that shows only later: {unseen:?}");
}

#[test]
fn reset_restores_all_entries_at_once_again_and_again() {
    let snapshot = snapshot("faults");
    let fresh = state(&mut Worker::fork(&snapshot).unwrap(), "/state");
    let mut worker = Worker::fork(&snapshot).unwrap();
    for round in 0..20 {
        text(&mut worker, "/dirty-all");
        assert_eq!(worker.differences(), 0, "round {round}");
        assert_eq!(state(&mut worker, "/state"), fresh, "round {round}");
    }
}
