//! The frames from a client: encoding and decoding.

use super::error::{DecodeError, Refusal};
use super::frame::{self, DecodeLimits, Decoded, Shape, kind};
use super::name::{MAX_NAME, TopicName};
use super::records::{MAX_RECORDS_BYTES, Records, RecordsError};
use super::request::{Hello, LeaseRequest, MAGIC, OnGap, Publish, Request, Start, Subscribe};
use super::settings::Settings;
use super::wire::{
    self, FieldReader, MAX_TEXT, MAX_TOKEN, put_name, put_text, put_u16, put_u32, put_u64,
};

const ACK: u8 = 1;
const TAKEOVER: u8 = 1;
const CAUGHT_UP: u8 = 2;
const RELEASE: u8 = 1;
const EXIST_OK: u8 = 1;
const LONG_SETTINGS: u8 = 2;

fn shape(kind: u8) -> Option<Shape> {
    const NAME: u32 = 1 + MAX_NAME as u32;
    let (flags, max_body) = match kind {
        kind::HELLO => (0, 4 + 2 + 2 + 2 + MAX_TOKEN as u32 + 2 + MAX_TEXT as u32),
        kind::PUBLISH => (ACK, u32::MAX),
        kind::SUBSCRIBE => (TAKEOVER | CAUGHT_UP, 4 + 4 + NAME + 17 + 1 + NAME + 4),
        kind::UNSUBSCRIBE => (RELEASE, 8),
        kind::COMMIT => (ACK, 16),
        kind::CREATE => (EXIST_OK | LONG_SETTINGS, 4 + NAME + 40),
        kind::DELETE | kind::CLOSE | kind::LIST | kind::DESCRIBE => (0, 4 + NAME),
        kind::PING => (0, 8),
        _ => return None,
    };
    Some(Shape { flags, max_body })
}

/// Decodes the first frame of `input` as a server does.
///
/// Does not allocate. Makes one pass over the ends of a PUBLISH; all other kinds take constant time.
///
/// # Errors
///
/// See [`DecodeError`]: after a refused frame the connection continues; any other error ends it. The
/// order of the checks is: kind, size, flags, format, names, record sizes.
///
/// ```
/// use psa::protocol::{decode_request, Decoded, DecodeLimits, Request};
///
/// let mut bytes = Vec::new();
/// Request::Ping { token: 7 }.encode(&mut bytes);
/// let limits = DecodeLimits::default();
/// assert_eq!(decode_request(&bytes[..5], &limits), Ok(Decoded::NeedMore { at_least: 8 }));
/// assert_eq!(
///     decode_request(&bytes, &limits),
///     Ok(Decoded::Frame { value: Request::Ping { token: 7 }, consumed: 16 })
/// );
/// ```
pub fn decode_request<'a>(
    input: &'a [u8],
    limits: &DecodeLimits,
) -> Result<Decoded<Request<'a>>, DecodeError> {
    let raw = match frame::split(input, limits, shape)? {
        Ok(raw) => raw,
        Err(at_least) => return Ok(Decoded::NeedMore { at_least }),
    };
    let consumed = raw.consumed;
    let value = Body {
        reader: FieldReader::new(raw.kind, raw.body),
        flags: raw.flags,
        consumed,
        max_record: limits.max_record,
    }
    .decode(raw.kind)?;
    Ok(Decoded::Frame { value, consumed })
}

/// A request's body while it is decoded.
struct Body<'a> {
    reader: FieldReader<'a>,
    flags: u8,
    consumed: usize,
    max_record: u32,
}

impl<'a> Body<'a> {
    const fn flag(&self, bit: u8) -> bool {
        self.flags & bit != 0
    }

    fn refuse(&self, request: u32, refusal: impl Into<Refusal>) -> DecodeError {
        DecodeError::Refused { request, consumed: self.consumed, refusal: refusal.into() }
    }

