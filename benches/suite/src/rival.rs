//! What a rival has to be able to do, so that one benchmark body can drive all of them.
//!
//! A rival opens with its publishers and subscribers attached, because that is what all of them can
//! do (a disruptor admits nobody later). A publisher is handed an iterator and publishes all of it
//! in its own way: one by one, or in batches. A subscriber waits until there is something, shows
//! whatever it has got at once, and says so when it has lost something. How a thread waits and how a
//! task does are two traits; some rivals have only one of them.

use std::fmt;
use std::future::Future;

use crate::payload::Payload;

/// Slots of a rival whose capacity is bounded, unless a cell has to store more.
pub const CAPACITY: usize = 16_384;

/// Records in a batch of those that publish in batches.
pub const BATCH: usize = 64;

/// Who takes part in a run.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many publish.
    pub publishers: usize,
    /// How many subscribe.
    pub subscribers: usize,
    /// How many records have to be stored although nobody reads; 0 if everybody reads.
    pub stored: usize,
    /// How many records are published at once, in cells about one publish to parked tasks.
    pub burst: u64,
}

impl Shape {
    /// The capacity of a bounded rival: [`CAPACITY`], or what has to be stored if that is more.
    pub fn capacity(&self) -> usize {
        self.stored.max(CAPACITY)
    }
}

/// Why a run has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There came no more records although more were published.
    Closed,
    /// The rival overwrote records that a subscriber had not received.
    Lagged(u64),
    /// Received records were not those that were published, or not in their order.
    Wrong {
        /// How many came.
        received: u64,
        /// How many were published.
        expected: u64,
    },
    /// Nothing came for so long that something must have been lost.
    Stalled,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Closed => write!(f, "closed before everything had arrived"),
            Trouble::Lagged(n) => write!(f, "a subscriber lost {n} records to its lag"),
            Trouble::Wrong { received, expected } => write!(
                f,
                "a subscriber received {received} records of {expected}, or others, or out of order"
            ),
            Trouble::Stalled => write!(f, "stalled: records or a wake-up were lost"),
        }
    }
}

impl std::error::Error for Trouble {}

/// A way to get records from publishers to every subscriber.
pub trait Rival<P: Payload>: 'static {
    /// As results and tables call it.
    const NAME: &'static str;

    /// Whether publishing without any subscriber is possible and does the same work.
    const ALONE: bool = true;

    /// Its publisher's side.
    type Publisher: Publish<P>;

    /// Its subscriber's side.
    type Subscriber: Send + 'static;

    /// Opens it with everybody attached.
    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>);
}

/// The publisher's side.
pub trait Publish<P>: Send + 'static {
    /// Publishes all payloads, in order; waits for room where capacity is bounded.
    fn publish(&mut self, payloads: impl Iterator<Item = P>);
}

/// The subscriber's side for threads.
pub trait Receive<P>: Send + 'static {
    /// Waits for records and shows those that are there.
    ///
    /// # Errors
    ///
    /// [`Trouble`] when records were lost or none will come.
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble>;
}

/// The subscriber's side for tasks.
pub trait ReceiveAsync<P>: Send + 'static {
    /// Waits for records and shows those that are there.
    ///
    /// # Errors
    ///
    /// [`Trouble`] when records were lost or none will come.
    fn receive_async(
        &mut self,
        take: &mut (impl FnMut(&P) + Send),
    ) -> impl Future<Output = Result<(), Trouble>> + Send;
}

/// How those wait that have nothing to park on: a short spin, then the processor is given to
/// somebody else. A bare spin would be faster with a core for everybody, and stand still here.
#[derive(Debug, Default)]
pub struct Polling {
    looks: u32,
}

impl Polling {
    /// Looks before the processor is given away.
    const SPINS: u32 = 128;

    /// After a look that found nothing.
    #[inline]
    pub fn pause(&mut self) {
        self.looks += 1;
        if self.looks < Self::SPINS {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }

    /// After a look that found something.
    #[inline]
    pub fn reset(&mut self) {
        self.looks = 0;
    }
}

/// How those wait first that can also sleep: as psa's blocking readers do, so that nobody is compared by
/// how long it hesitates. Whether it is `ready` by then.
pub fn spin(mut ready: impl FnMut() -> bool) -> bool {
    const SPINS: u32 = 32;
    const YIELDS: u32 = 16;
    let spins = (0..SPINS).any(|_| {
        let is_ready = ready();
        if !is_ready {
            std::hint::spin_loop();
        }
        is_ready
    });
    spins
        || (0..YIELDS).any(|_| {
            let is_ready = ready();
            if !is_ready {
                std::thread::yield_now();
            }
            is_ready
        })
}
