//! Replay: one subscriber reads what was stored before it began.
//!
//! It was attached at the start, since not every rival can begin in the past, but has read nothing.
//! Bounded rivals have room for everything.

use std::time::{Duration, Instant};

use super::delivery::collect;
use super::publishing::payloads;
use crate::check::OnePublisher;
use crate::payload::Payload;
use crate::rival::{Publish, Receive, Rival, Shape, Trouble};

/// One run: how long reading `shape.stored` records takes.
///
/// # Errors
///
/// [`Trouble`] when they do not all come once and in order.
pub fn replay<R, P>(shape: &Shape, records: u64) -> Result<Duration, Trouble>
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: Receive<P>,
{
    let (mut publishers, mut subscribers) = R::open(shape);
    let subscriber = subscribers.first_mut().expect("one subscribes");
    publishers.first_mut().expect("one publishes").publish(payloads(0, records));
    let begin = Instant::now();
    collect::<P, OnePublisher>(subscriber, records)?;
    Ok(begin.elapsed())
}
