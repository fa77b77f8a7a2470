//! How `psa topics` and `psa stats` show what a server reports about its topics: tables and text for
//! people, JSON for programs.

use crate::error::one_line;
use crate::format;
use crate::table::{Align, list, table};
use crate::units::{human_count, human_size};
use psa::Durability;
use psa::client::{LeaseDetails, StoredDetails, TopicDetails, TopicInfo};
use psa::protocol::TopicStats;
use psa::words::{Period, Size};
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// The list of topics.
pub(crate) fn summaries_table(topics: &[TopicInfo]) -> String {
    use Align::{Left, Right};
    let headings = [
        ("TOPIC", Left),
        ("RECORDS", Right),
        ("FIRST", Right),
        ("NEXT", Right),
        ("MEMORY", Right),
        ("DISK", Right),
        ("CURSORS", Right),
        ("LEASES", Right),
        ("DURABILITY", Left),
        ("EPOCH", Left),
    ];
    let rows: Vec<_> = topics
        .iter()
        .map(|topic| {
            vec![
                one_line(&topic.name),
                (topic.next - topic.first.min(topic.next)).to_string(),
                topic.first.to_string(),
                topic.next.to_string(),
                human_size(topic.bytes),
                human_size(topic.disk_bytes),
                topic.cursors.to_string(),
                topic.leases.to_string(),
                durability_text(topic.durability).to_string(),
                format::epoch(topic.epoch),
            ]
        })
        .collect();
    table(&headings, &rows)
}

/// One topic of the list as JSON.
pub(crate) fn summary_json(topic: &TopicInfo) -> Value {
    json!({
        "topic": topic.name,
        "epoch": format::epoch(topic.epoch),
        "first_offset": topic.first,
        "next_offset": topic.next,
        "live_bytes": topic.bytes,
        "durability": topic.durability.map(Durability::word),
        "disk_bytes": topic.disk_bytes,
        "cursors": topic.cursors,
        "leases": topic.leases,
    })
}

/// A table with the statistics of several topics, one line for each.
pub(crate) fn stats_table(topics: &[TopicDetails]) -> String {
    use Align::{Left, Right};
    let headings = [
        ("TOPIC", Left),
        ("NEXT", Right),
        ("KEPT", Right),
        ("SEGMENTS", Right),
        ("MEMORY", Right),
        ("LIMIT", Right),
        ("DISK", Right),
        ("CURSORS", Right),
        ("LEASES", Right),
        ("LAG", Right),
        ("HELD BACK", Right),
        ("EVICTED", Right),
        ("DURABILITY", Left),
        ("STATE", Left),
    ];
    let rows: Vec<_> = topics
        .iter()
        .map(|TopicDetails { name, stats, stored, settings, .. }| {
            let slowest = stats.slowest.unwrap_or_default();
            vec![
                one_line(name),
                stats.next.to_string(),
                (stats.next - stats.first.min(stats.next)).to_string(),
                stats.live_segments.to_string(),
                human_size(memory(stats)),
                stats.memory_limit.map_or("none".into(), human_size),
                human_size(stored.as_ref().map_or(0, |stored| stored.bytes)),
                stats.cursors.to_string(),
                stats.leases.to_string(),
                slowest.records.to_string(),
                human_size(slowest.bytes),
                stats.evictions.to_string(),
                durability_text(settings.durability).to_string(),
                state_text(stats, stored.as_ref()).to_string(),
            ]
        })
        .collect();
    table(&headings, &rows)
}

/// How much of its limit a topic uses: segments in the chain, in the pool, and unlinked but not freed yet.
pub(crate) fn memory(stats: &TopicStats) -> u64 {
    stats.live_bytes + stats.pooled_bytes + stats.unlinked_bytes
}

/// Whether a topic accepts records.
pub(crate) fn state_text(stats: &TopicStats, stored: Option<&StoredDetails>) -> &'static str {
    if stats.closed {
        "closed"
    } else if stored.is_some_and(|stored| stored.failed.is_some()) {
        "failed"
    } else {
        match stored.map_or(0, disk_percent) {
            0..80 => "open",
            80..95 => "open, disk 80 %",
            95.. => "open, disk 95 %",
        }
    }
}

/// What an acknowledgement means.
pub(crate) fn durability_text(durability: Option<Durability>) -> &'static str {
    durability.map_or("unknown", Durability::word)
}

/// How much of its limit on the disk a topic takes.
fn disk_percent(stored: &StoredDetails) -> u64 {
    stored.bytes.saturating_mul(100) / stored.limit.max(1)
}

/// What a stored topic has on the disk, on one line.
pub(crate) fn stored_text(stored: &StoredDetails) -> String {
    let noun = if stored.files == 1 { "file" } else { "files" };
    let percent = disk_percent(stored);
    let percent = if percent >= 80 { format!(" ({percent} %)") } else { String::new() };
    format!(
        "{} of {}{percent} in {} {noun}, from offset {}; forced to it before {}",
        human_size(stored.bytes),
        human_size(stored.limit),
        human_count(stored.files),
        stored.first,
        stored.durable
    )
}