    fn decode(mut self, kind: u8) -> Result<Request<'a>, DecodeError> {
        let request = match kind {
            kind::HELLO => Request::Hello(self.hello()?),
            kind::PUBLISH => Request::Publish(self.publish()?),
            kind::SUBSCRIBE => Request::Subscribe(self.subscribe()?),
            kind::UNSUBSCRIBE => Request::Unsubscribe {
                request: self.reader.u32()?,
                sub: self.reader.u32()?,
                release: self.flag(RELEASE),
            },
            kind::COMMIT => Request::Commit {
                request: self.reader.u32()?,
                sub: self.reader.u32()?,
                offset: self.reader.u64()?,
                ack: self.flag(ACK),
            },
            kind::PING => Request::Ping { token: self.reader.u64()? },
            _ => return self.named(kind),
        };
        self.reader.finish()?;
        Ok(request)
    }

    fn hello(&mut self) -> Result<Hello<'a>, DecodeError> {
        let reader = &mut self.reader;
        if reader.bytes(MAGIC.len())? != MAGIC {
            return Err(reader.malformed("it does not begin with the protocol's magic"));
        }
        let (version_min, version_max) = (reader.u16()?, reader.u16()?);
        if version_min > version_max {
            return Err(reader.malformed("its oldest version is newer than its newest"));
        }
        let token = reader.text()?;
        let client = reader.text()?;
        if token.len() > MAX_TOKEN || client.len() > MAX_TEXT {
            return Err(reader.malformed("its token or its client text is too long"));
        }
        Ok(Hello { version_min, version_max, token, client })
    }

    fn publish(&mut self) -> Result<Publish<'a>, DecodeError> {
        let request = self.reader.u32()?;
        let topic = self.reader.name_bytes()?;
        let count = self.reader.u32()?;
        let ends = self.reader.items(count, 4)?;
        let payload = self.reader.rest();
        let records =
            Records::new(0, ends, payload).map_err(|error| self.reader.malformed(error.what()))?;
        let topic = TopicName::from_bytes(topic).map_err(|error| self.refuse(request, error))?;
        let (size, max) = (records.largest(), self.max_record);
        if size > max {
            return Err(self.refuse(request, Refusal::RecordTooLarge { size, max }));
        }
        Ok(Publish { request, topic, ack: self.flag(ACK), records })
    }

    fn subscribe(&mut self) -> Result<Subscribe<'a>, DecodeError> {
        let request = self.reader.u32()?;
        let sub = self.reader.u32()?;
        let topic = self.reader.name_bytes()?;
        let start = self.start()?;
        let on_gap = match self.reader.u8()? {
            0 => OnGap::Error,
            1 => OnGap::Continue,
            _ => return Err(self.reader.malformed("on_gap is neither 0 nor 1")),
        };
        let lease = self.reader.name_bytes()?;
        let ttl_ms = self.reader.u32()?;
        let take_over = self.flag(TAKEOVER);
        if lease.is_empty() && (ttl_ms != 0 || take_over) {
            return Err(self.reader.malformed("a lease's time or take_over without its name"));
        }
        let topic = TopicName::from_bytes(topic).map_err(|error| self.refuse(request, error))?;
        let lease = wire::optional_name(lease).map_err(|error| self.refuse(request, error))?;
        Ok(Subscribe {
            request,
            sub,
            topic,
            start,
            on_gap,
            caught_up: self.flag(CAUGHT_UP),
            lease: lease.map(|name| LeaseRequest { name, ttl_ms, take_over }),
        })
    }

    fn start(&mut self) -> Result<Start, DecodeError> {
        let kind = self.reader.u8()?;
        let (a, b) = (self.reader.u64()?, self.reader.u64()?);
        Ok(match (kind, a, b) {
            (0, 0, 0) => Start::Earliest,
            (1, 0, 0) => Start::Next,
            (2, offset, 0) => Start::At(offset),
            (3, epoch, offset) => Start::After { epoch, offset },
            (4, records, 0) => Start::Last(records),
            (5, time, 0) => Start::Since(time),
            (0..=5, ..) => return Err(self.reader.malformed("an unused start field is not zero")),
            _ => return Err(self.reader.malformed("the start is of no known kind")),
        })
    }

    /// Decodes the frames that consist of a request number, a name and, for CREATE, settings.
    fn named(mut self, kind: u8) -> Result<Request<'a>, DecodeError> {
        let request = self.reader.u32()?;
        let name = self.reader.name_bytes()?;
        let settings = match kind {
            kind::CREATE => {
                let is_long = self.flag(LONG_SETTINGS);
                Settings::decode(&mut self.reader, is_long)?
            }
            _ => Ok(Settings::default()),
        };
        let (flags, consumed) = (self.flags, self.consumed);
        self.reader.finish()?;
        let refuse = |refusal: Refusal| DecodeError::Refused { request, consumed, refusal };
        let prefix = wire::optional_name(name).map_err(|error| refuse(error.into()))?;
        if kind == kind::LIST {
            return Ok(Request::List { request, prefix });
        }
        let topic = TopicName::from_bytes(name).map_err(|error| refuse(error.into()))?;
        Ok(match kind {
            kind::CREATE => Request::Create {
                request,
                topic,
                settings: settings.map_err(refuse)?,
                exist_ok: flags & EXIST_OK != 0,
            },
            kind::DELETE => Request::Delete { request, topic },
            kind::CLOSE => Request::Close { request, topic },
            kind::DESCRIBE => Request::Describe { request, topic },
            // `shape` rejects all other kinds.
            _ => return Err(DecodeError::UnknownKind { kind }),
        })
    }
}

