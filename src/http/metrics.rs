//! `GET /metrics`, `/healthz`, `/readyz`: monitoring.
//!
//! The values are read from the logs' own statistics when they are requested; nothing is counted on a record's path
//! for their sake. Each topic costs a snapshot, and snapshots are taken in small groups, so that ten thousand topics
//! do not hold up other tasks.
//!
//! # Labels
//!
//! Only the first topics by name, up to [`MAX_LABELLED_TOPICS`], have series of their own: a label for each of ten
//! thousand topics would choke the collector. The gauges without a label cover all topics.

mod stored;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder,
    NoLabelSet, text,
};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::api::Api;
use super::exposition::TextFormat;
use super::problem::Problem;
use super::process;
use crate::access::{Grant, Right};
use crate::broker::{Durability, StoredStats};
use crate::log::Stats;
use stored::Stored;

/// The maximum number of topics with series of their own.
const MAX_LABELLED_TOPICS: usize = 200;
/// The maximum number of leases with series of their own, over all topics that have series of their own.
const MAX_LABELLED_LEASES: usize = 1_000;
/// How many topics are read before other tasks run.
const GROUP_SIZE: usize = 256;

/// A metric that the program adds to the API's own.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) read: Reading,
}

/// The kind of a metric, and how its value is read.
pub(super) enum Reading {
    Gauge(Box<dyn Fn() -> u64 + Send + Sync>),
    /// The value only grows.
    Counter(Box<dyn Fn() -> u64 + Send + Sync>),
    /// Several such values, with the label that tells them apart.
    Counters(&'static str, Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>),
}

/// Whether the process is alive.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Whether the API accepts work.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, Problem> {
    if api.is_draining() { Err(Problem::shutting_down()) } else { Ok("ready\n") }
}

/// All metrics.
pub(super) async fn metrics(
    State(api): State<Arc<Api>>,
    grant: Grant,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // A right of its own: metrics name topics, and a collector does not need to read records.
    grant.check(Right::Metrics, "")?;
    let format = TextFormat::preferred(&headers);
    let text = api.renderings.take(&api, format, async || render(&api).await).await?;
    let said = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    Ok((said, text).into_response())
}

/// All metrics with their current values, in OpenMetrics.
async fn render(api: &Arc<Api>) -> Result<String, Problem> {
    let topics = Topics::gather(api).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { api: api.clone(), topics }));
    let mut text = String::new();
    let written = text::encode(&mut text, &registry);
    written.map_err(|_| Problem::internal("the figures were not written"))?;
    Ok(text)
}

/// A snapshot of all topics.
struct Topics {
    labelled: Vec<Labelled>,
    /// The topic, the lease, and the number of records that the lease has not committed.
    leases: Vec<(Arc<str>, String, u64)>,
    count: u64,
    sums: Sums,
}

/// A topic with series of its own.
struct Labelled {
    name: Arc<str>,
    stats: Stats,
    delivered: u64,
    durability: Durability,
    stored: Option<StoredStats>,
}

