//! Samples the server at regular intervals, and judges whether its memory grows.

use super::SoakState;
use crate::system;
use psa::protocol::Code;
use psa_load::client::failure;
use psa_load::error::{Error, Result};
use psa_load::facts;
use psa_load::units::human_size;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, Interval};

/// How many samples a run has: enough for a plot, and few enough for a file.
const SAMPLES: u32 = 720;
/// The shortest time between two samples.
const SHORTEST: Duration = Duration::from_millis(100);

/// A shorter run mostly shows how caches and pools fill up, so its memory is reported but not judged.
const JUDGED: Duration = Duration::from_secs(600);
/// The part of a run at its start that is not judged, for the same reason.
const WARM_UP: f64 = 0.1;
/// How much more memory the last third may have than the first, as a part of the first.
const GROWTH: f64 = 0.1;
/// Growth of less than this many bytes is noise.
const NOISE: f64 = 2_097_152.0;

/// One sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    seconds: f64,
    rss: u64,
    descriptors: u64,
    threads: u64,
    topics: u64,
    live_segments: u64,
    pooled_segments: u64,
    unlinked_segments: u64,
    /// The memory of live, pooled and unlinked segments together.
    segment_bytes: u64,
    cursors: u64,
    leases: u64,
    /// The sum for the topics that exist now.
    publisher_waits: u64,
    /// The processor time that the server has used so far, in seconds.
    cpu: f64,
    published: u64,
    delivered: u64,
}

impl Sample {
    /// The sample as text for people.
    pub(super) fn summary(&self) -> String {
        format!(
            "{} resident, {} descriptors, {} topics, {} segments, {} leases",
            human_size(self.rss),
            self.descriptors,
            self.topics,
            self.live_segments + self.pooled_segments + self.unlinked_segments,
            self.leases
        )
    }
}

/// All samples.
#[derive(Debug)]
pub(super) struct Samples {
    /// The ID of the server's process, if the soak started it.
    server: Option<u32>,
    began: Instant,
    time: Duration,
    interval: Interval,
    all: Vec<Sample>,
}

impl Samples {
    /// Takes the first sample, before the load starts.
    pub(super) async fn begin(
        state: &SoakState,
        server: Option<u32>,
        time: Duration,
    ) -> Result<Samples> {
        let mut interval = tokio::time::interval((time / SAMPLES).max(SHORTEST));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut samples =
            Samples { server, began: Instant::now(), time, interval, all: Vec::new() };
        let first = samples.look(state).await?;
        samples.all.push(first);
        Ok(samples)
    }

    /// Waits until the next sample is due and takes it.
    ///
    /// If this is dropped while it waits, no sample is lost; if it is dropped while it takes a sample, that one is.
    pub(super) async fn next(&mut self, state: &SoakState) -> Result {
        self.interval.tick().await;
        let sample = self.look(state).await?;
        self.all.push(sample);
        Ok(())
    }

    /// Waits until the server has released everything, and takes the last sample.
    ///
    /// # Errors
    ///
    /// If the server still holds topics or descriptors when `patience` has passed.
    pub(super) async fn settle(&mut self, state: &SoakState, patience: Duration) -> Result {
        let first = self.all[0];
        let began = Instant::now();
        loop {
            let last = self.look(state).await?;
            // Fewer descriptors are fine, too: the soak has a connection that it does not use, which the server
            // closes as idle in a long run.
            let is_back = last.topics == first.topics && last.descriptors <= first.descriptors;
            if is_back || began.elapsed() > patience {
                self.all.push(last);
                return match is_back {
                    true => Ok(()),
                    false => Err(Error::failed(
                        "the soak failed",
                        format!(
                            "something stays: {} at first, {} now",
                            first.summary(),
                            last.summary()
                        ),
                    )),
                };
            }
            tokio::time::sleep(SHORTEST).await;
        }
    }

    /// The first and the last sample.
    pub(super) fn ends(&self) -> (Sample, Sample) {
        let last = self.all.last().copied().unwrap_or_default();
        (self.all.first().copied().unwrap_or_default(), last)
    }

