//! Some logs of all kinds, and what a naive log would say of each: which value is at which offset.

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Wake;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use psa::*;

use crate::ledger::{Ledger, Value};
use crate::watchdog::panic_as_planned;

/// Runs `$then` with `$log`, the log of a topic, of whichever kind it is.
macro_rules! with_log {
    ($topic:expr, $log:ident => $then:expr) => {
        match &$topic.log {
            crate::programs::world::Handle::Shared($log) => $then,
            crate::programs::world::Handle::Exclusive($log) => $then,
        }
    };
}
pub(super) use with_log;

pub(super) enum Handle {
    Shared(Log<Value>),
    Exclusive(Log<Value, Exclusive>),
}

/// One log, and what is known of it.
pub(super) struct Topic {
    pub(super) log: Handle,
    /// The only one of an exclusive log, while nobody has it.
    pub(super) publisher: Mutex<Option<Publisher<Value>>>,
    pub(super) evicts: bool,
    pub(super) retention: Retention,
    /// Bytes.
    limit: Option<u64>,
    has_budget: bool,
    /// What each offset says. Whoever learns it first enters it.
    book: Mutex<HashMap<u64, u64>>,
    /// Something was forgotten that keeps the log for ever.
    pub(super) is_kept: AtomicBool,
    /// Something was forgotten that stands in the log for ever.
    pub(super) is_pinned: AtomicBool,
    /// Some lease may have begun after what was asked for, whoever holds it now.
    pub(super) has_late_lease: AtomicBool,
}

impl Topic {
    /// What is at this offset is this, now and for ever.
    pub(super) fn enter(&self, offset: u64, says: u64) {
        let mut book = self.book.lock();
        let known = *book.entry(offset).or_insert(says);
        assert_eq!(known, says, "offset {offset} says one thing here and another there");
    }

    pub(super) fn stats(&self) -> Stats {
        with_log!(self, log => log.stats())
    }

    pub(super) fn subscribe(&self, start: Start) -> Result<Cursor<Value>, SubscribeError> {
        with_log!(self, log => log.subscribe(start))
    }
}

pub(super) struct World {
    pub(super) topics: Vec<Topic>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) budget: Arc<Budget>,
    /// Batches that somebody keeps, of which topic, and the offset of the first record.
    held: Mutex<Vec<(usize, u64, Batch<'static, Value>)>>,
    /// Draws what code of the user does that the log calls.
    mischief: Mutex<Rng>,
    /// How often such code did something.
    pub(super) calls: AtomicU64,
    /// How many threads are in such code.
    inside: AtomicU64,
    /// No panics, for programs that count memory: a panic that is contained leaks its payload.
    pub(super) is_calm: bool,
}

const TOPICS: usize = 6;
pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

impl World {
    pub(super) fn new(rng: &mut Rng, is_calm: bool) -> Arc<World> {
        let small = || Log::<Value>::builder().segment_records(4);
        let segment = small().build().unwrap().stats().live_bytes;
        let budget = Arc::new(Budget::new(segment * rng.u64(24..60)));
        Arc::new_cyclic(|world: &Weak<World>| {
            let topics = (0..TOPICS).map(|number| {
                let records = rng.usize(1..8);
                let mut builder = Log::<Value>::builder().segment_records(records);
                builder = builder.stamp_every(1 << rng.u32(..4));
                let segment = builder.clone().build().unwrap().stats().live_bytes;
                let limit = (rng.u8(..3) > 0).then(|| segment * rng.u64(2..9));
                let has_budget = rng.u8(..3) == 0;
                let overflow = [Overflow::Block, Overflow::Reject, Overflow::Evict][rng.usize(..3)];
                let retention = match rng.u8(..8) {
                    0 => Retention::Records(rng.u64(..20)),
                    1 => Retention::Bytes(rng.u64(..2000)),
                    2 => Retention::Age(Duration::from_micros(rng.u64(..2000))),
                    3 if limit.is_some() => Retention::Everything,
                    _ => Retention::Nothing,
                };
                builder =
                    builder.pool_segments(rng.usize(..3)).retention(retention).overflow(overflow);
                if let Some(limit) = limit {
                    builder = builder.memory_limit(limit);
                }
                if has_budget {
                    builder = builder.budget(budget.clone());
                }
                if rng.bool() {
                    builder = builder.observer(Arc::new(Mischief::of(world.clone())));
                }
                let (log, publisher) = if number == 0 {
                    let (publisher, log) = builder.build_exclusive().unwrap();
                    (Handle::Exclusive(log), Some(publisher))
                } else {
                    (Handle::Shared(builder.build().unwrap()), None)
                };
                Topic {
                    log,
                    publisher: Mutex::new(publisher),
                    evicts: overflow == Overflow::Evict && (limit.is_some() || has_budget),
                    retention,
                    limit,
                    has_budget,
                    book: Mutex::default(),
                    is_kept: AtomicBool::new(false),
                    is_pinned: AtomicBool::new(false),
                    has_late_lease: AtomicBool::new(false),
                }
            });
            World {
                topics: topics.collect(),
                ledger: Arc::default(),
                budget: budget.clone(),
                held: Mutex::default(),
                mischief: Mutex::new(rng.fork()),
                calls: AtomicU64::new(0),
                inside: AtomicU64::new(0),
                is_calm,
            }
        })
    }

