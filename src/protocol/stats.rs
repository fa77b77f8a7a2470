//! What TOPICS and DESCRIPTION report about topics and leases.

use std::time::Duration;

use super::error::DecodeError;
use super::name::TopicName;
use super::settings::{DEFAULT, durability, durability_number};
use super::wire::{FieldReader, MAX_TEXT, put_name, put_text, put_u32, put_u64};
use crate::durability::Durability;

/// One topic in a TOPICS frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSummary<'a> {
    /// The topic's name.
    pub name: TopicName<'a>,
    /// The topic's epoch.
    pub epoch: u64,
    /// The first offset that is kept.
    pub first: u64,
    /// The offset that the next record will get.
    pub next: u64,
    /// The number of cursors on the topic.
    pub cursors: u32,
    /// The number of leases on the topic.
    pub leases: u32,
    /// The memory of its live segments, in bytes.
    pub bytes: u64,
    /// What an acknowledgement means; `None` from a server that speaks version 1.
    pub durability: Option<Durability>,
    /// What its files take on the disk, in bytes; 0 without a durability.
    pub disk_bytes: u64,
}

/// Everything that a server counts for one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// Whether the topic is closed for publishing.
    pub closed: bool,
    /// The topic's epoch.
    pub epoch: u64,
    /// The first offset that is kept.
    pub first: u64,
    /// The offset that the next record will get.
    pub next: u64,
    /// Segments in the chain.
    pub live_segments: u64,
    /// Empty segments kept for reuse.
    pub pooled_segments: u64,
    /// Segments that were unlinked from the chain and are still in use.
    pub unlinked_segments: u64,
    /// Bytes of the live segments.
    pub live_bytes: u64,
    /// Bytes of the pooled segments.
    pub pooled_bytes: u64,
    /// Bytes of the unlinked segments.
    pub unlinked_bytes: u64,
    /// The memory limit in bytes, if there is one.
    pub memory_limit: Option<u64>,
    /// Cursors, including those of leases.
    pub cursors: u64,
    /// Leases, whether held or not.
    pub leases: u64,
    /// How often a cursor was evicted.
    pub evictions: u64,
    /// How often a reader went to sleep.
    pub reader_waits: u64,
    /// How often a publisher waited for room.
    pub publisher_waits: u64,
    /// Records appended since the topic was created.
    pub appended_records: u64,
    /// Bytes of payload appended since the topic was created.
    pub appended_bytes: u64,
    /// The slowest cursors and what they hold back, if there is a cursor at all.
    pub slowest: Option<Slowest>,
}

/// The state of a stored topic's files. Since version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredStats<'a> {
    /// The first offset that the files have.
    pub first: u64,
    /// The offset after the last record that was written.
    pub next: u64,
    /// All records before this offset were forced to the disk.
    pub durable: u64,
    /// What the files take on the disk, in bytes, with the one that is prepared.
    pub bytes: u64,
    /// The most bytes that they may take.
    pub limit: u64,
    /// Files that have begun.
    pub files: u64,
    /// How often the files were forced to the disk since the server started.
    pub syncs: u64,
    /// How long that took, all together, in whole nanoseconds.
    pub sync_time: Duration,
    /// Groups of appends that were written together since the server started.
    pub groups: u64,
    /// Bytes that were written since the server started.
    pub written_bytes: u64,
    /// Subscribers that read from the files at this moment.
    pub readers: u64,
    /// Why no more records are taken, if the disk has failed. Never empty. At most [`MAX_TEXT`] bytes are sent.
    pub failed: Option<&'a str>,
}

/// The position of the slowest cursors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slowest {
    /// The first offset of the segment that they are in.
    pub first: u64,
    /// The first offset after that segment.
    pub next: u64,
    /// How many cursors are in that segment.
    pub cursors: u64,
    /// Segments from there to the end.
    pub segments: u64,
    /// Bytes of memory from there to the end.
    pub bytes: u64,
    /// Records from there to the end.
    pub records: u64,
}

/// One lease in a DESCRIPTION frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo<'a> {
    /// The lease's name.
    pub name: TopicName<'a>,
    /// The first offset that is not committed: records are kept for the lease from there on.
    pub committed: u64,
    /// Whether a connection currently holds it.
    pub held: bool,
    /// Milliseconds until it expires, unless a subscriber takes it. While it is held: its time to
    /// live.
    pub expires_in_ms: u64,
}

const CLOSED: u8 = 1;
const LIMITED: u8 = 2;
const HAS_SLOWEST: u8 = 4;

impl TopicSummary<'_> {
    /// The fewest bytes that one takes on the wire.
    pub(super) const MIN: usize = 2 + 8 * 4 + 4 * 2;

    pub(super) fn encode(&self, out: &mut Vec<u8>, with_durability: bool) {
        put_name(out, Some(self.name));
        put_u64(out, self.epoch);
        put_u64(out, self.first);
        put_u64(out, self.next);
        put_u32(out, self.cursors);
        put_u32(out, self.leases);
        put_u64(out, self.bytes);
        if with_durability {
            out.push(self.durability.map_or(DEFAULT, durability_number));
            put_u64(out, self.disk_bytes);
        }
    }
}

