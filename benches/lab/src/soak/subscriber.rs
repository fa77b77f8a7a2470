//! A simulated subscriber that lives several lives, each of which checks everything that it receives.

use super::{SoakState, record};
use psa::client::{BatchEvent, LeaseOptions, Position, SubscribeOptions, Subscription};
use psa::protocol::{Code, GapReason};
use psa_load::client::failure;
use psa_load::error::Result;
use psa_load::verify::Tally;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The longest life before the subscriber is disconnected.
const LIFE: Duration = Duration::from_secs(12);
/// The longest life of one in four, most of which are disconnected before anything has arrived.
const SHORT_LIFE: Duration = Duration::from_millis(20);
/// The longest time for which a subscriber stops reading.
const STALL: Duration = Duration::from_secs(4);
/// The longest pause between two lives: far shorter than the time to live of a lease that the next life uses.
const PAUSE: Duration = Duration::from_millis(1500);
/// The time to live of a lease that the next life uses, and of one that is left to expire.
const LEASE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(2));
/// The delay before the next attempt while the server still considers a lease as held.
const HELD: Duration = Duration::from_millis(20);

/// A topic, as its subscribers know it.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) id: u64,
    /// Whether it evicts subscribers at its limit, which may then miss records at any time.
    pub(super) evicts: bool,
    /// Whether everything is published: from now on, each life reads to the end.
    pub(super) closed: watch::Receiver<bool>,
}

/// How a life begins.
#[derive(Clone, Debug)]
enum Begin {
    /// Anywhere.
    Fresh,
    /// After the records that the last life received.
    After(Position),
    /// With a lease. `stands` is the epoch and the range in which the lease must stand; `None` if it is new.
    Lease { name: String, stands: Option<(u64, RangeInclusive<u64>)> },
}

/// How a life ended.
enum LifeEnd {
    /// The topic ended.
    TopicEnded,
    /// The subscriber was disconnected in the middle.
    CutOff,
}

/// One simulated subscriber.
pub(super) struct SimulatedSubscriber {
    state: Arc<SoakState>,
    topic: Arc<Topic>,
    number: usize,
    random: fastrand::Rng,
    leases: u32,
}

impl SimulatedSubscriber {
    pub(super) fn new(
        state: Arc<SoakState>,
        topic: Arc<Topic>,
        number: usize,
        random: fastrand::Rng,
    ) -> SimulatedSubscriber {
        SimulatedSubscriber { state, topic, number, random, leases: 0 }
    }

    /// Lives one life after another, until the topic has ended.
    pub(super) async fn run(mut self) -> Result {
        let mut begin = self.begin();
        loop {
            let stays = self.random.u8(0..10) > 0;
            let mut sub = self.subscribe(&begin, stays).await?;
            let end = self.run_life(&mut sub, &begin).await?;
            if matches!(end, LifeEnd::TopicEnded) {
                return Ok(());
            }
            begin = self.next_begin(begin, &sub, stays);
            // Closes the connection wherever it is, including the data on its way.
            drop(sub);
            self.pause().await;
        }
    }

    fn begin(&mut self) -> Begin {
        match self.random.u8(0..3) {
            0 => {
                self.leases += 1;
                let name = format!("subscriber-{}-{}", self.number, self.leases);
                Begin::Lease { name, stands: None }
            }
            _ => Begin::Fresh,
        }
    }

    /// How the next life begins.
    fn next_begin(&mut self, begin: Begin, sub: &Subscription, stays: bool) -> Begin {
        let position = sub.position();
        let mut counts = self.state.counts();
        counts.cut += 1;
        match begin {
            Begin::Lease { .. } if !stays => {
                counts.forgotten += 1;
                drop(counts);
                self.begin()
            }
            Begin::Lease { name, .. } => {
                counts.taken_up += 1;
                // The last requested commit may or may not have reached the server.
                Begin::Lease {
                    name,
                    stands: Some((position.epoch, sub.committed()..=position.next)),
                }
            }
            _ if self.random.u8(0..4) > 0 => {
                counts.resumed += 1;
                Begin::After(position)
            }
            _ => {
                drop(counts);
                self.begin()
            }
        }
    }

