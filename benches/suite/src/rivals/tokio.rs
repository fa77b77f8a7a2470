//! `tokio::sync::broadcast`.
//!
//! A ring that overwrites: a receiver that is further behind than the capacity loses records. To
//! compare it with those that lose nothing, its publisher paces itself with the call that the
//! documentation offers for it, `Sender::len`: once in a while it waits until at most half of the
//! capacity is taken. Between two looks the publishers together add less than the other half. A
//! receiver that lags all the same fails the run.

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{Receiver, Sender, channel};

use crate::payload::Payload;
use crate::rival::{Polling, Publish, Receive, ReceiveAsync, Rival, Shape, Trouble};

/// The rival.
pub struct Broadcast;

/// A publisher that paces itself.
pub struct Paced<P> {
    sender: Sender<P>,
    /// How many may be queued when it goes on; `usize::MAX` if nobody reads meanwhile.
    most: usize,
    /// Records between two looks.
    every: usize,
    /// Records until the next look.
    left: usize,
}

impl<P: Payload> Rival<P> for Broadcast {
    const NAME: &'static str = "tokio broadcast";
    const ALONE: bool = false;
    type Publisher = Paced<P>;
    type Subscriber = Receiver<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let capacity = shape.capacity();
        let (sender, first) = channel(capacity);
        let others = (1..shape.subscribers).map(|_| sender.subscribe()).collect::<Vec<_>>();
        // Without any receiver a send is refused: where nobody reads, one receiver is there.
        let subscribers = std::iter::once(first).chain(others).collect();
        let most =
            if shape.stored > 0 || shape.subscribers == 0 { usize::MAX } else { capacity / 2 };
        let every = capacity / 4 / shape.publishers;
        let paced = |_| Paced { sender: sender.clone(), most, every, left: every };
        ((0..shape.publishers).map(paced).collect(), subscribers)
    }
}

impl<P: Payload> Publish<P> for Paced<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        for payload in payloads {
            if self.left == 0 {
                self.left = self.every;
                let mut polling = Polling::default();
                while self.most != usize::MAX && self.sender.len() > self.most {
                    polling.pause();
                }
            }
            self.left -= 1;
            if self.sender.send(payload).is_err() {
                unreachable!("a receiver is there");
            }
        }
    }
}

/// Takes what is there after the first record.
#[inline]
fn rest<P: Payload>(receiver: &mut Receiver<P>, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
    loop {
        match receiver.try_recv() {
            Ok(payload) => take(&payload),
            // Whoever waits next is told that it is closed.
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(()),
            Err(TryRecvError::Lagged(missed)) => return Err(Trouble::Lagged(missed)),
        }
    }
}

fn trouble(error: RecvError) -> Trouble {
    match error {
        RecvError::Closed => Trouble::Closed,
        RecvError::Lagged(missed) => Trouble::Lagged(missed),
    }
}

impl<P: Payload> Receive<P> for Receiver<P> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        take(&self.blocking_recv().map_err(trouble)?);
        rest(self, take)
    }
}

impl<P: Payload> ReceiveAsync<P> for Receiver<P> {
    async fn receive_async(&mut self, take: &mut (impl FnMut(&P) + Send)) -> Result<(), Trouble> {
        take(&self.recv().await.map_err(trouble)?);
        rest(self, take)
    }
}
