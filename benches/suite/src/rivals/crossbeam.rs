//! `crossbeam-channel`, one bounded channel for each subscriber: what people build by hand.
//!
//! The channels have 16,384 slots each, or together four million where there are very many.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::payload::Payload;
use crate::rival::{Publish, Receive, Rival, Shape, Trouble};

/// The most slots of all channels together.
const SLOTS: usize = 4 << 20;

/// The rival.
pub struct ChannelEach;

/// A publisher: it sends a clone to everybody.
pub struct ToAll<P>(Vec<Sender<P>>);

impl<P: Payload> Rival<P> for ChannelEach {
    const NAME: &'static str = "crossbeam-channel each";
    const ALONE: bool = false;
    type Publisher = ToAll<P>;
    type Subscriber = Receiver<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let capacity = shape.capacity().min(SLOTS / shape.subscribers.max(1)).max(shape.stored);
        let channels = (0..shape.subscribers).map(|_| bounded(capacity));
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.unzip();
        ((0..shape.publishers).map(|_| ToAll(senders.clone())).collect(), receivers)
    }
}

impl<P: Payload> Publish<P> for ToAll<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        for payload in payloads {
            if self.0.iter().any(|sender| sender.send(payload.clone()).is_err()) {
                unreachable!("the receivers are there until the end");
            }
        }
    }
}

impl<P: Payload> Receive<P> for Receiver<P> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        take(&self.recv().map_err(|_| Trouble::Closed)?);
        self.try_iter().for_each(|payload| take(&payload));
        Ok(())
    }
}
