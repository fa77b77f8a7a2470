//! `PUT`: creating a stream, or making sure that it exists.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::append::{self, AppendRefusal};
use super::headers::{self, Lifetime, Media};
use super::reader::{RecordBuffer, StreamReader};
use super::registry::{ByName, RegisteredStream};
use super::stream::{Fork, Stream, StreamKind};
use super::{PREFIX, StreamName, json, problems};
use crate::access::{Grant, Right};
use crate::broker::{Durability, TopicSettings};
use crate::http::answer::durability;
use crate::http::api::Api;
use crate::http::body;
use crate::http::gate::is_known_host;
use crate::http::problem::Problem;
use crate::http::request::prefix;
use crate::listener::AppendInFlight;
use crate::log::{Overflow, Retention};

/// The most sources that a fork may have: its own one, the source of that, and so on.
const MAX_DEPTH: usize = 64;
/// The largest segment of a stream's log, in bytes: streams are many, and often small.
const MAX_SEGMENT: usize = 32 << 10;

/// What a request asks for.
struct CreateRequest {
    media: Option<Media>,
    lifetime: Lifetime,
    closed: bool,
    fork: Option<Fork>,
}

/// Creates a stream.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    StreamName(name): StreamName,
    OriginalUri(original): OriginalUri,
    uri: Uri,
    headers: HeaderMap,
    grant: Grant,
    body: Body,
) -> Result<Response, Problem> {
    grant.check(Right::Manage, &name)?;
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    let request = CreateRequest::read(&headers, prefix(&original, &uri))?;
    if let Some(fork) = &request.fork {
        // The fork begins with the records of its source.
        grant.check(Right::Subscribe, &fork.source)?;
    }
    let max = api.config.limits.max_body;
    let body = body::read(&api, &headers, body, max, |_| Problem::body_too_large(max)).await?;
    if !body.is_empty() {
        grant.check(Right::Publish, &name)?;
    }
    // The API may drain by now.
    let in_flight = AppendInFlight::begin(&*api).ok_or_else(Problem::shutting_down)?;
    let (stream, created) = find_or_create(&api, &name, &request, &body)?;
    drop(in_flight);
    let mut answer = StatusCode::OK.into_response();
    let said = answer.headers_mut();
    if created {
        said.insert(header::LOCATION, location(&api, &headers, &original));
    }
    describe(&stream, &api, said);
    *answer.status_mut() = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer)
}

/// Adds the headers that all responses about a stream have.
pub(super) fn describe(stream: &Stream, api: &Api, said: &mut HeaderMap) {
    let media = HeaderValue::try_from(&stream.kind.media.given);
    said.insert(header::CONTENT_TYPE, media.expect("it came in a header"));
    let closed = stream.is_closed(&api.broker);
    let tail = super::stream::token_value(&stream.token(stream.tail()));
    said.insert(headers::NEXT_OFFSET, tail);
    if closed {
        said.insert(headers::CLOSED, headers::TRUE);
    }
    said.extend(durability(&stream.topic));
}

/// The address of the stream. The protocol's clients prefer a whole URL, so it is one if the request named the
/// server by one of its own names and shows no sign of a proxy. Otherwise the scheme and the name by which the
/// client reached the server are unknown, and only the path is certain to be right.
fn location(api: &Api, headers: &HeaderMap, uri: &Uri) -> HeaderValue {
    const PROXIES: [&str; 5] =
        ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    let path = uri.path();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    let authority: Option<Authority> = uri.authority().cloned().or(host);
    let direct = !PROXIES.iter().any(|name| headers.contains_key(*name));
    let own = authority.filter(|own| direct && is_known_host(own.host(), &api.hosts));
    let address = match (api.scheme, own) {
        (Some(scheme), Some(own)) => format!("{scheme}://{own}{path}"),
        _ => path.to_owned(),
    };
    HeaderValue::try_from(address).unwrap_or(HeaderValue::from_static(PREFIX))
}

impl CreateRequest {
    /// `prefix` is what stands before the API's own paths.
    fn read(headers: &HeaderMap, prefix: &str) -> Result<Self, Problem> {
        Ok(Self {
            media: Media::of(headers)?,
            lifetime: Lifetime::of(headers)?,
            closed: headers::closes(headers),
            fork: read_fork(headers, prefix)?,
        })
    }

