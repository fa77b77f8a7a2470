//! What a subscription is told.

use std::time::Duration;

use crate::log::Position;
use crate::protocol::{OnGap, Start};

/// Where a subscription starts and how it behaves. Made by one of the constructors, then changed.
///
/// ```
/// use std::time::Duration;
/// use psa::client::{LeaseOptions, SubscribeOptions};
///
/// // Continue after the last record that a former run has processed.
/// let options = SubscribeOptions::after(0x1234, 41).caught_up(true);
/// // A named place that outlives the process for a minute.
/// let options = SubscribeOptions::earliest()
///     .lease(LeaseOptions::new("billing", Duration::from_secs(60)));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SubscribeOptions {
    pub(super) start: Start,
    /// The epoch that the start belongs to, where the start itself does not say.
    pub(super) epoch: Option<u64>,
    pub(super) on_gap: OnGap,
    pub(super) caught_up: bool,
    pub(super) lease: Option<LeaseOptions>,
    pub(super) give_up_after: Option<Duration>,
}

impl SubscribeOptions {
    /// Starts at `start`.
    pub const fn new(start: Start) -> Self {
        Self {
            start,
            epoch: None,
            on_gap: OnGap::Continue,
            caught_up: false,
            lease: None,
            give_up_after: None,
        }
    }

    /// Starts at the first record that is kept.
    pub const fn earliest() -> Self {
        Self::new(Start::Earliest)
    }

    /// Starts with what comes.
    pub const fn next() -> Self {
        Self::new(Start::Next)
    }

    /// Resumes after the last record that was received.
    pub const fn after(epoch: u64, offset: u64) -> Self {
        Self::new(Start::After { epoch, offset })
    }

    /// Resumes at a position that was kept. What is not there any more comes as a [`Gap`](super::Gap), and so does
    /// another epoch.
    ///
    /// ```
    /// use psa::{Position, client::SubscribeOptions};
    ///
    /// // Nothing was received yet, and only records of this epoch count.
    /// let options = SubscribeOptions::resume(Position { epoch: 0x1234, next: 0 });
    /// ```
    pub const fn resume(position: Position) -> Self {
        let mut options = Self::new(Start::resume(position));
        if position.next == 0 {
            options.epoch = Some(position.epoch);
        }
        options
    }

    /// Starts at the last so many records.
    pub const fn last(records: u64) -> Self {
        Self::new(Start::Last(records))
    }

    /// What happens if the start is gone when the subscription is made. By default it goes on from
    /// the earliest record, with a [`Gap`](super::Gap) as its first event; with [`OnGap::Error`]
    /// subscribing fails. Later gaps come as events in either case.
    pub const fn on_gap(mut self, on_gap: OnGap) -> Self {
        self.on_gap = on_gap;
        self
    }

    /// Whether [`CaughtUp`](super::Event::CaughtUp) events are wanted. Not by default.
    pub const fn caught_up(mut self, wanted: bool) -> Self {
        self.caught_up = wanted;
        self
    }

    /// Holds a lease. If it exists already, the subscription goes on where it stands, and the
    /// start does not matter.
    pub fn lease(mut self, lease: LeaseOptions) -> Self {
        self.lease = Some(lease);
        self
    }

    /// How long to try to connect again after the connection broke, until the subscription ends
    /// with [`GaveUp`](super::ClientError::GaveUp). For ever by default; zero does not try at all.
    pub const fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = Some(time);
        self
    }
}

/// A lease: a named place in a topic that outlives its connection for a time.
#[derive(Clone, Debug)]
#[must_use]
pub struct LeaseOptions {
    pub(super) name: String,
    pub(super) ttl: Duration,
    pub(super) takeover: bool,
}

impl LeaseOptions {
    /// A lease that outlives its connection for `ttl` (whole milliseconds, at most 49 days).
    pub fn new(name: impl Into<String>, ttl: Duration) -> Self {
        Self { name: name.into(), ttl, takeover: false }
    }

    /// Whether to take it from another holder, who then sees
    /// [`LeaseTakenOver`](super::CloseReason::LeaseTakenOver). This holds for connecting again
    /// too: without it, a subscription waits until the server has noticed that its former
    /// connection is dead. Not by default.
    pub const fn takeover(mut self, takeover: bool) -> Self {
        self.takeover = takeover;
        self
    }

    pub(super) fn ttl_ms(&self) -> u32 {
        u32::try_from(self.ttl.as_millis()).unwrap_or(u32::MAX)
    }
}
