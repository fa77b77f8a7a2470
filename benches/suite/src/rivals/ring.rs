//! Hand-written: a preallocated ring with one producer and one published index, the machine's bound.
//!
//! Nothing can publish to several readers with less: the producer writes the payload and stores one
//! index; readers poll that index and read the slots. It looks at the readers' positions only when
//! the ring seems full. No notification, no joining while it runs, no memory management.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::payload::Payload;
use crate::rival::{Polling, Publish, Receive, Rival, Shape, Trouble};

/// A value on cache lines of its own (two, since processors fetch them in pairs).
#[repr(align(128))]
struct Padded<T>(T);

struct Shared<P> {
    /// A power of two of them.
    slots: Box<[UnsafeCell<P>]>,
    /// How many records are published.
    published: Padded<AtomicU64>,
    /// How many each subscriber has passed.
    passed: Box<[Padded<AtomicU64>]>,
}

// SAFETY: the producer writes a slot only after every subscriber has passed what was in it (Acquire
// of `passed`), and a subscriber reads a slot only after its index was published (Acquire of
// `published`) and before it says that it has passed it.
unsafe impl<P: Send + Sync> Sync for Shared<P> {}

impl<P> Shared<P> {
    #[inline]
    fn slot(&self, n: u64) -> *mut P {
        self.slots[n as usize & (self.slots.len() - 1)].get()
    }
}

/// The rival.
pub struct Ring;

/// The producer.
pub struct Producer<P> {
    shared: Arc<Shared<P>>,
    published: u64,
    /// Up to here there is room, as far as was last seen.
    room: u64,
}

/// A subscriber.
pub struct Subscriber<P> {
    shared: Arc<Shared<P>>,
    number: usize,
    at: u64,
}

impl<P: Payload> Rival<P> for Ring {
    const NAME: &'static str = "ring, one index (bound)";
    type Publisher = Producer<P>;
    type Subscriber = Subscriber<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let slots = shape.capacity().next_power_of_two();
        let empty = P::new(0);
        let zero = || Padded(AtomicU64::new(0));
        let shared = Arc::new(Shared {
            slots: (0..slots).map(|_| UnsafeCell::new(empty.clone())).collect(),
            published: zero(),
            passed: (0..shape.subscribers).map(|_| zero()).collect(),
        });
        let subscriber = |number| Subscriber { shared: shared.clone(), number, at: 0 };
        let subscribers = (0..shape.subscribers).map(subscriber).collect();
        (vec![Producer { shared, published: 0, room: 0 }], subscribers)
    }
}

impl<P: Payload> Publish<P> for Producer<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        let Producer { shared, published, room } = self;
        for payload in payloads {
            let mut polling = Polling::default();
            while *published == *room {
                let passed = shared.passed.iter().map(|p| p.0.load(Ordering::Acquire)).min();
                *room = passed.unwrap_or(*published) + shared.slots.len() as u64;
                if *published == *room {
                    polling.pause();
                }
            }
            // SAFETY: there is room: every subscriber has passed the slot, and nobody else writes.
            unsafe { *shared.slot(*published) = payload };
            *published += 1;
            shared.published.0.store(*published, Ordering::Release);
        }
    }
}

impl<P: Payload> Receive<P> for Subscriber<P> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        let Subscriber { shared, number, at } = self;
        let mut polling = Polling::default();
        let end = loop {
            let end = shared.published.0.load(Ordering::Acquire);
            if end > *at {
                break end;
            }
            polling.pause();
        };
        while *at < end {
            // SAFETY: the slot is published, and stays as it is until we say that we passed it.
            take(unsafe { &*shared.slot(*at) });
            *at += 1;
        }
        shared.passed[*number].0.store(end, Ordering::Release);
        Ok(())
    }
}