    async fn subscribe(&mut self, begin: &Begin, stays: bool) -> Result<Subscription> {
        let options = match begin {
            Begin::Fresh => match self.random.u8(0..3) {
                0 => SubscribeOptions::earliest(),
                1 => SubscribeOptions::next(),
                _ => SubscribeOptions::last(self.random.u64(0..5000)),
            },
            Begin::After(position) => SubscribeOptions::resume(*position),
            Begin::Lease { name, .. } => {
                let ttl = if stays { LEASE.0 } else { LEASE.1 };
                SubscribeOptions::earliest().lease(LeaseOptions::new(name, ttl))
            }
        };
        loop {
            match self.state.client.subscribe(&self.topic.name, options.clone()).await {
                Ok(sub) => {
                    self.state.counts().lives += 1;
                    return Ok(sub);
                }
                Err(error) if error.code() == Some(Code::LeaseHeld) => sleep(HELD).await,
                Err(error) => {
                    return Err(failure(format!("subscribe to `{}`", self.topic.name), &error));
                }
            }
        }
    }

    /// The range in which the first records, or the first gap, must begin.
    fn stands(&self, begin: &Begin, sub: &Subscription) -> RangeInclusive<u64> {
        let now = sub.position();
        let (epoch, stands) = match begin {
            Begin::Fresh | Begin::Lease { stands: None, .. } => (now.epoch, now.next..=now.next),
            Begin::After(position) => (position.epoch, position.next..=position.next),
            Begin::Lease { stands: Some((epoch, stands)), .. } => (*epoch, stands.clone()),
        };
        if epoch != now.epoch {
            let name = &self.topic.name;
            self.state.wrong(format!("`{name}`: {begin:?} finds epoch {}", now.epoch));
        }
        stands
    }

    /// Reads and checks until it is disconnected or the topic ends.
    async fn run_life(&mut self, sub: &mut Subscription, begin: &Begin) -> Result<LifeEnd> {
        let longest = if self.random.u8(0..4) == 0 { SHORT_LIFE } else { LIFE };
        let until = Instant::now() + longest.mul_f64(self.random.f64());
        let mut stall = (self.random.u8(0..5) == 0).then(|| self.random.u32(0..20));
        let mut closed = self.topic.closed.clone();
        // A single offset after the first event.
        let mut expected = self.stands(begin, sub);
        let mut got_something = false;
        loop {
            // A life that is running when the topic is closed continues to the topic's end.
            let is_closed = *closed.borrow_and_update();
            if !is_closed && Instant::now() >= until {
                return Ok(LifeEnd::CutOff);
            }
            stall = stall.and_then(|chunks| chunks.checked_sub(1));
            if stall == Some(0) {
                self.state.counts().stalls += 1;
                let long = STALL.mul_f64(self.random.f64());
                let _ = timeout(long, closed.wait_for(|closed| *closed)).await;
            }
            let event = tokio::select! {
                event = sub.next_batch() => event,
                () = sleep_until(until), if !is_closed => continue,
                _ = closed.changed(), if !is_closed => continue,
            };
            let name = &self.topic.name;
            match event {
                Some(Ok(BatchEvent::Records(batch))) => {
                    got_something = true;
                    let (tally, next) = check(self.topic.id, &expected, batch.iter());
                    self.state.counts().tally.add(&tally);
                    if tally.lost + tally.duplicated + tally.corrupt > 0 {
                        let first = batch.iter().next().map(|(offset, _)| offset);
                        self.state.wrong(format!(
                            "`{name}`: {} lost, {} duplicated, {} corrupt from {first:?} to {next} where \
                             {expected:?} was next, begun as {begin:?}",
                            tally.lost, tally.duplicated, tally.corrupt
                        ));
                    }
                    expected = next..=next;
                    let last = next - 1;
                    if matches!(begin, Begin::Lease { .. }) && self.random.u8(0..4) == 0 {
                        let committed = sub.commit_later(..=last);
                        committed
                            .map_err(|error| failure(format!("commit in `{name}`"), &error))?;
                    }
                }
                Some(Ok(BatchEvent::Gap(gap))) => {
                    let may = self.topic.evicts
                        || !got_something && !matches!(begin, Begin::Lease { .. });
                    let is_exact =
                        expected.contains(&gap.first_missed) && gap.next > gap.first_missed;
                    if !may || !is_exact || gap.reason == GapReason::OtherEpoch {
                        self.state
                            .wrong(format!("`{name}`: gap {gap} where {expected:?} was next"));
                    }
                    let mut counts = self.state.counts();
                    counts.tally.gaps += 1;
                    counts.tally.missed += gap.next.saturating_sub(gap.first_missed);
                    expected = gap.next..=gap.next;
                }
                Some(Ok(BatchEvent::Closed { next, .. })) => {
                    if !expected.contains(&next) {
                        self.state
                            .wrong(format!("`{name}` ended at {next}, {expected:?} was next"));
                    }
                    return Ok(LifeEnd::TopicEnded);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Err(failure(format!("subscription to `{name}`"), &error));
                }
                None => {
                    self.state.wrong(format!("`{name}`: a subscription ended without a word"));
                    return Ok(LifeEnd::TopicEnded);
                }
            }
        }
    }

