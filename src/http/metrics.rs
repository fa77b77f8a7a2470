//! `GET /metrics`, `/healthz`, `/readyz`: what an operator's machines ask.
//!
//! Figures are read from the logs' own statistics when they are asked for; nothing is counted on the
//! way of a record for their sake. Each topic costs a snapshot, and they are taken in small groups, so
//! that ten thousand topics hold up nobody.
//!
//! # Labels
//!
//! Only so many topics have figures of their own, the first by name: a label for each of ten thousand
//! would choke what collects them. The gauges without a label are over all topics.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::{door::Door, problem::Problem};
use crate::{
    access::{Grant, Right},
    log::Stats,
};

/// The media type of what Prometheus collects.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Topics with figures of their own at the most.
const LABELLED: usize = 200;
/// Topics that are looked at before other tasks run.
const GROUP: usize = 256;

/// A figure that the program adds to the door's own.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) read: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// Whether the process lives.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Whether it takes work.
pub(super) async fn ready(State(door): State<Arc<Door>>) -> Result<&'static str, Problem> {
    if door.is_draining() { Err(Problem::shutting_down()) } else { Ok("ready\n") }
}

/// All figures.
pub(super) async fn metrics(
    State(door): State<Arc<Door>>,
    grant: Grant,
) -> Result<Response, Problem> {
    // A right of its own: the figures name topics, and who collects them needs to read no record.
    grant.check(Right::Metrics, "")?;
    let topics = Topics::gather(&door).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { door, topics }));
    let mut text = String::new();
    text::encode(&mut text, &registry)
        .map_err(|_| Problem::internal("the figures were not written"))?;
    let media = [(header::CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS))];
    Ok((media, text).into_response())
}

/// What all topics say at this moment.
struct Topics {
    labelled: Vec<(Arc<str>, Stats)>,
    count: u64,
    sums: Sums,
}

/// Over all topics.
#[derive(Default)]
struct Sums {
    cursors: u64,
    leases: u64,
    live_segments: u64,
    live_bytes: u64,
    pooled_segments: u64,
    pooled_bytes: u64,
    unlinked_segments: u64,
    unlinked_bytes: u64,
    slowest_lag: u64,
}

impl Sums {
    fn add(&mut self, stats: &Stats) {
        self.cursors += stats.cursors as u64;
        self.leases += stats.leases as u64;
        self.live_segments += stats.live_segments;
        self.live_bytes += stats.live_bytes;
        self.pooled_segments += stats.pooled_segments;
        self.pooled_bytes += stats.pooled_bytes;
        self.unlinked_segments += stats.unlinked_segments;
        self.unlinked_bytes += stats.unlinked_bytes;
        self.slowest_lag = self.slowest_lag.max(lag(stats));
    }
}

/// How many records the slowest subscriber is behind, at the most; 0 if all are in the open segment.
fn lag(stats: &Stats) -> u64 {
    stats.slowest.as_ref().map_or(0, |slowest| slowest.records)
}

