//! Topics: list, create, describe, close, delete.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::Api;
use super::problem::Problem;
use super::request::{Parameters, TopicName};
use super::start::epoch_text;
use super::{answer, body};
use crate::access::{Grant, Right};
use crate::broker::{Durability, ResolvedSettings, StoredStats, Topic, TopicSettings};
use crate::log::{Overflow, Retention};
use crate::words::parse_digits;

/// The largest body of settings, in bytes: many times what they need.
const MAX_SETTINGS: usize = 4 << 10;
/// The most topics in one response, and the number unless the client asks for fewer.
const MOST_TOPICS: u64 = 1_000;

/// `GET /topics`.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    uri: Uri,
    grant: Grant,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(uri.query(), &["prefix", "after", "limit"])?;
    let limit = parameters.get("limit", |text| match parse_digits(text) {
        Some(limit @ 1..=MOST_TOPICS) => Ok(limit as usize),
        _ => Err(format!("expected a number from 1 to {MOST_TOPICS}")),
    })?;
    let limit = limit.unwrap_or(MOST_TOPICS as usize);
    let prefix = parameters.text("prefix").unwrap_or_default();
    // One more than the response lists, to know whether there are more.
    let (after, sees) = (parameters.text("after"), |name: &str| grant.sees(name));
    let mut found = api.broker.list_filtered(prefix, after, limit + 1, sees);
    let more = found.len() > limit;
    found.truncate(limit);
    let topics: Vec<Value> = found
        .iter()
        .map(|topic| {
            json!({
                "topic": &*topic.name,
                "epoch": epoch_text(topic.epoch),
                "first_offset": topic.first_offset,
                "next_offset": topic.next_offset,
                "cursors": topic.cursors,
                "leases": topic.leases,
                "bytes": topic.bytes,
                "durability": topic.durability,
                "disk_bytes": topic.disk_bytes,
            })
        })
        .collect();
    answer::long_json(&api, &json!({ "topics": topics, "more": more }))
}

/// `GET /topics/{topic}`.
pub(super) async fn describe(
    State(api): State<Arc<Api>>,
    TopicName(name): TopicName,
    uri: Uri,
    grant: Grant,
) -> Result<Response, Problem> {
    grant.check_sees(&name)?;
    Parameters::read(uri.query(), &[])?;
    let topic = api.broker.topic(&name).ok_or_else(|| Problem::unknown_topic(&name))?;
    describe_whole(&api, &topic)
}

/// `PUT /topics/{topic}`: creates the topic, or finds it with the settings that were asked for.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    TopicName(name): TopicName,
    OriginalUri(original): OriginalUri,
    uri: Uri,
    headers: HeaderMap,
    grant: Grant,
    body: Body,
) -> Result<Response, Problem> {
    grant.check(Right::Manage, &name)?;
    Parameters::read(uri.query(), &[])?;
    let too_large = |_| Problem::body_too_large(MAX_SETTINGS);
    let body = body::read(&api, &headers, body, MAX_SETTINGS, too_large).await?;
    let settings = SettingsBody::read(&body)?.to_broker()?;
    // Also where the topic exists, and is not stored: what can never be is told.
    settings.check_disk_limit(api.broker.config())?;
    if api.is_draining() && api.broker.topic(&name).is_none() {
        return Err(Problem::shutting_down());
    }
    let (topic, made) = api.broker.create_or_get(&name, &settings)?;
    // Whoever is told that it is there finds it after a crash.
    let written = topic.created().await;
    written.map_err(|error| Problem::publish(&error, &topic, &api))?;
    if !made && let Some(other) = differs(&settings, topic.settings()) {
        return Err(Problem::topic_exists(&name, other));
    }
    if !made {
        return describe_whole(&api, &topic);
    }
    // A topic without leases has a short description, and since it has been created, the response is not refused
    // for want of memory.
    let said = answer::json(&description(&topic));
    let place = HeaderValue::try_from(original.path());
    let place = place.map_err(|_| Problem::name("it cannot stand in an address"))?;
    let durability = answer::durability(&topic);
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], durability, said).into_response())
}

/// Everything about a topic, also if it has many leases.
fn describe_whole(api: &Api, topic: &Topic) -> Result<Response, Problem> {
    let said = answer::long_json(api, &description(topic))?;
    Ok((answer::durability(topic), said).into_response())
}

