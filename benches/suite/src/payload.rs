//! What is published: three kinds of payload that all carry a number.
//!
//! The number says who published the record and as which one of his, so that a subscriber can tell
//! whether it has got everything, once, and in order.

use std::sync::Arc;

use psa::{Copies, Log, Publisher};

/// Bits of a number that count the records of one publisher; the publisher's own number is above.
pub const SEQUENCE_BITS: u32 = 48;

/// Bytes of the larger payloads.
const BYTES: usize = 64;

/// A kind of payload.
pub trait Payload: Clone + Send + Sync + 'static {
    /// As results and tables call it.
    const NAME: &'static str;

    /// A payload that carries `number`.
    fn new(number: u64) -> Self;

    /// The number that it carries; the payload is read where it lies.
    fn number(&self) -> u64;

    /// Appends a batch to an exclusive log in the cheapest way for this kind, and empties it.
    fn append_exclusive(publisher: &mut Publisher<Self>, batch: &mut Vec<Self>);

    /// Appends a batch to a shared log in the cheapest way for this kind, and empties it.
    fn append_shared(log: &Log<Self>, batch: &mut Vec<Self>);
}

/// A payload's number in the forms that the calls of psa for plain values need.
macro_rules! appended_as_slices {
    () => {
        fn append_exclusive(publisher: &mut Publisher<Self>, batch: &mut Vec<Self>) {
            publisher
                .blocking_append_batch(Copies(batch))
                .expect("a log without a limit takes everything");
            batch.clear();
        }

        fn append_shared(log: &Log<Self>, batch: &mut Vec<Self>) {
            log.blocking_append_batch(Copies(batch))
                .expect("a log without a limit takes everything");
            batch.clear();
        }
    };
}

impl Payload for u64 {
    const NAME: &'static str = "u64";

    #[inline]
    fn new(number: u64) -> Self {
        number
    }

    #[inline]
    fn number(&self) -> u64 {
        *self
    }

    appended_as_slices!();
}

/// Bytes with the number in front and at the end, so that both ends are written and read.
#[inline]
fn fill(number: u64) -> [u8; BYTES] {
    let mut bytes = [0x5a; BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[BYTES - 8..].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// What `fill` wrote; a number that nobody publishes when the two ends differ.
#[inline]
fn read(bytes: &[u8; BYTES]) -> u64 {
    let end = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes);
    match (end(0), end(BYTES - 8)) {
        (Ok(front), Ok(back)) if front == back => front,
        _ => u64::MAX,
    }
}

impl Payload for [u8; BYTES] {
    const NAME: &'static str = "64 bytes";

    #[inline]
    fn new(number: u64) -> Self {
        fill(number)
    }

    #[inline]
    fn number(&self) -> u64 {
        read(self)
    }

    appended_as_slices!();
}

impl Payload for Arc<[u8]> {
    const NAME: &'static str = "Arc<[u8]>";

    #[inline]
    fn new(number: u64) -> Self {
        Arc::from(fill(number).as_slice())
    }

    #[inline]
    fn number(&self) -> u64 {
        (**self).try_into().map_or(u64::MAX, read)
    }

    fn append_exclusive(publisher: &mut Publisher<Self>, batch: &mut Vec<Self>) {
        let batch = std::mem::take(batch);
        publisher.blocking_append_batch(batch).expect("a log without a limit takes everything");
    }

    fn append_shared(log: &Log<Self>, batch: &mut Vec<Self>) {
        let batch = std::mem::take(batch);
        log.blocking_append_batch(batch).expect("a log without a limit takes everything");
    }
}
