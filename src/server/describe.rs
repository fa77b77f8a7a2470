//! Topics, settings and statistics, converted between the broker's types and the protocol's.

use std::time::Duration;

use super::outbox::Outbox;
use crate::broker::{Topic, TopicSettings, TopicSummary};
use crate::log::Stats;
use crate::protocol::{self, Description, LeaseInfo, Reply, Settings, TopicName, TopicStats};

/// The most bytes that a topic takes in a TOPICS frame.
const SUMMARY: usize = 256 + 40;
/// The bytes that a lease takes in a DESCRIPTION frame, besides its name.
const LEASE: usize = 1 + 17;
/// Room for everything else in either frame.
const FRAME: usize = 1 << 10;
/// The most topics in one frame: a list is sent in pieces of a few kilobytes.
const TOPICS: usize = 64;

/// How many topics one TOPICS frame may carry.
pub(super) fn topics_per_frame(max_frame: u32) -> usize {
    ((max_frame as usize).saturating_sub(FRAME) / SUMMARY).clamp(1, TOPICS)
}

/// Sends topics in one frame.
pub(super) fn topics(request: u32, found: &[TopicSummary], more: bool, out: &mut Outbox) {
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
            })
        })
        .collect();
    out.push(&Reply::Topics { request, more, topics });
}

/// Sends everything about one topic, with as many of its leases as the frame has room for. The statistics say
/// how many leases there are.
pub(super) fn describe(
    request: u32,
    name: TopicName<'_>,
    topic: &Topic,
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
    out.push(&Reply::Description(Box::new(Description {
        request,
        topic: name,
        settings: Settings {
            segment_bytes: u32::try_from(settings.segment_bytes).unwrap_or(u32::MAX),
            overflow: Some(settings.overflow),
            retention: Some(settings.retention),
            memory_limit: settings.memory_limit,
        },
        stats: stats_out(&stats),
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
        durability: None,
        disk_limit: None,
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
