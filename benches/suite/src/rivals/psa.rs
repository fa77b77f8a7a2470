//! psa itself, in the ways of appending that it offers.
//!
//! Subscribers read as its documentation shows: a closure over a batch of records where they lie.
//! Unless it is called bounded, the log has no limit; its other settings are the default ones.

use psa::{Batch, Cursor, Log, Overflow, ReadError, Start};

use crate::payload::Payload;
use crate::rival::{BATCH, Polling, Publish, Receive, ReceiveAsync, Rival, Shape, Trouble};

fn trouble(error: ReadError) -> Trouble {
    match error {
        ReadError::Lagged(lagged) => Trouble::Lagged(lagged.missed),
        _ => Trouble::Closed,
    }
}

/// Cursors at the end of the log, one for each subscriber.
fn cursors<R: psa::Record + ?Sized, M>(log: &Log<R, M>, shape: &Shape) -> Vec<Cursor<R>> {
    let subscribe = |_| log.subscribe(Start::Next).expect("the end of a log can be subscribed to");
    (0..shape.subscribers).map(subscribe).collect()
}

fn exclusive<R: psa::Record + ?Sized>() -> (psa::Publisher<R>, Log<R, psa::Exclusive>) {
    Log::builder().build_exclusive().expect("the default settings are valid")
}

fn shared<R: psa::Record + ?Sized>() -> Log<R> {
    Log::builder().build().expect("the default settings are valid")
}

#[inline]
fn show<P: Payload>(batch: &Batch<'_, P>, take: &mut impl FnMut(&P)) {
    batch.as_slice().iter().for_each(take);
}

impl<P: Payload> Receive<P> for Cursor<P> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        self.blocking_next(|batch| show(batch, take)).map_err(trouble)
    }
}

impl<P: Payload> ReceiveAsync<P> for Cursor<P> {
    async fn receive_async(&mut self, take: &mut (impl FnMut(&P) + Send)) -> Result<(), Trouble> {
        self.next(|batch| show(batch, take)).await.map_err(trouble)
    }
}

/// The exclusive publisher, one record at a time.
pub struct Exclusive;

impl<P: Payload> Rival<P> for Exclusive {
    const NAME: &'static str = "psa, exclusive";
    type Publisher = psa::Publisher<P>;
    type Subscriber = Cursor<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (publisher, log) = exclusive();
        (vec![publisher], cursors(&log, shape))
    }
}

impl<P: Payload> Publish<P> for psa::Publisher<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        for payload in payloads {
            if self.blocking_append(payload).is_err() {
                unreachable!("a log without a limit takes everything");
            }
        }
    }
}

/// An exclusive log with room for as many records as the bounded rivals have, whose publisher waits
/// when it is full. It never runs far ahead, so everybody works on memory that is still in the cache.
pub struct ExclusiveBounded;

fn bounded<P: Payload>(shape: &Shape) -> (psa::Publisher<P>, Log<P, psa::Exclusive>) {
    // A quarter more than the records, and a whole segment: for the append times, and for the segment
    // that is passed only in part.
    let bytes = shape.capacity() * size_of::<P>() / 4 * 5 + (64 << 10);
    let log = Log::builder().memory_limit(bytes as u64).overflow(Overflow::Block);
    // Whatever is passed is used again.
    log.pool_segments(64).build_exclusive().expect("the limit is several segments")
}

impl<P: Payload> Rival<P> for ExclusiveBounded {
    const NAME: &'static str = "psa, exclusive, bounded";
    type Publisher = psa::Publisher<P>;
    type Subscriber = Cursor<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (publisher, log) = bounded(shape);
        (vec![publisher], cursors(&log, shape))
    }
}

/// The same, and subscribers that poll as those rivals do that cannot wait: the same short spin, then
/// the processor is given away. They never park, so they are never woken.
pub struct ExclusiveBoundedPolled;

/// Its subscriber.
pub struct Polled<P: Payload>(Cursor<P>);

impl<P: Payload> Rival<P> for ExclusiveBoundedPolled {
    const NAME: &'static str = "psa, exclusive, bounded, polled";
    type Publisher = psa::Publisher<P>;
    type Subscriber = Polled<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (publisher, log) = bounded(shape);
        (vec![publisher], cursors(&log, shape).into_iter().map(Polled).collect())
    }
}

impl<P: Payload> Receive<P> for Polled<P> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        let mut polling = Polling::default();
        while self.0.try_next(|batch| show(batch, take)).map_err(trouble)?.is_none() {
            polling.pause();
        }
        Ok(())
    }
}

