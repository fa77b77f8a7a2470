//! Programs of one thread: everything is exact, after each step.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use fastrand::Rng;
use psa::*;

use super::reader::{Reader, waker};
use super::world::{Handle, Topic, World, calmly, meddle};
use crate::allocator::in_use;
use crate::ledger::Value;
use crate::watchdog::{Progress, panic_as_planned, watched, watched_alone};

/// What a program may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// Anything.
    None,
    /// Nothing is forgotten, and no panic is contained: all memory comes back.
    Calm,
}

pub(super) fn seed() -> u64 {
    let given = std::env::var("PSA_TEST_SEED").ok();
    given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("PSA_TEST_SEED: a number"))
}

pub(super) fn rounds(usual: u64) -> u64 {
    let given = std::env::var("PSA_TEST_ROUNDS").ok();
    given.map_or(usual, |rounds| rounds.parse().expect("PSA_TEST_ROUNDS: a number"))
}

/// Runs `program` once for each seed from the given one on. Says which seed failed.
pub(super) fn each_seed(usual: u64, progress: &Progress, mut program: impl FnMut(u64)) {
    let first = seed();
    for round in 0..rounds(usual) {
        let seed = first.wrapping_add(round);
        progress.at(format!("round {round}: PSA_TEST_SEED={seed}"));
        /// Also where the program panics.
        struct Says(u64);
        impl Drop for Says {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    eprintln!("failed with PSA_TEST_SEED={}", self.0);
                }
            }
        }
        let says = Says(seed);
        program(seed);
        drop(says);
    }
}

/// Appends in one of many ways.
pub(super) fn append(world: &Arc<World>, rng: &mut Rng, forgets: bool) {
    let topic = rng.choice(&world.topics).expect("there are some");
    match &topic.log {
        Handle::Shared(log) => match rng.u8(..4) {
            0 | 1 => one(topic, world.value(rng), |value| log.try_append(value)),
            2 => batch(world, topic, rng, |values| log.try_append_batch(values)),
            _ => {
                let value = world.value(rng);
                let (id, says) = (value.id, value.says);
                let done = poll_and_leave(world, topic, rng, forgets, id, log.append(value));
                settle(topic, done, says);
            }
        },
        Handle::Exclusive(_) => {
            let Some(mut publisher) = topic.publisher.lock().take() else { return };
            match rng.u8(..16) {
                0..8 => one(topic, world.value(rng), |value| publisher.try_append(value)),
                8..11 => batch(world, topic, rng, |values| publisher.try_append_batch(values)),
                11..15 => {
                    let value = world.value(rng);
                    let (id, says) = (value.id, value.says);
                    let future = publisher.append(value);
                    settle(topic, poll_and_leave(world, topic, rng, forgets, id, future), says);
                }
                // Once in a while it goes, and the log is closed.
                _ if rng.u8(..8) == 0 => return,
                _ => assert_eq!(publisher.next_offset(), topic.stats().next_offset),
            }
            *topic.publisher.lock() = Some(publisher);
        }
    }
}

fn settle(topic: &Topic, done: Option<Result<u64, Refused<Value>>>, says: u64) {
    match done {
        Some(Ok(offset)) => topic.enter(offset, says),
        refused => calmly(|| drop(refused)),
    }
}

fn one(topic: &Topic, value: Value, put: impl FnOnce(Value) -> Result<u64, Refused<Value>>) {
    let says = value.says;
    match put(value) {
        Ok(offset) => topic.enter(offset, says),
        Err(refused) => {
            assert_eq!(refused.value.says, says);
            refused.value.check();
            calmly(|| drop(refused));
        }
    }
}

/// A batch from an iterator that panics once in a while.
fn batch(
    world: &Arc<World>,
    topic: &Topic,
    rng: &mut Rng,
    put: impl FnOnce(Vec<Value>) -> Result<std::ops::Range<u64>, Refused<Vec<Value>>>,
) {
    let values: Vec<_> = (0..rng.usize(..12)).map(|_| world.value(rng)).collect();
    let said: Vec<_> = values.iter().map(|value| value.says).collect();
    let next = topic.stats().next_offset;
    if rng.u8(..4) == 0 {
        // The caller's iterator ends before anything is reserved.
        let log = &topic.log;
        let mut left = values.into_iter().inspect(|value| {
            if value.says % 5 == 0 {
                panic_as_planned();
            }
        });
        let appended = calmly(|| {
            let appended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match log {
                Handle::Shared(log) => log.try_append_batch(&mut left).ok(),
                Handle::Exclusive(_) => put(left.by_ref().collect()).ok(),
            }));
            drop(left);
            appended
        });
        match appended {
            Ok(Some(offsets)) => {
                offsets.zip(said).for_each(|(offset, says)| topic.enter(offset, says));
            }
            Ok(None) => {}
            Err(_) => assert!(topic.stats().next_offset >= next),
        }
        return;
    }
    match put(values) {
        Ok(offsets) => {
            assert_eq!(offsets.end - offsets.start, said.len() as u64);
            offsets.zip(said).for_each(|(offset, says)| topic.enter(offset, says));
        }
        Err(refused) => {
            assert!(refused.value.iter().map(|value| value.says).eq(said));
            calmly(|| drop(refused));
        }
    }
}