impl<'a> TopicSummary<'a> {
    pub(super) fn decode(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.reply_name()?,
            epoch: reader.u64()?,
            first: reader.u64()?,
            next: reader.u64()?,
            cursors: reader.u32()?,
            leases: reader.u32()?,
            bytes: reader.u64()?,
            durability: None,
            disk_bytes: 0,
        })
    }

    /// With a durability.
    pub(super) fn decode_long(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let short = Self::decode(reader)?;
        let durability = durability(reader.u8()?);
        if durability.is_none() {
            return Err(reader.malformed("the durability is none of the known ones"));
        }
        Ok(Self { durability, disk_bytes: reader.u64()?, ..short })
    }
}

impl<'a> StoredStats<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for value in [
            self.first,
            self.next,
            self.durable,
            self.bytes,
            self.limit,
            self.files,
            self.syncs,
            u64::try_from(self.sync_time.as_nanos()).unwrap_or(u64::MAX),
            self.groups,
            self.written_bytes,
            self.readers,
        ] {
            put_u64(out, value);
        }
        put_text(out, self.failed.unwrap_or_default(), MAX_TEXT);
    }

    pub(super) fn decode(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        // Fields are evaluated in the order in which they are written, which is the order on the wire.
        Ok(Self {
            first: reader.u64()?,
            next: reader.u64()?,
            durable: reader.u64()?,
            bytes: reader.u64()?,
            limit: reader.u64()?,
            files: reader.u64()?,
            syncs: reader.u64()?,
            sync_time: Duration::from_nanos(reader.u64()?),
            groups: reader.u64()?,
            written_bytes: reader.u64()?,
            readers: reader.u64()?,
            failed: {
                let failed = reader.text()?;
                // As long as an encoder writes it, so that every value has one encoding.
                if failed.len() > MAX_TEXT {
                    return Err(reader.malformed("the failure's text is too long"));
                }
                Some(failed).filter(|failed| !failed.is_empty())
            },
        })
    }
}

impl<'a> LeaseInfo<'a> {
    /// The fewest bytes that one takes on the wire.
    pub(super) const MIN: usize = 2 + 8 + 1 + 8;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_name(out, Some(self.name));
        put_u64(out, self.committed);
        out.push(self.held.into());
        put_u64(out, self.expires_in_ms);
    }

    pub(super) fn decode(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.reply_name()?,
            committed: reader.u64()?,
            held: match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(reader.malformed("held is neither 0 nor 1")),
            },
            expires_in_ms: reader.u64()?,
        })
    }
}

impl TopicStats {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut bits = 0;
        if self.closed {
            bits |= CLOSED;
        }
        if self.memory_limit.is_some() {
            bits |= LIMITED;
        }
        if self.slowest.is_some() {
            bits |= HAS_SLOWEST;
        }
        out.extend_from_slice(&[bits, 0, 0, 0, 0, 0, 0, 0]);
        for value in [
            self.epoch,
            self.first,
            self.next,
            self.live_segments,
            self.pooled_segments,
            self.unlinked_segments,
            self.live_bytes,
            self.pooled_bytes,
            self.unlinked_bytes,
            self.memory_limit.unwrap_or(0),
            self.cursors,
            self.leases,
            self.evictions,
            self.reader_waits,
            self.publisher_waits,
            self.appended_records,
            self.appended_bytes,
        ] {
            put_u64(out, value);
        }
        let slowest = self.slowest.unwrap_or_default();
        for value in [
            slowest.first,
            slowest.next,
            slowest.cursors,
            slowest.segments,
            slowest.bytes,
            slowest.records,
        ] {
            put_u64(out, value);
        }
    }

    pub(super) fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let bits = reader.u8()?;
        if bits & !(CLOSED | LIMITED | HAS_SLOWEST) != 0 {
            return Err(reader.malformed("the statistics have an unknown bit"));
        }
        reader.zero::<7>()?;
        // Fields are evaluated in the order in which they are written, which is the order on the wire.
        let mut stats = Self {
            closed: bits & CLOSED != 0,
            epoch: reader.u64()?,
            first: reader.u64()?,
            next: reader.u64()?,
            live_segments: reader.u64()?,
            pooled_segments: reader.u64()?,
            unlinked_segments: reader.u64()?,
            live_bytes: reader.u64()?,
            pooled_bytes: reader.u64()?,
            unlinked_bytes: reader.u64()?,
            memory_limit: Some(reader.u64()?),
            cursors: reader.u64()?,
            leases: reader.u64()?,
            evictions: reader.u64()?,
            reader_waits: reader.u64()?,
            publisher_waits: reader.u64()?,
            appended_records: reader.u64()?,
            appended_bytes: reader.u64()?,
            slowest: Some(Slowest {
                first: reader.u64()?,
                next: reader.u64()?,
                cursors: reader.u64()?,
                segments: reader.u64()?,
                bytes: reader.u64()?,
                records: reader.u64()?,
            }),
        };
        // A field that is marked as absent must be zero, so that every value has one encoding.
        if bits & LIMITED == 0 && stats.memory_limit.take() != Some(0) {
            return Err(reader.malformed("a memory limit without its bit"));
        }
        if bits & HAS_SLOWEST == 0 && stats.slowest.take() != Some(Slowest::default()) {
            return Err(reader.malformed("a slowest cursor without its bit"));
        }
        Ok(stats)
    }
}
