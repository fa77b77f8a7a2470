//! What a publish costs beside subscribers that are there but neither read nor wait.
//!
//! A burst is measured, then all subscribers read and check it, outside of the measurement. Before
//! each burst the processor's own caches are emptied in the same way, whether ten thousand
//! subscribers have just run or none.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::check::{Check, OnePublisher};
use crate::payload::{Payload, SEQUENCE_BITS};
use crate::rival::{Publish, Receive, Rival, Shape, Trouble};

/// Records in a burst.
pub const BURST: u64 = 256;

/// Larger than a second-level cache.
const SWEEP: usize = 8 << 20;

/// One run: the time of `records` records in bursts of [`BURST`] (the last one may be smaller).
///
/// # Errors
///
/// [`Trouble`] when a subscriber did not get everything once and in order.
pub fn idle<R, P>(shape: &Shape, records: u64) -> Result<Duration, Trouble>
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: Receive<P>,
{
    let (mut publishers, subscribers) = R::open(shape);
    let publisher = publishers.first_mut().expect("one publishes");
    // A rival that refuses to be without a subscriber has one more than was asked for.
    let mut readers: Vec<_> =
        subscribers.into_iter().map(|s| (s, OnePublisher::default())).collect();
    let mut sweeper = vec![0u8; SWEEP];
    let mut spent = Duration::ZERO;
    let mut published = 0;
    while published < records {
        let burst = BURST.min(records - published);
        sweeper.chunks_mut(64).for_each(|line| line[0] = black_box(line[0]).wrapping_add(1));
        let begin = Instant::now();
        publisher.publish((published..published + burst).map(P::new));
        spent += begin.elapsed();
        published += burst;
        for (subscriber, check) in &mut readers {
            while check.received() < published {
                subscriber.receive(&mut |payload: &P| check.take(payload.number()))?;
            }
        }
    }
    debug_assert!(published >> SEQUENCE_BITS == 0);
    readers.iter().try_for_each(|(_, check)| check.verdict(published))?;
    Ok(spent)
}
