// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work that a file may hold up, on threads that can be left behind.
//!
//! When the server of a network file system is gone, calls on its files never return, and no signal interrupts them.
//! All work on files therefore runs on a thread of its own, an errand. Before each call the errand names the file that
//! it waits for ([`waiting_for`]). Its caller waits for as long as the errand makes progress; once a single call takes
//! longer than [`PATIENCE`], the caller leaves the thread behind. That thread continues when the file system answers.
//!
//! # Invariants
//!
//! - While an errand of an [`Errands`] hangs, that takes no further one: there are as many threads left behind as
//!   tenants that hang, times those that were under way side by side.
//! - What a thread has that was left behind is its own: it holds no lock that others wait for without looking at
//!   [`Errands::hang`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A call of a file system that takes longer hangs. One of a disk takes milliseconds; one that has to spin up is waited
/// for elsewhere.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// A call that takes longer than this gives its place to another errand, though it is waited for.
const SLOW: Duration = Duration::from_millis(50);

thread_local! {
    /// What the thread is on.
    static CURRENT: RefCell<Option<Arc<Signs>>> = const { RefCell::new(None) };
    /// Whether it is on something: what threads that serve requests ask, for a load.
    static IS_ERRAND: Cell<bool> = const { Cell::new(false) };
}

/// Makes a call that a file system may hold up. On an errand, the call and its path are what is told when it takes too
/// long.
pub fn waiting_for<T>(path: &Path, call: impl FnOnce() -> T) -> T {
    let Some(signs) = CURRENT.with_borrow(Clone::clone) else { return call() };
    let outer = signs.call().replace((Instant::now(), path.to_owned()));
    let result = call();
    // A call inside another is over, and the other one goes on, from now.
    *signs.call() = outer.map(|(_, path)| (Instant::now(), path));
    result
}

/// As [`waiting_for`], for a path that is worth making on an errand alone.
pub fn waiting_for_some<T>(path: impl FnOnce() -> PathBuf, call: impl FnOnce() -> T) -> T {
    if is_errand() { waiting_for(&path(), call) } else { call() }
}

/// Whether this thread is on an errand, and may be left behind.
#[must_use]
pub fn is_errand() -> bool {
    IS_ERRAND.get()
}

/// What an errand shows of itself.
#[derive(Debug)]
struct Signs {
    began: Instant,
    /// What is no call is bounded by this.
    most: Duration,
    patience: Duration,
    call: Mutex<Option<(Instant, PathBuf)>>,
}

impl Signs {
    fn call(&self) -> MutexGuard<'_, Option<(Instant, PathBuf)>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hang(&self) -> Option<Unfinished> {
        if let Some((since, path)) = &*self.call()
            && since.elapsed() >= self.patience
        {
            return Some(Unfinished::Unanswered { path: path.clone(), time: since.elapsed() });
        }
        let time = self.began.elapsed();
        (time >= self.most).then_some(Unfinished::TooLong { time })
    }

    fn is_slow(&self) -> bool {
        self.call().as_ref().is_some_and(|(since, _)| since.elapsed() >= SLOW)
    }

    /// When it hangs next, unless it shows something before.
    fn due(&self) -> Duration {
        let all = self.most.saturating_sub(self.began.elapsed());
        let call =
            self.call().as_ref().map_or(self.patience, |(since, _)| self.patience.saturating_sub(since.elapsed()));
        // Not at once: a call that begins meanwhile is seen at its end.
        all.min(call).max(Duration::from_millis(1))
    }
}

/// Why there is no result of an errand yet, or never.
#[derive(Debug)]
#[non_exhaustive]
pub enum Unfinished {
    /// A file system does not answer.
    Unanswered {
        /// What it was asked for.
        path: PathBuf,
        /// How long ago.
        time: Duration,
    },
    /// It takes longer than it may, though no file keeps it.
    TooLong {
        /// How long it has taken so far.
        time: Duration,
    },
    /// It panicked.
    Lost,
    /// The system gave no thread.
    Thread(io::Error),
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered { path, time } => write!(
                f,
                "{} has not answered for {} s: see to its file system; what waits for it goes on when it answers",
                path.display(),
                time.as_secs().max(1)
            ),
            Self::TooLong { time } => write!(f, "it has not come to an end for {} s", time.as_secs()),
            Self::Lost => f.write_str("the server made a mistake; its log says where"),
            Self::Thread(error) => write!(f, "the system gave no thread: {error}"),
        }
    }
}

impl std::error::Error for Unfinished {}

/// The errands of one tenant, or for one file; a clone is the same.
#[derive(Debug, Clone)]
pub struct Errands {
    patience: Duration,
    running: Arc<Mutex<Vec<Arc<Signs>>>>,
}

impl Default for Errands {
    fn default() -> Self {
        Self::with_patience(PATIENCE)
    }
}

impl Errands {
    /// Errands of which each call may take `patience`.
    #[must_use]
    pub fn with_patience(patience: Duration) -> Self {
        Self { patience, running: Arc::default() }
    }

