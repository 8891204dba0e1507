// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory machines hold, and how much they may hold: a ledger for the process, with an account for each owner.
//!
//! ```text
//!   most ─┬───────────────────────────── as far as a request may go whose owner holds no more than its share
//!         │ band
//!         ├───────────────────────────── one whose owner holds more
//!         │ band
//!         ├───────────────────────────── a fork
//!         │ band
//!         ├───────────────────────────── a boot
//!         │
//!         │ held                         pages that are taken, whether or not they have been touched yet
//!       0 ┴
//! ```
//!
//! A page becomes private to a machine by an exit, so it is counted here before it exists: between two measurements of
//! the process's real memory, machines cannot grow by more than the room that there was. The thread that measures, the
//! keeper, sets `most` ([`Ledger::allow`]).
//!
//! A machine takes pages in small batches, and gives back what a reset has freed. A request that touches no new page
//! does not come here.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crate::layout::Reach;

/// Pages that the kernel uses for a virtual machine and the mapping of its memory, besides what the guest sees.
/// Measured: see `docs/decisions/0250-memory-of-the-process.md`.
pub const MACHINE_PAGES: u64 = 128;
/// The same for a process, its filter and its descriptors; its page tables are counted as they are made. The prototype's
/// idle stubs took 78 KiB besides their pages.
pub const PROCESS_PAGES: u64 = 32;
/// Pages that are taken at a time.
const BATCH: u64 = 16;
/// Pages that a machine may hold beyond what it uses.
const SPARE: u64 = 2 * BATCH;

/// The ledger; cheap to clone. A new one has no bound.
///
/// ```
/// use mayfly_memory::ledger::{Allowance, Hold, Ledger, Purpose};
///
/// let ledger = Ledger::default();
/// ledger.allow(Allowance { most: 100, band: 10, share: 50, alarm: u64::MAX });
/// let account = ledger.account();
/// let mut hold = Hold::new(&account, Purpose::Request);
/// assert!(hold.cover(60));
/// // A boot leaves three bands for others.
/// assert!(!account.has_room(20, Purpose::Boot));
/// drop(hold);
/// assert_eq!(account.held(), 0);
/// ```
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Book>);

#[derive(Debug)]
struct Book {
    held: AtomicU64,
    most: AtomicU64,
    band: AtomicU64,
    share: AtomicU64,
    /// Parts of `held`: what images hold, what the kernel uses for machines.
    images: AtomicU64,
    machines: AtomicU64,
    /// The part of workers whose memory lies in files of their own.
    files: AtomicU64,
    /// Accounts that hold something.
    owners: AtomicU64,
    /// The keeper is woken once when `held` rises above this.
    alarm: AtomicU64,
    keeper: OnceLock<Thread>,
}

/// What a ledger holds, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// All of it.
    pub all: u64,
    /// The part of frozen images and of machines that boot: memory that is not in a machine's private mapping.
    pub images: u64,
    /// The part that the kernel uses for machines.
    pub machines: u64,
    /// The part of workers whose memory is no anonymous memory of this process.
    pub files: u64,
}

/// How far a ledger lets machines grow, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Most that may be held.
    pub most: u64,
    /// How much is reserved for others at each step: see the module.
    pub band: u64,
    /// How much an owner may hold before it counts as holding much.
    pub share: u64,
    /// The keeper is woken when `held` rises above this.
    pub alarm: u64,
}

/// What pages are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A request in progress.
    Request,
    /// A worker.
    Fork,
    /// A program that boots.
    Boot,
}

impl Default for Ledger {
    fn default() -> Self {
        Self(Arc::new(Book {
            held: AtomicU64::new(0),
            most: AtomicU64::new(u64::MAX),
            band: AtomicU64::new(0),
            share: AtomicU64::new(u64::MAX),
            images: AtomicU64::new(0),
            machines: AtomicU64::new(0),
            files: AtomicU64::new(0),
            owners: AtomicU64::new(0),
            alarm: AtomicU64::new(u64::MAX),
            keeper: OnceLock::new(),
        }))
    }
}

impl Ledger {
    /// A new account.
    #[must_use]
    pub fn account(&self) -> Account {
        Account(Arc::new(Owner { ledger: self.clone(), held: AtomicU64::new(0), refused: AtomicU64::new(0) }))
    }