/// Everything about one topic, one fact per line.
pub(crate) fn detail_text(topic: &TopicDetails) -> String {
    let TopicDetails { name, settings, stats, stored, leases, .. } = topic;
    let segments =
        |count: u64, bytes: u64| format!("{} ({})", human_count(count), human_size(bytes));
    let mut entries = vec![
        ("topic", one_line(name)),
        ("state", state_text(stats, stored.as_ref()).to_string()),
        ("durability", durability_text(settings.durability).to_string()),
        ("epoch", format::epoch(stats.epoch)),
        ("offsets", format!("{} to {} (next)", stats.first, stats.next)),
        (
            "appended",
            format!(
                "{} records, {}",
                human_count(stats.appended_records),
                human_size(stats.appended_bytes)
            ),
        ),
        ("live segments", segments(stats.live_segments, stats.live_bytes)),
        ("pooled segments", segments(stats.pooled_segments, stats.pooled_bytes)),
        ("unlinked segments", segments(stats.unlinked_segments, stats.unlinked_bytes)),
        ("memory limit", stats.memory_limit.map_or("none".into(), |bytes| Size(bytes).to_string())),
        ("segment size", Size(settings.segment_bytes.into()).to_string()),
        ("retention", setting_text(settings.retention)),
        ("overflow", setting_text(settings.overflow)),
    ];
    if let Some(stored) = stored {
        entries.push(("on the disk", stored_text(stored)));
        entries.push((
            "since the start",
            format!(
                "forced {} times in {:.3} s, {} written in {} groups",
                human_count(stored.syncs),
                stored.sync_time.as_secs_f64(),
                human_size(stored.written_bytes),
                human_count(stored.groups)
            ),
        ));
        entries.push(("disk readers", human_count(stored.readers)));
        if let Some(why) = &stored.failed {
            entries.push(("failed", one_line(why)));
        }
    }
    entries.push(("cursors", human_count(stats.cursors)));
    if let Some(slowest) = stats.slowest {
        entries.push((
            "slowest",
            format!(
                "{} at offsets {} to {}: holds back {} records in {} segments, {}",
                human_count(slowest.cursors),
                slowest.first,
                slowest.next,
                human_count(slowest.records),
                human_count(slowest.segments),
                human_size(slowest.bytes)
            ),
        ));
    }
    entries.push(("evictions", human_count(stats.evictions)));
    entries.push((
        "waits",
        format!(
            "{} of readers, {} of publishers",
            human_count(stats.reader_waits),
            human_count(stats.publisher_waits)
        ),
    ));
    for lease in leases {
        entries.push(("lease", lease_text(lease)));
    }
    let untold = stats.leases.saturating_sub(leases.len() as u64);
    if untold > 0 {
        let noun = if untold == 1 { "lease" } else { "leases" };
        let why = "for which the server's largest frame (limit.frame) has no room";
        entries.push(("and", format!("{} {noun} {why}", human_count(untold))));
    }
    list(&entries)
}

/// One lease on one line.
pub(crate) fn lease_text(lease: &LeaseDetails) -> String {
    // From a minute on, milliseconds are left out.
    let unit = if lease.expires_in_ms >= 60_000 { 1000 } else { 1 };
    let time = Period(Duration::from_millis(lease.expires_in_ms / unit * unit)).to_string();
    let state = if lease.held {
        format!("held, outlives its holder by {time}")
    } else {
        format!("ends in {time}")
    };
    format!("{} from offset {}, {state}", one_line(&lease.name), lease.committed)
}

/// A setting, written as in the configuration.
pub(crate) fn setting_text(setting: Option<impl fmt::Display>) -> String {
    setting.map_or("default".into(), |setting| setting.to_string())
}

