//! The disk that all stored topics share: a limit for their files together, and what stays free on the file system.
//!
//! Each topic has a *share* of the limit: what its files take, and what its leases and its end may still need besides. A
//! share is never smaller than what the topic needs to go on: the file that is written and the next one can then follow each
//! other for ever. It is taken when the topic is created, or the topic is not created. A share grows before a file is laid
//! out, and shrinks after one was given up. So all files together stay below the limit, and no topic can take from another
//! what that one needs.
//!
//! Nothing is deleted to get below the limit. If more is there at the start than the limit allows, all of it stays, and
//! nothing grows.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::error::PublishError;
use super::pressure::{Lines, Pressure};

/// What stays free on a file system if nothing else was asked for: one part of this many.
const FREE_PART: u64 = 20;
/// But not more.
const MOST_FREE: u64 = 1 << 30;

/// The limits of a broker's folder.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskLimits {
    /// All files together; `None` for no limit.
    pub(crate) files: Option<u64>,
    /// What stays free on the file system; `None` for a part of it.
    pub(crate) kept_free: Option<u64>,
}

/// A file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) size: u64,
    pub(crate) free: u64,
}

/// How much of the disk stored topics take, and how much they may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUse {
    /// Bytes of the limit that are taken: by the topics' files, by what is reserved so that each of them can go on, and by
    /// what else lies in the folder.
    pub taken: u64,
    /// The limit of all files together, if there is one.
    pub limit: Option<u64>,
    /// Bytes that the file system has; `None` if it does not say.
    pub size: Option<u64>,
    /// Bytes that are free on it.
    pub free: Option<u64>,
    /// Bytes of these that stored topics leave free.
    pub kept_free: u64,
}

/// See the [module's documentation](self).
pub(crate) struct DiskBudget {
    limits: DiskLimits,
    /// Asks the file system.
    space: Box<dyn Fn() -> Option<Space> + Send + Sync>,
    counts: Mutex<Counts>,
    pub(crate) lines: Lines,
}

#[derive(Default)]
struct Counts {
    taken: u64,
    /// Topics that wait until others give something back.
    waiting: Vec<Waker>,
}

impl DiskBudget {
    pub(crate) fn new(limits: DiskLimits, folder: &Path) -> Arc<Self> {
        let folder = folder.to_owned();
        Self::over(limits, move || space_of(&folder))
    }

    /// Over a file system that says this of itself.
    pub(super) fn over(
        limits: DiskLimits,
        space: impl Fn() -> Option<Space> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (counts, lines) = Default::default();
        Arc::new(DiskBudget { limits, space: Box::new(space), counts, lines })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limit(&self) -> u64 {
        self.limits.files.unwrap_or(u64::MAX)
    }

    /// A share for a topic that does not exist yet. `None` if there is no room for it.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Arc<Share>> {
        let share = Share { budget: self.clone(), taken: 0.into(), wanted: 0.into(), beside: 0 };
        share.grow(bytes).then(|| Arc::new(share))
    }

    /// The share of a topic that is there, whatever the limit says, with what lies in its folder besides.
    pub(super) fn share(self: &Arc<Self>, bytes: u64, beside: u64) -> Arc<Share> {
        let all = bytes + beside;
        self.lock().taken += all;
        let (budget, taken) = (self.clone(), all.into());
        Arc::new(Share { budget, taken, wanted: 0.into(), beside })
    }

    /// Counts what belongs to no topic that can be used.
    pub(super) fn count_other(&self, bytes: u64) {
        self.lock().taken += bytes;
    }

    /// Whether the file system has room for so many bytes more.
    fn check_space(&self, more: u64) -> Result<(), PublishError> {
        let Some(space) = (self.space)() else { return Ok(()) };
        let kept = self.kept_free(space);
        if space.free >= kept.saturating_add(more) {
            return Ok(());
        }
        let free = space.free;
        let why = format!(
            "{free} bytes of the file system are free, and {kept} stay so (limit.disk_free)"
        );
        Err(PublishError::DiskFull { why })
    }

    fn kept_free(&self, space: Space) -> u64 {
        self.limits.kept_free.unwrap_or_else(|| (space.size / FREE_PART).min(MOST_FREE))
    }

