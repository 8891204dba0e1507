// SPDX-License-Identifier: MIT OR Apache-2.0
//! Content against a vector of bytes.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::host::permits::{OPEN, Permit};

const PAGES: u64 = 150;

fn host(bytes: &[u8]) -> Arc<HostFile> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    OPEN.fetch_add(1, Ordering::Relaxed);
    Arc::new(HostFile::of_program(&file, Permit(Arc::new(AtomicUsize::new(1)))).unwrap())
}

fn all(content: &Content) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(content.size()).unwrap()];
    assert_eq!(content.read(0, &mut bytes, true), Ok(bytes.len()));
    bytes
}

/// Checks the invariants.
fn check(content: &Content) {
    assert_eq!(content.pages, count(content.own().count()));
    assert!(content.own().all(|(index, _)| index < content.size.div_ceil(PAGE_SIZE)));
    assert!(content.groups.values().all(|group| !group.is_empty()));
    assert!(content.base.as_ref().is_none_or(|base| base.len <= content.size));
}

#[test]
fn a_write_copies_the_pages_that_it_changes() {
    let mut content = Content::over(host(&[7; 40 * PAGE_BYTES]), 40 * PAGE_SIZE);
    assert_eq!(content.missing(5 * PAGE_SIZE - 1, 2), 2);
    content.write(5 * PAGE_SIZE - 1, b"ab", true).unwrap();
    assert_eq!(content.pages(), 2);
    assert_eq!(content.missing(5 * PAGE_SIZE - 1, 2), 0);
    let mut expected = vec![7; 40 * PAGE_BYTES];
    expected[5 * PAGE_BYTES - 1..5 * PAGE_BYTES + 1].copy_from_slice(b"ab");
    assert_eq!(all(&content), expected);
    assert_eq!(content.used_pages(), 40);
}

#[test]
fn a_hole_takes_no_memory() {
    let mut content = Content::default();
    content.resize(SIZE_MAX);
    assert_eq!((content.size(), content.pages()), (SIZE_MAX, 0));
    content.write(1 << 40, b"x", true).unwrap();
    assert_eq!((content.pages(), content.used_pages()), (1, 1));
    assert_eq!(content.write(SIZE_MAX, b"x", true), Err(Errno::EFBIG));
    assert_eq!((content.seek(0, true), content.seek(0, false)), (Some(1 << 40), Some(0)));
    assert_eq!(content.seek(1 << 40, false), Some((1 << 40) + PAGE_SIZE));
    assert_eq!(content.seek((1 << 40) + PAGE_SIZE, true), None);
    assert_eq!(content.seek(SIZE_MAX, false), None);
    content.punch(0, u64::MAX, true).unwrap();
    assert_eq!((content.size(), content.pages(), content.seek(5, false)), (SIZE_MAX, 0, Some(5)));
}

#[test]
fn what_was_cut_off_does_not_return() {
    let mut content = Content::over(host(&[7; 5000]), 5000);
    assert!(content.is_whole_base(1));
    content.resize(4500);
    assert!(!content.is_whole_base(1));
    content.resize(10_000);
    assert!(!content.is_whole_base(1));
    let mut expected = vec![7; 4500];
    expected.resize(10_000, 0);
    assert_eq!(all(&content), expected);
    assert_eq!(content.page(1, true).unwrap().bytes().iter().filter(|byte| **byte == 7).count(), 4500 - 4096);
    content.reserve(6000, 1, false);
    content.reserve(20_000, 1, false);
    assert_eq!((content.size(), content.pages()), (10_000, 0), "page 1 is the host's");
    content.reserve(8192, 20_000, true);
    assert_eq!((content.size(), content.pages()), (28_192, 5));
    assert_eq!(content.seek(8192, true), None, "nothing has been written there");
}

#[test]
fn a_host_file_that_became_shorter_reads_as_zero() {
    let content = Content::over(host(&[7; 100]), 9000);
    let mut expected = vec![7; 100];
    expected.resize(9000, 0);
    assert_eq!(all(&content), expected);
}

#[test]
fn a_clone_keeps_its_pages() {
    let mut content = Content::of(b"frozen");
    let frozen = content.clone();
    content.write(0, b"F", true).unwrap();
    content.resize(3);
    assert_eq!((all(&content), all(&frozen)), (b"Fro".to_vec(), b"frozen".to_vec()));
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Resize(u64),
    Punch(u64, u64),
    Reserve(u64, u64, bool),
    SetPage(u64, u8),
}

