//! The `disruptor` crate: a ring that is allocated in advance and waits for the slowest consumer.
//!
//! Consumers are event pollers on the suite's own threads. Its busy spinning, which its
//! documentation recommends, needs a core for each thread; with fewer the threads only hinder each
//! other, so publishers and consumers spin for a while and then yield.

use disruptor::{
    BusySpin, EventPoller, MultiConsumerBarrier, MultiProducer, MultiProducerBarrier, Producer,
    SingleConsumerBarrier, SingleProducer, SingleProducerBarrier, build_multi_producer,
    build_single_producer,
};

use crate::payload::Payload;
use crate::rival::{self, BATCH, Publish, Receive, Rival, Shape, Trouble};

/// A producer for one consumer or for many: the crate has two types for that.
pub enum Either<One, Many> {
    /// The only consumer's.
    One(One),
    /// Of many consumers.
    Many(Many),
}

type Single<P> =
    Either<SingleProducer<P, SingleConsumerBarrier>, SingleProducer<P, MultiConsumerBarrier>>;
type Multi<P> =
    Either<MultiProducer<P, SingleConsumerBarrier>, MultiProducer<P, MultiConsumerBarrier>>;

/// Builds producers and pollers; the two builders are two types with the same methods.
macro_rules! open {
    ($builder:expr, $shape:expr) => {{
        if $shape.subscribers == 1 {
            let (poller, builder) = $builder.new_event_poller();
            (Either::One(builder.build()), vec![poller])
        } else {
            let mut builder = $builder.with_multi_consumer();
            let mut pollers = Vec::new();
            for _ in 0..$shape.subscribers {
                let (poller, next) = builder.new_event_poller();
                pollers.push(poller);
                builder = next;
            }
            (Either::Many(builder.build()), pollers)
        }
    }};
}

/// Slots of the ring: a power of two.
fn slots(shape: &Shape) -> usize {
    shape.capacity().next_power_of_two()
}

/// A factory of events for the ring.
fn factory<P: Payload>() -> impl FnMut() -> P {
    let event = P::new(0);
    move || event.clone()
}

fn open_single<P: Payload>(
    shape: &Shape,
) -> (Single<P>, Vec<EventPoller<P, SingleProducerBarrier>>) {
    open!(build_single_producer(slots(shape), factory(), BusySpin), shape)
}

/// Publishes one by one.
#[inline]
fn one_by_one<P: Payload>(producer: &mut impl Producer<P>, payloads: impl Iterator<Item = P>) {
    let mut polling = rival::Polling::default();
    for payload in payloads {
        let mut payload = Some(payload);
        while producer.try_publish(|event| *event = payload.take().expect("set once")).is_err() {
            polling.pause();
        }
        polling.reset();
    }
}

/// Publishes in batches, which its documentation recommends wherever it is possible.
#[inline]
fn in_batches<P: Payload>(producer: &mut impl Producer<P>, payloads: impl Iterator<Item = P>) {
    let mut payloads = payloads.peekable();
    let mut batch = Vec::with_capacity(BATCH);
    let mut polling = rival::Polling::default();
    while payloads.peek().is_some() {
        batch.extend(payloads.by_ref().take(BATCH));
        let len = batch.len();
        let mut filled = batch.drain(..);
        while producer
            .try_batch_publish(len, |events| {
                events.zip(filled.by_ref()).for_each(|(event, payload)| *event = payload);
            })
            .is_err()
        {
            polling.pause();
        }
        polling.reset();
    }
}

/// The single producer, one by one.
pub struct SingleOneByOne;

/// Its publisher.
pub struct SinglePublisher<P>(Single<P>);

impl<P: Payload> Rival<P> for SingleOneByOne {
    const NAME: &'static str = "disruptor, single producer";
    const ALONE: bool = false;
    type Publisher = SinglePublisher<P>;
    type Subscriber = EventPoller<P, SingleProducerBarrier>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (producer, pollers) = open_single(shape);
        (vec![SinglePublisher(producer)], pollers)
    }
}

impl<P: Payload> Publish<P> for SinglePublisher<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        match &mut self.0 {
            Either::One(producer) => one_by_one(producer, payloads),
            Either::Many(producer) => one_by_one(producer, payloads),
        }
    }
}

/// The single producer, in batches.
pub struct SingleBatches;

/// Its publisher.
pub struct SingleBatchPublisher<P>(Single<P>);

impl<P: Payload> Rival<P> for SingleBatches {
    const NAME: &'static str = "disruptor, single producer, batches of 64";
    const ALONE: bool = false;
    type Publisher = SingleBatchPublisher<P>;
    type Subscriber = EventPoller<P, SingleProducerBarrier>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (producer, pollers) = open_single(shape);
        (vec![SingleBatchPublisher(producer)], pollers)
    }
}

impl<P: Payload> Publish<P> for SingleBatchPublisher<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        match &mut self.0 {
            Either::One(producer) => in_batches(producer, payloads),
            Either::Many(producer) => in_batches(producer, payloads),
        }
    }
}

/// Many producers, one by one.
pub struct MultiOneByOne;

/// Its publisher.
pub struct MultiPublisher<P>(Multi<P>);

impl<P: Payload> Rival<P> for MultiOneByOne {
    const NAME: &'static str = "disruptor, multi producer";
    const ALONE: bool = false;
    type Publisher = MultiPublisher<P>;
    type Subscriber = EventPoller<P, MultiProducerBarrier>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let builder = build_multi_producer(slots(shape), factory(), BusySpin);
        let (first, pollers): (Multi<P>, _) = open!(builder, shape);
        let another = |_| match &first {
            Either::One(producer) => MultiPublisher(Either::One(producer.clone())),
            Either::Many(producer) => MultiPublisher(Either::Many(producer.clone())),
        };
        ((0..shape.publishers).map(another).collect(), pollers)
    }
}

impl<P: Payload> Publish<P> for MultiPublisher<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        match &mut self.0 {
            Either::One(producer) => one_by_one(producer, payloads),
            Either::Many(producer) => one_by_one(producer, payloads),
        }
    }
}

/// The pollers of the two kinds of ring: the trait that both barriers have in common is not public.
macro_rules! receive {
    ($barrier:ty) => {
        impl<P: Payload> Receive<P> for EventPoller<P, $barrier> {
            #[inline]
            fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
                let mut polling = rival::Polling::default();
                loop {
                    match self.poll() {
                        Ok(mut events) => {
                            (&mut events).for_each(take);
                            return Ok(());
                        }
                        Err(disruptor::Polling::NoEvents) => polling.pause(),
                        Err(disruptor::Polling::Shutdown) => return Err(Trouble::Closed),
                    }
                }
            }
        }
    };
}

receive!(SingleProducerBarrier);
receive!(MultiProducerBarrier);
