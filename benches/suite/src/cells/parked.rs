//! What one publish, or a burst of them, costs when tasks are parked that wait for it, and how long
//! until the last of them has it.
//!
//! The publisher is a thread of its own beside a tokio runtime with a worker for every core. A worker
//! that it wakes may push it aside before the publish returns, for as long as that worker finds work:
//! that is the scheduler's doing, and tells nothing about the rival. So the publisher's own time is
//! its thread's processor time; the time until the publish returned is noted beside it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::delivery::runtime;
use crate::check::{Check, OnePublisher};
use crate::payload::Payload;
use crate::rival::{Publish, ReceiveAsync, Rival, Shape, Trouble};

/// After this long without the last one's receipt a run has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Records of a burst: few enough for every rival's capacity.
pub const BURST: u64 = 256;

/// How long the tasks have to park after the last one has received.
const SETTLE: Duration = Duration::from_millis(2);

/// The medians of one run.
#[derive(Clone, Copy, Debug)]
pub struct Publish1 {
    /// The processor time that the publisher's thread spent on one publish of [`Shape::burst`] records.
    pub own: Duration,
    /// From the beginning of the publish until it returned.
    pub returned: Duration,
    /// From the beginning of the publish until the last subscriber had the record.
    pub last: Duration,
}

/// What the subscribers share.
struct Receipts {
    count: AtomicU64,
    subscribers: u64,
    last: Sender<Result<Instant, Trouble>>,
}

impl Receipts {
    /// Someone has received all of one more publish.
    fn receipt(&self) {
        if (self.count.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(self.subscribers) {
            let _ = self.last.send(Ok(Instant::now()));
        }
    }
}

/// One run of `publishes` publishes, one after another, each when all subscribers are parked.
///
/// # Errors
///
/// [`Trouble`] when a subscriber did not get everything once and in order.
pub fn parked<R, P>(shape: &Shape, publishes: u64) -> Result<Publish1, Trouble>
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: ReceiveAsync<P>,
{
    let burst = shape.burst;
    let (mut publishers, subscribers) = R::open(shape);
    let publisher = publishers.first_mut().expect("one publishes");
    let (sender, verdicts) = channel();
    let receipts = std::sync::Arc::new(Receipts {
        count: AtomicU64::new(0),
        subscribers: shape.subscribers.max(1) as u64,
        last: sender,
    });
    let runtime = runtime();
    let mut bystanders = Vec::new();
    for (n, mut subscriber) in subscribers.into_iter().enumerate() {
        if n >= shape.subscribers {
            // It is there only because the rival refuses to be without; it neither reads nor waits.
            bystanders.push(subscriber);
            continue;
        }
        let receipts = receipts.clone();
        runtime.spawn(async move {
            let mut check = OnePublisher::default();
            while check.received() < publishes * burst {
                let due = check.received() + burst;
                let mut result = Ok(());
                while result.is_ok() && check.received() < due {
                    let take = &mut |payload: &P| check.take(payload.number());
                    result = subscriber.receive_async(take).await;
                }
                if let Err(trouble) = result.and_then(|()| check.verdict(due)) {
                    let _ = receipts.last.send(Err(trouble));
                    return;
                }
                receipts.receipt();
            }
        });
    }
    let (mut own, mut returned, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let clock = clock_cost();
    // The tasks have to run for the first time, too.
    std::thread::sleep(SETTLE + Duration::from_micros(2 * shape.subscribers as u64));
    for number in 0..publishes {
        let (begin, worked) = (Instant::now(), processor_time());
        publisher.publish((number * burst..(number + 1) * burst).map(P::new));
        let worked = processor_time() - worked;
        returned.push(begin.elapsed());
        own.push(worked.saturating_sub(clock));
        if shape.subscribers > 0 {
            let receipt = verdicts.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                Err(match error {
                    RecvTimeoutError::Timeout => Trouble::Stalled,
                    RecvTimeoutError::Disconnected => Trouble::Closed,
                })
            });
            last.push(receipt? - begin);
        }
        std::thread::sleep(SETTLE);
    }
    let [own, returned, last] = [&mut own, &mut returned, &mut last].map(|times| median(times));
    Ok(Publish1 { own, returned, last })
}

/// The processor time of this thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What reading that clock adds to a measurement.
fn clock_cost() -> Duration {
    let mut costs: Vec<_> = (0..101)
        .map(|_| {
            let begin = processor_time();
            processor_time() - begin
        })
        .collect();
    median(&mut costs)
}

/// The middle one; zero if there is none.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
