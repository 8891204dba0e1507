// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images that were saved and loaded, in whole machines.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use mayfly_machine::{FileKey, SharedMemory};
use proptest::prelude::*;

use super::files::{KEY, PAGES, boot_with, count, fives};
use super::*;
use crate::error::{LoadError, SaveError};
use crate::image::saved::SavedImage;

const OFFSET: u64 = 2 * PAGE_SIZE;

/// An image with a file's pages, and some of its own.
fn image(file: &File) -> Image {
    let mut machine = boot_with(counter(), file, PAGES);
    for page in 0..150 {
        machine.map_zero(DATA + (64 + page) * PAGE_SIZE, RW, Origin::Snapshot).unwrap();
        // Some stay zero.
        if page % 7 != 0 {
            machine.load(DATA + (64 + page) * PAGE_SIZE, &page.to_le_bytes()).unwrap();
        }
    }
    freeze(machine)
}

fn save(image: &Image) -> (SavedImage, File) {
    let out = tempfile::tempfile().unwrap();
    (image.save(&out, OFFSET).unwrap(), out)
}

fn load(saved: &SavedImage, pages: &File, files: &[(FileKey, BorrowedFd<'_>)]) -> Result<Image, LoadError> {
    Image::load(&testing::host(), saved, pages, OFFSET, files)
}

/// A worker of the image: registers, and every page that it has.
fn seen(image: &Image) -> Vec<(u64, Vec<u8>)> {
    let worker = Machine::fork(image, 8, &[]).unwrap();
    let pages = (DATA..DATA + 256 * PAGE_SIZE).step_by(PAGE_SIZE as usize).chain([CODE, STACK]);
    let read = |page| {
        let mut bytes = vec![0; PAGE_SIZE as usize];
        worker.read(page, &mut bytes).is_ok().then_some((page, bytes))
    };
    pages.filter_map(read).collect()
}

#[test]
fn a_worker_of_a_loaded_image_is_as_one_of_the_frozen() {
    let file = fives();
    let frozen = image(&file);
    let (saved, out) = save(&frozen);
    assert!(saved.pages() * PAGE_SIZE < frozen.bytes(), "zeroes are left out");
    assert_eq!(saved.files(), [KEY]);
    // It has another key now.
    let loaded = load(&saved, &out, &[(FileKey(9, 9), file.as_fd())]).unwrap();
    drop(out);
    assert_eq!(loaded.bytes(), frozen.bytes());
    assert_eq!(seen(&loaded), seen(&frozen));
    let mut first = Machine::fork(&frozen, 256, &[]).unwrap();
    let faults = count(&mut first, PAGES);
    let mut worker = Machine::fork(&loaded, 256, &[]).unwrap();
    assert_eq!(worker.audit(), []);
    assert_eq!(count(&mut worker, PAGES), faults);
    for _ in 0..3 {
        worker.reset().unwrap();
        assert_eq!(worker.audit(), []);
        assert_eq!(count(&mut worker, PAGES), (5 * PAGES, 0));
    }
    worker.reset().unwrap();
    // Learned pages of one can be used for the other.
    first.reset().unwrap();
    let learned: Vec<_> = first.learned().collect();
    let mut next = Machine::fork(&loaded, 256, &learned).unwrap();
    assert_eq!(count(&mut next, PAGES), (5 * PAGES, 0));
    // And it can be saved again.
    let (again, _) = save(&loaded);
    assert_eq!((again.pages(), again.files()), (saved.pages(), &[FileKey(9, 9)][..]));
}

#[test]
fn a_loaded_image_does_not_change_with_its_file() {
    let file = fives();
    let (saved, out) = save(&image(&file));
    let loaded = load(&saved, &out, &[(KEY, file.as_fd())]).unwrap();
    let before = seen(&loaded);
    out.write_all_at(&[7; 4096], OFFSET).unwrap();
    out.set_len(0).unwrap();
    assert_eq!(seen(&loaded), before);
}

#[test]
fn what_is_missing_or_shorter_is_refused() {
    let file = fives();
    let (saved, out) = save(&image(&file));
    assert!(matches!(load(&saved, &out, &[]), Err(LoadError::Files)));
    file.set_len(PAGE_SIZE).unwrap();
    assert!(matches!(load(&saved, &out, &[(KEY, file.as_fd())]), Err(LoadError::Files)));
    let short = fives();
    out.set_len(OFFSET + PAGE_SIZE).unwrap();
    assert!(matches!(load(&saved, &out, &[(KEY, short.as_fd())]), Err(LoadError::Corrupt(_))));
}

#[test]
fn shared_memory_is_not_the_images() {
    let mut machine = boot(counter(), 1);
    machine.share(&SharedMemory::anonymous(PAGE_SIZE).unwrap()).unwrap();
    let image = freeze(machine);
    assert!(matches!(image.save(&tempfile::tempfile().unwrap(), 0), Err(SaveError::Shared)));
}

#[test]
fn every_damaged_page_is_found() {
    let file = fives();
    let (saved, out) = save(&image(&file));
    let bytes = saved.pages() * PAGE_SIZE;
    proptest!(ProptestConfig::with_cases(64), |(at in 0..bytes, bit in 0u8..8)| {
        let mut byte = [0];
        out.read_exact_at(&mut byte, OFFSET + at).unwrap();
        out.write_all_at(&[byte[0] ^ 1 << bit], OFFSET + at).unwrap();
        let loaded = load(&saved, &out, &[(KEY, file.as_fd())]);
        out.write_all_at(&byte, OFFSET + at).unwrap();
        prop_assert!(matches!(loaded, Err(LoadError::Corrupt("the checksum of its pages"))));
    });
    assert!(load(&saved, &out, &[(KEY, file.as_fd())]).is_ok(), "it is as it was");
}

/// Numbers that a checksum would have caught, as an attacker might choose them: none of them ends the process.
#[test]
fn numbers_that_make_no_sense_are_refused_or_harmless() {
    let file = fives();
    let (saved, out) = save(&image(&file));
    let json = serde_json::to_value(&saved).unwrap();
    let mut places = Vec::new();
    collect(&json, String::new(), &mut places);
    let some = prop_oneof![0u64..10_000, any::<u64>(), (0u64..64).prop_map(|bit| 1 << bit)];
    proptest!(ProptestConfig::with_cases(400), |(place in 0..places.len(), value in some)| {
        let mut changed = json.clone();
        *changed.pointer_mut(&places[place]).unwrap() = value.into();
        if let Ok(changed) = serde_json::from_value::<SavedImage>(changed)
            && let Ok(image) = load(&changed, &out, &[(KEY, file.as_fd())])
        {
            // Its program may be lost; the host is not.
            let mut worker = Machine::fork(&image, 256, &[]).unwrap();
            worker.reset().unwrap();
            let _ = worker.audit();
        }
    });
}

/// JSON pointers of all numbers.
fn collect(value: &serde_json::Value, at: String, places: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(all) => {
            for (index, value) in all.iter().enumerate() {
                collect(value, format!("{at}/{index}"), places);
            }
        }
        serde_json::Value::Object(all) => {
            all.iter().for_each(|(key, value)| collect(value, format!("{at}/{key}"), places))
        }
        serde_json::Value::Number(_) => places.push(at),
        _ => {}
    }
}

#[test]
fn tables_that_lead_out_of_the_image_are_refused() {
    for entry in [1 << 46 | 7u64, (1 << 35) | 7, !0] {
        let mut machine = boot(counter(), 1);
        assert_eq!(run(&mut machine, &mut 0).rdi, 1);
        let slot = machine.tables.slot(&machine.memory, DATA).unwrap();
        machine.memory.write_u64(slot, entry);
        let (saved, out) = save(&Image::freeze(machine, INBOX).unwrap());
        assert!(matches!(load(&saved, &out, &[]), Err(LoadError::Corrupt("page tables"))), "{entry:#x}");
    }
}