/// The values over all topics: the largest lag, and sums.
#[derive(Default)]
struct Sums {
    delivered: u64,
    cursors: u64,
    leases: u64,
    live_segments: u64,
    live_bytes: u64,
    pooled_segments: u64,
    pooled_bytes: u64,
    unlinked_segments: u64,
    unlinked_bytes: u64,
    slowest_lag: u64,
    stored: Stored,
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

/// How many records the slowest subscriber is behind at most; 0 if all subscribers are in the open segment.
fn lag(stats: &Stats) -> u64 {
    stats.slowest.as_ref().map_or(0, |slowest| slowest.records)
}

impl Topics {
    async fn gather(api: &Api) -> Self {
        let mut all =
            Self { labelled: Vec::new(), leases: Vec::new(), count: 0, sums: Sums::default() };
        let mut after: Option<Arc<str>> = None;
        loop {
            let group = api.broker.names(after.as_deref(), GROUP_SIZE);
            let Some(last) = group.last() else { return all };
            after = Some(last.clone());
            for name in group {
                let Some(topic) = api.broker.topic(&name) else { continue };
                let (stats, delivered) = (topic.log().stats(), topic.delivered());
                let (stored, durability) = (topic.stored(), topic.settings().durability);
                all.count += 1;
                all.sums.add(&stats);
                all.sums.delivered += delivered;
                if let Some(stored) = &stored {
                    all.sums.stored.add(stored);
                }
                if all.labelled.len() == MAX_LABELLED_TOPICS {
                    continue;
                }
                let room = MAX_LABELLED_LEASES - all.leases.len();
                if stats.leases > 0 && room > 0 {
                    let leases = topic.describe().1.into_iter().take(room);
                    all.leases.extend(leases.map(|lease| {
                        // The lease may have committed records that came after the statistics.
                        let lag = stats.next_offset.saturating_sub(lease.committed);
                        (name.clone(), lease.name, lag)
                    }));
                }
                all.labelled.push(Labelled { name, stats, delivered, durability, stored });
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The metrics of one response.
struct Scrape {
    api: Arc<Api>,
    topics: Topics,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("topics", &self.topics.count).finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.program(&mut encoder)?;
        #[cfg(feature = "tls")]
        self.certificates(&mut encoder)?;
        self.totals(&mut encoder)?;
        self.stored_totals(&mut encoder)?;
        self.listener_figures(&mut encoder)?;
        self.answers(&mut encoder)?;
        self.each_topic(&mut encoder)?;
        self.each_stored_topic(&mut encoder)?;
        self.each_lease(&mut encoder)
    }
}

fn gauge<N: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: N,
) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn counter<N: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: N,
) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

impl Scrape {
    /// Metrics of the program and its process.
    fn program(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Always 1; the label says which version this is";
        let build = ConstGauge::new(1u64);
        let mut family =
            encoder.encode_descriptor("psa_build_info", help, None, build.metric_type())?;
        build.encode(family.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?)?;
        for (name, help, value) in process::figures() {
            gauge(encoder, name, help, value)?;
        }
        for figure in self.api.figures.get().into_iter().flatten() {
            let Figure { name, help, read } = figure;
            match read {
                Reading::Gauge(read) => gauge(encoder, name, help, read())?,
                Reading::Counter(read) => counter(encoder, name, help, read())?,
                Reading::Counters(label, read) => {
                    let counts = read();
                    // A family without a sample says nothing, and some parsers refuse it.
                    if counts.is_empty() {
                        continue;
                    }
                    let kind = ConstCounter::new(0u64).metric_type();
                    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
                    for (value, count) in counts {
                        let labels = [(*label, value)];
                        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// When certificates cease to be valid.
    #[cfg(feature = "tls")]
    fn certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.api.config.tls.as_ref().map(crate::tls::Tls::validity).unwrap_or_default();
        if all.is_empty() {
            return Ok(());
        }
        let kind = ConstGauge::new(0u64).metric_type();
        let help =
            "When the first certificate of the file expires, in seconds since the Unix epoch";
        let name = "psa_tls_certificate_expires_timestamp_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for validity in all {
            let expires =
                validity.not_after.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let labels = [("file", validity.file.display().to_string())];
            let one = family.encode_family(&labels)?;
            ConstGauge::new(expires.as_secs()).encode(one)?;
        }
        Ok(())
    }

    fn totals(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (sums, budget) = (&self.topics.sums, self.api.broker.budget());
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
        let help = "Records that were handed to subscribers of topics that there are, once for each of them";
        counter(encoder, "psa_delivered_records", help, sums.delivered)
    }

    fn listener_figures(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let api = &self.api;
        let cache = api.cache.figures();
        for (name, help, value) in [
            ("psa_http_connections", "HTTP connections", api.life.connections.used() as u64),
            ("psa_http_streams", "Event streams", api.streams.used() as u64),
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
                api.gaps.load(Ordering::Relaxed),
            ),
            (
                "psa_http_stalled",
                "Event streams that were ended because they took nothing",
                api.stall_guard.dropped(),
            ),
        ] {
            counter(encoder, name, help, value)?;
        }
        let help = "From a publisher's whole request to the answer, in seconds";
        api.append_seconds.encode(encoder.encode_descriptor(
            "psa_http_append_seconds",
            help,
            None,
            api.append_seconds.metric_type(),
        )?)?;
        self.deliveries(encoder)
    }

    /// How requests were answered.
    fn answers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = || ConstCounter::new(0u64).metric_type();
        let help = "HTTP answers by the hundreds of their status";
        let mut answers = encoder.encode_descriptor("psa_http_answers", help, None, kind())?;
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(&self.api.answers) {
            let labels = [("class", *class)];
            // Relaxed: statistics.
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(answers.encode_family(&labels)?)?;
        }
        let help = "HTTP requests that were refused, by the code of the problem";
        let mut problems = encoder.encode_descriptor("psa_http_problems", help, None, kind())?;
        for (code, count) in self.api.problems() {
            ConstCounter::new(count).encode(problems.encode_family(&[("code", code)])?)?;
        }
        Ok(())
    }

    fn deliveries(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From a record's append to when it was handed to a subscriber's connection, in seconds: of \
            one record in 64, if it came after its subscriber, and at most one in each write";
        let (name, kind) = ("psa_delivery_seconds", self.api.append_seconds.metric_type());
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        let deliveries = self.api.broker.deliveries();
        for (listener, latency) in [("binary", &deliveries.binary), ("http", &deliveries.http)] {
            let seconds =
                |bound: Option<Duration>| bound.map_or(f64::INFINITY, |it| it.as_secs_f64());
            let buckets: Vec<_> =
                latency.buckets().map(|(bound, count)| (seconds(bound), count)).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let labels = [("listener", listener)];
            let sum = latency.sum().as_secs_f64();
            family
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn each_topic(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = fn(&Labelled) -> u64;
        let counters: [(&str, &str, Read); 7] = [
            ("psa_topic_appended_records", "Records ever appended", |t| t.stats.next_offset),
            ("psa_topic_appended_bytes", "Their payload in bytes", |t| t.stats.appended_bytes),
            ("psa_topic_delivered_records", "Records handed to subscribers, once for each", |t| {
                t.delivered
            }),
            ("psa_topic_collected_records", "Records that were collected", |t| {
                t.stats.first_offset
            }),
            ("psa_topic_evictions", "Cursors and leases whose place was taken away", |t| {
                t.stats.evictions
            }),
            ("psa_topic_reader_waits", "How often a reader waited for a record", |t| {
                t.stats.reader_waits
            }),
            ("psa_topic_publisher_waits", "How often a publisher waited for memory", |t| {
                t.stats.publisher_waits
            }),
        ];
        for (name, help, read) in counters {
            self.family(encoder, name, help, true, |topic| Some(read(topic)))?;
        }
        let gauges: [(&str, &str, Read); 7] = [
            ("psa_topic_cursors", "Cursors", |t| t.stats.cursors as u64),
            ("psa_topic_leases", "Leases, held or not", |t| t.stats.leases as u64),
            ("psa_topic_segments_live", "Segments that hold records", |t| t.stats.live_segments),
            ("psa_topic_segments_pooled", "Cleared segments that wait for reuse", |t| {
                t.stats.pooled_segments
            }),
            (
                "psa_topic_segments_unlinked",
                "Collected segments that a reader may still see",
                |t| t.stats.unlinked_segments,
            ),
            ("psa_topic_memory_bytes", "Memory of all its segments in bytes", |t| t.stats.memory()),
            (
                "psa_topic_slowest_lag_records",
                "Records from the slowest subscriber's segment to the end",
                |t| lag(&t.stats),
            ),
        ];
        for (name, help, read) in gauges {
            self.family(encoder, name, help, false, |topic| Some(read(topic)))?;
        }
        let help = "Always 1; the label says what an acknowledgement means";
        let one = ConstGauge::new(1u64);
        let name = "psa_topic_durability";
        let mut family = encoder.encode_descriptor(name, help, None, one.metric_type())?;
        for topic in &self.topics.labelled {
            let labels = [("topic", &*topic.name), ("durability", topic.durability.word())];
            one.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn each_lease(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, kind) = ("psa_lease_lag_records", ConstGauge::new(0u64).metric_type());
        let help = "Records that the lease has not committed";
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (topic, lease, lag) in &self.topics.leases {
            let labels = [("topic", &**topic), ("lease", lease)];
            ConstGauge::new(*lag).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// One metric, with a series for each labelled topic that has a value.
    fn family<N: EncodeCounterValue + EncodeGaugeValue>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        is_counter: bool,
        read: impl Fn(&Labelled) -> Option<N>,
    ) -> fmt::Result {
        let kind = if is_counter {
            ConstCounter::new(0u64).metric_type()
        } else {
            ConstGauge::new(0u64).metric_type()
        };
        let mut family: MetricEncoder<'_> = encoder.encode_descriptor(name, help, None, kind)?;
        for topic in &self.topics.labelled {
            let Some(value) = read(topic) else { continue };
            let labels = [("topic", &*topic.name)];
            let one = family.encode_family(&labels)?;
            if is_counter {
                ConstCounter::new(value).encode(one)?;
            } else {
                ConstGauge::new(value).encode(one)?;
            }
        }
        Ok(())
    }
}