/// Polls a future that appends a few times or never, and then drops it, forgets it, or has its result.
fn poll_and_leave<T>(
    world: &Arc<World>,
    topic: &Topic,
    rng: &mut Rng,
    forgets: bool,
    id: usize,
    future: impl Future<Output = T>,
) -> Option<T> {
    if forgets && rng.u8(..4) == 0 {
        // On the heap, so that it stays where it is, as it is for ever.
        let mut future = Box::pin(future);
        for _ in 0..rng.u8(..3) {
            let waker = waker(world, rng);
            if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(done);
            }
        }
        world.ledger.forget(id);
        // The future of an exclusive publisher that waits has a handle of its own.
        if matches!(topic.log, Handle::Exclusive(_)) {
            topic.is_kept.store(true, Ordering::Relaxed);
        }
        std::mem::forget(future);
        return None;
    }
    let mut future = Box::pin(future);
    for _ in 0..rng.u8(..4) {
        let waker = waker(world, rng);
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(done);
        }
    }
    calmly(|| drop(future));
    None
}

thread_local! {
    static KEPT: std::cell::RefCell<Vec<Reader>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// What becomes of a reader that is not used on.
pub(super) fn leave(world: &Arc<World>, rng: &mut Rng, reader: Reader, forgets: bool) {
    match rng.u8(..6) {
        0 if forgets => reader.forget(world),
        // Elsewhere: dropped, used, dropped by a panic, or by the end of the thread.
        1 => std::thread::scope(|scope| {
            let mut rng = rng.fork();
            let way = rng.u8(if forgets { 0..4 } else { 0..3 });
            let ended = scope.spawn(move || match way {
                0 => drop(reader),
                1 => drop(reader.step(world, &mut rng)),
                2 => KEPT.with_borrow_mut(|kept| kept.push(reader)),
                _ => {
                    let _reader = reader;
                    panic_as_planned()
                }
            });
            assert_eq!(ended.join().is_err(), way == 3);
        }),
        _ => drop(reader),
    }
}

fn run(seed: u64, steps: usize, manners: Manners) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let world = World::new(&mut rng, manners == Manners::Calm);
    let forgets = manners == Manners::None && rng.bool();
    let mut readers: Vec<Reader> = Vec::new();
    for _ in 0..steps {
        match rng.u8(..12) {
            0..5 => append(&world, &mut rng, forgets),
            5 if readers.len() < 12 => readers.extend(Reader::new(&world, &mut rng)),
            6 if !readers.is_empty() => {
                let reader = readers.swap_remove(rng.usize(..readers.len()));
                leave(&world, &mut rng, reader, forgets);
            }
            7 if readers.len() > 1 => {
                let (one, other) = readers.split_at_mut(1);
                one[0].swap_insides(&mut other[0]);
                rng.shuffle(&mut readers);
            }
            8 => meddle(&world, &mut rng),
            _ if !readers.is_empty() => {
                let reader = readers.swap_remove(rng.usize(..readers.len()));
                // A clone that panics, an advance too far: planned, and not what the log is to contain.
                readers.extend(reader.step(&world, &mut rng));
            }
            _ => {}
        }
        world.check_at_rest();
    }
    drop(readers);
    world.check_before_the_end();
    let calls = world.calls.load(Ordering::Relaxed);
    world.end();
    calls
}

#[test]
fn one_thread_does_anything() {
    watched(|progress| {
        let mut calls = 0;
        each_seed(60, progress, |seed| calls += run(seed, 400, Manners::None));
        assert!(calls > 0, "the logs called nothing");
    });
}

/// With nothing forgotten, all memory comes back, round after round.
#[test]
fn all_memory_comes_back() {
    watched_alone(|progress| {
        let mut after = Vec::with_capacity(rounds(20) as usize);
        each_seed(20, progress, |seed| {
            run(seed, 300, Manners::Calm);
            after.push(in_use());
        });
        let (first, last) = (after[0], after[after.len() - 1]);
        // What the process keeps for its threads is there after the first round; a message, a name.
        assert!(last - first < 16 << 10, "{after:?}");
    });
}
