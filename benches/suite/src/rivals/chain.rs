//! Hand-written: a chain of segments behind counted references, with `event-listener` to wait. The
//! simplest strong rival.
//!
//! A publisher reserves a slot with one `fetch_add`, writes it, and sets the slot's ready flag. The
//! one that finds a segment full links the next. Publishers and subscribers hold the segment in
//! which they stand; a segment goes with the last of them. Unbounded.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use event_listener::{Event, Listener};

use crate::payload::Payload;
use crate::rival::{Publish, Receive, ReceiveAsync, Rival, Shape, Trouble, spin};

/// Records in a segment.
const SLOTS: usize = 1024;

struct Slot<P> {
    ready: AtomicBool,
    payload: UnsafeCell<MaybeUninit<P>>,
}

struct Segment<P> {
    slots: Box<[Slot<P>]>,
    /// How many slots were asked for: may run beyond their number.
    reserved: AtomicUsize,
    next: OnceLock<Arc<Segment<P>>>,
}

// SAFETY: a slot is written once, by the one thread whose reservation it is, before its flag is set
// with Release; it is read, by reference, only after the flag was seen with Acquire. The segment is
// dropped by whoever is the last to hold it.
unsafe impl<P: Send + Sync> Sync for Segment<P> {}

impl<P> Segment<P> {
    fn new() -> Arc<Self> {
        let empty = || Slot {
            ready: AtomicBool::new(false),
            payload: UnsafeCell::new(MaybeUninit::uninit()),
        };
        Arc::new(Segment {
            slots: (0..SLOTS).map(|_| empty()).collect(),
            reserved: AtomicUsize::new(0),
            next: OnceLock::new(),
        })
    }

    /// The payload of slot `i`, if it is ready.
    #[inline]
    fn get(&self, i: usize) -> Option<&P> {
        let slot = &self.slots[i];
        let is_ready = slot.ready.load(Ordering::Acquire);
        // SAFETY: the flag says that the payload was written, and nobody writes it again.
        is_ready.then(|| unsafe { (*slot.payload.get()).assume_init_ref() })
    }
}

impl<P> Drop for Segment<P> {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if *slot.ready.get_mut() {
                // SAFETY: the flag says that the payload was written; we are the last to use it.
                unsafe { slot.payload.get_mut().assume_init_drop() }
            }
        }
        // Segment by segment: the compiler's own drop would descend as deep as the chain is long.
        let mut next = self.next.take();
        while let Some(mut segment) = next.and_then(Arc::into_inner) {
            next = segment.next.take();
        }
    }
}

/// A publisher; it tells nobody.
pub struct Silent<P>(Arc<Segment<P>>);

impl<P> Silent<P> {
    #[inline]
    fn push(&mut self, payload: P) {
        loop {
            let segment = &self.0;
            let i = segment.reserved.fetch_add(1, Ordering::Relaxed);
            if let Some(slot) = segment.slots.get(i) {
                // SAFETY: the reservation made the slot ours alone, and its flag is not set yet.
                unsafe { (*slot.payload.get()).write(payload) };
                slot.ready.store(true, Ordering::Release);
                return;
            }
            let next = segment.next.get_or_init(Segment::new).clone();
            self.0 = next;
        }
    }
}

/// A publisher that notifies after each record.
pub struct Publisher<P> {
    chain: Silent<P>,
    event: Arc<Event>,
}

/// A subscriber.
pub struct Subscriber<P> {
    segment: Arc<Segment<P>>,
    at: usize,
    event: Arc<Event>,
}

impl<P> Subscriber<P> {
    /// Shows all that is ready; false if that is nothing.
    #[inline]
    fn show(&mut self, take: &mut impl FnMut(&P)) -> bool {
        let mut is_any = false;
        loop {
            while self.at < SLOTS {
                let Some(payload) = self.segment.get(self.at) else { return is_any };
                take(payload);
                self.at += 1;
                is_any = true;
            }
            let Some(next) = self.segment.next.get().cloned() else { return is_any };
            self.segment = next;
            self.at = 0;
        }
    }
}

/// The rival.
pub struct ArcChain;

impl<P: Payload> Rival<P> for ArcChain {
    const NAME: &'static str = "Arc chain, event-listener";
    type Publisher = Publisher<P>;
    type Subscriber = Subscriber<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let segment = Segment::new();
        let event = Arc::new(Event::new());
        let publisher = |_| Publisher { chain: Silent(segment.clone()), event: event.clone() };
        let subscriber = |_| Subscriber { segment: segment.clone(), at: 0, event: event.clone() };
        let publishers = (0..shape.publishers).map(publisher).collect();
        (publishers, (0..shape.subscribers).map(subscriber).collect())
    }
}

impl<P: Payload> Publish<P> for Publisher<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        for payload in payloads {
            self.chain.push(payload);
            self.event.notify(usize::MAX);
        }
    }
}

impl<P: Payload> Receive<P> for Subscriber<P> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        loop {
            if spin(|| self.show(take)) {
                return Ok(());
            }
            let event = self.event.clone();
            let listener = event.listen();
            if self.show(take) {
                return Ok(());
            }
            listener.wait();
        }
    }
}

impl<P: Payload> ReceiveAsync<P> for Subscriber<P> {
    async fn receive_async(&mut self, take: &mut (impl FnMut(&P) + Send)) -> Result<(), Trouble> {
        loop {
            if self.show(take) {
                return Ok(());
            }
            let listener = self.event.listen();
            if self.show(take) {
                return Ok(());
            }
            listener.await;
        }
    }
}

/// The chain without any notification: what appending alone costs it.
pub struct SilentArcChain;

impl<P: Payload> Rival<P> for SilentArcChain {
    const NAME: &'static str = "Arc chain, no notification";
    type Publisher = Silent<P>;
    type Subscriber = Subscriber<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (publishers, subscribers) = ArcChain::open(shape);
        (
            publishers.into_iter().map(|publisher: Publisher<P>| publisher.chain).collect(),
            subscribers,
        )
    }
}

impl<P: Payload> Publish<P> for Silent<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        payloads.for_each(|payload| self.push(payload));
    }
}
