//! A seat: one subscriber after another, each of which checks all that it gets.

use super::{Shared, record};
use psa::client::{BatchEvent, LeaseOptions, Position, SubscribeOptions, Subscription};
use psa::protocol::{Code, GapReason};
use psa_cli::bench::verify::Tally;
use psa_cli::connect::failure;
use psa_cli::error::Result;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a subscriber stays at the most, before it is cut off.
const LIFE: Duration = Duration::from_secs(12);
/// The same of one in four, most of which are cut off before anything has come.
const SHORT_LIFE: Duration = Duration::from_millis(20);
/// How long it stands still at the most.
const STALL: Duration = Duration::from_secs(4);
/// How long a seat is empty at the most. Far less than leases last that are taken up again.
const EMPTY: Duration = Duration::from_millis(1500);
/// How long a lease waits for its next holder, and how long one that nobody will ask for again.
const LEASE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(2));
/// How long to wait for the server to notice that a lease's holder is gone.
const HELD: Duration = Duration::from_millis(20);

/// A topic, as its subscribers know it.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) id: u64,
    /// Whether it evicts subscribers at its limit: those may miss records at any time.
    pub(super) evicts: bool,
    /// Whether all is published: who reads now reads to the end.
    pub(super) closed: watch::Receiver<bool>,
}

/// How the next subscriber in a seat begins.
#[derive(Clone, Debug)]
enum Begin {
    /// Anywhere.
    Fresh,
    /// Behind what the last one got.
    After(Position),
    /// With a lease, which is new if nothing is known of where it stands.
    Lease { name: String, stands: Option<(u64, RangeInclusive<u64>)> },
}

/// How a life ended.
enum End {
    /// With the topic.
    Topic,
    /// In the middle.
    Cut,
}

/// One seat.
pub(super) struct Seat {
    shared: Arc<Shared>,
    topic: Arc<Topic>,
    number: usize,
    random: fastrand::Rng,
    leases: u32,
}

impl Seat {
    pub(super) fn new(
        shared: Arc<Shared>,
        topic: Arc<Topic>,
        number: usize,
        random: fastrand::Rng,
    ) -> Seat {
        Seat { shared, topic, number, random, leases: 0 }
    }

    /// One subscriber after another, until the topic has ended.
    pub(super) async fn run(mut self) -> Result {
        let mut begin = self.begin();
        loop {
            let stays = self.random.u8(0..10) > 0;
            let mut sub = self.subscribe(&begin, stays).await?;
            let end = self.live(&mut sub, &begin).await?;
            if matches!(end, End::Topic) {
                return Ok(());
            }
            begin = self.next_begin(begin, &sub, stays);
            // Cut off: the connection is closed wherever it is, with what is on its way in it.
            drop(sub);
            self.wait_empty().await;
        }
    }

    fn begin(&mut self) -> Begin {
        match self.random.u8(0..3) {
            0 => {
                self.leases += 1;
                let name = format!("seat-{}-{}", self.number, self.leases);
                Begin::Lease { name, stands: None }
            }
            _ => Begin::Fresh,
        }
    }

