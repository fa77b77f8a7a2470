//! One run through a server: a publisher, subscribers that check, and what it took.

use super::facts::{self, Usage};
use super::readers::Readers;
use super::rig::Rig;
use super::source::{Amount, Pace, Published, Source};
use super::verify::{Shape, Sink, Tally};
use crate::error::{Error, Exit, Result};
use crate::units::human_count;
use indicatif::{ProgressBar, ProgressDrawTarget};
use psa::protocol::{Overflow, Settings, TopicStats};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often to look how far it is.
const LOOK: Duration = Duration::from_millis(100);
/// Without a record published or delivered for so long, it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The topic's.
    pub settings: Settings,
    /// How many subscribe.
    pub subscribers: usize,
    /// Subscribers among them that do not read.
    pub stalled: usize,
    /// How long those do not; `None`: until everything is published.
    pub pause: Option<Duration>,
    /// Bytes of a record.
    pub size: usize,
    /// Records of a publish.
    pub batch: usize,
    /// How many records, or for how long.
    pub amount: Amount,
    /// At which rate; `None`: as fast as it goes.
    pub pace: Option<Pace>,
    /// Whether a publish waits for the answer to the one before it.
    pub one_by_one: bool,
    /// Threads that read.
    pub threads: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Run {
    /// What was published.
    pub published: Published,
    /// All subscribers together.
    pub tally: Tally,
    /// Those among them that stood still.
    pub stalled: Tally,
    /// From the first publish to the last delivery.
    pub seconds: f64,
    /// Times that a subscriber was cut off and went on.
    pub resumed: u64,
    /// Of the topic, when everything was delivered.
    pub stats: TopicStats,
    /// Of the server during the run; its memory is what it was at its most so far.
    pub server: Option<Usage>,
    /// Processor time of the load generator.
    pub client_cpu: f64,
}

impl Run {
    /// Records delivered to all subscribers together, a second.
    pub fn per_second(&self) -> f64 {
        self.tally.records as f64 / self.seconds
    }

    /// Records of a chunk, on average.
    pub fn chunk(&self) -> u32 {
        let mean = self.tally.records as f64 / self.tally.chunks.max(1) as f64;
        mean.round().clamp(1.0, 1e6) as u32
    }
}

impl Plan {
    /// Runs it once, on a topic of its own.
    pub fn run<S: Sink>(&self, rig: &mut Rig, title: &str, sink: impl Fn() -> S) -> Result<Run> {
        let topic = rig.topic(self.settings)?;
        let evicts = self.settings.overflow == Some(Overflow::Evict);
        let (release, hold) = watch::channel(false);
        let mut subscribers = Vec::with_capacity(self.subscribers);
        for i in 0..self.subscribers {
            let hold = (i < self.stalled).then(|| hold.clone());
            let shape = Shape::log(self.size);
            subscribers.push(rig.subscribe(&topic, shape, sink(), hold, evicts)?);
        }
        let server = rig.own.as_ref().and_then(super::server::OwnServer::usage);
        let client = facts::own_cpu();
        let readers = Readers::start(subscribers, self.threads);
        let counted = Arc::new(AtomicU64::new(0));
        let source = Source {
            target: rig.target.clone(),
            topic: topic.clone(),
            size: self.size,
            batch: self.batch,
            amount: self.amount,
            pace: self.pace.clone(),
            one_by_one: self.one_by_one,
            window: None,
        };
        let publishing = {
            let counted = counted.clone();
            std::thread::spawn(move || source.run(&counted))
        };
        let mut watch = Watch::new(title);
        let began = Instant::now();
        while !publishing.is_finished() {
            watch.look(&readers, &counted)?;
            if self.pause.is_some_and(|pause| began.elapsed() >= pause) {
                release.send_replace(true);
            }
        }
        let published = publishing.join();
        let published = published.map_err(|_| Error::failed("the publisher", "it panicked"))??;
        rig.close(&topic)?;
        release.send_replace(true);
        while !readers.are_done() {
            watch.look(&readers, &counted)?;
        }
        watch.end();
        let finished = readers.join()?;
        let stats = rig.describe(&topic)?.stats;
        rig.delete(&topic)?;
        let used = rig.own.as_ref().and_then(super::server::OwnServer::usage);
        let server =
            used.zip(server).map(|(after, before)| Usage { cpu: after.cpu - before.cpu, ..after });
        let client_cpu = facts::own_cpu().zip(client).map_or(0.0, |(after, before)| after - before);
        // The readers' order is not the subscribers' order; those that stood still know it.
        let (mut tally, mut stalled) = (Tally::default(), Tally::default());
        let (mut last, mut resumed) = (published.began, 0);
        for one in &finished {
            let mut own = one.tally;
            // What is missing at the end is as lost as what is missing in the middle.
            own.lost += published.records.saturating_sub(one.next);
            own.duplicated += one.next.saturating_sub(published.records);
            tally.add(&own);
            if one.held {
                stalled.add(&own);
            }
            last = last.max(one.last.unwrap_or(last));
            resumed += one.resumed;
        }
        let seconds = (last - published.began).max(Duration::from_nanos(1)).as_secs_f64();
        Ok(Run { published, tally, stalled, seconds, resumed, stats, server, client_cpu })
    }
}

/// Shows how far it is, and notices when it does not go on.
pub struct Watch {
    bar: ProgressBar,
    seen: u64,
    moved: Instant,
}

impl Watch {
    /// Shows this in front.
    pub fn new(title: &str) -> Watch {
        let bar = ProgressBar::no_length();
        if !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_message(title.to_owned());
        if let Ok(style) = indicatif::ProgressStyle::with_template("{spinner} {msg}: {prefix}") {
            bar.set_style(style);
        }
        Watch { bar, seen: 0, moved: Instant::now() }
    }

    /// Waits a moment, and shows how far it is then.
    pub fn look(&mut self, readers: &Readers, published: &AtomicU64) -> Result {
        std::thread::sleep(if self.seen == 0 { LOOK / 20 } else { LOOK });
        let (published, delivered) = (published.load(Ordering::Relaxed), readers.delivered());
        if published + delivered != self.seen {
            (self.seen, self.moved) = (published + delivered, Instant::now());
        } else if self.moved.elapsed() > PATIENCE {
            let why = format!("nothing was published or delivered for {} s", PATIENCE.as_secs());
            return Err(Error::new(Exit::Failed, "the benchmark hangs", why));
        }
        self.bar.set_prefix(format!(
            "{} records published, {} deliveries",
            human_count(published),
            human_count(delivered)
        ));
        self.bar.tick();
        Ok(())
    }

    /// Shows nothing any more.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
