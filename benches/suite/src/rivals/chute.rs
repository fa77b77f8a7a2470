//! `chute`: linked blocks that are counted references, and readers that borrow.
//!
//! It has no way to wait: its documentation spins around `next`. Threads spin for a while and then
//! yield, tasks yield to the others; both burn a processor while nothing comes.

use std::sync::Arc;

use chute::LendingReader;
use chute::{mpmc, spmc};

use crate::payload::Payload;
use crate::rival::{Polling, Publish, Receive, ReceiveAsync, Rival, Shape, Trouble};

/// Its queue for a single producer.
pub struct Single;

impl<P: Payload> Rival<P> for Single {
    const NAME: &'static str = "chute, single producer";
    type Publisher = spmc::Queue<P>;
    type Subscriber = spmc::Reader<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let queue = spmc::Queue::new();
        let readers = (0..shape.subscribers).map(|_| queue.reader()).collect();
        (vec![queue], readers)
    }
}

impl<P: Payload> Publish<P> for spmc::Queue<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        payloads.for_each(|payload| self.push(payload));
    }
}

/// Its queue for many producers.
pub struct Multi;

impl<P: Payload> Rival<P> for Multi {
    const NAME: &'static str = "chute, multi producer";
    type Publisher = mpmc::Writer<P>;
    type Subscriber = mpmc::Reader<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let queue: Arc<mpmc::Queue<P>> = mpmc::Queue::new();
        let writers = (0..shape.publishers).map(|_| queue.writer()).collect();
        (writers, (0..shape.subscribers).map(|_| queue.reader()).collect())
    }
}

impl<P: Payload> Publish<P> for mpmc::Writer<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        payloads.for_each(|payload| self.push(payload));
    }
}

/// Shows what is there; false if there is nothing.
#[inline]
fn show<P>(reader: &mut impl LendingReader<Item = P>, take: &mut impl FnMut(&P)) -> bool {
    let Some(first) = reader.next() else { return false };
    take(first);
    while let Some(next) = reader.next() {
        take(next);
    }
    true
}

/// The readers of both queues wait alike.
macro_rules! receive {
    ($reader:ident) => {
        impl<P: Payload> Receive<P> for $reader::Reader<P> {
            #[inline]
            fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
                let mut polling = Polling::default();
                while !show(self, take) {
                    polling.pause();
                }
                Ok(())
            }
        }

        impl<P: Payload> ReceiveAsync<P> for $reader::Reader<P> {
            async fn receive_async(
                &mut self,
                take: &mut (impl FnMut(&P) + Send),
            ) -> Result<(), Trouble> {
                while !show(self, take) {
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        }
    };
}

receive!(spmc);
receive!(mpmc);
