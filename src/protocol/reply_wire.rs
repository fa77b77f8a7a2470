//! The frames from a server: encoding and decoding.

use super::code::Code;
use super::error::DecodeError;
use super::frame::{self, DecodeLimits, Decoded, HEADER, Shape, kind};
use super::records::Records;
use super::reply::{
    Chunk, CloseReason, Description, ErrorReply, GapReason, LeaseOrigin, Reply, Welcome,
};
use super::settings::Settings;
use super::stats::{LeaseInfo, StoredStats, TopicStats, TopicSummary};
use super::wire::{FieldReader, MAX_TEXT, put_name, put_text, put_u16, put_u32, put_u64};

const MORE: u8 = 1;
/// Of TOPICS: each entry has a durability, and its bytes on the disk.
const WITH_DURABILITY: u8 = 2;
/// Of DESCRIPTION: the settings are long; the state of the files follows the statistics.
const LONG_SETTINGS: u8 = 1;
const STORED: u8 = 2;
/// Of SUBSCRIBED: a number that says what there was of the lease; 0 says nothing.
const LEASE_ORIGIN: u8 = 3;
/// The size of DELIVER's fields before the ends, in bytes.
const DELIVER_FIELDS: usize = 32;

fn shape(kind: u8) -> Option<Shape> {
    const TEXT: u32 = 2 + MAX_TEXT as u32;
    let (flags, max_body) = match kind {
        kind::WELCOME => (0, 12 + TEXT),
        kind::ACK => (0, 24),
        kind::DELIVER => (0, u32::MAX),
        kind::DESCRIPTION => (LONG_SETTINGS | STORED, u32::MAX),
        kind::TOPICS => (MORE | WITH_DURABILITY, u32::MAX),
        kind::SUBSCRIBED => (LEASE_ORIGIN, 32),
        kind::GAP => (0, 32),
        kind::CAUGHT_UP => (0, 16),
        kind::CLOSED => (0, 16),
        kind::ERROR => (0, 40 + TEXT),
        kind::GOODBYE => (0, 4 + TEXT),
        kind::PONG => (0, 8),
        kind::DONE => (0, 4),
        _ => return None,
    };
    Some(Shape { flags, max_body })
}

/// Decodes the first frame of `input` as a client does.
///
/// Allocates only for TOPICS and DESCRIPTION, in proportion to the bytes present. Makes one pass over
/// the ends of a DELIVER.
///
/// # Errors
///
/// Any [`DecodeError`] ends the connection; a reply is never [refused](DecodeError::refused).
pub fn decode_reply<'a>(
    input: &'a [u8],
    limits: &DecodeLimits,
) -> Result<Decoded<Reply<'a>>, DecodeError> {
    let raw = match frame::split(input, limits, shape)? {
        Ok(raw) => raw,
        Err(at_least) => return Ok(Decoded::NeedMore { at_least }),
    };
    let mut reader = FieldReader::new(raw.kind, raw.body);
    let value = decode_body(raw.kind, raw.flags, &mut reader)?;
    reader.finish()?;
    Ok(Decoded::Frame { value, consumed: raw.consumed })
}