    /// Keeps a batch, if there are not too many.
    pub(super) fn keep(&self, topic: usize, batch: Batch<'static, Value>) {
        let mut held = self.held.lock();
        held.push((topic, batch.first_offset(), batch));
        let oldest = (held.len() > 12).then(|| held.remove(0));
        drop(held);
        // Outside the lock: records' destructors use the world.
        calmly(|| drop(oldest));
    }

    /// Looks at a batch that is kept, and perhaps lets go of it.
    fn look_at_what_is_kept(&self, rng: &mut Rng) {
        let (topic, first, batch) = {
            let mut held = self.held.lock();
            if held.is_empty() {
                return;
            }
            let any = rng.usize(..held.len());
            if rng.bool() { held.swap_remove(any) } else { held[any].clone() }
        };
        assert_eq!(batch.first_offset(), first);
        for (offset, value) in batch.iter() {
            value.check();
            self.topics[topic].enter(offset, value.says);
        }
        calmly(|| drop(batch));
    }

    fn draw(&self) -> Rng {
        self.mischief.lock().fork()
    }

    /// A value that may do something at its end.
    pub(super) fn value(self: &Arc<World>, rng: &mut Rng) -> Value {
        let value = Value::new(&self.ledger, rng.u64(..));
        if rng.u8(..4) > 0 {
            return value;
        }
        let mischief = Mischief::of(Arc::downgrade(self));
        value.at_end(move || mischief.happens())
    }

    /// What must hold whenever nobody is in a call: in a program of one thread after each step.
    pub(super) fn check_at_rest(&self) {
        for (number, topic) in self.topics.iter().enumerate() {
            // The library's own thread may be in a waker at any moment, and so in a log.
            let look = || {
                let (calls, inside) = (self.calls.load(SeqCst), self.inside.load(SeqCst));
                let stats = topic.stats();
                let disturbed = inside > 0 || self.inside.load(SeqCst) > 0;
                (stats, disturbed || self.calls.load(SeqCst) != calls)
            };
            let (mut stats, mut disturbed) = look();
            while stats.unlinked_segments > stats.held_segments && disturbed {
                std::thread::yield_now();
                (stats, disturbed) = look();
            }
            assert_eq!(stats.unlinked_segments, stats.held_segments, "topic {number}: {stats:?}");
        }
        self.check_memory();
    }

    fn check_memory(&self) {
        for (number, topic) in self.topics.iter().enumerate() {
            let stats = topic.stats();
            let memory = stats.live_bytes + stats.pooled_bytes;
            let limit = topic.limit.unwrap_or(u64::MAX);
            assert!(memory <= limit, "topic {number}: {memory} of {limit}: {stats:?}");
            assert!(!topic.has_budget || memory <= self.budget.used());
        }
        assert!(self.budget.used() <= self.budget.limit());
        self.ledger.assert_nothing_is_wrong();
    }

    /// What must hold when all that was not forgotten is gone, but the logs themselves. The library's own thread may
    /// still be in a waker, which uses a log: so this waits until it holds. If that takes for ever, the watchdog reports
    /// it.
    pub(super) fn check_before_the_end(&self) {
        loop {
            // Destructors may put something there.
            let held = std::mem::take(&mut *self.held.lock());
            if held.is_empty() {
                break;
            }
            calmly(|| drop(held));
        }
        for topic in &self.topics {
            until(|| {
                with_log!(topic, log => {
                    NAMES.iter().for_each(|name| _ = log.end_lease(name));
                    log.maintain();
                });
                let stats = topic.stats();
                let is_free = topic.is_pinned.load(Ordering::Relaxed)
                    || (stats.cursors, stats.leases) == (0, 0)
                        && stats.slowest.is_none()
                        && (topic.retention != Retention::Nothing || stats.live_segments == 1);
                is_free && stats.unlinked_segments == 0
            });
        }
        self.check_memory();
    }