    async fn look(&self, state: &SoakState) -> Result<Sample> {
        let fail = |error| failure("look at the server", &error);
        let mut sample =
            Sample { seconds: self.began.elapsed().as_secs_f64(), ..Sample::default() };
        for topic in state.client.topics("").await.map_err(fail)? {
            let details = match state.client.describe(&topic.name).await {
                Ok(details) => details,
                // The topic was deleted in the meantime.
                Err(error) if error.code() == Some(Code::UnknownTopic) => continue,
                Err(error) => return Err(fail(error)),
            };
            let stats = details.stats;
            let bytes = stats.live_bytes + stats.pooled_bytes + stats.unlinked_bytes;
            sample.topics += 1;
            sample.live_segments += stats.live_segments;
            sample.pooled_segments += stats.pooled_segments;
            sample.unlinked_segments += stats.unlinked_segments;
            sample.segment_bytes += bytes;
            sample.cursors += stats.cursors;
            sample.leases += stats.leases;
            sample.publisher_waits += stats.publisher_waits;
            if stats.memory_limit.is_some_and(|limit| bytes > limit) {
                state.counts().over_limit += 1;
            }
        }
        if let Some(pid) = self.server {
            let usage = facts::usage(pid).unwrap_or_default();
            (sample.rss, sample.cpu) = (usage.rss, usage.cpu);
            sample.descriptors = system::entries(pid, "fd");
            sample.threads = system::entries(pid, "task");
        }
        let counts = state.counts();
        (sample.published, sample.delivered) = (counts.published, counts.tally.records);
        Ok(sample)
    }

    /// The samples for programs: a list for each figure.
    pub(super) fn describe(&self) -> Value {
        let list = |what: fn(&Sample) -> u64| self.all.iter().map(what).collect::<Vec<_>>();
        let seconds = self.all.iter().map(|sample| (sample.seconds * 1e3).round() / 1e3);
        json!({
            "seconds": seconds.collect::<Vec<_>>(),
            "rss_bytes": list(|sample| sample.rss),
            "descriptors": list(|sample| sample.descriptors),
            "threads": list(|sample| sample.threads),
            "topics": list(|sample| sample.topics),
            "live_segments": list(|sample| sample.live_segments),
            "pooled_segments": list(|sample| sample.pooled_segments),
            "unlinked_segments": list(|sample| sample.unlinked_segments),
            "segment_bytes": list(|sample| sample.segment_bytes),
            "cursors": list(|sample| sample.cursors),
            "leases": list(|sample| sample.leases),
            "publisher_waits": list(|sample| sample.publisher_waits),
            "cpu_seconds": self.all.iter().map(|sample| sample.cpu).collect::<Vec<_>>(),
            "published": list(|sample| sample.published),
            "delivered": list(|sample| sample.delivered),
        })
    }

    /// The trend of the resident memory without the segments that the topics report, whose size depends on the
    /// topics' settings. `None` if the system does not report memory, or if there are not enough samples.
    pub(super) fn trend(&self) -> Option<Trend> {
        let (from, to) = (self.time.mul_f64(WARM_UP).as_secs_f64(), self.time.as_secs_f64());
        let during = self.all.iter().filter(|sample| (from..to).contains(&sample.seconds));
        let beside = |sample: &Sample| {
            let bytes = sample.rss.checked_sub(sample.segment_bytes)?;
            (bytes > 0).then_some(bytes as f64)
        };
        let bytes: Vec<f64> = during.map(beside).collect::<Option<_>>()?;
        if bytes.len() < 9 {
            return None;
        }
        let third = bytes.len() / 3;
        let thirds = [0, 1, 2].map(|number| median(&bytes[number * third..(number + 1) * third]));
        Some(Trend { thirds, is_judged: self.time >= JUDGED })
    }
}

/// The trend of the resident memory.
#[derive(Clone, Debug)]
pub(super) struct Trend {
    /// The median of each third of the run, in bytes.
    pub(super) thirds: [f64; 3],
    is_judged: bool,
}

impl Trend {
    /// Whether the run was long enough to judge and the last third clearly has more memory than the first.
    pub(super) fn grows(&self) -> bool {
        let [first, _, last] = self.thirds;
        self.is_judged && last - first > (first * GROWTH).max(NOISE)
    }

    pub(super) fn describe(&self) -> Value {
        json!({ "rss_beside_segments_by_thirds": self.thirds, "judged": self.is_judged, "grows": self.grows() })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(thirds: [f64; 3], is_judged: bool) -> Trend {
        Trend { thirds: thirds.map(|mib| mib * 1_048_576.0), is_judged }
    }

    #[test]
    fn growth_is_noticed_and_noise_is_not() {
        assert!(trend([30.0, 32.0, 34.0], true).grows());
        assert!(!trend([30.0, 36.0, 32.0], true).grows());
        assert!(!trend([8.0, 9.0, 9.9], true).grows(), "less than the noise");
        assert!(!trend([10.0, 20.0, 40.0], false).grows(), "too short to say");
    }
}