fn decode_body<'a>(
    kind: u8,
    flags: u8,
    reader: &mut FieldReader<'a>,
) -> Result<Reply<'a>, DecodeError> {
    Ok(match kind {
        kind::WELCOME => {
            let version = reader.u16()?;
            reader.zero::<2>()?;
            Reply::Welcome(Welcome {
                version,
                max_frame: reader.u32()?,
                max_record: reader.u32()?,
                server: reader.text()?,
            })
        }
        kind::ACK => {
            let request = reader.u32()?;
            let epoch = reader.u64()?;
            let first = reader.u64()?;
            let count = reader.u32()?;
            if count == 0 || first.checked_add(count.into()).is_none() {
                return Err(reader.malformed("it acknowledges impossible offsets"));
            }
            Reply::Ack { request, epoch, first, count }
        }
        kind::DELIVER => Reply::Deliver(decode_chunk(reader)?),
        kind::SUBSCRIBED => Reply::Subscribed {
            request: reader.u32()?,
            sub: reader.u32()?,
            epoch: reader.u64()?,
            next: reader.u64()?,
            tail: reader.u64()?,
            lease: match flags & LEASE_ORIGIN {
                1 => Some(LeaseOrigin::New),
                2 => Some(LeaseOrigin::Expired),
                3 => Some(LeaseOrigin::Continued),
                _ => None,
            },
        },
        kind::GAP => {
            let sub = reader.u32()?;
            let reason = match reader.u8()? {
                1 => GapReason::Collected,
                2 => GapReason::Evicted,
                3 => GapReason::OtherEpoch,
                _ => return Err(reader.malformed("the gap has no known reason")),
            };
            reader.zero::<3>()?;
            Reply::Gap {
                sub,
                reason,
                epoch: reader.u64()?,
                first_missed: reader.u64()?,
                next: reader.u64()?,
            }
        }
        kind::CAUGHT_UP => {
            let sub = reader.u32()?;
            reader.zero::<4>()?;
            let next = reader.u64()?;
            Reply::CaughtUp { sub, next }
        }
        kind::CLOSED => {
            let sub = reader.u32()?;
            let reason = match reader.u8()? {
                1 => CloseReason::TopicClosed,
                2 => CloseReason::TopicDeleted,
                3 => CloseReason::Unsubscribed,
                4 => CloseReason::LeaseTakenOver,
                5 => CloseReason::LeaseExpired,
                _ => return Err(reader.malformed("the end has no known reason")),
            };
            reader.zero::<3>()?;
            let next = reader.u64()?;
            Reply::Closed { sub, reason, next }
        }
        kind::ERROR => {
            let request = reader.u32()?;
            let code = Code::from(reader.u16()?);
            reader.zero::<2>()?;
            Reply::Error(ErrorReply {
                request,
                code,
                epoch: reader.u64()?,
                asked: reader.u64()?,
                first: reader.u64()?,
                next: reader.u64()?,
                message: reader.text()?,
            })
        }
        kind::GOODBYE => {
            let code = Code::from(reader.u16()?);
            reader.zero::<2>()?;
            let message = reader.text()?;
            Reply::Goodbye { code, message }
        }
        kind::PONG => Reply::Pong { token: reader.u64()? },
        kind::DONE => Reply::Done { request: reader.u32()? },
        kind::TOPICS => {
            let request = reader.u32()?;
            let with_durability = flags & WITH_DURABILITY != 0;
            let item =
                if with_durability { TopicSummary::decode_long } else { TopicSummary::decode };
            let topics = decode_list(reader, TopicSummary::MIN, item)?;
            if with_durability && topics.is_empty() {
                return Err(reader.malformed("durabilities of no topics"));
            }
            Reply::Topics { request, more: flags & MORE != 0, topics }
        }
        kind::DESCRIPTION => {
            let request = reader.u32()?;
            let topic = reader.reply_name()?;
            let is_long = flags & LONG_SETTINGS != 0;
            let Ok(settings) = Settings::decode(reader, is_long)? else {
                return Err(reader.malformed("its settings are impossible"));
            };
            Reply::Description(Box::new(Description {
                request,
                topic,
                settings,
                stats: TopicStats::decode(reader)?,
                stored: if flags & STORED != 0 { Some(StoredStats::decode(reader)?) } else { None },
                leases: decode_list(reader, LeaseInfo::MIN, LeaseInfo::decode)?,
            }))
        }
        // `shape` rejects all other kinds.
        _ => return Err(DecodeError::UnknownKind { kind }),
    })
}

fn decode_chunk<'a>(reader: &mut FieldReader<'a>) -> Result<Chunk<'a>, DecodeError> {
    let sub = reader.u32()?;
    let count = reader.u32()?;
    let first = reader.u64()?;
    let time = reader.u64()?;
    let start = reader.u32()?;
    reader.zero::<4>()?;
    let ends = reader.items(count, 4)?;
    let payload = reader.rest();
    let records =
        Records::new(start, ends, payload).map_err(|error| reader.malformed(error.what()))?;
    if first.checked_add(count.into()).is_none() {
        return Err(reader.malformed("its offsets go beyond 64 bits"));
    }
    Ok(Chunk { sub, first, time, records })
}

