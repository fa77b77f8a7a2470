//! What all connections share: memory for input, and a coarse clock.
//!
//! # Input memory
//!
//! Bytes are read into a buffer that belongs to the thread and decoded there. A connection keeps bytes of its
//! own only when a frame has arrived in part, or when its publish waits for room. The [`InputPool`] bounds the
//! sum of these bytes. A connection asks for memory for the *whole* frame before it reads on, so that two
//! connections that each hold half a frame never wait for one another. What a connection had read before
//! it was refused memory is *overdrawn*. It is counted separately, so that it blocks no connection, and while
//! the pool is tight all connections read in small pieces, so that it does not grow. The first [`SMALL`] bytes
//! of each connection are free, so that every client can always send something short. In total, the memory for
//! input is at most twice the limit, plus `SMALL` for each connection.
//!
//! # Time
//!
//! Deadlines of seconds do not need a timer per connection. One [`Clock`] ticks for all; each connection
//! publishes the tick at which it wants to be woken (0: never), and the ticker checks all of them. An idle
//! subscriber has no deadline and costs one load per tick.
//!
//! A server that did not run for a while (stopped, in a debugger, on a machine that was paused) must not mistake
//! its own absence for its peers' silence: what they sent meanwhile is still unread in its sockets, and deadlines
//! are checked before sockets are read. So a late tick advances the clock by at most [`LATEST`].

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::listener::Ceiling;
use crate::sync::contain;

/// Input that a connection may keep without asking the pool, in bytes.
pub(super) const SMALL: usize = 4 << 10;

/// Memory for kept input, shared by all connections.
#[derive(Debug)]
pub(super) struct InputPool {
    granted: Ceiling,
    overdrawn: AtomicUsize,
    /// Connections that wait for memory. There is rarely one, and then `anyone` saves taking the lock.
    waiting: Mutex<Vec<Waker>>,
    anyone: AtomicBool,
}

impl InputPool {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            granted: Ceiling::new(limit),
            overdrawn: AtomicUsize::new(0),
            waiting: Mutex::default(),
            anyone: AtomicBool::new(false),
        }
    }

    /// Whether connections should read in small pieces, because what they read may have to be kept.
    pub(super) fn is_tight(&self) -> bool {
        self.granted.used() + self.overdrawn.load(Ordering::Relaxed) >= self.granted.limit()
    }

    fn wait(&self, waker: Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(waker);
        // SeqCst here, in `give_back`, and in both counts. One side announces that it waits and then checks
        // for memory; the other gives memory back and then checks for waiters. At least one sees the other.
        self.anyone.store(true, Ordering::SeqCst);
    }

    fn give_back(&self, amount: usize) {
        self.granted.give_back(amount);
        if self.anyone.load(Ordering::SeqCst) {
            let waiting = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                self.anyone.store(false, Ordering::SeqCst);
                std::mem::take(&mut *waiting)
            };
            // A waker is foreign code: if one panics, the others must still be woken.
            waiting.into_iter().for_each(|waker| contain(|| waker.wake()));
        }
    }
}

/// One connection's share of the [`InputPool`]. [`clear`](Self::clear) it before dropping it.
#[derive(Debug, Default)]
pub(super) struct InputShare {
    granted: usize,
    overdrawn: usize,
    /// Whether the pool was given a waker of this connection, which it uses once.
    waits: bool,
}

impl InputShare {
    /// Accounts for `kept` bytes that have arrived, and asks for room for `wanted` bytes in total. Returns
    /// whether there is room. If not, the waker is woken once, when there may be room: then call
    /// [`woken`](Self::woken), and this again.
    pub(super) fn settle(
        &mut self,
        pool: &InputPool,
        kept: usize,
        wanted: usize,
        waker: impl FnOnce() -> Waker,
    ) -> bool {
        let beyond = |bytes: usize| if bytes > SMALL { bytes } else { 0 };
        let (kept, wanted) = (beyond(kept), beyond(wanted.max(kept)));
        let enough = wanted == self.granted || {
            // All of it anew, or nothing: a connection that held a part while it waited could be the one that
            // the others wait for.
            if self.granted > 0 {
                pool.give_back(std::mem::take(&mut self.granted));
            }
            pool.granted.take(wanted) || {
                if !std::mem::replace(&mut self.waits, true) {
                    pool.wait(waker());
                }
                // Try again: memory that was given back just before the wait was noted has woken no waiter.
                pool.granted.take(wanted)
            }
        };
        if enough {
            self.granted = wanted;
        }
        self.overdraw(pool, kept.saturating_sub(self.granted));
        enough
    }

    /// Notes that the pool has used the waker.
    pub(super) fn woken(&mut self) {
        self.waits = false;
    }

    fn overdraw(&mut self, pool: &InputPool, bytes: usize) {
        // Relaxed: the count only makes connections read less at a time.
        pool.overdrawn.fetch_add(bytes, Ordering::Relaxed);
        pool.overdrawn.fetch_sub(std::mem::replace(&mut self.overdrawn, bytes), Ordering::Relaxed);
    }

