// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares the address space with a naive model: a map from each page to its attributes.

use std::collections::BTreeMap;

use mayfly_machine::PAGE_SIZE;
use proptest::prelude::*;

use super::*;

const R: Prot = Prot::READ;
const STACK_BYTES: u64 = 16 * PAGE_SIZE;
const BASE: u64 = 0x10_0000;

fn space() -> AddressSpace {
    AddressSpace::new(1000, 1 << 46, STACK_BYTES, Prot::READ).unwrap()
}

fn range(page: u64, pages: u64) -> PageRange {
    PageRange::at(BASE + page * PAGE_SIZE, pages * PAGE_SIZE).unwrap()
}

/// Asserts the module's invariants.
fn check(space: &AddressSpace) {
    let mut bytes = 0;
    for pair in space.mappings.windows(2) {
        assert!(pair[0].range.end() <= pair[1].range.start(), "ascending and disjoint: {pair:?}");
        assert!(!pair[0].merges_with(&pair[1]), "adjacent mappings that could merge: {pair:?}");
    }
    for vma in &space.mappings {
        assert!(!vma.range.is_empty());
        assert!(vma.range.start() >= layout::USER_MIN && vma.range.end() <= layout::USER_END);
        bytes += vma.range.len();
    }
    assert_eq!(bytes, space.bytes);
    assert!(space.bytes <= space.max_bytes);
    assert!(space.mappings.len() <= space.max_mappings);
}

/// Maps a page's address to protection, kind and origin.
type Model = BTreeMap<u64, (Prot, VmaKind, Origin)>;

fn model_of(space: &AddressSpace) -> Model {
    let mut model = Model::new();
    for vma in &space.mappings {
        for page in (vma.range.start()..vma.range.end()).step_by(PAGE_SIZE as usize) {
            model.insert(page, (vma.prot, vma.kind, vma.origin));
        }
    }
    model
}

fn pages(range: PageRange) -> impl Iterator<Item = u64> {
    (range.start()..range.end()).step_by(PAGE_SIZE as usize)
}

#[derive(Clone, Debug)]
enum Operation {
    Map(PageRange, Prot, VmaKind),
    MapAnywhere(u64, Prot),
    MapHint(PageRange, Prot),
    Unmap(PageRange),
    Protect(PageRange, Prot),
    Remap(PageRange, u64, bool),
    RemapTo(PageRange, PageRange),
    Break(u64),
    Freeze,
}

fn any_range() -> impl Strategy<Value = PageRange> {
    (0..40_u64, 1..12_u64).prop_map(|(page, pages)| range(page, pages))
}

fn any_prot() -> impl Strategy<Value = Prot> {
    (0..8_u64).prop_map(|bits| Prot::from_bits(bits).unwrap())
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let kind = prop_oneof![Just(VmaKind::Private), Just(VmaKind::Shared)];
    prop_oneof![
        3 => (any_range(), any_prot(), kind).prop_map(|(r, p, k)| Operation::Map(r, p, k)),
        1 => (1..12_u64, any_prot()).prop_map(|(n, p)| Operation::MapAnywhere(n * PAGE_SIZE, p)),
        1 => (any_range(), any_prot()).prop_map(|(r, p)| Operation::MapHint(r, p)),
        2 => any_range().prop_map(Operation::Unmap),
        3 => (any_range(), any_prot()).prop_map(|(r, p)| Operation::Protect(r, p)),
        1 => (any_range(), 1..20_u64, any::<bool>()).prop_map(|(r, n, m)| Operation::Remap(r, n * PAGE_SIZE, m)),
        1 => (any_range(), any_range()).prop_map(|(a, b)| Operation::RemapTo(a, b)),
        1 => (0..30_u64).prop_map(|n| Operation::Break(BASE + n * 1000)),
        1 => Just(Operation::Freeze),
    ]
}