    /// Ends the world, and says whether all went with it that should.
    pub(super) fn end(mut self: Arc<World>) {
        // A waker in the library's own thread may still have it, and at any moment.
        let World { topics, ledger, budget, .. } = loop {
            match Arc::try_unwrap(self) {
                Ok(world) => break world,
                Err(world) => self = world,
            }
            std::thread::yield_now();
        };
        let is_kept = |topic: &Topic| topic.is_kept.load(Ordering::Relaxed);
        let (any_kept, any_kept_with_budget) =
            (topics.iter().any(is_kept), topics.iter().any(|t| is_kept(t) && t.has_budget));
        drop(topics);
        let (all, left) = ledger.left();
        assert!(any_kept || left == 0, "{left} of {all} values are left");
        assert!(any_kept_with_budget || budget.used() == 0, "{budget:?}");
        ledger.assert_nothing_is_wrong();
    }
}

fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}

/// Code of the user that a log calls: records' destructors, observers, wakers. Panics, or uses a log.
pub(super) struct Mischief(Weak<World>, AtomicU64);

thread_local! {
    static DEPTH: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    static IS_CALM: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs something in which no code of the user panics: where it is not the log that calls it, but the program.
pub(super) fn calmly<U>(f: impl FnOnce() -> U) -> U {
    let before = IS_CALM.replace(true);
    let done = f();
    IS_CALM.set(before);
    done
}

impl Mischief {
    pub(super) fn of(world: Weak<World>) -> Mischief {
        Mischief(world, AtomicU64::new(0))
    }

    pub(super) fn happens(&self) {
        // Not the last one: the world does not end in here.
        let Some(world) = self.0.upgrade() else { return };
        if DEPTH.get() > 2 {
            return;
        }
        DEPTH.set(DEPTH.get() + 1);
        world.inside.fetch_add(1, SeqCst);
        let mut rng = world.draw();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.calls.fetch_add(1, SeqCst);
            meddle(&world, &mut rng);
        }));
        world.inside.fetch_sub(1, SeqCst);
        DEPTH.set(DEPTH.get() - 1);
        if let Err(panic) = done {
            // It would be contained.
            let what = panic.downcast_ref::<String>().cloned();
            world.ledger.wrong(what.unwrap_or_else(|| "a panic in a call back".to_owned()));
        }
        let panics = !world.is_calm && !IS_CALM.get() && rng.u8(..8) == 0;
        drop(world);
        if panics {
            panic_as_planned();
        }
    }
}

/// Uses some log in some way that does not wait.
pub(super) fn meddle(world: &Arc<World>, rng: &mut Rng) {
    let topic = rng.choice(&world.topics).expect("there are some");
    match rng.u8(..9) {
        8 => world.look_at_what_is_kept(rng),
        0 | 1 => {
            if let Handle::Shared(log) = &topic.log {
                let value = world.value(rng);
                let says = value.says;
                match log.try_append(value) {
                    Ok(offset) => topic.enter(offset, says),
                    Err(refused) => calmly(|| drop(refused)),
                }
            }
        }
        2 => {
            let Ok(mut cursor) = topic.subscribe(Start::Earliest) else { return };
            let mut next = cursor.offset();
            for _ in 0..3 {
                let seen = cursor.try_next(|batch| {
                    assert_eq!(batch.first_offset(), next);
                    for (offset, value) in batch.iter() {
                        value.check();
                        topic.enter(offset, value.says);
                    }
                    next = batch.next_offset();
                });
                if let Err(ReadError::Lagged(lagged)) = seen {
                    assert_eq!(lagged.first_missed, next);
                    next += lagged.missed;
                }
            }
        }
        3 => with_log!(topic, log => drop((log.stats(), log.leases(), log.lease_info("a")))),
        4 => with_log!(topic, log => drop(log.picture(rng.usize(3..9)))),
        5 => {
            let options =
                LeaseOptions { ttl: Duration::ZERO, start: Start::Earliest, take_over: rng.bool() };
            with_log!(topic, log => drop(log.lease("called back", options)));
        }
        6 => with_log!(topic, log => drop(log.clone())),
        _ => with_log!(topic, log => drop(log.maintain())),
    }
}

impl Observer for Mischief {
    fn on_event(&self, _: Event) {
        // Each event would be too much: they cause each other.
        if self.1.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
            self.happens();
        }
    }
}

impl Wake for Mischief {
    fn wake(self: Arc<Self>) {
        self.happens();
    }
}

impl Drop for Mischief {
    fn drop(&mut self) {
        // The log drops wakers in the middle of things. So does the program, hence calmly.
        if self.1.load(Ordering::Relaxed) == 0 {
            calmly(|| self.happens());
        }
    }
}