fn any_change() -> impl Strategy<Value = Change> {
    let at = || 0..PAGES * PAGE_SIZE;
    let len = || prop_oneof![0..100_u64, 0..3 * PAGE_SIZE, Just(PAGE_SIZE), 0..PAGES * PAGE_SIZE];
    let aligned = || prop_oneof![at(), (0..PAGES).prop_map(|page| page * PAGE_SIZE)];
    prop_oneof![
        4 => (aligned(), 0..3 * PAGE_BYTES, any::<u8>()).prop_map(|(at, len, byte)| Change::Write(at, vec![byte; len])),
        1 => aligned().prop_map(Change::Resize),
        1 => (aligned(), len()).prop_map(|(at, len)| Change::Punch(at, len)),
        1 => (aligned(), len(), any::<bool>()).prop_map(|(at, len, grows)| Change::Reserve(at, len, grows)),
        1 => (0..PAGES, any::<u8>()).prop_map(|(page, byte)| Change::SetPage(page, byte)),
    ]
}

fn apply(content: &mut Content, model: &mut Vec<u8>, change: Change) {
    let index = |at: u64| usize::try_from(at).unwrap();
    match change {
        Change::Write(at, data) => {
            let added = content.missing(at, count(data.len()));
            let before = content.pages();
            content.write(at, &data, true).unwrap();
            assert_eq!(content.pages(), before + added);
            if !data.is_empty() {
                model.resize(model.len().max(index(at) + data.len()), 0);
                model[index(at)..index(at) + data.len()].copy_from_slice(&data);
            }
        }
        Change::Resize(size) => {
            content.resize(size);
            model.resize(index(size), 0);
        }
        Change::Punch(at, len) => {
            let most = content.pages() + content.punched(at, len);
            content.punch(at, len, true).unwrap();
            assert!(content.pages() <= most);
            let end = index(at + len).min(model.len());
            model[index(at).min(end)..end].fill(0);
        }
        Change::Reserve(at, len, grows) => {
            let most = content.pages() + content.missing(at, len);
            content.reserve(at, len, grows);
            assert!(content.pages() <= most);
            if grows {
                model.resize(model.len().max(index(at + len)), 0);
            }
        }
        Change::SetPage(page, byte) => {
            content.set_page(page, &[byte; PAGE_BYTES]);
            let (start, end) = (index(page * PAGE_SIZE), index((page + 1) * PAGE_SIZE).min(model.len()));
            model[start.min(end)..end].fill(byte);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn content_is_what_was_written(
        base in prop::option::of(0..PAGES * PAGE_SIZE),
        changes in prop::collection::vec(any_change(), 0..40),
        reads in prop::collection::vec((0..PAGES * PAGE_SIZE, 0..20_000_usize), 5),
    ) {
        let bytes: Vec<u8> = (0..base.unwrap_or(0)).map(|at| (at / 1000 + 1) as u8).collect();
        let mut content = base.map_or_else(Content::default, |size| Content::over(host(&bytes), size));
        let mut model = bytes;
        for change in changes {
            apply(&mut content, &mut model, change);
            check(&content);
        }
        prop_assert!(all(&content) == model);
        for (at, len) in reads {
            let mut out = vec![0xee; len];
            let got = content.read(at, &mut out, true).unwrap();
            let at = usize::try_from(at).unwrap();
            prop_assert!(out[..got] == model[at.min(model.len())..(at + len).min(model.len())]);
        }
        // Where there is no data there are zeroes, and pages agree with reads.
        let mut at = 0;
        while let Some(hole) = content.seek(at, false).filter(|hole| *hole < content.size()) {
            let end = content.seek(hole, true).unwrap_or(content.size());
            prop_assert!(end > hole);
            prop_assert!(model[usize::try_from(hole).unwrap()..usize::try_from(end).unwrap()].iter().all(|byte| *byte == 0));
            at = end;
            if at >= content.size() {
                break;
            }
        }
        for index in 0..content.size().div_ceil(PAGE_SIZE) {
            let start = usize::try_from(index * PAGE_SIZE).unwrap();
            let end = (start + PAGE_BYTES).min(model.len());
            let page = content.page(index, true).unwrap();
            prop_assert!(page.bytes()[..end - start] == model[start..end]);
            prop_assert!(page.bytes()[end - start..].iter().all(|byte| *byte == 0), "zeroes behind the end");
        }
    }
}