    /// What is held now.
    #[must_use]
    pub fn held(&self) -> Held {
        let Book { held, images, machines, files, .. } = &*self.0;
        let [all, images, machines, files] = [held, images, machines, files].map(|pages| pages.load(Relaxed));
        Held { all, images, machines, files }
    }

    /// Accounts that hold something.
    #[must_use]
    pub fn owners(&self) -> u64 {
        self.0.owners.load(Relaxed)
    }

    /// Sets how far machines may grow from now on. What they hold already stays theirs.
    pub fn allow(&self, allowance: Allowance) {
        let Allowance { most, band, share, alarm } = allowance;
        self.0.band.store(band, Relaxed);
        self.0.share.store(share, Relaxed);
        self.0.most.store(most, Relaxed);
        self.0.alarm.store(alarm, Relaxed);
    }

    /// Sets the thread that is unparked at an alarm, and when pages are refused. Only the first call counts.
    pub fn wake_at_alarm(&self, keeper: Thread) {
        let _ = self.0.keeper.set(keeper);
    }

    /// Wakes the keeper.
    pub fn ring(&self) {
        if let Some(keeper) = self.0.keeper.get() {
            keeper.unpark();
        }
    }
}

/// An owner's part of a ledger; cheap to clone.
#[derive(Debug, Clone)]
pub struct Account(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    ledger: Ledger,
    held: AtomicU64,
    refused: AtomicU64,
}

impl Default for Account {
    /// An account of a new ledger, which has no bound.
    fn default() -> Self {
        Ledger::default().account()
    }
}

impl Account {
    /// Pages that the owner holds.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.0.held.load(Relaxed)
    }

    /// How often it was refused pages.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Whether `pages` more would be granted for `purpose` now.
    #[must_use]
    pub fn has_room(&self, pages: u64, purpose: Purpose) -> bool {
        let held = self.0.ledger.0.held.load(Relaxed);
        held.checked_add(pages).is_some_and(|all| all <= self.most(purpose))
    }

    /// Whether the owner holds more than its share.
    #[must_use]
    pub fn holds_much(&self) -> bool {
        self.held() > self.0.ledger.0.share.load(Relaxed)
    }

    /// Whether less than a quarter of what may be held is, and the owner holds no more than its share.
    #[must_use]
    pub fn is_ample(&self) -> bool {
        let book = &self.0.ledger.0;
        book.held.load(Relaxed) < book.most.load(Relaxed) / 4 && !self.holds_much()
    }

    /// How far `held` may rise for `purpose`.
    fn most(&self, purpose: Purpose) -> u64 {
        let book = &self.0.ledger.0;
        let bands = match purpose {
            Purpose::Request => u64::from(self.holds_much()),
            Purpose::Fork => 1 + u64::from(self.holds_much()),
            Purpose::Boot => 3,
        };
        book.most.load(Relaxed).saturating_sub(bands.saturating_mul(book.band.load(Relaxed)))
    }

    fn take(&self, pages: u64, purpose: Purpose) -> bool {
        let book = &self.0.ledger.0;
        if pages == 0 {
            return true;
        }
        let most = self.most(purpose);
        let more = |held: u64| held.checked_add(pages).filter(|all| *all <= most);
        let Ok(before) = book.held.fetch_update(Relaxed, Relaxed, more) else { return false };
        if self.0.held.fetch_add(pages, Relaxed) == 0 {
            book.owners.fetch_add(1, Relaxed);
        }
        if before.saturating_add(pages) > book.alarm.load(Relaxed) {
            book.alarm.store(u64::MAX, Relaxed);
            self.0.ledger.ring();
        }
        true
    }

    fn give_back(&self, pages: u64) {
        if pages == 0 {
            return;
        }
        if self.0.held.fetch_sub(pages, Relaxed) == pages {
            self.0.ledger.0.owners.fetch_sub(1, Relaxed);
        }
        self.0.ledger.0.held.fetch_sub(pages, Relaxed);
    }
}

/// Pages that something holds, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    account: Account,
    purpose: Purpose,
    pages: u64,
    /// How many of them count as an image's, and as the kernel's.
    image: u64,
    machine: u64,
    /// How many lie in a file of the worker's own, and whether pages do that are taken from now on.
    file: u64,
    in_file: bool,
    /// Whether the last request for pages was refused.
    is_refused: bool,
}