    /// How the one after this one begins.
    fn next_begin(&mut self, begin: Begin, sub: &Subscription, stays: bool) -> Begin {
        let place = sub.position();
        let mut counts = self.shared.counts();
        counts.cut += 1;
        match begin {
            Begin::Lease { .. } if !stays => {
                counts.forgotten += 1;
                drop(counts);
                self.begin()
            }
            Begin::Lease { name, .. } => {
                counts.taken_up += 1;
                // What was asked for last may or may not have arrived.
                Begin::Lease { name, stands: Some((place.epoch, sub.committed()..=place.next)) }
            }
            _ if self.random.u8(0..4) > 0 => {
                counts.resumed += 1;
                Begin::After(place)
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
            Begin::After(place) => SubscribeOptions::resume(*place),
            Begin::Lease { name, .. } => {
                let ttl = if stays { LEASE.0 } else { LEASE.1 };
                SubscribeOptions::earliest().lease(LeaseOptions::new(name, ttl))
            }
        };
        loop {
            match self.shared.client.subscribe(&self.topic.name, options.clone()).await {
                Ok(sub) => {
                    self.shared.counts().lives += 1;
                    return Ok(sub);
                }
                Err(error) if error.code() == Some(Code::LeaseHeld) => sleep(HELD).await,
                Err(error) => {
                    return Err(failure(format!("subscribe to `{}`", self.topic.name), &error));
                }
            }
        }
    }

    /// Where the first thing that it gets, records or a gap, has to begin.
    fn stands(&self, begin: &Begin, sub: &Subscription) -> RangeInclusive<u64> {
        let now = sub.position();
        let (epoch, stands) = match begin {
            Begin::Fresh | Begin::Lease { stands: None, .. } => (now.epoch, now.next..=now.next),
            Begin::After(place) => (place.epoch, place.next..=place.next),
            Begin::Lease { stands: Some((epoch, stands)), .. } => (*epoch, stands.clone()),
        };
        if epoch != now.epoch {
            let name = &self.topic.name;
            self.shared.wrong(format!("`{name}`: {begin:?} finds epoch {}", now.epoch));
        }
        stands
    }

    /// Reads and checks until it is cut off or the topic ends.
    async fn live(&mut self, sub: &mut Subscription, begin: &Begin) -> Result<End> {
        let longest = if self.random.u8(0..4) == 0 { SHORT_LIFE } else { LIFE };
        let until = Instant::now() + longest.mul_f64(self.random.f64());
        let mut stall = (self.random.u8(0..5) == 0).then(|| self.random.u32(0..20));
        let mut closed = self.topic.closed.clone();
        // One place, once the first thing has come.
        let mut expected = self.stands(begin, sub);
        let mut got_something = false;
        loop {
            // Who is there when the topic is closed stays to its end.
            let is_closed = *closed.borrow_and_update();
            if !is_closed && Instant::now() >= until {
                return Ok(End::Cut);
            }
            stall = stall.and_then(|chunks| chunks.checked_sub(1));
            if stall == Some(0) {
                self.shared.counts().stalls += 1;
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
                    self.shared.counts().tally.add(&tally);
                    if tally.lost + tally.duplicated + tally.corrupt > 0 {
                        let first = batch.iter().next().map(|(offset, _)| offset);
                        self.shared.wrong(format!(
                            "`{name}`: {} lost, {} duplicated, {} corrupt from {first:?} to {next} where \
                             {expected:?} was next, begun as {begin:?}",
                            tally.lost, tally.duplicated, tally.corrupt
                        ));
                    }
                    expected = next..=next;
                    let last = next - 1;
                    if matches!(begin, Begin::Lease { .. }) && self.random.u8(0..4) == 0 {
                        let committed = sub.commit_later(last);
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
                        self.shared
                            .wrong(format!("`{name}`: gap {gap} where {expected:?} was next"));
                    }
                    let mut counts = self.shared.counts();
                    counts.tally.gaps += 1;
                    counts.tally.missed += gap.next.saturating_sub(gap.first_missed);
                    expected = gap.next..=gap.next;
                }
                Some(Ok(BatchEvent::Closed { next, .. })) => {
                    if !expected.contains(&next) {
                        self.shared
                            .wrong(format!("`{name}` ended at {next}, {expected:?} was next"));
                    }
                    return Ok(End::Topic);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Err(failure(format!("subscription to `{name}`"), &error));
                }
                None => {
                    self.shared.wrong(format!("`{name}`: a subscription ended without a word"));
                    return Ok(End::Topic);
                }
            }
        }
    }

    /// The seat is empty for a while; not longer than the topic is open.
    async fn wait_empty(&mut self) {
        let long = EMPTY.mul_f64(self.random.f64());
        let mut closed = self.topic.closed.clone();
        let _ = timeout(long, closed.wait_for(|closed| *closed)).await;
    }
}

/// Checks consecutive records, of which the first should be one of `expected`; what they bring, and the
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