impl Request<'_> {
    /// Appends the frame to `out`. Decoding it returns the same value, provided that the texts of a
    /// HELLO are within their limits and the records of a PUBLISH start at 0.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let at = match *self {
            Self::Hello(hello) => {
                let at = frame::begin(out, kind::HELLO, 0);
                out.extend_from_slice(&MAGIC);
                put_u16(out, hello.version_min);
                put_u16(out, hello.version_max);
                put_text(out, hello.token, usize::MAX);
                put_text(out, hello.client, MAX_TEXT);
                at
            }
            Self::Publish(publish) => {
                publish_header(out, &publish);
                out.extend_from_slice(publish.records.ends());
                out.extend_from_slice(publish.records.payload());
                return;
            }
            Self::Subscribe(subscribe) => put_subscribe(out, &subscribe),
            Self::Unsubscribe { request, sub, release } => {
                let at = frame::begin(out, kind::UNSUBSCRIBE, u8::from(release) * RELEASE);
                put_u32(out, request);
                put_u32(out, sub);
                at
            }
            Self::Commit { request, sub, offset, ack } => {
                let at = frame::begin(out, kind::COMMIT, u8::from(ack) * ACK);
                put_u32(out, request);
                put_u32(out, sub);
                put_u64(out, offset);
                at
            }
            Self::Create { request, topic, settings, exist_ok } => {
                let is_long = settings.need_version_2();
                let flags = (u8::from(exist_ok) * EXIST_OK) | (u8::from(is_long) * LONG_SETTINGS);
                let at = put_named(out, kind::CREATE, flags, request, Some(topic));
                settings.encode(out);
                at
            }
            Self::Delete { request, topic } => {
                put_named(out, kind::DELETE, 0, request, Some(topic))
            }
            Self::Close { request, topic } => put_named(out, kind::CLOSE, 0, request, Some(topic)),
            Self::List { request, prefix } => put_named(out, kind::LIST, 0, request, prefix),
            Self::Describe { request, topic } => {
                put_named(out, kind::DESCRIBE, 0, request, Some(topic))
            }
            Self::Ping { token } => {
                let at = frame::begin(out, kind::PING, 0);
                put_u64(out, token);
                at
            }
        };
        frame::finish(out, at);
    }
}