    /// In what `stream` differs from what was asked for.
    fn difference(&self, stream: &Stream, api: &Api) -> Option<&'static str> {
        let kind = &stream.kind;
        let same_media = match &self.media {
            Some(media) => media.matches(&kind.media),
            None => self.fork.is_some() || kind.media.matches(&Media::bytes()),
        };
        if !same_media {
            Some("content type")
        } else if self.lifetime != kind.asked_lifetime {
            Some("lifetime")
        } else if self.closed != stream.is_closed(&api.broker) {
            Some("state: open or closed")
        } else if !self.is_same_fork(stream) {
            Some("source, or place in it")
        } else {
            None
        }
    }

    fn is_same_fork(&self, stream: &Stream) -> bool {
        match (&self.fork, &stream.kind.fork) {
            (Some(asked), Some(has)) => {
                // The same fork, if the first request named no offset, and this one names the resulting one.
                let source = stream.source.as_ref();
                let there = asked.offset.as_ref().is_some_and(|offset| {
                    source.is_some_and(|source| source.token(stream.base()) == *offset)
                });
                asked.source == has.source
                    && asked.sub_offset == has.sub_offset
                    && (asked.offset == has.offset || (has.offset.is_none() && there))
            }
            (None, None) => true,
            _ => false,
        }
    }
}

/// Where a fork should begin, if the request asks for one.
fn read_fork(headers: &HeaderMap, prefix: &str) -> Result<Option<Fork>, Problem> {
    let from = headers::text(headers, &headers::FORKED_FROM)?;
    let offset = headers::text(headers, &headers::FORK_OFFSET)?;
    let sub_offset = headers::text(headers, &headers::FORK_SUB_OFFSET)?;
    let Some(from) = from else {
        let needs = |name: &HeaderName| problems::header(name, "goes with stream-forked-from");
        return match (offset, sub_offset) {
            (Some(_), _) => Err(needs(&headers::FORK_OFFSET)),
            (_, Some(_)) => Err(needs(&headers::FORK_SUB_OFFSET)),
            _ => Ok(None),
        };
    };
    let sub_offset = sub_offset.map(|text| headers::number(&headers::FORK_SUB_OFFSET, text));
    let source = from
        .strip_prefix(prefix)
        .and_then(|path| path.strip_prefix(PREFIX))
        .and_then(|name| percent_encoding::percent_decode_str(name).decode_utf8().ok());
    let Some(source) = source else {
        let why = format!("expected the path of a stream, which begins with {prefix}{PREFIX}");
        return Err(problems::header(&headers::FORKED_FROM, why));
    };
    Ok(Some(Fork {
        source: source.into_owned(),
        offset: offset.map(str::to_owned),
        sub_offset: sub_offset.transpose()?.unwrap_or(0),
    }))
}

/// Where a fork begins.
struct ForkPoint {
    source: Arc<Stream>,
    /// The position at which it leaves its source.
    base: u64,
    /// The part of the source's next record that it begins with.
    part: Option<Vec<u8>>,
}