/// `DELETE /topics/{topic}`.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    TopicName(name): TopicName,
    uri: Uri,
    grant: Grant,
) -> Result<StatusCode, Problem> {
    grant.check(Right::Manage, &name)?;
    Parameters::read(uri.query(), &[])?;
    let broker = api.broker.clone();
    // Where the topic is stored, it waits for the disk.
    let deleted = tokio::task::spawn_blocking(move || broker.delete(&name)).await;
    deleted.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /topics/{topic}/close`.
pub(super) async fn close(
    State(api): State<Arc<Api>>,
    TopicName(name): TopicName,
    uri: Uri,
    grant: Grant,
) -> Result<StatusCode, Problem> {
    grant.check(Right::Manage, &name)?;
    Parameters::read(uri.query(), &[])?;
    let (topic, ticket) = api.broker.close_topic(&name)?;
    // Where the topic is stored, once that is written down.
    ticket.await.map_err(|error| Problem::publish(&error, &topic, &api))?;
    Ok(StatusCode::NO_CONTENT)
}

/// A topic's settings as a client writes them. The server's default applies to each one that is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsBody {
    segment_bytes: Option<usize>,
    memory_limit: Option<u64>,
    retention: Option<Retention>,
    overflow: Option<Overflow>,
    durability: Option<Durability>,
    disk_limit: Option<u64>,
}

impl SettingsBody {
    /// Reads a body. An empty one asks for nothing; whitespace alone is not JSON (RFC 8259, 2).
    fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        // Serde would also accept an array, with the members in the order of the structure's fields.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Problem::settings("expected an object, or no body at all"));
        }
        serde_json::from_slice(body).map_err(|error| Problem::settings(error.to_string()))
    }

    fn to_broker(&self) -> Result<TopicSettings, Problem> {
        if self.retention == Some(Retention::Age(Duration::ZERO)) {
            return Err(Problem::settings("a retention of 0 ms; give at least 1, or \"nothing\""));
        }
        Ok(TopicSettings {
            segment_bytes: self.segment_bytes,
            memory_limit: self.memory_limit,
            retention: self.retention,
            overflow: self.overflow,
            durability: self.durability,
            disk_limit: self.disk_limit,
        })
    }
}

/// The first setting that the topic has with another value than was asked for.
fn differs(wish: &TopicSettings, is: &ResolvedSettings) -> Option<&'static str> {
    let differs = |differs: bool, name| differs.then_some(name);
    differs(wish.segment_bytes.is_some_and(|wish| wish != is.segment_bytes), "segment_bytes")
        .or(differs(wish.memory_limit.is_some_and(|wish| wish != is.memory_limit), "memory_limit"))
        .or(differs(wish.retention.is_some_and(|wish| wish != is.retention), "retention"))
        .or(differs(wish.overflow.is_some_and(|wish| wish != is.overflow), "overflow"))
        .or(differs(wish.durability.is_some_and(|wish| wish != is.durability), "durability"))
        // A topic that is not stored was created without it, whatever was asked for.
        .or(differs(
            is.durability.is_stored() && wish.disk_limit.is_some_and(|wish| wish != is.disk_limit),
            "disk_limit",
        ))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Everything about a topic. `psa topics describe --json` uses the same names, but has the settings beside the
/// rest, and the retention as text.
fn description(topic: &Topic) -> Value {
    let (stats, leases) = topic.describe();
    let settings = topic.settings();
    json!({
        "topic": topic.name(),
        "durability": settings.durability,
        "closed": stats.closed,
        "epoch": epoch_text(stats.epoch),
        "first_offset": stats.first_offset,
        "next_offset": stats.next_offset,
        "settings": {
            "segment_bytes": settings.segment_bytes,
            "memory_limit": settings.memory_limit,
            "retention": settings.retention,
            "overflow": settings.overflow,
            "durability": settings.durability,
            // Not 0, which would be no answer to a PUT.
            "disk_limit": settings.durability.is_stored().then_some(settings.disk_limit),
        },
        "stored": topic.stored().as_ref().map(stored),
        "appended_records": stats.next_offset,
        "appended_bytes": stats.appended_bytes,
        "live_segments": stats.live_segments,
        "live_bytes": stats.live_bytes,
        "pooled_segments": stats.pooled_segments,
        "pooled_bytes": stats.pooled_bytes,
        "unlinked_segments": stats.unlinked_segments,
        "unlinked_bytes": stats.unlinked_bytes,
        "cursors": stats.cursors,
        "lease_count": stats.leases,
        "leases": leases.iter().map(|lease| json!({
            "name": lease.name,
            "committed": lease.committed,
            "held": lease.held,
            "expires_in_ms": lease.expires_in.map(millis),
        })).collect::<Vec<_>>(),
        "slowest": stats.slowest.map(|slowest| json!({
            "first_offset": slowest.first_offset,
            "next_offset": slowest.next_offset,
            "cursors": slowest.cursors,
            "segments": slowest.segments,
            "bytes": slowest.bytes,
            "records": slowest.records,
        })),
        "evictions": stats.evictions,
        "reader_waits": stats.reader_waits,
        "publisher_waits": stats.publisher_waits,
    })
}

/// The state of a topic's files. `psa topics describe --json` uses the same names.
fn stored(stored: &StoredStats) -> Value {
    json!({
        "first_offset": stored.first_offset,
        "next_offset": stored.next_offset,
        "durable_offset": stored.durable_offset,
        "bytes": stored.bytes,
        "limit": stored.limit,
        "pressure": stored.pressure.level(),
        "files": stored.files,
        "syncs": stored.syncs,
        "sync_seconds": stored.sync_time.as_secs_f64(),
        "groups": stored.groups,
        "written_bytes": stored.written_bytes,
        "readers": stored.readers,
        "failed": stored.failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, BrokerConfig};

    #[test]
    fn the_state_of_files_has_a_form() {
        let stats = StoredStats {
            durable_offset: 7,
            sync_time: Duration::from_millis(1500),
            failed: Some("no space".into()),
            pressure: crate::broker::Pressure::High,
            ..StoredStats::default()
        };
        let said = stored(&stats);
        assert_eq!(said["pressure"], 1);
        assert_eq!((&said["durable_offset"], &said["sync_seconds"]), (&json!(7), &json!(1.5)));
        assert_eq!(said["failed"], "no space");
        assert_eq!(stored(&StoredStats::default())["failed"], Value::Null);
    }

    #[test]
    fn a_limit_on_the_disk_is_nothing_to_a_topic_in_memory() {
        let wish = TopicSettings { disk_limit: Some(8 << 20), ..TopicSettings::default() };
        let memory = Broker::new(BrokerConfig::default()).unwrap();
        let topic = memory.create("t", &wish).unwrap();
        assert_eq!(differs(&wish, topic.settings()), None);
        let folder = tempfile::tempdir().unwrap();
        let stored = Broker::with_folder(BrokerConfig::default(), folder.path()).unwrap();
        let topic = stored.create("t", &wish).unwrap();
        assert_eq!(differs(&wish, topic.settings()), None);
        let more = TopicSettings { disk_limit: Some(9 << 20), ..wish };
        assert_eq!(differs(&more, topic.settings()), Some("disk_limit"));
        let less = TopicSettings { durability: Some(Durability::Written), ..wish };
        assert_eq!(differs(&less, topic.settings()), Some("durability"));
    }

    #[test]
    fn settings_are_read_as_they_are_shown() {
        for text in [
            r#""nothing""#,
            r#""everything""#,
            r#"{"records":1000}"#,
            r#"{"bytes":1048576}"#,
            r#"{"age_ms":5}"#,
        ] {
            let settings: SettingsBody =
                serde_json::from_str(&format!("{{\"retention\":{text}}}")).unwrap();
            let kept = settings.to_broker().unwrap().retention.unwrap();
            assert_eq!(serde_json::to_string(&kept).unwrap(), text);
        }
        for bad in [
            r#"{"retentoin":"nothing"}"#,
            r#"{"retention":{"hours":1}}"#,
            r#"{"overflow":"drop"}"#,
            r#"{"durability":"disk"}"#,
            r#"{"disk_limit":-1}"#,
            r#"{"memory_limit":-1}"#,
            "[]",
            r#"[4096,null,null,"evict"]"#,
            "null",
            "\t",
            " \n",
        ] {
            assert!(SettingsBody::read(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(SettingsBody::read(b"").is_ok() && SettingsBody::read(b" {}\n").is_ok());
    }
}