impl Topics {
    async fn gather(door: &Door) -> Self {
        let mut all = Self { labelled: Vec::new(), count: 0, sums: Sums::default() };
        let mut after: Option<Arc<str>> = None;
        loop {
            let group = door.broker.names(after.as_deref(), GROUP);
            let Some(last) = group.last() else { return all };
            after = Some(last.clone());
            for name in group {
                let Some(topic) = door.broker.topic(&name) else { continue };
                let stats = topic.log().stats();
                all.count += 1;
                all.sums.add(&stats);
                if all.labelled.len() < LABELLED {
                    all.labelled.push((name, stats));
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

/// One answer's figures.
struct Scrape {
    door: Arc<Door>,
    topics: Topics,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("topics", &self.topics.count).finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.totals(&mut encoder)?;
        self.door_figures(&mut encoder)?;
        self.each_topic(&mut encoder)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

impl Scrape {
    fn totals(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (sums, budget) = (&self.topics.sums, self.door.broker.budget());
        for (name, help, value) in [
            ("psa_topics", "Topics", self.topics.count),
            (
                "psa_topics_labelled",
                "Topics with figures of their own",
                self.topics.labelled.len() as u64,
            ),
            ("psa_cursors", "Cursors in all topics, those of lease holders included", sums.cursors),
            ("psa_leases", "Leases in all topics, held or not", sums.leases),
            ("psa_segments_live", "Segments that hold records", sums.live_segments),
            ("psa_segments_live_bytes", "Their memory in bytes", sums.live_bytes),
            ("psa_segments_pooled", "Cleared segments that wait for reuse", sums.pooled_segments),
            ("psa_segments_pooled_bytes", "Their memory in bytes", sums.pooled_bytes),
            (
                "psa_segments_unlinked",
                "Collected segments that a reader may still see",
                sums.unlinked_segments,
            ),
            ("psa_segments_unlinked_bytes", "Their memory in bytes", sums.unlinked_bytes),
            (
                "psa_slowest_lag_records",
                "Records from the slowest subscriber's segment to the end, of the topic where that is most",
                sums.slowest_lag,
            ),
            ("psa_memory_used_bytes", "Memory of all topics in bytes", budget.used()),
            ("psa_memory_limit_bytes", "Its limit in bytes", budget.limit()),
        ] {
            gauge(encoder, name, help, value)?;
        }
        Ok(())
    }

    fn door_figures(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let door = &self.door;
        let cache = door.cache.figures();
        for (name, help, value) in [
            ("psa_http_connections", "HTTP connections", door.connections.used() as u64),
            ("psa_http_streams", "Event streams", door.streams.used() as u64),
            (
                "psa_http_cache_bytes",
                "Memory of encoded events that streams share, in bytes",
                cache.bytes as u64,
            ),
        ] {
            gauge(encoder, name, help, value)?;
        }
        // Relaxed: statistics.
        for (name, help, value) in [
            (
                "psa_http_events",
                "Records that were handed to event streams",
                cache.delivered_records,
            ),
            ("psa_http_events_bytes", "Their events in bytes", cache.delivered_bytes),
            ("psa_http_runs_encoded", "Runs of events that were encoded", cache.encoded),
            ("psa_http_runs_kept", "Runs that were kept for other streams", cache.kept),
            ("psa_http_runs_shared", "Runs that a stream took from another one", cache.taken),
            (
                "psa_http_gaps",
                "Gaps that event streams were told of",
                door.gaps.load(Ordering::Relaxed),
            ),
            (
                "psa_http_stalled",
                "Event streams that were ended because they took nothing",
                door.seats.cleared(),
            ),
        ] {
            counter(encoder, name, help, value)?;
        }
        let help = "HTTP answers by the hundreds of their status";
        let kind = ConstCounter::new(0u64).metric_type();
        let mut answers = encoder.encode_descriptor("psa_http_answers", help, None, kind)?;
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(&door.answers) {
            let labels = [("class", *class)];
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(answers.encode_family(&labels)?)?;
        }
        for figure in door.figures.get().into_iter().flatten() {
            gauge(encoder, figure.name, figure.help, (figure.read)())?;
        }
        let help = "From a publisher's whole request to the answer, in seconds";
        door.append_seconds.encode(encoder.encode_descriptor(
            "psa_http_append_seconds",
            help,
            None,
            door.append_seconds.metric_type(),
        )?)?;
        self.deliveries(encoder)
    }

    fn deliveries(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From a record's append to when it was handed to a subscriber's connection, in seconds: of \
            one record in 64, if it came after its subscriber, and at most one in each write";
        let (name, kind) = ("psa_delivery_seconds", self.door.append_seconds.metric_type());
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        let deliveries = self.door.broker.deliveries();
        for (door, latency) in [("binary", &deliveries.binary), ("http", &deliveries.http)] {
            // The format says that a bound of the largest number is none.
            let seconds = |bound: Option<Duration>| bound.map_or(f64::MAX, |it| it.as_secs_f64());
            let buckets: Vec<_> =
                latency.buckets().map(|(bound, count)| (seconds(bound), count)).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let labels = [("door", door)];
            let sum = latency.sum().as_secs_f64();
            family
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn each_topic(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = fn(&Stats) -> u64;
        let counters: [(&str, &str, Read); 6] = [
            ("psa_topic_appended_records", "Records ever appended", |s| s.next_offset),
            ("psa_topic_appended_bytes", "Their payload in bytes", |s| s.appended_bytes),
            ("psa_topic_collected_records", "Records that were collected", |s| s.first_offset),
            ("psa_topic_evictions", "Cursors and leases whose place was taken away", |s| {
                s.evictions
            }),
            ("psa_topic_reader_waits", "How often a reader waited for a record", |s| {
                s.reader_waits
            }),
            ("psa_topic_publisher_waits", "How often a publisher waited for memory", |s| {
                s.publisher_waits
            }),
        ];
        for (name, help, read) in counters {
            self.family(encoder, name, help, true, read)?;
        }
        let gauges: [(&str, &str, Read); 7] = [
            ("psa_topic_cursors", "Cursors", |s| s.cursors as u64),
            ("psa_topic_leases", "Leases, held or not", |s| s.leases as u64),
            ("psa_topic_segments_live", "Segments that hold records", |s| s.live_segments),
            ("psa_topic_segments_pooled", "Cleared segments that wait for reuse", |s| {
                s.pooled_segments
            }),
            (
                "psa_topic_segments_unlinked",
                "Collected segments that a reader may still see",
                |s| s.unlinked_segments,
            ),
            ("psa_topic_memory_bytes", "Memory of all its segments in bytes", |s| {
                s.live_bytes + s.pooled_bytes + s.unlinked_bytes
            }),
            (
                "psa_topic_slowest_lag_records",
                "Records from the slowest subscriber's segment to the end",
                lag,
            ),
        ];
        for (name, help, read) in gauges {
            self.family(encoder, name, help, false, read)?;
        }
        Ok(())
    }

    /// One figure of each topic that has figures of its own.
    fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        counts: bool,
        read: fn(&Stats) -> u64,
    ) -> fmt::Result {
        let kind = if counts {
            ConstCounter::new(0u64).metric_type()
        } else {
            ConstGauge::new(0u64).metric_type()
        };
        let mut family: MetricEncoder<'_> = encoder.encode_descriptor(name, help, None, kind)?;
        for (topic, stats) in &self.topics.labelled {
            let labels = [("topic", &**topic)];
            let one = family.encode_family(&labels)?;
            let value = read(stats);
            if counts {
                ConstCounter::new(value).encode(one)?;
            } else {
                ConstGauge::new(value).encode(one)?;
            }
        }
        Ok(())
    }
}