impl Hold {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(account: &Account, purpose: Purpose) -> Self {
        Self {
            account: account.clone(),
            purpose,
            pages: 0,
            image: 0,
            machine: 0,
            file: 0,
            in_file: false,
            is_refused: false,
        }
    }

    /// Whether the last pages that were asked for were refused.
    #[inline]
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Pages that are held.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Sets the purpose of the pages that are taken from now on.
    pub fn set_purpose(&mut self, purpose: Purpose) {
        self.purpose = purpose;
    }

    /// Holds `pages` at least, if there is room.
    #[inline]
    pub fn cover(&mut self, pages: u64) -> bool {
        pages <= self.pages || self.grow(pages)
    }

    #[cold]
    fn grow(&mut self, pages: u64) -> bool {
        let missing = pages.saturating_sub(self.pages);
        let taken = [missing.max(BATCH), missing].into_iter().find(|count| self.account.take(*count, self.purpose));
        self.is_refused = taken.is_none();
        let Some(taken) = taken else {
            self.account.0.refused.fetch_add(1, Relaxed);
            self.account.0.ledger.ring();
            return false;
        };
        self.pages = self.pages.saturating_add(taken);
        if self.purpose == Purpose::Boot {
            self.image = self.image.saturating_add(taken);
            self.account.0.ledger.0.images.fetch_add(taken, Relaxed);
        } else if self.in_file {
            self.file = self.file.saturating_add(taken);
            self.account.0.ledger.0.files.fetch_add(taken, Relaxed);
        }
        true
    }

    /// Gives back what is held beyond `pages`, except for a few.
    #[inline]
    pub fn settle(&mut self, pages: u64) {
        if self.pages.saturating_sub(pages) > SPARE {
            self.shrink(pages.saturating_add(BATCH));
        }
    }

    /// Gives back what is held beyond `pages`.
    #[cold]
    pub fn shrink(&mut self, pages: u64) {
        let surplus = self.pages.saturating_sub(pages);
        let of_image = surplus.min(self.image);
        self.image = self.image.saturating_sub(of_image);
        let of_file = surplus.saturating_sub(of_image).min(self.file);
        self.file = self.file.saturating_sub(of_file);
        self.account.0.ledger.0.files.fetch_sub(of_file, Relaxed);
        self.pages = self.pages.saturating_sub(surplus);
        self.account.0.ledger.0.images.fetch_sub(of_image, Relaxed);
        self.account.give_back(surplus);
    }

    /// Holds what the kernel needs for a machine whose processor reaches memory in this way, too.
    pub fn cover_machine(&mut self, reach: Reach) -> bool {
        let kernels = match reach {
            Reach::Mapping => MACHINE_PAGES,
            Reach::Files => PROCESS_PAGES,
        };
        if !self.cover(self.pages.saturating_add(kernels)) {
            return false;
        }
        self.machine = kernels;
        self.in_file = reach == Reach::Files;
        self.account.0.ledger.0.machines.fetch_add(kernels, Relaxed);
        true
    }

    /// The part of what is held that is not for frames.
    #[inline]
    pub fn overhead(&self) -> u64 {
        self.machine
    }

