//! The state of one topic, as the feed sends it.
//!
//! | field | meaning |
//! | --- | --- |
//! | `first`, `next` | the first offset that is kept; the offset that the next record will get |
//! | `payload` | bytes ever appended |
//! | `delivered` | records delivered to subscribers, counted once for each subscriber |
//! | `bytes`, `segments` | memory: live, pooled, unlinked |
//! | `cursors`, `leases` | how many there are |
//! | `named` | the leases that lag most: name, first offset that is not committed, whether it has a holder; after these, leases that were evicted |
//! | `leased` | how many leases stand in a block: index of the block, number of leases; blocks without leases are left out |
//! | `slow` | the slowest cursors: first and next offset of the segment that they stand in, how many stand there, and the segments, bytes and records that they hold back |
//! | `evicted`, `waits` | positions lost by eviction; how often a publisher waited for memory |
//! | `stored` | the topic's files, if it is stored: bytes on the disk, number of files, their first offset, the offset before which all was forced to the disk, and how many subscribers read from them |
//! | `failed` | why no more records are taken, if the disk has failed; otherwise left out |
//! | `closed` | true if the topic is closed, otherwise left out |
//! | `head`, `fold` | number of the first segment; how many segments share a block |
//! | `blocks` | from the oldest on: segments, records, fill in thousandths, and the number of pins (-1: its segments were not examined) |

use serde::Serialize;

use crate::broker::{Durability, StoredStats, Topic};
use crate::http::start::epoch_text;
use crate::log::{Block, Overflow, Retention};

/// The most blocks of one topic: as many as a screen can show side by side.
const BLOCKS: usize = 64;
/// The most leases of one topic that the feed names.
const NAMED: usize = 4;

/// What never changes while the topic exists.
#[derive(Serialize)]
struct Fixed<'a> {
    id: u64,
    name: &'a str,
    epoch: String,
    segment: usize,
    limit: u64,
    retention: Retention,
    overflow: Overflow,
    durability: Durability,
    /// The most bytes on the disk; 0 if it is not stored.
    disk: u64,
}

/// What does change.
#[derive(Serialize)]
struct Now {
    first: u64,
    next: u64,
    payload: u64,
    delivered: u64,
    bytes: [u64; 3],
    segments: [u64; 3],
    cursors: usize,
    leases: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    named: Vec<(String, u64, bool)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    leased: Vec<(usize, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slow: Option<[u64; 6]>,
    evicted: u64,
    waits: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<[u64; 5]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    closed: bool,
    head: u64,
    fold: u64,
    blocks: Vec<(u64, u64, u64, i64)>,
}

/// The topic's settings as JSON, with the number that identifies the topic in the feed from then on.
pub(super) fn fixed(id: u64, topic: &Topic) -> String {
    let settings = topic.settings();
    json(&Fixed {
        id,
        name: topic.name(),
        epoch: epoch_text(topic.log().epoch()),
        segment: settings.segment_bytes,
        limit: settings.memory_limit,
        retention: settings.retention,
        overflow: settings.overflow,
        durability: settings.durability,
        disk: settings.disk_limit,
    })
}

/// The topic as it is now, as JSON.
pub(super) fn now(topic: &Topic) -> String {
    let (stats, mut leases) = topic.describe();
    let files = topic.stored();
    let picture = topic.log().picture(BLOCKS);
    // A lease whose records were collected was evicted. It holds nothing back, and must not displace one that does.
    let first = picture.blocks.first().map_or(0, |block| block.first_offset);
    leases.sort_by_key(|lease| (lease.committed < first, lease.committed));
    let placed = leases.iter().map(|lease| lease.committed).take_while(|offset| *offset >= first);
    let leased = leased(&picture.blocks, placed);
    leases.truncate(NAMED);
    json(&Now {
        first: stats.first_offset,
        next: stats.next_offset,
        payload: stats.appended_bytes,
        delivered: topic.delivered(),
        bytes: [stats.live_bytes, stats.pooled_bytes, stats.unlinked_bytes],
        segments: [stats.live_segments, stats.pooled_segments, stats.unlinked_segments],
        cursors: stats.cursors,
        leases: stats.leases,
        named: leases.into_iter().map(|l| (l.name, l.committed, l.held)).collect(),
        leased,
        slow: stats.slowest.map(|slow| {
            let cursors = slow.cursors.into();
            let held = [slow.segments, slow.bytes, slow.records];
            [slow.first_offset, slow.next_offset, cursors, held[0], held[1], held[2]]
        }),
        evicted: stats.evictions,
        waits: stats.publisher_waits,
        stored: files.as_ref().map(stored),
        failed: files.and_then(|files| files.failed),
        closed: stats.closed,
        head: picture.blocks.first().map_or(0, |block| block.segment),
        fold: picture.fold,
        blocks: picture.blocks.iter().map(block).collect(),
    })
}

fn stored(files: &StoredStats) -> [u64; 5] {
    [files.bytes, files.files, files.first_offset, files.durable_offset, files.readers]
}

fn block(block: &Block) -> (u64, u64, u64, i64) {
    let records = block.next_offset - block.first_offset;
    let full = block.payload_bytes.saturating_mul(1_000) / block.room_bytes.max(1);
    let pins = block.pins.map_or(-1, |pins| i64::try_from(pins).unwrap_or(i64::MAX));
    (block.segments, records, full, pins)
}

/// How many leases at these offsets stand in each block.
fn leased(blocks: &[Block], offsets: impl Iterator<Item = u64>) -> Vec<(usize, u64)> {
    let mut counts = vec![0; blocks.len()];
    for offset in offsets {
        let at = blocks.partition_point(|block| block.next_offset <= offset);
        let at = at.min(blocks.len().saturating_sub(1));
        // A lease that has committed a whole segment stands in that segment until it moves on.
        let before = at.checked_sub(1).filter(|before| {
            blocks[at].first_offset == offset
                && blocks[at].pins.is_some_and(|pins| pins <= counts[at])
                && blocks[*before].pins.is_some_and(|pins| pins > counts[*before])
        });
        if let Some(count) = counts.get_mut(before.unwrap_or(at)) {
            *count += 1;
        }
    }
    counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data has a form in JSON")
}