/// Decodes a counted list whose items take at least `min` bytes each. The count is checked against
/// the bytes present before anything is allocated.
fn decode_list<'a, T>(
    reader: &mut FieldReader<'a>,
    min: usize,
    item: fn(&mut FieldReader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.u32()? as usize;
    if count > reader.remaining() / min {
        return Err(reader.malformed("its count is larger than the frame"));
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}

impl Reply<'_> {
    /// Appends the frame to `out`. Decoding it returns the same value, provided that its texts are
    /// not longer than [`MAX_TEXT`].
    ///
    /// # Panics
    ///
    /// If a TOPICS or DESCRIPTION would be larger than 4 GiB: split long lists by the peer's frame
    /// limit.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let at = match *self {
            Self::Welcome(welcome) => {
                let at = frame::begin(out, kind::WELCOME, 0);
                put_u16(out, welcome.version);
                put_u16(out, 0);
                put_u32(out, welcome.max_frame);
                put_u32(out, welcome.max_record);
                put_text(out, welcome.server, MAX_TEXT);
                at
            }
            Self::Ack { request, epoch, first, count } => {
                let at = frame::begin(out, kind::ACK, 0);
                put_u32(out, request);
                put_u64(out, epoch);
                put_u64(out, first);
                put_u32(out, count);
                at
            }
            Self::Deliver(chunk) => {
                let records = &chunk.records;
                let length = records.payload().len() as u32;
                let (count, start) = (records.count(), records.start());
                out.extend_from_slice(&deliver_header(
                    chunk.sub,
                    count,
                    chunk.first,
                    chunk.time,
                    start,
                    length,
                ));
                out.extend_from_slice(records.ends());
                out.extend_from_slice(records.payload());
                return;
            }
            Self::Subscribed { request, sub, epoch, next, tail, lease } => {
                let flags = lease.map_or(0, |lease| lease as u8);
                let at = frame::begin(out, kind::SUBSCRIBED, flags);
                put_u32(out, request);
                put_u32(out, sub);
                put_u64(out, epoch);
                put_u64(out, next);
                put_u64(out, tail);
                at
            }
            Self::Gap { sub, reason, epoch, first_missed, next } => {
                let at = frame::begin(out, kind::GAP, 0);
                put_u32(out, sub);
                out.extend_from_slice(&[reason as u8, 0, 0, 0]);
                put_u64(out, epoch);
                put_u64(out, first_missed);
                put_u64(out, next);
                at
            }
            Self::CaughtUp { sub, next } => {
                let at = frame::begin(out, kind::CAUGHT_UP, 0);
                put_u32(out, sub);
                put_u32(out, 0);
                put_u64(out, next);
                at
            }
            Self::Closed { sub, reason, next } => {
                let at = frame::begin(out, kind::CLOSED, 0);
                put_u32(out, sub);
                out.extend_from_slice(&[reason as u8, 0, 0, 0]);
                put_u64(out, next);
                at
            }
            Self::Error(error) => {
                let at = frame::begin(out, kind::ERROR, 0);
                put_u32(out, error.request);
                put_u16(out, error.code.number());
                put_u16(out, 0);
                put_u64(out, error.epoch);
                put_u64(out, error.asked);
                put_u64(out, error.first);
                put_u64(out, error.next);
                put_text(out, error.message, MAX_TEXT);
                at
            }
            Self::Goodbye { code, message } => {
                let at = frame::begin(out, kind::GOODBYE, 0);
                put_u16(out, code.number());
                put_u16(out, 0);
                put_text(out, message, MAX_TEXT);
                at
            }
            Self::Pong { token } => {
                let at = frame::begin(out, kind::PONG, 0);
                put_u64(out, token);
                at
            }
            Self::Done { request } => {
                let at = frame::begin(out, kind::DONE, 0);
                put_u32(out, request);
                at
            }
            Self::Topics { request, more, ref topics } => {
                let with_durability =
                    !topics.is_empty() && topics.iter().all(|topic| topic.durability.is_some());
                let flags = (u8::from(more) * MORE) | (u8::from(with_durability) * WITH_DURABILITY);
                let at = frame::begin(out, kind::TOPICS, flags);
                put_u32(out, request);
                put_u32(out, topics.len() as u32);
                topics.iter().for_each(|topic| topic.encode(out, with_durability));
                at
            }
            Self::Description(ref description) => {
                let is_long = description.settings.need_version_2();
                let is_stored = description.stored.is_some();
                let flags = (u8::from(is_long) * LONG_SETTINGS) | (u8::from(is_stored) * STORED);
                let at = frame::begin(out, kind::DESCRIPTION, flags);
                put_u32(out, description.request);
                put_name(out, Some(description.topic));
                description.settings.encode(out);
                description.stats.encode(out);
                if let Some(stored) = &description.stored {
                    stored.encode(out);
                }
                put_u32(out, description.leases.len() as u32);
                description.leases.iter().for_each(|lease| lease.encode(out));
                at
            }
        };
        frame::finish(out, at);
    }
}

/// The first 40 bytes of a DELIVER: frame header and fields. The sender writes `count` ends and
/// `payload_len` bytes of payload after them, directly from where they are in memory. See
/// [`Records`] for their format.
///
/// # Panics
///
/// If the frame would be 4 GiB or larger.
#[must_use]
pub fn deliver_header(
    sub: u32,
    count: u32,
    first: u64,
    time: u64,
    start: u32,
    payload_len: u32,
) -> [u8; HEADER + DELIVER_FIELDS] {
    let body = DELIVER_FIELDS as u64 + 4 * u64::from(count) + u64::from(payload_len);
    let body = u32::try_from(body).expect("a chunk of less than 4 GiB");
    let mut header = [0; HEADER + DELIVER_FIELDS];
    header[0..4].copy_from_slice(&body.to_le_bytes());
    header[4] = kind::DELIVER;
    header[8..12].copy_from_slice(&sub.to_le_bytes());
    header[12..16].copy_from_slice(&count.to_le_bytes());
    header[16..24].copy_from_slice(&first.to_le_bytes());
    header[24..32].copy_from_slice(&time.to_le_bytes());
    header[32..36].copy_from_slice(&start.to_le_bytes());
    header
}
