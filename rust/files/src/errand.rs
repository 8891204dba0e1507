// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs work that may wait for a file on threads that can be left behind.
//!
//! When the server of a network file system is gone, calls on its files never return, and no signal interrupts them.
//! All work on files therefore runs on a thread of its own, an errand. Before each call the errand names the file that
//! it waits for ([`waiting_for`]). Its caller waits for as long as the errand makes progress; once a single call takes
//! longer than [`PATIENCE`], the caller leaves the thread behind. That thread continues when the file system answers.
//!
//! # Invariants
//!
//! - While an errand of an [`Errands`] hangs, that `Errands` starts no further one. So the number of threads left
//!   behind is bounded by the number of `Errands` that hang, times the errands that each had running at once.
//! - A thread that was left behind owns its data: it holds no lock for which other threads wait without checking
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

/// A file system's call that takes longer counts as hanging. A disk's call takes milliseconds; callers that must wait
/// for a disk to spin up do so elsewhere.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// While a call takes longer than this, another errand may take its errand's place; the caller still waits for it.
const SLOW: Duration = Duration::from_millis(50);

thread_local! {
    /// The errand that the thread runs.
    static CURRENT: RefCell<Option<Arc<Signs>>> = const { RefCell::new(None) };
    /// Whether the thread runs an errand: threads that serve requests check this with one load.
    static IS_ERRAND: Cell<bool> = const { Cell::new(false) };
}

/// Makes a call that may wait for a file system. On an errand, the path is reported if the call takes too long.
pub fn waiting_for<T>(path: &Path, call: impl FnOnce() -> T) -> T {
    let Some(signs) = CURRENT.with_borrow(Clone::clone) else { return call() };
    let outer = signs.call().replace((Instant::now(), path.to_owned()));
    let result = call();
    // The inner call is over; the outer one continues, and its time starts again.
    *signs.call() = outer.map(|(_, path)| (Instant::now(), path));
    result
}

/// As [`waiting_for`], for a path that is worth building only on an errand.
pub fn waiting_for_some<T>(path: impl FnOnce() -> PathBuf, call: impl FnOnce() -> T) -> T {
    if is_errand() { waiting_for(&path(), call) } else { call() }
}

/// Whether this thread is on an errand, and may be left behind.
#[must_use]
pub fn is_errand() -> bool {
    IS_ERRAND.get()
}

/// An errand's progress, as other threads see it.
#[derive(Debug)]
struct Signs {
    began: Instant,
    /// The most time for the errand as a whole.
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

    /// How long until it counts as hanging, if it makes no progress before.
    fn due(&self) -> Duration {
        let all = self.most.saturating_sub(self.began.elapsed());
        let call =
            self.call().as_ref().map_or(self.patience, |(since, _)| self.patience.saturating_sub(since.elapsed()));
        // Never at once: a call that begins meanwhile is seen when it ends.
        all.min(call).max(Duration::from_millis(1))
    }
}

/// Why an errand has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum Unfinished {
    /// A file system does not answer.
    Unanswered {
        /// The path that the call was for.
        path: PathBuf,
        /// How long ago the call began.
        time: Duration,
    },
    /// The errand takes longer than it may, though it waits for no file.
    TooLong {
        /// How long it has taken so far.
        time: Duration,
    },
    /// It panicked.
    Lost,
    /// The system could not start a thread.
    Thread(io::Error),
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered { path, time } => write!(
                f,
                "{} has not answered for {} s: check its file system; the work continues when it answers",
                path.display(),
                time.as_secs().max(1)
            ),
            Self::TooLong { time } => write!(f, "it has not finished for {} s", time.as_secs()),
            Self::Lost => f.write_str("internal error; see the server log"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
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
    /// Errands whose calls may each take `patience`.
    #[must_use]
    pub fn with_patience(patience: Duration) -> Self {
        Self { patience, running: Arc::default() }
    }

    /// Why one of them hangs, if one does.
    #[must_use]
    pub fn hang(&self) -> Option<Unfinished> {
        self.running().iter().find_map(|signs| signs.hang())
    }

    /// Starts an errand on a thread of its own. Apart from waiting for files, it may take `most`.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] if an earlier errand hangs; the new one is not started then.
    pub fn begin<T: Send + 'static>(
        &self,
        most: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Pending<T>, Unfinished> {
        let (sender, receiver) = mpsc::channel();
        // If the thread was left behind, no receiver is left.
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
            // The panic hook has reported a panic already.
            let result = catch_unwind(AssertUnwindSafe(work)).ok();
            // The receiver of the result may start the next errand.
            drop(on_list);
            tell(result);
        };
        // Without a thread, `run` is dropped, which removes the errand from the list.
        thread::Builder::new().name("mayfly-errand".to_owned()).spawn(run).map_err(Unfinished::Thread)?;
        Ok(signs)
    }

    fn running(&self) -> MutexGuard<'_, Vec<Arc<Signs>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An errand's entry in its list, until it ends.