    /// Gives all memory back.
    pub(super) fn clear(&mut self, pool: &InputPool) {
        self.overdraw(pool, 0);
        if self.granted > 0 {
            pool.give_back(std::mem::take(&mut self.granted));
        }
    }
}

/// The most periods by which one tick advances the clock: half of the shortest timeout, where that timeout
/// determines the period.
const LATEST: u64 = 4;

/// The time that the server has run, in ticks; tick 0 is "never" in a deadline.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    period: Duration,
    now: AtomicU32,
    /// Periods from `began` to the last tick, including those that do not count.
    passed: AtomicU64,
}

impl Clock {
    /// A clock with a resolution for `shortest`, the shortest timeout.
    pub(super) fn new(shortest: Duration) -> Self {
        let period = (shortest / 8).clamp(Duration::from_millis(5), Duration::from_millis(500));
        let (now, passed) = (AtomicU32::new(1), AtomicU64::new(0));
        Self { began: Instant::now(), period, now, passed }
    }

    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// The current tick, as of the last [`tick`](Self::tick). A plain load.
    pub(super) fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// Brings the clock up to date. There is a single caller. The tick is computed from the time that has passed,
    /// not by counting calls, so that a ticker that is a little late does not make the clock late.
    pub(super) fn tick(&self) -> u32 {
        let passed = self.began.elapsed().as_nanos() / self.period.as_nanos();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let new = passed.saturating_sub(self.passed.swap(passed, Ordering::Relaxed)).min(LATEST);
        let now = self.now().saturating_add(new as u32);
        self.now.store(now, Ordering::Relaxed);
        now
    }

    /// The tick at which `timeout` has certainly passed; 0 (never) for a timeout of zero.
    pub(super) fn after(&self, timeout: Duration) -> u32 {
        if timeout.is_zero() {
            return 0;
        }
        let ticks = timeout.as_nanos().div_ceil(self.period.as_nanos()) + 1;
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        self.now().saturating_add(ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_input_is_free_and_large_waits_for_its_turn() {
        let pool = InputPool::new(10_000);
        let waker = || Waker::noop().clone();
        let (mut a, mut b) = (InputShare::default(), InputShare::default());
        assert!(a.settle(&pool, 10, SMALL, waker));
        let counts = || (pool.granted.used(), pool.overdrawn.load(Ordering::Relaxed));
        assert_eq!(counts(), (0, 0));
        assert!(a.settle(&pool, 10, 9_000, waker));
        assert!(!b.settle(&pool, 10, 5_000, waker));
        assert!(!pool.is_tight());
        // Bytes that have arrived are counted even above the limit.
        assert!(!b.settle(&pool, 4_500, 10_000, waker));
        assert_eq!(counts(), (9_000, 4_500));
        assert!(pool.is_tight());
        a.settle(&pool, 0, 0, waker);
        // They block no connection, least of all their own.
        assert!(b.settle(&pool, 4_500, 10_000, waker));
        assert_eq!(counts(), (10_000, 0));
        b.clear(&pool);
        assert_eq!(counts(), (0, 0));
    }

    #[test]
    fn whoever_waits_for_memory_is_woken() {
        use std::sync::Arc;
        use std::sync::atomic::AtomicUsize;
        struct CountingWaker(AtomicUsize);
        impl std::task::Wake for CountingWaker {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(CountingWaker(AtomicUsize::new(0)));
        let waker = || Waker::from(count.clone());
        let pool = InputPool::new(10_000);
        let (mut a, mut b) = (InputShare::default(), InputShare::default());
        assert!(a.settle(&pool, 0, 10_000, waker));
        assert!(!b.settle(&pool, 0, 10_000, waker));
        assert!(!b.settle(&pool, 0, 10_000, waker));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        a.clear(&pool);
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "once, however often it asked");
        b.woken();
        assert!(b.settle(&pool, 0, 10_000, waker));
    }

    #[test]
    fn a_server_that_did_not_run_has_not_waited() {
        let clock = Clock::new(Duration::from_millis(40));
        let due = clock.after(Duration::from_millis(40));
        // Ten times the shortest timeout.
        std::thread::sleep(Duration::from_millis(400));
        let now = clock.tick();
        assert!(now > 1 && now <= 1 + LATEST as u32 && now < due, "{now}, due at {due}");
        assert!(clock.tick() <= now + LATEST as u32, "what was left out is not made up for");
    }

    #[test]
    fn the_clock_never_is_early() {
        let clock = Clock::new(Duration::from_millis(80));
        assert_eq!(clock.after(Duration::ZERO), 0);
        let asked = Duration::from_millis(25);
        let (began, due) = (Instant::now(), clock.after(asked));
        while clock.tick() < due {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(began.elapsed() >= asked);
    }
}