    /// Why one of them hangs, if one does.
    #[must_use]
    pub fn hang(&self) -> Option<Unfinished> {
        self.running().iter().find_map(|signs| signs.hang())
    }

    /// Sends a thread on an errand, which may take `most` where no file keeps it.
    ///
    /// # Errors
    ///
    /// [`Unfinished`], without having begun, if an earlier one hangs.
    pub fn begin<T: Send + 'static>(
        &self,
        most: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Pending<T>, Unfinished> {
        let (sender, receiver) = mpsc::channel();
        // Nobody waits any more if it was left behind.
        let signs = self.send(most, work, move |result| drop(sender.send(result)))?;
        Ok(Pending { receiver, signs })
    }

    fn send<T: Send + 'static>(
        &self,
        most: Duration,
        work: impl FnOnce() -> T + Send + 'static,
        tell: impl FnOnce(Option<T>) + Send + 'static,
    ) -> Result<Arc<Signs>, Unfinished> {
        if let Some(hang) = self.hang() {
            return Err(hang);
        }
        let signs = Arc::new(Signs { began: Instant::now(), most, patience: self.patience, call: Mutex::default() });
        self.running().push(Arc::clone(&signs));
        let on_list = OnList { errands: self.clone(), signs: Arc::clone(&signs) };
        let run = move || {
            CURRENT.set(Some(Arc::clone(&on_list.signs)));
            IS_ERRAND.set(true);
            // A panic has been told by the panic hook.
            let result = catch_unwind(AssertUnwindSafe(work)).ok();
            // Whoever gets the result may send the next one.
            drop(on_list);
            tell(result);
        };
        // If there is none, `run` is dropped, and takes itself off the list.
        thread::Builder::new().name("mayfly-errand".to_owned()).spawn(run).map_err(Unfinished::Thread)?;
        Ok(signs)
    }

    fn running(&self) -> MutexGuard<'_, Vec<Arc<Signs>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An errand's place on its list, until it ends.
struct OnList {
    errands: Errands,
    signs: Arc<Signs>,
}

impl Drop for OnList {
    fn drop(&mut self) {
        self.errands.running().retain(|other| !Arc::ptr_eq(other, &self.signs));
    }
}

/// An errand that is under way.
#[derive(Debug)]
pub struct Pending<T> {
    receiver: Receiver<Option<T>>,
    signs: Arc<Signs>,
}

impl<T> Pending<T> {
    /// Waits while it makes progress.
    ///
    /// # Errors
    ///
    /// [`Unfinished`]: the thread is left behind.
    pub fn wait(self) -> Result<T, Unfinished> {
        self.wait_until(|_| false).map_err(|(unfinished, _)| unfinished)
    }

    /// Waits while it makes progress, and calls `slow` once if one of its calls takes so long that others should begin
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`Unfinished`]: the thread is left behind.
    pub fn wait_or_tell(self, slow: impl FnOnce()) -> Result<T, Unfinished> {
        match self.wait_until(Signs::is_slow) {
            Ok(result) => Ok(result),
            Err((_, Some(pending))) => {
                slow();
                pending.wait()
            }
            Err((unfinished, None)) => Err(unfinished),
        }
    }

    /// With the errand itself, if it has come to what `stop` looks for.
    fn wait_until(self, stop: fn(&Signs) -> bool) -> Result<T, (Unfinished, Option<Self>)> {
        loop {
            match self.receiver.recv_timeout(self.signs.due().min(SLOW)) {
                Ok(Some(result)) => return Ok(result),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return Err((Unfinished::Lost, None)),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(hang) = self.signs.hang() {
                        return Err((hang, None));
                    }
                    if stop(&self.signs) {
                        return Err((Unfinished::Lost, Some(self)));
                    }
                }
            }
        }
    }
}

/// Does the work of many, `at_a_time` side by side and those that are slow besides, each on an errand of its own.
/// Returns what came of each, in their order, when all have ended or hang.
pub fn each<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(
    all: impl IntoIterator<Item = (Errands, W)>,
    at_a_time: usize,
    most: Duration,
) -> Vec<Result<T, Unfinished>> {
    let (sender, receiver) = mpsc::channel();
    let mut results: Vec<Option<Result<T, Unfinished>>> = Vec::new();
    let mut under_way: Vec<(usize, Arc<Signs>)> = Vec::new();
    let mut waiting = all.into_iter().enumerate().peekable();
    while waiting.peek().is_some() || !under_way.is_empty() {
        let places = under_way.iter().filter(|(_, signs)| !signs.is_slow()).count();
        if places < at_a_time.max(1)
            && let Some((index, (errands, work))) = waiting.next()
        {
            results.push(None);
            let sender = sender.clone();
            match errands.send(most, work, move |result| drop(sender.send((index, result)))) {
                Ok(signs) => under_way.push((index, signs)),
                Err(unfinished) => put(&mut results, index, Err(unfinished)),
            }
            continue;
        }
        let due = under_way.iter().map(|(_, signs)| signs.due()).min().unwrap_or(SLOW).min(SLOW);
        match receiver.recv_timeout(due) {
            Ok((index, result)) => {
                // One that was given up, and ends after all, is not told again.
                if under_way.iter().any(|(other, _)| *other == index) {
                    put(&mut results, index, result.ok_or(Unfinished::Lost));
                    under_way.retain(|(other, _)| *other != index);
                }
            }
            Err(_) => under_way.retain(|(index, signs)| match signs.hang() {
                Some(hang) => {
                    put(&mut results, *index, Err(hang));
                    false
                }
                None => true,
            }),
        }
    }
    results.into_iter().map(|result| result.unwrap_or(Err(Unfinished::Lost))).collect()
}