struct OnList {
    errands: Errands,
    signs: Arc<Signs>,
}

impl Drop for OnList {
    fn drop(&mut self) {
        self.errands.running().retain(|other| !Arc::ptr_eq(other, &self.signs));
    }
}

/// An errand in progress.
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

    /// Waits while it makes progress, and calls `slow` once if one of its calls takes so long that other errands should
    /// start meanwhile.
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

    /// Waits for the result. Returns the errand itself once `stop` is true of it.
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

/// Runs many pieces of work, each on an errand of its own: `at_a_time` at once, not counting slow ones. Returns their
/// results in order, when all have ended or hang.
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
                // An errand that was given up and ends after all is not reported again.
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
    fn a_call_that_hangs_is_left_behind_and_named_and_may_finish_later() {
        let errands = Errands::with_patience(SHORT);
        let (answer, call) = hang();
        let (late, came) = mpsc::channel();
        let pending = errands.begin(LONG, move || {
            call();
            late.send(()).unwrap();
        });
        let told = pending.unwrap().wait().unwrap_err();
        assert!(matches!(&told, Unfinished::Unanswered { path, .. } if path == Path::new("/far/file")), "{told}");
        // No second thread is started for it.
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
        // A step is far shorter than the patience, on a busy machine, too; all together are longer.
        let patience = Duration::from_secs(1);
        let errands = Errands::with_patience(patience);
        let steps = move || {
            for _ in 0..10 {
                waiting_for(Path::new("/slow"), || thread::sleep(patience / 8));
            }
            thread::sleep(patience * 2);
            7
        };
        let mut told = false;
        assert_eq!(errands.begin(LONG, steps).unwrap().wait_or_tell(|| told = true).unwrap(), 7);
        let _ = told;
        let endless = Errands::default().begin(SHORT, || thread::sleep(LONG));
        assert!(matches!(endless.unwrap().wait(), Err(Unfinished::TooLong { .. })));
    }

    #[test]
    fn a_panic_is_reported() {
        let told = Errands::default().begin(LONG, || panic!("on purpose")).unwrap().wait();
        assert!(matches!(told, Err::<(), _>(Unfinished::Lost)));
        let all = [(Errands::default(), true), (Errands::default(), false)];
        let all = all.map(|(errands, fails)| (errands, move || assert!(!fails)));
        let results = each(all, 1, LONG);
        assert!(matches!(&results[..], [Err(Unfinished::Lost), Ok(())]), "{results:?}");
    }

    #[test]
    fn an_errand_that_hangs_delays_no_other() {
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
            (Errands::with_patience(SHORT * 40), work)
        });
        let works: Vec<_> = works.collect();
        let start = Instant::now();
        let results = each(works, 2, LONG);
        assert!(results[..20].iter().all(Result::is_err) && results[20..].iter().all(Result::is_ok));
        let last = finished.try_iter().max().unwrap();
        assert!(last - start < SHORT * 38, "the others waited for those that hang: {:?}", last - start);
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
