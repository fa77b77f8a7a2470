//! The settings of a subscription.

use std::time::Duration;

use crate::log::Position;
use crate::protocol::{OnGap, Start};

/// Where a subscription starts and how it behaves. Create it with one of the constructors, then
/// adjust it.
///
/// ```
/// use std::time::Duration;
/// use psa::client::{LeaseOptions, SubscribeOptions};
///
/// // Continue after the last record that a former run has processed.
/// let options = SubscribeOptions::after(0x1234, 41).caught_up();
/// // A named position that outlives the process for a minute.
/// let options = SubscribeOptions::earliest()
///     .lease(LeaseOptions::new("billing", Duration::from_secs(60)));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SubscribeOptions {
    pub(super) start: Start,
    /// The epoch that the start belongs to, if the start itself does not carry it.
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

    /// Starts after the last record: only new records are delivered.
    pub const fn next() -> Self {
        Self::new(Start::Next)
    }

    /// Resumes after the last record that was received.
    pub const fn after(epoch: u64, offset: u64) -> Self {
        Self::new(Start::After { epoch, offset })
    }

    /// Resumes at a stored position. Records that no longer exist are reported as a
    /// [`Gap`](super::Gap), and so is another epoch.
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

    /// Starts with the last `records` records.
    pub const fn last(records: u64) -> Self {
        Self::new(Start::Last(records))
    }

    /// What happens if the start no longer exists when the subscription is created. By default, it
    /// continues from the earliest record, with a [`Gap`](super::Gap) as its first event. With
    /// [`OnGap::Error`], subscribing fails. Later gaps are events in either case.
    pub const fn on_gap(mut self, on_gap: OnGap) -> Self {
        self.on_gap = on_gap;
        self
    }

    /// Yields [`CaughtUp`](super::Event::CaughtUp) events, too. By default, it does not.
    pub const fn caught_up(mut self) -> Self {
        self.caught_up = true;
        self
    }

    /// Holds a lease. If the lease already exists, the subscription continues at its position, and
    /// the start is ignored.
    pub fn lease(mut self, lease: LeaseOptions) -> Self {
        self.lease = Some(lease);
        self
    }

    /// How long to try to reconnect after the connection broke, until the subscription ends with
    /// [`GaveUp`](super::ClientError::GaveUp). Forever by default; zero does not try at all.
    pub const fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = Some(time);
        self
    }
}

/// A lease: a named position in a topic that outlives its connection for a time.
#[derive(Clone, Debug)]
#[must_use]
pub struct LeaseOptions {
    pub(super) name: String,
    pub(super) ttl: Duration,
    pub(super) take_over: bool,
}

impl LeaseOptions {
    /// A lease that outlives its connection for `ttl` (whole milliseconds, at most 49 days).
    pub fn new(name: impl Into<String>, ttl: Duration) -> Self {
        Self { name: name.into(), ttl, take_over: false }
    }

    /// Takes the lease from another holder, which then sees
    /// [`LeaseTakenOver`](super::CloseReason::LeaseTakenOver). This also applies when the
    /// subscription reconnects: without it, the subscription waits until the server has noticed that
    /// its former connection is dead. By default, it waits.
    pub const fn take_over(mut self) -> Self {
        self.take_over = true;
        self
    }

    pub(super) fn ttl_ms(&self) -> u32 {
        u32::try_from(self.ttl.as_millis()).unwrap_or(u32::MAX)
    }
}
