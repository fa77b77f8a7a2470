//! `async-broadcast`: bounded, its publishers wait for the slowest receiver.

use async_broadcast::{Receiver, Sender, TryRecvError, broadcast};

use crate::payload::Payload;
use crate::rival::{Publish, Receive, ReceiveAsync, Rival, Shape, Trouble};

/// The rival.
pub struct AsyncBroadcast;

impl<P: Payload> Rival<P> for AsyncBroadcast {
    const NAME: &'static str = "async-broadcast";
    const ALONE: bool = false;
    type Publisher = Sender<P>;
    type Subscriber = Receiver<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (sender, receiver) = broadcast(shape.capacity());
        let publishers = (0..shape.publishers).map(|_| sender.clone()).collect();
        let others = (1..shape.subscribers).map(|_| sender.new_receiver()).collect::<Vec<_>>();
        (publishers, std::iter::once(receiver).chain(others).collect())
    }
}

impl<P: Payload> Publish<P> for Sender<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        for payload in payloads {
            if self.broadcast_blocking(payload).is_err() {
                unreachable!("the receivers are there until the end");
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
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(()),
            Err(TryRecvError::Overflowed(missed)) => return Err(Trouble::Lagged(missed)),
        }
    }
}

impl<P: Payload> Receive<P> for Receiver<P> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        take(&self.recv_blocking().map_err(|_| Trouble::Closed)?);
        rest(self, take)
    }
}

impl<P: Payload> ReceiveAsync<P> for Receiver<P> {
    async fn receive_async(&mut self, take: &mut (impl FnMut(&P) + Send)) -> Result<(), Trouble> {
        take(&self.recv_direct().await.map_err(|_| Trouble::Closed)?);
        rest(self, take)
    }
}
