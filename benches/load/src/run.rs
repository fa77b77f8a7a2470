//! One run through a server: a publisher, subscribers that check every record, and the resources used.

use crate::error::{Error, Exit, Result};
use crate::facts::{self, Usage};
use crate::readers::Readers;
use crate::rig::Rig;
use crate::source::{Amount, Pace, Published, Source};
use crate::units::human_count;
use crate::verify::{Shape, Sink, Tally};
use indicatif::{ProgressBar, ProgressDrawTarget};
use psa::protocol::{Overflow, Settings, TopicStats};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the progress is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A run hangs if no record is published or delivered for this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The topic's settings.
    pub settings: Settings,
    /// The number of subscribers.
    pub subscribers: usize,
    /// How many of the subscribers are stalled: they do not read at first.
    pub stalled: usize,
    /// How long the stalled subscribers do not read; `None` for until everything is published.
    pub pause: Option<Duration>,
    /// The size of a record in bytes.
    pub size: usize,
    /// Records in a publish frame.
    pub batch: usize,
    /// How many records to publish, or for how long.
    pub amount: Amount,
    /// The rate; `None` for as fast as possible.
    pub pace: Option<Pace>,
    /// Whether each publish waits for the answer to the one before it.
    pub one_by_one: bool,
    /// Threads that read.
    pub threads: usize,
}

/// The results of a run.
#[derive(Debug)]
pub struct Run {
    /// What was published.
    pub published: Published,
    /// What all subscribers together received.
    pub tally: Tally,
    /// What the stalled subscribers among them received.
    pub stalled: Tally,
    /// Seconds from the first publish to the last delivery.
    pub seconds: f64,
    /// How many times a subscriber was disconnected and resumed.
    pub resumed: u64,
    /// The topic's statistics after everything was delivered.
    pub stats: TopicStats,
    /// The server's processor time during the run, and its peak memory since it started.
    pub server: Option<Usage>,
    /// Processor time of the load generator during the run, in seconds.
    pub client_cpu: f64,
}

impl Run {
    /// Records delivered per second to all subscribers together.
    pub fn per_second(&self) -> f64 {
        self.tally.records as f64 / self.seconds
    }

    /// The mean number of records in a chunk.
    pub fn chunk(&self) -> u32 {
        let mean = self.tally.records as f64 / self.tally.chunks.max(1) as f64;
        mean.round().clamp(1.0, 1e6) as u32
    }
}

impl Plan {
    /// Runs the plan once, on a topic of its own.
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
        let server = rig.own.as_ref().and_then(crate::server::OwnServer::usage);
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
        let mut watch = ProgressWatch::new(title);
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
        let used = rig.own.as_ref().and_then(crate::server::OwnServer::usage);
        let server =
            used.zip(server).map(|(after, before)| Usage { cpu: after.cpu - before.cpu, ..after });
        let client_cpu = facts::own_cpu().zip(client).map_or(0.0, |(after, before)| after - before);
        // Readers do not finish in the order of their subscribers, so `held` says which were stalled.
        let (mut tally, mut stalled) = (Tally::default(), Tally::default());
        let (mut last, mut resumed) = (published.began, 0);
        for one in &finished {
            let mut own = one.tally;
            // Records missing at the end are lost, like records missing in the middle.
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

/// Shows the progress of a run, and detects a run that hangs.
pub struct ProgressWatch {
    bar: ProgressBar,
    seen: u64,
    moved: Instant,
}

impl ProgressWatch {
    /// Starts with a title, shown before the figures.
    pub fn new(title: &str) -> ProgressWatch {
        let bar = ProgressBar::no_length();
        if !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_message(title.to_owned());
        if let Ok(style) = indicatif::ProgressStyle::with_template("{spinner} {msg}: {prefix}") {
            bar.set_style(style);
        }
        ProgressWatch { bar, seen: 0, moved: Instant::now() }
    }

    /// Waits a moment, then shows the progress.
    ///
    /// # Errors
    ///
    /// If nothing was published or delivered for two minutes.
    pub fn look(&mut self, readers: &Readers, published: &AtomicU64) -> Result {
        std::thread::sleep(if self.seen == 0 { POLL_INTERVAL / 20 } else { POLL_INTERVAL });
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

    /// Removes the progress from the screen.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