/// Appends a PUBLISH without its ends and payload, which the sender writes after it. This is for
/// callers that have large payloads and can write several slices in one call.
pub fn publish_header(out: &mut Vec<u8>, publish: &Publish<'_>) {
    let records = &publish.records;
    let at = frame::begin(out, kind::PUBLISH, u8::from(publish.ack) * ACK);
    put_u32(out, publish.request);
    put_name(out, Some(publish.topic));
    put_u32(out, records.count());
    let body = out.len() - at - frame::HEADER + records.ends().len() + records.payload().len();
    // `MAX_RECORDS_BYTES` ensures that this fits.
    out[at..at + 4].copy_from_slice(&(body as u32).to_le_bytes());
}

/// Appends a PUBLISH of records that are separate in memory; they are copied once, into `out`.
///
/// # Errors
///
/// [`RecordsError::Empty`] and [`RecordsError::TooLarge`]; `out` is then unchanged.
///
/// ```
/// use psa::protocol::{TopicName, encode_publish};
///
/// let mut out = Vec::new();
/// let topic = TopicName::new("news")?;
/// encode_publish(&mut out, 7, topic, true, [b"one".as_slice(), b"two"].into_iter())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode_publish<'r>(
    out: &mut Vec<u8>,
    request: u32,
    topic: TopicName<'_>,
    ack: bool,
    records: impl Iterator<Item = &'r [u8]> + Clone,
) -> Result<(), RecordsError> {
    let (mut count, mut bytes) = (0_usize, 0_usize);
    for record in records.clone() {
        count += 1;
        bytes = bytes.saturating_add(record.len());
    }
    if count == 0 {
        return Err(RecordsError::Empty);
    }
    if count.saturating_mul(4).saturating_add(bytes) > MAX_RECORDS_BYTES {
        return Err(RecordsError::TooLarge);
    }
    let at = frame::begin(out, kind::PUBLISH, u8::from(ack) * ACK);
    put_u32(out, request);
    put_name(out, Some(topic));
    put_u32(out, count as u32);
    let mut end = 0;
    for record in records.clone() {
        end += record.len() as u32;
        put_u32(out, end);
    }
    records.for_each(|record| out.extend_from_slice(record));
    frame::finish(out, at);
    Ok(())
}

fn put_named(
    out: &mut Vec<u8>,
    kind: u8,
    flags: u8,
    request: u32,
    name: Option<TopicName<'_>>,
) -> usize {
    let at = frame::begin(out, kind, flags);
    put_u32(out, request);
    put_name(out, name);
    at
}

fn put_subscribe(out: &mut Vec<u8>, subscribe: &Subscribe<'_>) -> usize {
    let lease = subscribe.lease;
    let take_over = lease.is_some_and(|lease| lease.take_over);
    let flags = (u8::from(take_over) * TAKEOVER) | (u8::from(subscribe.caught_up) * CAUGHT_UP);
    let at = frame::begin(out, kind::SUBSCRIBE, flags);
    put_u32(out, subscribe.request);
    put_u32(out, subscribe.sub);
    put_name(out, Some(subscribe.topic));
    let (start, a, b) = match subscribe.start {
        Start::Earliest => (0, 0, 0),
        Start::Next => (1, 0, 0),
        Start::At(offset) => (2, offset, 0),
        Start::After { epoch, offset } => (3, epoch, offset),
        Start::Last(records) => (4, records, 0),
        Start::Since(time) => (5, time, 0),
    };
    out.push(start);
    put_u64(out, a);
    put_u64(out, b);
    out.push(match subscribe.on_gap {
        OnGap::Error => 0,
        OnGap::Continue => 1,
    });
    put_name(out, lease.map(|lease| lease.name));
    put_u32(out, lease.map_or(0, |lease| lease.ttl_ms));
    at
}