    pub(crate) fn look(&self) -> DiskUse {
        let space = (self.space)();
        DiskUse {
            taken: self.lock().taken,
            limit: self.limits.files,
            size: space.map(|space| space.size),
            free: space.map(|space| space.free),
            kept_free: space.map_or(0, |space| self.kept_free(space)),
        }
    }
}

impl DiskUse {
    /// Whether more is taken than the limit allows, as after it was lowered.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.taken > limit)
    }

    /// How near the files are to their limit.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.limit.map_or(Pressure::None, |limit| Pressure::of(self.taken, limit))
    }

    /// How near the file system is to having no more free than is left free. Never [`Pressure::High`]: much of a file system is
    /// often used.
    #[must_use]
    pub fn space_pressure(&self) -> Pressure {
        let (used, most) = self.space();
        match Pressure::of(used, most) {
            Pressure::Critical => Pressure::Critical,
            _ => Pressure::None,
        }
    }

    /// What is used of the file system, and what may be.
    pub(crate) fn space(&self) -> (u64, u64) {
        let (Some(size), Some(free)) = (self.size, self.free) else { return (0, 1) };
        (size.saturating_sub(free), size.saturating_sub(self.kept_free))
    }
}

/// One topic's part of the limit.
pub(crate) struct Share {
    budget: Arc<DiskBudget>,
    /// Changed by the topic's writer alone, under the budget's lock.
    taken: AtomicU64,
    /// How large the share was to become when that was refused.
    wanted: AtomicU64,
    /// Files in the topic's folder that are not its log's.
    beside: u64,
}

impl Share {
    /// A share of a disk without limits.
    pub(super) fn unlimited() -> Arc<Self> {
        DiskBudget::over(DiskLimits::default(), || None).share(0, 0)
    }