    /// The machine is gone; its memory stays.
    pub fn end_machine(&mut self) {
        let kernels = std::mem::take(&mut self.machine);
        self.account.0.ledger.0.machines.fetch_sub(kernels, Relaxed);
        self.shrink(self.pages.saturating_sub(kernels));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.account.0.ledger.0.machines.fetch_sub(self.machine, Relaxed);
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(most: u64, band: u64, share: u64) -> Ledger {
        let ledger = Ledger::default();
        ledger.allow(Allowance { most, band, share, alarm: u64::MAX });
        ledger
    }

    #[test]
    fn what_is_taken_comes_back() {
        let ledger = ledger(1000, 0, u64::MAX);
        let account = ledger.account();
        let mut hold = Hold::new(&account, Purpose::Request);
        assert!(hold.cover(5) && hold.cover_machine(Reach::Mapping));
        assert_eq!((ledger.held().all, ledger.held().machines), (hold.pages(), MACHINE_PAGES));
        assert_eq!(account.held(), hold.pages());
        // Batches, and the last pages one by one.
        assert!(hold.cover(1000) && !hold.cover(1001) && hold.is_refused());
        assert_eq!((ledger.held().all, account.refused()), (1000, 1));
        hold.settle(300);
        assert_eq!(ledger.held().all, 300 + BATCH);
        hold.settle(300);
        assert_eq!(ledger.held().all, 300 + BATCH);
        hold.end_machine();
        assert_eq!((ledger.held().all, ledger.held().machines), (300 + BATCH - MACHINE_PAGES, 0));
        drop(hold);
        assert_eq!((ledger.held(), account.held()), (Held::default(), 0));
    }

    #[test]
    fn what_lies_in_files_is_told_and_given_back() {
        let ledger = ledger(u64::MAX, 0, u64::MAX);
        let mut hold = Hold::new(&ledger.account(), Purpose::Fork);
        assert!(hold.cover_machine(Reach::Files) && hold.cover(PROCESS_PAGES + 100));
        assert_eq!((ledger.held().machines, ledger.held().files), (PROCESS_PAGES, ledger.held().all - PROCESS_PAGES));
        hold.shrink(PROCESS_PAGES + 10);
        assert_eq!(ledger.held().files, 10);
        drop(hold);
        assert_eq!(ledger.held(), Held::default());
    }

    #[test]
    fn an_owner_with_much_leaves_room_for_one_with_little() {
        let ledger = ledger(100, 20, 30);
        let (greedy, modest) = (ledger.account(), ledger.account());
        let mut much = Hold::new(&greedy, Purpose::Request);
        let mut pages = 0;
        while much.cover(pages + 1) {
            pages += 1;
        }
        assert!(greedy.holds_much() && ledger.owners() == 1);
        assert_eq!(pages, 80);
        assert!(!greedy.has_room(1, Purpose::Fork) && !modest.has_room(1, Purpose::Fork));
        let mut little = Hold::new(&modest, Purpose::Request);
        assert!(little.cover(20) && !little.cover(21));
        drop(much);
        assert!(modest.has_room(60, Purpose::Fork) && !modest.has_room(61, Purpose::Fork));
        assert!(modest.has_room(20, Purpose::Boot) && !modest.has_room(21, Purpose::Boot));
    }

    #[test]
    fn memory_is_ample_up_to_a_quarter_and_the_owners_share() {
        let ledger = ledger(400, 0, 20);
        let (account, other) = (ledger.account(), ledger.account());
        let mut hold = Hold::new(&account, Purpose::Request);
        assert!(hold.cover(20) && account.is_ample());
        assert!(hold.cover(21) && !account.is_ample() && other.is_ample());
        assert!(hold.cover(100) && !other.is_ample());
        assert!(Account::default().is_ample(), "there is no bound");
    }

    #[test]
    fn images_are_counted_apart_from_machines() {
        let ledger = ledger(u64::MAX, 0, u64::MAX);
        let mut hold = Hold::new(&ledger.account(), Purpose::Boot);
        assert!(hold.cover(100));
        assert_eq!(ledger.held().images, hold.pages());
        hold.shrink(40);
        assert_eq!((ledger.held().all, ledger.held().images), (40, 40));
    }

    #[test]
    fn many_threads_never_hold_more_than_there_is() {
        let ledger = ledger(1000, 0, u64::MAX);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let account = ledger.account();
                    for pages in (1..400).cycle().take(20_000) {
                        let mut hold = Hold::new(&account, Purpose::Request);
                        hold.cover(pages);
                        assert!(ledger.held().all <= 1000);
                    }
                });
            }
        });
        assert_eq!(ledger.held().all, 0);
    }

    #[test]
    fn the_keeper_is_woken_once() {
        let ledger = Ledger::default();
        ledger.wake_at_alarm(std::thread::current());
        ledger.allow(Allowance { most: 1000, band: 0, share: 0, alarm: 100 });
        let account = ledger.account();
        let mut hold = Hold::new(&account, Purpose::Request);
        assert!(hold.cover(50) && hold.cover(101));
        // It has been unparked already, so this returns at once.
        std::thread::park_timeout(std::time::Duration::from_secs(60));
        assert_eq!(ledger.0.alarm.load(Relaxed), u64::MAX);
    }
}