fn put<T>(results: &mut [Option<Result<T, Unfinished>>], index: usize, result: Result<T, Unfinished>) {
    if let Some(place) = results.get_mut(index) {
        *place = Some(result);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(150);

    /// A file system that does not answer, until the sender is dropped.
    fn hang() -> (Sender<()>, impl FnOnce() + Send + 'static) {
        let (sender, receiver) = mpsc::channel();
        (sender, move || {
            waiting_for(Path::new("/far/file"), || {
                let _ = receiver.recv();
            });
        })
    }

    #[test]
    fn a_call_that_hangs_is_left_behind_and_named_and_comes_back() {
        let errands = Errands::with_patience(SHORT);
        let (answer, call) = hang();
        let (late, came) = mpsc::channel();
        let pending = errands.begin(LONG, move || {
            call();
            late.send(()).unwrap();
        });
        let told = pending.unwrap().wait().unwrap_err();
        assert!(matches!(&told, Unfinished::Unanswered { path, .. } if path == Path::new("/far/file")), "{told}");
        // No second thread is spent on it.
        assert!(errands.begin(LONG, || ()).is_err());
        assert!(errands.hang().is_some());
        drop(answer);
        came.recv().unwrap();
        while errands.hang().is_some() {
            thread::yield_now();
        }
        assert_eq!(errands.begin(LONG, || 5).unwrap().wait().unwrap(), 5);
    }

    #[test]
    fn what_makes_progress_is_waited_for() {
        let errands = Errands::with_patience(SHORT);
        let steps = || {
            for _ in 0..10 {
                waiting_for(Path::new("/slow"), || thread::sleep(SHORT / 5));
            }
            thread::sleep(SHORT * 2);
            7
        };
        let mut told = false;
        assert_eq!(errands.begin(LONG, steps).unwrap().wait_or_tell(|| told = true).unwrap(), 7);
        let _ = told;
        let endless = Errands::default().begin(SHORT, || thread::sleep(SHORT * 4));
        assert!(matches!(endless.unwrap().wait(), Err(Unfinished::TooLong { .. })));
    }

    #[test]
    fn a_panic_is_told() {
        let told = Errands::default().begin(LONG, || panic!("on purpose")).unwrap().wait();
        assert!(matches!(told, Err::<(), _>(Unfinished::Lost)));
        let all = [(Errands::default(), true), (Errands::default(), false)];
        let all = all.map(|(errands, fails)| (errands, move || assert!(!fails)));
        let results = each(all, 1, LONG);
        assert!(matches!(&results[..], [Err(Unfinished::Lost), Ok(())]), "{results:?}");
    }

    #[test]
    fn one_that_hangs_holds_up_no_other() {
        let (answers, calls): (Vec<_>, Vec<_>) = (0..20).map(|_| hang()).unzip();
        let mut calls = calls.into_iter();
        let (first, finished) = mpsc::channel();
        let works = (0..40).map(|number| {
            let hangs = (number < 20).then(|| calls.next().unwrap());
            let first = first.clone();
            let work = move || match hangs {
                Some(call) => call(),
                None => first.send(Instant::now()).unwrap(),
            };
            (Errands::with_patience(SHORT * 20), work)
        });
        let works: Vec<_> = works.collect();
        let start = Instant::now();
        let results = each(works, 2, LONG);
        assert!(results[..20].iter().all(Result::is_err) && results[20..].iter().all(Result::is_ok));
        let last = finished.try_iter().max().unwrap();
        assert!(last - start < SHORT * 19, "they waited for those that hang: {:?}", last - start);
        drop(answers);
    }

    #[test]
    fn results_come_in_the_order_of_the_work() {
        let works = (0..50_u64).map(|number| {
            (Errands::default(), move || {
                thread::sleep(Duration::from_millis(number % 3));
                number
            })
        });
        let results: Vec<_> = each(works, 4, LONG).into_iter().map(Result::unwrap).collect();
        assert_eq!(results, (0..50).collect::<Vec<_>>());
        assert!(each(Vec::<(Errands, fn())>::new(), 4, LONG).is_empty());
    }
}