    /// Waits before the next life, but not longer than the topic is open.
    async fn pause(&mut self) {
        let long = PAUSE.mul_f64(self.random.f64());
        let mut closed = self.topic.closed.clone();
        let _ = timeout(long, closed.wait_for(|closed| *closed)).await;
    }
}

/// Checks consecutive records, the first of which must have an offset in `expected`. Returns their tally and the
/// offset after them.
fn check<'a>(
    topic: u64,
    expected: &RangeInclusive<u64>,
    records: impl Iterator<Item = (u64, &'a [u8])>,
) -> (Tally, u64) {
    let mut tally = Tally { chunks: 1, ..Tally::default() };
    let mut next = None;
    for (offset, bytes) in records {
        let due = next.unwrap_or_else(|| offset.clamp(*expected.start(), *expected.end()));
        tally.records += 1;
        tally.lost += offset.saturating_sub(due);
        tally.duplicated += u64::from(offset < due);
        tally.corrupt += u64::from(!record::is_right(topic, offset, bytes));
        next = Some(offset + 1);
    }
    (tally, next.unwrap_or(*expected.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_counted() {
        let record = |number| {
            let mut bytes = Vec::new();
            record::make(1, number, &mut bytes);
            bytes
        };
        let check = |expected, records: &[(u64, Vec<u8>)]| {
            let records = records.iter().map(|(offset, bytes)| (*offset, bytes.as_slice()));
            let (tally, next) = check(1, &expected, records);
            (tally.records, tally.lost, tally.duplicated, tally.corrupt, next)
        };
        assert_eq!(check(5..=5, &[(5, record(5)), (6, record(6))]), (2, 0, 0, 0, 7));
        assert_eq!(check(5..=9, &[(8, record(8))]), (1, 0, 0, 0, 9));
        assert_eq!(check(5..=5, &[(8, record(8))]), (1, 3, 0, 0, 9));
        assert_eq!(check(5..=7, &[(4, record(4)), (5, record(5))]), (2, 0, 1, 0, 6));
        assert_eq!(check(5..=5, &[(5, record(5)), (7, record(7))]), (2, 1, 0, 0, 8));
        assert_eq!(check(5..=5, &[(5, record(6))]), (1, 0, 0, 1, 6));
    }
}
