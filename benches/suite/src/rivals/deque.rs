//! Hand-written: a `RwLock<VecDeque>` and a condition variable, the first thing that comes to mind.
//!
//! Every subscriber keeps its position where publishers see it. Once in 1,024 records the publisher
//! drops what all of them have passed. Unbounded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use super::bell::Bell;
use crate::payload::Payload;
use crate::rival::{Publish, Receive, Rival, Shape, Trouble, spin};

/// Records between two clean-ups.
const CLEAN_EVERY: u64 = 1024;

struct Kept<P> {
    /// Number of the first record in `records`.
    first: u64,
    records: VecDeque<P>,
}

impl<P> Kept<P> {
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

struct Shared<P> {
    kept: RwLock<Kept<P>>,
    /// The end of `kept`, to be looked at without the lock.
    end: AtomicU64,
    positions: Vec<AtomicU64>,
    bell: Bell,
}

/// The rival.
pub struct LockedDeque;

/// Its publisher.
pub struct Publisher<P>(Arc<Shared<P>>);

/// Its subscriber.
pub struct Subscriber<P> {
    shared: Arc<Shared<P>>,
    number: usize,
}

impl<P: Payload> Rival<P> for LockedDeque {
    const NAME: &'static str = "RwLock<VecDeque> and Condvar";
    type Publisher = Publisher<P>;
    type Subscriber = Subscriber<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let shared = Arc::new(Shared {
            kept: RwLock::new(Kept { first: 0, records: VecDeque::new() }),
            end: AtomicU64::new(0),
            positions: (0..shape.subscribers).map(|_| AtomicU64::new(0)).collect(),
            bell: Bell::default(),
        });
        let publishers = (0..shape.publishers).map(|_| Publisher(shared.clone())).collect();
        let subscriber = |number| Subscriber { shared: shared.clone(), number };
        (publishers, (0..shape.subscribers).map(subscriber).collect())
    }
}

impl<P: Payload> Publish<P> for Publisher<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        let Shared { kept, end, positions, bell } = &*self.0;
        for payload in payloads {
            let mut kept = kept.write().expect("nobody panics under this lock");
            kept.records.push_back(payload);
            let new_end = kept.end();
            end.store(new_end, Ordering::Release);
            if new_end.is_multiple_of(CLEAN_EVERY) {
                let passed = positions.iter().map(|p| p.load(Ordering::Acquire)).min();
                let passed = passed.unwrap_or(new_end) - kept.first;
                kept.records.drain(..passed as usize);
                kept.first += passed;
            }
            drop(kept);
            bell.ring();
        }
    }
}

impl<P: Payload> Receive<P> for Subscriber<P> {
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        let Shared { kept, end, positions, bell } = &*self.shared;
        let position = &positions[self.number];
        let at = position.load(Ordering::Relaxed);
        let is_there = || end.load(Ordering::Acquire) > at;
        if !spin(is_there) {
            bell.wait(is_there);
        }
        let kept = kept.read().expect("nobody panics under this lock");
        kept.records.range((at - kept.first) as usize..).for_each(take);
        position.store(kept.end(), Ordering::Release);
        Ok(())
    }
}