/// Applies `operation` to both. The model does not choose addresses: it takes over the address space's choice and
/// checks it.
fn apply(space: &mut AddressSpace, model: &mut Model, operation: &Operation) {
    let origin = space.origin;
    match *operation {
        Operation::Map(range, prot, kind) => {
            assert_eq!(space.map(Placement::Fixed(range), range.len(), prot, kind), Ok(range));
            model.extend(pages(range).map(|page| (page, (prot, kind, origin))));
        }
        Operation::MapAnywhere(len, prot) => {
            let range = space.map(Placement::Anywhere, len, prot, VmaKind::Private).unwrap();
            assert_eq!(range.len(), len);
            assert!(pages(range).all(|page| !model.contains_key(&page)));
            assert!(range.end() <= AddressSpace::stack_top() - STACK_BYTES - STACK_GUARD);
            model.extend(pages(range).map(|page| (page, (prot, VmaKind::Private, origin))));
        }
        Operation::MapHint(wanted, prot) => {
            let free = pages(wanted).all(|page| !model.contains_key(&page));
            let range = space.map(Placement::Hint(wanted.start()), wanted.len(), prot, VmaKind::Private).unwrap();
            assert_eq!(range == wanted, free, "a hint is followed where it can be");
            assert!(pages(range).all(|page| !model.contains_key(&page)));
            model.extend(pages(range).map(|page| (page, (prot, VmaKind::Private, origin))));
        }
        Operation::Unmap(range) => {
            space.unmap(range).unwrap();
            for page in pages(range) {
                model.remove(&page);
            }
        }
        Operation::Protect(range, prot) => {
            let mapped: Vec<u64> = pages(range).take_while(|page| model.contains_key(page)).collect();
            let changed = space.protect(range, prot).unwrap();
            assert_eq!(pages(changed).collect::<Vec<_>>(), mapped);
            for page in mapped {
                let entry = model.get_mut(&page).unwrap();
                if entry.0 != prot {
                    *entry = (prot, entry.1, origin);
                }
            }
        }
        Operation::Remap(old, new_len, may_move) => remap(space, model, old, new_len, may_move, None),
        Operation::RemapTo(old, target) => remap(space, model, old, target.len(), true, Some(target.start())),
        Operation::Break(wanted) => {
            let before = space.heap_break();
            let (now, unmapped) = space.set_break(wanted);
            if now != wanted {
                assert_eq!(now, before);
                return;
            }
            let (old, new) = (before.next_multiple_of(PAGE_SIZE), wanted.next_multiple_of(PAGE_SIZE));
            assert_eq!(unmapped.is_some(), new < old);
            for page in (new..old).step_by(PAGE_SIZE as usize) {
                model.remove(&page);
            }
            for page in (old..new).step_by(PAGE_SIZE as usize) {
                let fresh = model.insert(page, (Prot::READ | Prot::WRITE, VmaKind::Private, origin));
                assert_eq!(fresh, None, "the heap replaces no mapping");
            }
        }
        Operation::Freeze => {
            space.freeze();
            for entry in model.values_mut() {
                entry.2 = Origin::Snapshot;
            }
        }
    }
}