    /// Makes the share at least as large as this. False if there is no room.
    fn grow(&self, bytes: u64) -> bool {
        let bytes = bytes + self.beside;
        // Relaxed, here and below: only the writer changes it, which is who asks.
        let before = self.taken.load(Ordering::Relaxed);
        if bytes <= before {
            return true;
        }
        let mut counts = self.budget.lock();
        let fits = counts.taken.saturating_add(bytes - before) <= self.budget.limit();
        if fits {
            counts.taken += bytes - before;
            self.taken.store(bytes, Ordering::Relaxed);
        } else {
            self.wanted.store(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Makes room for files of `bytes` in all, of which `more` are to be laid out.
    pub(super) fn take(&self, bytes: u64, more: u64) -> Result<(), PublishError> {
        if more > 0 {
            self.budget.check_space(more)?;
        }
        if self.grow(bytes) {
            return Ok(());
        }
        Err(PublishError::ServerDiskLimit { limit: self.budget.limit() })
    }

    /// Whether the file system has room for so many bytes more.
    pub(super) fn check_space(&self, more: u64) -> Result<(), PublishError> {
        self.budget.check_space(more)
    }

    /// Whether to log a line about this topic. Many topics may have one at the same time.
    pub(super) fn may_log(&self) -> bool {
        self.budget.lines.take()
    }

    /// Makes the share at most as large as this, and wakes those who wait for some of it.
    pub(super) fn shrink(&self, bytes: u64) {
        let bytes = bytes + self.beside;
        let before = self.taken.load(Ordering::Relaxed);
        if bytes < before {
            self.taken.store(bytes, Ordering::Relaxed);
            self.give_back(before - bytes);
        }
    }

    /// The topic is gone, with its files; or they could not be removed, and stay until the next start.
    pub(super) fn end(&self, is_removed: bool) {
        let before = self.taken.swap(0, Ordering::Relaxed);
        if is_removed {
            self.give_back(before);
        }
    }

    fn give_back(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let waiting = {
            let mut counts = self.budget.lock();
            counts.taken -= bytes;
            std::mem::take(&mut counts.waiting)
        };
        waiting.into_iter().for_each(|waker| crate::sync::contain(|| waker.wake()));
    }

    /// After a refusal: wakes `waker` once somebody has given something back. False if that has happened already, and there
    /// is room.
    pub(super) fn wait(&self, waker: &Waker) -> bool {
        let more = self.wanted.load(Ordering::Relaxed) - self.taken.load(Ordering::Relaxed);
        let mut counts = self.budget.lock();
        if counts.taken.saturating_add(more) <= self.budget.limit() {
            return false;
        }
        if !counts.waiting.iter().any(|known| known.will_wake(waker)) {
            counts.waiting.push(waker.clone());
        }
        true
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.end(true);
    }
}

/// Bytes of all files in a folder and below it. What cannot be looked at counts nothing.
pub(super) fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// What the file system of a folder says of itself.
fn space_of(folder: &Path) -> Option<Space> {
    #[cfg(unix)]
    {
        let said = rustix::fs::statvfs(folder).ok()?;
        // Free for this user: some is often kept for root.
        let bytes = |blocks: u64| blocks.saturating_mul(said.f_frsize);
        Some(Space { size: bytes(said.f_blocks), free: bytes(said.f_bavail) })
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn budget(files: u64) -> Arc<DiskBudget> {
        let limits = DiskLimits { files: Some(files), kept_free: None };
        DiskBudget::over(limits, || None)
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_shares_stay_below_the_limit_and_who_waits_is_woken() {
        let budget = budget(100);
        let first = budget.reserve(40).unwrap();
        let second = budget.reserve(40).unwrap();
        assert!(budget.reserve(21).is_none());
        assert_eq!(budget.look().taken, 80, "what was refused took nothing");
        let refused = PublishError::ServerDiskLimit { limit: 100 };
        assert_eq!(first.take(61, 0), Err(refused.clone()));
        assert_eq!(first.take(60, 0), Ok(()));
        assert_eq!(second.take(50, 0), Err(refused));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        assert!(second.wait(&waker) && second.wait(&waker));
        first.shrink(70);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "it gave nothing back");
        first.shrink(51);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "once");
        assert!(second.wait(&waker), "not enough");
        first.shrink(50);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert!(!second.wait(&waker), "there is room before it waits");
        assert_eq!(second.take(50, 0), Ok(()));
        drop(first);
        second.end(false);
        assert_eq!(budget.look().taken, 50, "its files are still there");
    }

    #[test]
    fn what_is_there_stays_and_nothing_grows_above_the_limit() {
        let budget = budget(100);
        let there = budget.share(150, 30);
        budget.count_other(5);
        assert_eq!(budget.look().taken, 185);
        assert_eq!(budget.look().pressure(), Pressure::Critical);
        assert!(budget.reserve(1).is_none());
        assert_eq!(there.take(150, 0), Ok(()), "what it has");
        assert!(there.take(151, 0).is_err());
        there.shrink(40);
        assert!(there.take(65, 0).is_ok() && there.take(66, 0).is_err());
        drop(there);
        assert_eq!(budget.look().taken, 5);
    }

    #[test]
    fn some_of_the_file_system_stays_free() {
        let free = Arc::new(AtomicU64::new(2_000));
        let over = |kept_free, size| {
            let free = free.clone();
            let limits = DiskLimits { files: None, kept_free };
            let space = move || Some(Space { size, free: free.load(Ordering::Relaxed) });
            DiskBudget::over(limits, space)
        };
        let budget = over(Some(500), 10_000);
        let share = budget.reserve(1 << 40).expect("there is no limit for files");
        assert_eq!(share.take(1, 1_500), Ok(()));
        let Err(PublishError::DiskFull { why }) = share.take(1, 1_501) else { panic!("it fits") };
        assert!(
            why.starts_with("2000 bytes of the file system are free, and 500 stay so"),
            "{why}"
        );
        assert_eq!(share.take(1, 0), Ok(()), "no file is laid out");
        free.store(400, Ordering::Relaxed);
        assert!(share.check_space(1).is_err());
        assert_eq!(budget.look().space_pressure(), Pressure::Critical);
        free.store(9_000, Ordering::Relaxed);
        assert_eq!(budget.look().space_pressure(), Pressure::None);
        assert_eq!(over(None, 10_000).look().kept_free, 500);
        assert_eq!(over(None, 1 << 50).look().kept_free, MOST_FREE);
        assert!(over(Some(0), 10_000).share(0, 0).take(1, 9_000).is_ok());
    }

    #[test]
    fn a_folder_says_what_it_takes_and_what_is_free() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), [0; 100]).unwrap();
        fs::write(dir.path().join("c"), [0; 23]).unwrap();
        assert_eq!(bytes_below(dir.path()), 123);
        #[cfg(unix)]
        {
            let space = space_of(dir.path()).unwrap();
            assert!(space.size >= space.free && space.size > 0);
        }
    }
}