/// Everything about one topic as JSON. Sizes are bytes.
pub(crate) fn detail_json(topic: &TopicDetails) -> Value {
    let TopicDetails { name, settings, stats, stored, leases, .. } = topic;
    json!({
        "topic": name,
        "durability": settings.durability.map(Durability::word),
        "closed": stats.closed,
        "epoch": format::epoch(stats.epoch),
        "first_offset": stats.first,
        "next_offset": stats.next,
        "appended_records": stats.appended_records,
        "appended_bytes": stats.appended_bytes,
        "live_segments": stats.live_segments,
        "live_bytes": stats.live_bytes,
        "pooled_segments": stats.pooled_segments,
        "pooled_bytes": stats.pooled_bytes,
        "unlinked_segments": stats.unlinked_segments,
        "unlinked_bytes": stats.unlinked_bytes,
        "memory_limit": stats.memory_limit,
        "segment_bytes": settings.segment_bytes,
        "retention": setting_text(settings.retention),
        "overflow": setting_text(settings.overflow),
        "disk_limit": stored.as_ref().map(|_| settings.disk_limit),
        "stored": stored.as_ref().map(stored_json),
        "cursors": stats.cursors,
        "lease_count": stats.leases,
        "leases": leases.iter().map(|lease| json!({
            "name": lease.name,
            "committed": lease.committed,
            "held": lease.held,
            "expires_in_ms": lease.expires_in_ms,
        })).collect::<Vec<_>>(),
        "slowest": stats.slowest.map(|slowest| json!({
            "first_offset": slowest.first,
            "next_offset": slowest.next,
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

fn stored_json(stored: &StoredDetails) -> Value {
    json!({
        "first_offset": stored.first,
        "next_offset": stored.next,
        "durable_offset": stored.durable,
        "bytes": stored.bytes,
        "limit": stored.limit,
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
    use psa::protocol::{Overflow, Retention, Settings, Slowest};

    fn detail() -> TopicDetails {
        let mut lease = LeaseDetails::default();
        (lease.name, lease.committed, lease.expires_in_ms) = ("a".into(), 12, 1500);
        let mut detail = TopicDetails::default();
        detail.name = "orders\u{1b}".into();
        detail.settings = Settings {
            segment_bytes: 1 << 18,
            overflow: Some(Overflow::Evict),
            retention: Some(Retention::Age(Duration::from_secs(90))),
            memory_limit: 1 << 26,
            ..Settings::default()
        };
        detail.stats = TopicStats {
            epoch: 7,
            first: 10,
            next: 1_000_010,
            live_bytes: 3 << 20,
            pooled_bytes: 1 << 20,
            memory_limit: Some(1 << 26),
            slowest: Some(Slowest {
                records: 1_000_000,
                bytes: 3 << 20,
                cursors: 1,
                ..Slowest::default()
            }),
            ..TopicStats::default()
        };
        detail.leases = vec![lease];
        detail
    }

    #[test]
    fn text_says_what_matters() {
        let text = detail_text(&detail());
        for part in
            ["1m30s", "evict", "64MiB", "1,000,000 records", "a from offset 12, ends in 1s500ms"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "a name from a server cannot drive the terminal");
        assert!(stats_table(&[detail()]).contains("4.0 MiB"), "memory is all three kinds");
    }

    fn stored_detail() -> TopicDetails {
        let mut detail = detail();
        detail.settings.durability = Some(Durability::Written);
        detail.settings.disk_limit = 1 << 30;
        let mut stored = StoredDetails::default();
        (stored.first, stored.durable, stored.next) = (3, 1_000_000, 1_000_010);
        (stored.bytes, stored.limit, stored.files) = (5 << 20, 1 << 30, 2);
        (stored.syncs, stored.sync_time) = (1234, Duration::from_millis(1500));
        detail.stored = Some(stored);
        detail
    }

    #[test]
    fn a_stored_topic_says_what_is_on_the_disk() {
        let mut detail = stored_detail();
        let text = detail_text(&detail);
        for part in [
            "written",
            "5.0 MiB of 1.0 GiB in 2 files, from offset 3; forced to it before 1000000",
            "forced 1,234 times in 1.500 s",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("failed"), "{text}");
        let table = stats_table(std::slice::from_ref(&detail));
        assert!(table.contains("written") && table.contains("5.0 MiB"), "{table}");
        let value = detail_json(&detail);
        assert_eq!(
            (&value["durability"], &value["disk_limit"]),
            (&json!("written"), &json!(1 << 30))
        );
        assert_eq!(
            (&value["stored"]["bytes"], &value["stored"]["files"]),
            (&json!(5 << 20), &json!(2))
        );
        assert_eq!(value["stored"]["sync_seconds"], 1.5);
        assert_eq!(value["stored"]["durable_offset"], 1_000_000);
        detail.stored.as_mut().unwrap().failed = Some("no space".into());
        let text = detail_text(&detail);
        assert!(text.contains("no space"), "{text}");
        assert!(stats_table(&[detail]).contains("failed"));
    }

    #[test]
    fn the_list_has_durabilities_also_of_servers_that_do_not_say() {
        let mut topics = [TopicInfo::default(), TopicInfo::default()];
        (topics[0].durability, topics[0].disk_bytes) = (Some(Durability::Synced), 3 << 20);
        let table = summaries_table(&topics);
        for part in ["DURABILITY", "synced", "3.0 MiB", "unknown"] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
        let value = summary_json(&topics[0]);
        assert_eq!(
            (&value["durability"], &value["disk_bytes"]),
            (&json!("synced"), &json!(3 << 20))
        );
        assert_eq!(summary_json(&topics[1])["durability"], Value::Null);
        let value = detail_json(&detail());
        assert_eq!((&value["stored"], &value["disk_limit"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn json_has_the_figures() {
        let value = detail_json(&detail());
        assert_eq!(value["next_offset"], 1_000_010);
        assert_eq!(value["epoch"], "0x0000000000000007");
        assert_eq!(value["retention"], "1m30s");
        assert_eq!(value["slowest"]["records"], 1_000_000);
        assert_eq!(value["leases"][0]["committed"], 12);
    }
}
