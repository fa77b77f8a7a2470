//! What all connections share: memory for input, and coarse time.
//!
//! # Input memory
//!
//! Bytes are read into a buffer that belongs to the thread and decoded there. A connection keeps
//! bytes of its own only when a frame is there in part, or when its publish waits for room. The
//! [`InputPool`] bounds the sum of those. A connection asks for the *whole* frame before it reads
//! on, so that two that hold half a frame each never wait for one another. What it had read before it
//! knew is *overdrawn*: it is counted apart, so that it stands in nobody's way, and while the pool is
//! tight everyone reads in small pieces, so that it does not grow. The first [`SMALL`] bytes of each
//! connection are free: everyone can always say something short. So the memory for input is at most
//! twice the limit and `SMALL` for each connection.
//!
//! # Time
//!
//! Deadlines of seconds need no timer of their own for each connection. One [`Clock`] ticks for
//! all; each connection publishes the tick at which it wants to be woken (0: never), and the ticker
//! looks at all of them. An idle subscriber has none and costs one load a tick.
//!
//! A server that did not run for a while (stopped, in a debugger, on a machine that was paused) must not
//! take its own absence for its peers' silence: what they said meanwhile lies unread in its sockets, and
//! deadlines are looked at first. So a tick that comes late counts for [`LATEST`] at the most.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use crate::{
    listener::Ceiling,
    sync::{contain, time::Instant},
};

/// Input that a connection may keep without asking the pool, in bytes.
pub(super) const SMALL: usize = 4 << 10;

/// Memory for input that is kept, shared by all connections.
#[derive(Debug)]
pub(super) struct InputPool {
    granted: Ceiling,
    overdrawn: AtomicUsize,
    /// Connections that wait for memory. Rarely any, so that `anyone` spares the lock.
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
        // SeqCst here, in `give_back`, and in both counts: one side says "I wait" and then looks
        // for memory, the other gives memory and then looks who waits. At least one sees the other.
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
            // A waker is other people's code: one that panics keeps no other from being woken.
            waiting.into_iter().for_each(|waker| contain(|| waker.wake()));
        }
    }
}

/// One connection's part of the [`InputPool`]. [`clear`](Self::clear) it before dropping it.
#[derive(Debug, Default)]
pub(super) struct InputShare {
    granted: usize,
    overdrawn: usize,
    /// Whether the pool has a waker of this connection, which it uses once.
    waits: bool,
}

impl InputShare {
    /// Accounts for `kept` bytes that are there, and asks for room for `wanted` in all. Says
    /// whether there is room; if not, the waker is woken once when there may be: call
    /// [`woken`](Self::woken) then, and this again.
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
            // All of it again, or none: who waits with a part in hand may be who others wait for.
            if self.granted > 0 {
                pool.give_back(std::mem::take(&mut self.granted));
            }
            pool.granted.take(wanted) || {
                if !std::mem::replace(&mut self.waits, true) {
                    pool.wait(waker());
                }
                // Again: memory that came back just before the wait was noted has woken nobody.
                pool.granted.take(wanted)
            }
        };
        if enough {
            self.granted = wanted;
        }
        self.overdraw(pool, kept.saturating_sub(self.granted));
        enough
    }

    /// The waker that the pool had was used.
    pub(super) fn woken(&mut self) {
        self.waits = false;
    }

    fn overdraw(&mut self, pool: &InputPool, bytes: usize) {
        // Relaxed: it only tells readers to be modest.
        pool.overdrawn.fetch_add(bytes, Ordering::Relaxed);
        pool.overdrawn.fetch_sub(std::mem::replace(&mut self.overdrawn, bytes), Ordering::Relaxed);
    }

    /// Gives everything back.
    pub(super) fn clear(&mut self, pool: &InputPool) {
        self.overdraw(pool, 0);
        if self.granted > 0 {
            pool.give_back(std::mem::take(&mut self.granted));
        }
    }
}

/// What one tick moves the clock on at the most, in periods: half of the shortest timeout, where that
/// decides the period.
const LATEST: u64 = 4;

/// Time in ticks in which the server ran; tick 0 is "never" in a deadline.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    period: Duration,
    now: AtomicU32,
    /// Periods since `began` at the last tick, the ones among them that do not count too.
    passed: AtomicU64,
}

impl Clock {
    /// A clock that is fine enough for `shortest`, the shortest timeout.
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

    /// Brings the clock up to date; there is one who calls this. From the time that has passed, not by
    /// counting calls, so that a ticker that is a little late does not make the clock late.
    pub(super) fn tick(&self) -> u32 {
        let passed = self.began.elapsed().as_nanos() / self.period.as_nanos();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let new = passed.saturating_sub(self.passed.swap(passed, Ordering::Relaxed)).min(LATEST);
        let now = self.now().saturating_add(new as u32);
        self.now.store(now, Ordering::Relaxed);
        now
    }

    /// The tick at which `timeout` has certainly passed; 0, never, for a timeout of zero.
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
        // What is there is accounted even above the limit.
        assert!(!b.settle(&pool, 4_500, 10_000, waker));
        assert_eq!(counts(), (9_000, 4_500));
        assert!(pool.is_tight());
        a.settle(&pool, 0, 0, waker);
        // And stands in nobody's way, its own least of all.
        assert!(b.settle(&pool, 4_500, 10_000, waker));
        assert_eq!(counts(), (10_000, 0));
        b.clear(&pool);
        assert_eq!(counts(), (0, 0));
    }

    #[test]
    fn whoever_waits_for_memory_is_woken() {
        use std::sync::{Arc, atomic::AtomicUsize};
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
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
        // As long as ten of its shortest timeouts.
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
