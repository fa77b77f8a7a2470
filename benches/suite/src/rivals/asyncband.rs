//! `asyncband`'s broadcast channel: lossless, behind a mutex. Unbounded, as psa is without a limit.

use asyncband::blocking::FutureExt;
use asyncband::broadcast::mpmc::{TryRecvError, UnboundedReceiver, UnboundedSender, unbounded};

use crate::payload::Payload;
use crate::rival::{Publish, Receive, ReceiveAsync, Rival, Shape, Trouble};

/// The rival.
pub struct Asyncband;

impl<P: Payload> Rival<P> for Asyncband {
    const NAME: &'static str = "asyncband";
    const ALONE: bool = false;
    type Publisher = UnboundedSender<P>;
    type Subscriber = UnboundedReceiver<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (sender, receiver) = unbounded();
        let publishers = (0..shape.publishers).map(|_| sender.clone()).collect();
        let others = (1..shape.subscribers).map(|_| sender.subscribe()).collect::<Vec<_>>();
        (publishers, std::iter::once(receiver).chain(others).collect())
    }
}

impl<P: Payload> Publish<P> for UnboundedSender<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        payloads.for_each(|payload| self.send(payload));
    }
}

/// Takes what is there after the first record.
#[inline]
fn rest<P: Payload>(
    receiver: &mut UnboundedReceiver<P>,
    take: &mut impl FnMut(&P),
) -> Result<(), Trouble> {
    loop {
        match receiver.try_recv() {
            Ok(payload) => take(&payload),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

impl<P: Payload> Receive<P> for UnboundedReceiver<P> {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        take(&self.recv().block_on().map_err(|_| Trouble::Closed)?);
        rest(self, take)
    }
}

impl<P: Payload> ReceiveAsync<P> for UnboundedReceiver<P> {
    async fn receive_async(&mut self, take: &mut (impl FnMut(&P) + Send)) -> Result<(), Trouble> {
        take(&self.recv().await.map_err(|_| Trouble::Closed)?);
        rest(self, take)
    }
}