fn remap(space: &mut AddressSpace, model: &mut Model, old: PageRange, len: u64, may_move: bool, to: Option<u64>) {
    let first = model.get(&old.start()).copied();
    let alike = first.is_some_and(|first| {
        pages(old).all(|page| model.get(&page).is_some_and(|entry| (entry.0, entry.1) == (first.0, first.1)))
    });
    let done = match space.remap(old, len, may_move, to) {
        Ok(done) => done,
        Err(errno) => {
            match errno {
                Errno::EFAULT => assert!(!alike),
                Errno::EINVAL => assert!(PageRange::at(to.unwrap(), len).unwrap().overlaps(old)),
                Errno::ENOMEM => assert!(!may_move),
                other => panic!("{other:?}"),
            }
            return;
        }
    };
    assert!(alike);
    let (prot, kind, _) = first.unwrap();
    let origin = space.origin;
    let new = PageRange::at(done.address, len).unwrap();
    for gone in [done.replaced, done.cut].into_iter().flatten() {
        for page in pages(gone) {
            model.remove(&page);
        }
    }
    match done.moved {
        Some((from, target)) => {
            assert_eq!((from.start(), target), (old.start(), new.start()));
            assert_eq!(from.len(), old.len().min(len));
            for page in pages(from) {
                model.remove(&page);
            }
            assert!(pages(new).all(|page| !model.contains_key(&page)), "the destination is empty when pages move");
            model.extend(pages(new).map(|page| (page, (prot, kind, origin))));
        }
        None => {
            assert_eq!(new.start(), old.start());
            for page in pages(new.after(old.end())) {
                assert_eq!(model.insert(page, (prot, kind, origin)), None);
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::tests::cases(300))]

    #[test]
    fn an_address_space_is_a_map_from_page_to_mapping(operations in prop::collection::vec(any_operation(), 1..40)) {
        let mut space = space();
        space.start_heap(BASE);
        let mut model = model_of(&space);
        for operation in &operations {
            apply(&mut space, &mut model, operation);
            check(&space);
            prop_assert_eq!(&model_of(&space), &model, "after {:?}", operation);
        }
        for page in (BASE..BASE + 60 * PAGE_SIZE).step_by(PAGE_SIZE as usize) {
            prop_assert_eq!(space.find(page + 17).is_some(), model.contains_key(&page));
        }
    }

    #[test]
    fn refusal_for_a_limit_changes_nothing(operations in prop::collection::vec(any_operation(), 1..40)) {
        let mut space = AddressSpace::new(4, STACK_BYTES + 30 * PAGE_SIZE, STACK_BYTES, R).unwrap();
        space.start_heap(BASE);
        for operation in operations {
            let before = model_of(&space);
            let failed = match operation {
                Operation::Map(range, prot, kind) => {
                    space.map(Placement::Fixed(range), range.len(), prot, kind).is_err()
                }
                Operation::MapAnywhere(len, prot) => {
                    space.map(Placement::Anywhere, len, prot, VmaKind::Private).is_err()
                }
                Operation::Unmap(range) => space.unmap(range).is_err(),
                Operation::Protect(range, prot) => space.protect(range, prot).is_err(),
                Operation::Remap(old, len, may_move) => space.remap(old, len, may_move, None).is_err(),
                Operation::RemapTo(old, to) => space.remap(old, to.len(), true, Some(to.start())).is_err(),
                Operation::Break(wanted) => space.set_break(wanted).0 != wanted,
                Operation::MapHint(..) | Operation::Freeze => false,
            };
            check(&space);
            if failed {
                prop_assert_eq!(model_of(&space), before);
            }
        }
    }
}

#[test]
fn mappings_go_downwards_from_below_the_stack() {
    let mut space = space();
    let top = AddressSpace::stack_top() - STACK_BYTES - STACK_GUARD;
    let first = space.map(Placement::Anywhere, 1, R, VmaKind::Private).unwrap();
    assert_eq!(first.end(), top);
    let second = space.map(Placement::Anywhere, 3 * PAGE_SIZE, R, VmaKind::Shared).unwrap();
    assert_eq!(second.end(), first.start());
    space.unmap(first).unwrap();
    assert_eq!(space.map(Placement::Anywhere, PAGE_SIZE, R, VmaKind::Private), Ok(first), "the highest gap that fits");
}

#[test]
fn only_fixed_mappings_may_lie_in_the_gap_below_the_stack() {
    let mut space = space();
    let stack = AddressSpace::stack_top() - STACK_BYTES;
    let close = PageRange::at(stack - 2 * PAGE_SIZE, PAGE_SIZE).unwrap();
    let hinted = space.map(Placement::Hint(close.start()), PAGE_SIZE, R, VmaKind::Private).unwrap();
    assert_ne!(hinted, close);
    assert_eq!(space.map(Placement::Fixed(close), PAGE_SIZE, R, VmaKind::Private), Ok(close));
}

#[test]
fn ranges_outside_of_the_programs_part_are_refused() {
    let mut space = space();
    let mut fixed =
        |start, len| space.map(Placement::Fixed(PageRange::at(start, len).unwrap()), len, R, VmaKind::Private);
    assert_eq!(fixed(0, PAGE_SIZE), Err(Errno::EPERM));
    assert_eq!(fixed(layout::USER_MIN - PAGE_SIZE, PAGE_SIZE), Err(Errno::EPERM));
    assert_eq!(fixed(layout::USER_END, PAGE_SIZE), Err(Errno::ENOMEM));
    assert_eq!(space.map(Placement::Anywhere, u64::MAX, R, VmaKind::Private), Err(Errno::ENOMEM));
    assert_eq!(space.map(Placement::Anywhere, 1 << 47, R, VmaKind::Private), Err(Errno::ENOMEM));
    assert_eq!(space.map(Placement::Low(0), 1 << 31, R, VmaKind::Private), Err(Errno::ENOMEM));
    let wild = space.map(Placement::Hint(u64::MAX - 5), PAGE_SIZE, R, VmaKind::Private).unwrap();
    assert!(wild.end() < layout::USER_END, "an impossible hint is ignored");
    let low = space.map(Placement::Low(0), 1 << 20, R, VmaKind::Private).unwrap();
    assert!(low.end() <= 1 << 31);
    assert_eq!(space.map(Placement::FixedNoReplace(low), low.len(), R, VmaKind::Private), Err(Errno::EEXIST));
    check(&space);
}

#[test]
fn a_low_mapping_is_where_it_is_wanted_if_that_is_free_and_low() {
    let mut space = space();
    let mut low = |hint, len| space.map(Placement::Low(hint), len, R, VmaKind::Private).unwrap();
    let wanted = low(0x5000_0000, 1 << 20);
    assert_eq!(wanted.start(), 0x5000_0000);
    assert_eq!(low(0x3000_0fff, PAGE_SIZE).start(), 0x3000_1000, "below the area");
    for (hint, why) in [
        (wanted.start() + PAGE_SIZE, "taken"),
        (0x8000_0000 - PAGE_SIZE, "too close to the end"),
        (0x8000_0000, "not low"),
        (PAGE_SIZE, "not the program's"),
        (u64::MAX - 5, "impossible"),
    ] {
        let range = low(hint, 2 * PAGE_SIZE);
        assert_ne!(range.start(), hint, "{why}");
        assert!(range.start() >= 0x4000_0000 && range.end() <= 0x8000_0000, "{why}: {range:?}");
    }
    check(&space);
}

#[test]
fn a_stack_that_does_not_fit_is_refused() {
    for (mappings, bytes, stack) in
        [(0, 1 << 40, 1 << 20), (10, 1 << 19, 1 << 20), (10, 1 << 46, 1 << 47), (10, u64::MAX, u64::MAX)]
    {
        assert!(AddressSpace::new(mappings, bytes, stack, R).is_err());
    }
}

#[test]
fn a_request_owns_what_it_changes_and_the_snapshot_the_rest() {
    let mut space = space();
    space.map(Placement::Fixed(range(0, 10)), 10 * PAGE_SIZE, Prot::READ, VmaKind::Private).unwrap();
    space.freeze();
    space.protect(range(4, 2), Prot::READ | Prot::WRITE).unwrap();
    space.protect(range(0, 1), Prot::READ).unwrap();
    let origins: Vec<_> = space.within(range(0, 10)).map(|vma| (vma.range, vma.origin)).collect();
    assert_eq!(
        origins,
        [(range(0, 4), Origin::Snapshot), (range(4, 2), Origin::Request), (range(6, 4), Origin::Snapshot)],
        "setting the same protection is no change"
    );
    space.freeze();
    assert_eq!(space.within(range(0, 10)).count(), 3);
    assert!(space.within(range(0, 10)).all(|vma| vma.origin == Origin::Snapshot));
}

#[test]
fn a_mapping_that_a_request_extends_is_still_one_mapping_to_the_program() {
    let mut space = space();
    space.map(Placement::Fixed(range(0, 4)), 4 * PAGE_SIZE, R, VmaKind::Private).unwrap();
    space.freeze();
    let grown = space.remap(range(0, 4), 8 * PAGE_SIZE, false, None).unwrap();
    assert_eq!(grown.moved, None);
    assert_eq!(space.within(range(0, 8)).count(), 2);
    let moved = space.remap(range(0, 8), 8 * PAGE_SIZE, true, Some(range(20, 1).start())).unwrap();
    assert_eq!(moved.moved, Some((range(0, 8), range(20, 1).start())));
    assert!(space.within(range(20, 8)).all(|vma| vma.origin == Origin::Request));
}

#[test]
fn the_heap_stops_below_the_next_mapping() {
    let mut space = space();
    space.start_heap(BASE);
    space.map(Placement::Fixed(range(10, 1)), PAGE_SIZE, R, VmaKind::Private).unwrap();
    assert_eq!(space.set_break(BASE + 9 * PAGE_SIZE).0, BASE + 9 * PAGE_SIZE);
    assert_eq!(space.set_break(BASE + 9 * PAGE_SIZE + 1).0, BASE + 9 * PAGE_SIZE, "one page stays free between");
    assert_eq!(space.set_break(BASE - 1).0, BASE + 9 * PAGE_SIZE);
    assert_eq!(space.set_break(u64::MAX).0, BASE + 9 * PAGE_SIZE);
    let (now, unmapped) = space.set_break(BASE + 1);
    assert_eq!((now, unmapped), (BASE + 1, Some(range(1, 8))));
    assert_eq!(space.set_break(BASE).1, Some(range(0, 1)));
}

#[test]
fn a_copy_into_an_old_space_equals_the_original() {
    let mut original = space();
    original.map(Placement::Fixed(range(0, 4)), 4 * PAGE_SIZE, R, VmaKind::Private).unwrap();
    let mut copy = space();
    for page in 0..20 {
        copy.map(Placement::Fixed(range(2 * page, 1)), PAGE_SIZE, R, VmaKind::Private).unwrap();
    }
    copy.clone_from(&original);
    assert_eq!(copy.mappings, original.mappings);
    check(&copy);
}