/// The stream of this name, and whether it was created now.
fn find_or_create(
    api: &Api,
    name: &str,
    request: &CreateRequest,
    body: &[u8],
) -> Result<(Arc<Stream>, bool), Problem> {
    let registry = &api.durable;
    // Held until the stream is complete: no other request sees it before.
    let mut streams = registry.lock();
    if let Some(entry) = registry.entry(&mut streams, &api.broker, name) {
        return existing(api, request, entry);
    }
    let point = match &request.fork {
        Some(fork) => Some(fork_point(api, &mut streams, request, fork)?),
        None => None,
    };
    let source = point.as_ref().map(|point| &point.source);
    let media = match (&request.media, source) {
        (Some(media), _) => media.clone(),
        (None, Some(source)) => source.kind.media.clone(),
        (None, None) => Media::bytes(),
    };
    let lifetime = match (&request.lifetime, source) {
        (Lifetime::Unlimited, Some(source)) => source.kind.lifetime.clone(),
        (lifetime, _) => lifetime.clone(),
    };
    let mut records = match media.is_json() {
        _ if body.is_empty() => Vec::new(),
        true => json::split(body, api.config.limits.max_batch)?,
        false => vec![body],
    };
    if let Some(part) = point.as_ref().and_then(|point| point.part.as_deref()) {
        records.insert(0, part);
    }
    append::check_sizes(api, &records)?;

    let settings = TopicSettings {
        segment_bytes: Some(api.broker.config().segment_bytes.min(MAX_SEGMENT)),
        retention: Some(Retention::Everything),
        overflow: Some(Overflow::Reject),
        memory_limit: None,
        // What an idempotent producer sent last is in memory alone, so far.
        durability: Some(Durability::Memory),
        disk_limit: None,
    };
    let (topic, created) = api.broker.create_or_get(name, &settings)?;
    if !created {
        // The topic was created through another listener meanwhile.
        let entry = registry.entry(&mut streams, &api.broker, name);
        return existing(api, request, entry.ok_or_else(|| problems::unknown(name))?);
    }
    let base = point.as_ref().map_or(0, |point| point.base);
    let source = source.cloned();
    let (asked_lifetime, fork) = (request.lifetime.clone(), request.fork.clone());
    let kind = StreamKind { media, lifetime, asked_lifetime, fork };
    let producers = registry.producers.clone();
    let stream = Arc::new(Stream::new(topic, kind, source.clone(), base, producers));
    if let Err(refusal) = append::put(&stream, &records) {
        // A request that fails creates nothing.
        api.broker.delete_this(&stream.topic);
        return Err(match refusal {
            AppendRefusal::Closed => Problem::shutting_down(),
            AppendRefusal::Stored => problems::stored(),
            AppendRefusal::Other(error) => append::problem(&stream, api, &error),
        });
    }
    if request.closed {
        stream.close();
    }
    if let Some(entry) = source.and_then(|source| streams.get_mut(&source.name)) {
        entry.forks += 1;
    }
    registry.insert(&mut streams, stream.clone());
    Ok((stream, true))
}

/// The stream that exists already, if it is what was asked for.
fn existing(
    api: &Api,
    request: &CreateRequest,
    entry: &RegisteredStream,
) -> Result<(Arc<Stream>, bool), Problem> {
    let name = &entry.stream.name;
    if entry.deleted {
        return Err(problems::deleted(name, StatusCode::CONFLICT));
    }
    match request.difference(&entry.stream, api) {
        Some(what) => Err(problems::exists(name, what)),
        None => Ok((entry.stream.clone(), false)),
    }
}

/// Finds where a fork begins.
fn fork_point(
    api: &Api,
    streams: &mut ByName,
    request: &CreateRequest,
    fork: &Fork,
) -> Result<ForkPoint, Problem> {
    let name = &fork.source;
    let entry = api.durable.entry(streams, &api.broker, name);
    let entry = entry.ok_or_else(|| problems::unknown(name))?;
    if entry.deleted {
        return Err(problems::deleted(name, StatusCode::CONFLICT));
    }
    let source = entry.stream.clone();
    let media = &source.kind.media;
    if request.media.as_ref().is_some_and(|asked| !asked.matches(media)) {
        return Err(problems::content_type(&media.given));
    }
    if source.depth + 1 > MAX_DEPTH {
        return Err(problems::fork(format!("at most {MAX_DEPTH} forks, one of the other")));
    }
    let at = match fork.offset.as_deref() {
        None => source.tail(),
        Some("-1") => 0,
        Some("now") => source.tail(),
        Some(offset) => source.position(offset).map_err(|_| {
            problems::fork(format!("{offset} is no place of {name:?}; take one that it told"))
        })?,
    };
    let further = fork.sub_offset;
    if further == 0 {
        return Ok(ForkPoint { source, base: at, part: None });
    }
    let too_far = || problems::fork(format!("{further} lies beyond what follows that place"));
    if media.is_json() {
        let base = at.checked_add(further).filter(|base| *base <= source.tail());
        return Ok(ForkPoint { base: base.ok_or_else(too_far)?, source, part: None });
    }
    // Only the record at that position: a limit of one byte yields one record.
    let mut record = RecordBuffer::new(false);
    StreamReader::new(source.clone(), at).fill(&mut record, 1)?;
    let mut part = record.into_bytes();
    let length = usize::try_from(further).ok().filter(|length| *length <= part.len());
    let length = length.ok_or_else(too_far)?;
    if length == part.len() {
        return Ok(ForkPoint { source, base: at + 1, part: None });
    }
    part.truncate(length);
    Ok(ForkPoint { source, base: at, part: Some(part) })
}
