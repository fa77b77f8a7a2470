//! Topics, settings and statistics, converted between the broker's types and the protocol's.

use std::time::Duration;

use super::outbox::Outbox;
use crate::broker::{LeaseOrigin, StoredStats, Topic, TopicSettings, TopicSummary};
use crate::log::Stats;
use crate::protocol::{self, Description, LeaseInfo, Reply, Settings, TopicName, TopicStats};

/// The most bytes that a topic takes in a TOPICS frame.
const SUMMARY: usize = 256 + 49;
/// The bytes that a lease takes in a DESCRIPTION frame, besides its name.
const LEASE: usize = 1 + 17;
/// Room for everything else in either frame.
const FRAME: usize = 2 << 10;
/// The most topics in one frame: a list is sent in pieces of a few kilobytes.
const TOPICS: usize = 64;

/// What SUBSCRIBED says of a lease.
pub(super) fn lease_origin(origin: LeaseOrigin) -> protocol::LeaseOrigin {
    match origin {
        LeaseOrigin::New => protocol::LeaseOrigin::New,
        LeaseOrigin::Expired => protocol::LeaseOrigin::Expired,
        LeaseOrigin::Continued | LeaseOrigin::TakenOver => protocol::LeaseOrigin::Continued,
    }
}

/// How many topics one TOPICS frame may carry.
pub(super) fn topics_per_frame(max_frame: u32) -> usize {
    ((max_frame as usize).saturating_sub(FRAME) / SUMMARY).clamp(1, TOPICS)
}

/// Sends topics in one frame, as far as the connection's version can say it.
pub(super) fn topics(
    request: u32,
    found: &[TopicSummary],
    more: bool,
    version: u16,
    out: &mut Outbox,
) {
    let has_durability = version >= 2;
    let topics = found
        .iter()
        // Names were checked against the same rule when the topics were created.
        .filter_map(|topic| {
            Some(protocol::TopicSummary {
                name: TopicName::new(&topic.name).ok()?,
                epoch: topic.epoch,
                first: topic.first_offset,
                next: topic.next_offset,
                cursors: u32::try_from(topic.cursors).unwrap_or(u32::MAX),
                leases: u32::try_from(topic.leases).unwrap_or(u32::MAX),
                bytes: topic.bytes,
                durability: has_durability.then_some(topic.durability),
                disk_bytes: if has_durability { topic.disk_bytes } else { 0 },
            })
        })
        .collect();
    out.push(&Reply::Topics { request, more, topics });
}

/// Sends everything about one topic, with as many of its leases as the frame has room for. The statistics say
/// how many leases there are. What the connection's version cannot say is left out.
pub(super) fn describe(
    request: u32,
    name: TopicName<'_>,
    topic: &Topic,
    version: u16,
    max_frame: u32,
    out: &mut Outbox,
) {
    let (stats, leases) = topic.describe();
    let mut room = (max_frame as usize).saturating_sub(FRAME);
    let leases = leases
        .iter()
        .take_while(|lease| {
            let rest = room.checked_sub(LEASE + lease.name.len());
            room = rest.unwrap_or(0);
            rest.is_some()
        })
        .filter_map(|lease| {
            Some(LeaseInfo {
                name: TopicName::new(&lease.name).ok()?,
                committed: lease.committed,
                held: lease.held,
                expires_in_ms: lease.expires_in.map_or(0, millis),
            })
        })
        .collect();
    let settings = topic.settings();
    let has_durability = version >= 2;
    let stored = topic.stored().filter(|_| has_durability);
    out.push(&Reply::Description(Box::new(Description {
        request,
        topic: name,
        settings: Settings {
            segment_bytes: u32::try_from(settings.segment_bytes).unwrap_or(u32::MAX),
            overflow: Some(settings.overflow),
            retention: Some(settings.retention),
            memory_limit: settings.memory_limit,
            durability: has_durability.then_some(settings.durability),
            disk_limit: if has_durability { settings.disk_limit } else { 0 },
        },
        stats: stats_out(&stats),
        stored: stored.as_ref().map(stored_out),
        leases,
    })));
}

/// The settings that a CREATE asks for.
pub(super) fn settings_in(settings: &Settings) -> TopicSettings {
    TopicSettings {
        segment_bytes: (settings.segment_bytes != 0).then_some(settings.segment_bytes as usize),
        retention: settings.retention,
        overflow: settings.overflow,
        memory_limit: (settings.memory_limit != 0).then_some(settings.memory_limit),
        durability: settings.durability,
        disk_limit: (settings.disk_limit != 0).then_some(settings.disk_limit),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn stats_out(stats: &Stats) -> TopicStats {
    TopicStats {
        closed: stats.closed,
        epoch: stats.epoch,
        first: stats.first_offset,
        next: stats.next_offset,
        live_segments: stats.live_segments,
        pooled_segments: stats.pooled_segments,
        unlinked_segments: stats.unlinked_segments,
        live_bytes: stats.live_bytes,
        pooled_bytes: stats.pooled_bytes,
        unlinked_bytes: stats.unlinked_bytes,
        memory_limit: stats.memory_limit,
        cursors: stats.cursors as u64,
        leases: stats.leases as u64,
        evictions: stats.evictions,
        reader_waits: stats.reader_waits,
        publisher_waits: stats.publisher_waits,
        appended_records: stats.next_offset,
        appended_bytes: stats.appended_bytes,
        slowest: stats.slowest.as_ref().map(|slowest| protocol::Slowest {
            first: slowest.first_offset,
            next: slowest.next_offset,
            cursors: slowest.cursors.into(),
            segments: slowest.segments,
            bytes: slowest.bytes,
            records: slowest.records,
        }),
    }
}

fn stored_out(stored: &StoredStats) -> protocol::StoredStats<'_> {
    protocol::StoredStats {
        first: stored.first_offset,
        next: stored.next_offset,
        durable: stored.durable_offset,
        bytes: stored.bytes,
        limit: stored.limit,
        files: stored.files,
        syncs: stored.syncs,
        sync_time: stored.sync_time,
        groups: stored.groups,
        written_bytes: stored.written_bytes,
        readers: stored.readers,
        // An empty text would say that nothing has failed.
        failed: stored.failed.as_deref().map(|why| if why.is_empty() { "unknown" } else { why }),
    }
}