/// Cuts `payloads` into batches of [`BATCH`] and the rest.
#[inline]
fn batches<P>(mut payloads: impl Iterator<Item = P>, mut append: impl FnMut(&mut Vec<P>)) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        // An append that took the vector has left one without capacity.
        batch.reserve(BATCH);
        batch.extend(payloads.by_ref().take(BATCH));
        if batch.is_empty() {
            return;
        }
        append(&mut batch);
    }
}

/// The exclusive publisher, in batches.
pub struct ExclusiveBatches;

/// Its publisher.
pub struct ExclusiveBatch<P: Payload>(psa::Publisher<P>);

impl<P: Payload> Rival<P> for ExclusiveBatches {
    const NAME: &'static str = "psa, exclusive, batches of 64";
    type Publisher = ExclusiveBatch<P>;
    type Subscriber = Cursor<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (publisher, log) = exclusive();
        (vec![ExclusiveBatch(publisher)], cursors(&log, shape))
    }
}

impl<P: Payload> Publish<P> for ExclusiveBatch<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        batches(payloads, |batch| P::append_exclusive(&mut self.0, batch));
    }
}

/// A shared log, in batches.
pub struct Batches;

/// Its publisher.
pub struct SharedBatch<P: Payload>(Log<P>);

impl<P: Payload> Rival<P> for Batches {
    const NAME: &'static str = "psa, batches of 64";
    type Publisher = SharedBatch<P>;
    type Subscriber = Cursor<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let log = shared();
        let publishers = (0..shape.publishers).map(|_| SharedBatch(log.clone())).collect();
        (publishers, cursors(&log, shape))
    }
}

impl<P: Payload> Publish<P> for SharedBatch<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        batches(payloads, |batch| P::append_shared(&self.0, batch));
    }
}

/// A shared log, one record at a time.
pub struct OneByOne;

impl<P: Payload> Rival<P> for OneByOne {
    const NAME: &'static str = "psa, one by one";
    type Publisher = Log<P>;
    type Subscriber = Cursor<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let log = shared();
        let publishers = (0..shape.publishers).map(|_| log.clone()).collect();
        (publishers, cursors(&log, shape))
    }
}

impl<P: Payload> Publish<P> for Log<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        for payload in payloads {
            if self.blocking_append(payload).is_err() {
                unreachable!("a log without a limit takes everything");
            }
        }
    }
}

/// The 64 bytes as byte records of a `Log<[u8]>`, which holds records of any length.
type Bytes = [u8; 64];

#[inline]
fn show_bytes(batch: &Batch<'_, [u8]>, take: &mut impl FnMut(&Bytes)) {
    for (_, record) in batch.iter() {
        // A record of another length is shown as one that nobody published.
        take(record.try_into().unwrap_or(&[0xff; 64]));
    }
}

impl Receive<Bytes> for Cursor<[u8]> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&Bytes)) -> Result<(), Trouble> {
        self.blocking_next(|batch| show_bytes(batch, take)).map_err(trouble)
    }
}

impl ReceiveAsync<Bytes> for Cursor<[u8]> {
    async fn receive_async(
        &mut self,
        take: &mut (impl FnMut(&Bytes) + Send),
    ) -> Result<(), Trouble> {
        self.next(|batch| show_bytes(batch, take)).await.map_err(trouble)
    }
}

/// A log of byte records with an exclusive publisher.
pub struct BytesExclusive;

impl Rival<Bytes> for BytesExclusive {
    const NAME: &'static str = "psa, byte records, exclusive";
    type Publisher = psa::Publisher<[u8]>;
    type Subscriber = Cursor<[u8]>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (publisher, log) = exclusive();
        (vec![publisher], cursors(&log, shape))
    }
}

impl Publish<Bytes> for psa::Publisher<[u8]> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = Bytes>) {
        for payload in payloads {
            self.blocking_append(payload).expect("a log without a limit takes everything");
        }
    }
}

/// A shared log of byte records, in batches.
pub struct BytesBatches;

impl Rival<Bytes> for BytesBatches {
    const NAME: &'static str = "psa, byte records, batches of 64";
    type Publisher = Log<[u8]>;
    type Subscriber = Cursor<[u8]>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let log = shared();
        let publishers = (0..shape.publishers).map(|_| log.clone()).collect();
        (publishers, cursors(&log, shape))
    }
}

impl Publish<Bytes> for Log<[u8]> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = Bytes>) {
        batches(payloads, |batch| {
            let mut records = [&[][..]; BATCH];
            records.iter_mut().zip(&*batch).for_each(|(record, payload)| *record = payload);
            self.blocking_append_batch(&records[..batch.len()])
                .expect("a log without a limit takes everything");
            batch.clear();
        });
    }
}
