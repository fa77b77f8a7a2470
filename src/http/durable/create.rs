//! `PUT`: creating a stream, or making sure that it exists.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::about::About;
use super::append::{self, AppendFailure};
use super::headers::{self, Lifetime, Media};
use super::reader::{RecordBuffer, StreamReader};
use super::registry::RegisteredStream;
use super::stream::{Fork, Stream, StreamKind};
use super::{PREFIX, StreamName, problems};
use crate::access::{Grant, Right};
use crate::broker::{Condition, Durability, PublishError, Ticket, TopicSettings};
use crate::http::answer::{DURABILITY, durability};
use crate::http::api::Api;
use crate::http::body;
use crate::http::gate::is_known_host;
use crate::http::problem::Problem;
use crate::http::request::prefix;
use crate::listener::AppendInFlight;
use crate::log::{Overflow, Retention};
use crate::tier::Creation;

/// The most sources that a fork may have: its own one, the source of that, and so on.
pub(super) const MAX_DEPTH: usize = 64;
/// The largest segment of a stream's log, in bytes: streams are many, and often small.
const MAX_SEGMENT: usize = 32 << 10;

/// How often a request waits for the files of an earlier stream of its name to be removed.
const MOST_WAITS: usize = 8;

/// What a request asks for.
struct CreateRequest {
    media: Option<Media>,
    lifetime: Lifetime,
    closed: bool,
    fork: Option<Fork>,
    durability: Option<Durability>,
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
    let (stream, created) = find_or_create(&api, &name, &request, &body).await?;
    drop(in_flight);
    let mut answer = StatusCode::OK.into_response();
    let said = answer.headers_mut();
    if created {
        said.insert(header::LOCATION, location(&api, &headers, &original));
    }
    describe(&stream, said);
    *answer.status_mut() = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer)
}

/// Adds the headers that all responses about a stream have.
pub(super) fn describe(stream: &Stream, said: &mut HeaderMap) {
    let media = HeaderValue::try_from(&stream.kind.media.given);
    said.insert(header::CONTENT_TYPE, media.expect("it came in a header"));
    let closed = stream.is_closed();
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
            durability: headers::text(headers, &DURABILITY)?
                .map(|word| word.parse().map_err(|why| Problem::bad_header(&DURABILITY, why)))
                .transpose()?,
        })
    }

    /// In what `stream` differs from what was asked for.
    fn difference(&self, stream: &Stream) -> Option<&'static str> {
        let kind = &stream.kind;
        let same_media = match &self.media {
            Some(media) => media.matches(&kind.media),
            None => self.fork.is_some() || kind.media.matches(&Media::bytes()),
        };
        if !same_media {
            Some("content type")
        } else if self.lifetime != kind.asked_lifetime {
            Some("lifetime")
        } else if self.closed != stream.is_closed() {
            Some("state: open or closed")
        } else if !self.is_same_fork(stream) {
            Some("source, or place in it")
        } else if self.durability.is_some_and(|asked| asked != stream.topic.settings().durability) {
            Some("durability")
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
        let needs = |name: &HeaderName| Problem::bad_header(name, "goes with stream-forked-from");
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
        return Err(Problem::bad_header(&headers::FORKED_FROM, why));
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
    /// Whether the source keeps its records for this fork.
    noted: bool,
}

impl ForkPoint {
    /// The fork was created.
    fn keep(mut self) {
        self.noted = false;
    }
}

impl Drop for ForkPoint {
    fn drop(&mut self) {
        if self.noted {
            self.source.topic.remove_fork();
        }
    }
}

/// The stream of this name, and whether it was created now. When this returns, it is written down.
async fn find_or_create(
    api: &Arc<Api>,
    name: &str,
    request: &CreateRequest,
    body: &[u8],
) -> Result<(Arc<Stream>, bool), Problem> {
    for _ in 0..MOST_WAITS {
        let removed = api.durable.removed.notified();
        let there = match api.durable.entry(&mut api.durable.lock(), &api.broker, name) {
            Some(entry) => Some(existing(request, entry)?),
            None => None,
        };
        let found = match (there, &request.fork) {
            (Some(there), _) => there,
            (None, None) => begin(api, name, request, None, body)?,
            (None, Some(fork)) => {
                let point = fork_point(api, request, fork).await?;
                begin(api, name, request, Some(point), body)?
            }
        };
        match found {
            Found::Ending => removed.await,
            Found::There(stream) => {
                let created = stream.topic.created().await;
                created.map_err(|error| refused(api, &stream, &error))?;
                return Ok((stream, false));
            }
            Found::Begun(stream, begun) => {
                let api = api.clone();
                // Also if the client leaves: a stream that cannot be completed is taken back.
                let done = tokio::spawn(complete(api, stream, begun)).await;
                let done =
                    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                return done.map(|stream| (stream, true));
            }
        }
    }
    let detail =
        "the files of an earlier stream of this name cannot be removed; see the server's log";
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Err(Problem::new(status, "not-removed", "The files cannot be removed", detail))
}

/// A stream that was looked for.
enum Found {
    There(Arc<Stream>),
    /// It was created, and its first records are on their way.
    Begun(Arc<Stream>, Result<Ticket, AppendFailure>),
    /// There was one, and its files are being removed.
    Ending,
}

/// Waits until a stream is complete. A request that fails creates nothing.
async fn complete(
    api: Arc<Api>,
    stream: Arc<Stream>,
    begun: Result<Ticket, AppendFailure>,
) -> Result<Arc<Stream>, Problem> {
    let done = match begun {
        Ok(ticket) => ticket.await.map_err(AppendFailure::Refused),
        Err(failure) => Err(failure),
    };
    match done {
        Ok(_) => Ok(stream),
        Err(failure) => {
            api.durable.take_back(&api.broker, &stream).await;
            Err(match failure {
                AppendFailure::Bad(problem) => problem,
                AppendFailure::Refused(error) => refused(&api, &stream, &error),
            })
        }
    }
}

/// The response if a stream could not be created.
fn refused(api: &Api, stream: &Stream, error: &PublishError) -> Problem {
    if error.is_closed() && api.broker.is_shut() {
        return Problem::shutting_down();
    }
    append::problem(stream, api, error)
}

/// Finds a stream, or begins to create it.
fn begin(
    api: &Api,
    name: &str,
    request: &CreateRequest,
    point: Option<ForkPoint>,
    body: &[u8],
) -> Result<Found, Problem> {
    let registry = &api.durable;
    // Held until the stream is registered: no other request sees it before.
    let mut streams = registry.lock();
    if let Some(entry) = registry.entry(&mut streams, &api.broker, name) {
        return existing(request, entry);
    }
    let source = point.as_ref().map(|point| point.source.clone());
    let part = point.as_ref().and_then(|point| point.part.clone());
    if let Some(source) = &source
        && !streams.get(&source.name).is_some_and(|entry| Arc::ptr_eq(&entry.stream, source))
    {
        // It was deleted meanwhile.
        return Err(problems::unknown(&source.name));
    }
    let media = match (&request.media, &source) {
        (Some(media), _) => media.clone(),
        (None, Some(source)) => source.kind.media.clone(),
        (None, None) => Media::bytes(),
    };
    let lifetime = match (&request.lifetime, &source) {
        (Lifetime::Unlimited, Some(source)) => source.kind.lifetime.clone(),
        (lifetime, _) => lifetime.clone(),
    };
    let mut records = append::records(api, &media, body)?;
    if let Some(part) = part.as_deref() {
        records.insert(0, part);
    }
    append::check_sizes(api, &records)?;

    // A fork is not worth more than the records that it shares.
    let of_source = source.as_ref().map(|source| source.topic.settings().durability);
    let settings = TopicSettings {
        segment_bytes: Some(api.broker.config().segment_bytes.min(MAX_SEGMENT)),
        retention: Some(Retention::Everything),
        overflow: Some(Overflow::Reject),
        memory_limit: None,
        durability: request.durability.or(of_source),
        disk_limit: None,
    };
    let base = point.as_ref().map_or(0, |point| point.base);
    let (asked_lifetime, fork) = (request.lifetime.clone(), request.fork.clone());
    let kind = StreamKind { media, lifetime, asked_lifetime, fork };
    let complete = records.is_empty() && !request.closed;
    let about = About::encode(&kind, source.as_deref().map(|source| (source, base)));
    let (topic, created) =
        api.broker.create_or_get_with(name, &settings, Creation { about, complete })?;
    if !created {
        // The topic was created through another listener meanwhile.
        let entry = registry.entry(&mut streams, &api.broker, name);
        return existing(request, entry.ok_or_else(|| problems::unknown(name))?);
    }
    let stream = Arc::new(Stream::new(topic, kind, source, base));
    // From here on, the stream has its source.
    point.into_iter().for_each(ForkPoint::keep);
    registry.insert(&mut streams, stream.clone());
    let begun = if complete {
        Ok(stream.topic.created())
    } else {
        append::put(&stream, &records, Condition::completes(request.closed))
    };
    Ok(Found::Begun(stream, begun))
}

/// The stream that exists already, if it is what was asked for.
fn existing(request: &CreateRequest, entry: &RegisteredStream) -> Result<Found, Problem> {
    let name = &entry.stream.name;
    if entry.deleted {
        return Err(problems::deleted(name, StatusCode::CONFLICT));
    }
    if entry.ending {
        return Ok(Found::Ending);
    }
    match request.difference(&entry.stream) {
        Some(what) => Err(problems::exists(name, what)),
        None => Ok(Found::There(entry.stream.clone())),
    }
}

/// Finds where a fork begins. From then on, its source keeps its records for it.
async fn fork_point(api: &Api, request: &CreateRequest, fork: &Fork) -> Result<ForkPoint, Problem> {
    let name = &fork.source;
    let source = {
        let mut streams = api.durable.lock();
        let entry = api.durable.entry(&mut streams, &api.broker, name);
        let entry = entry.filter(|entry| !entry.ending).ok_or_else(|| problems::unknown(name))?;
        if entry.deleted {
            return Err(problems::deleted(name, StatusCode::CONFLICT));
        }
        entry.stream.clone()
    };
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
    if !source.topic.add_fork() {
        return Err(problems::unknown(name));
    }
    let mut point = ForkPoint { source: source.clone(), base: at, part: None, noted: true };
    let further = fork.sub_offset;
    if further == 0 {
        return Ok(point);
    }
    let too_far = || problems::fork(format!("{further} lies beyond what follows that place"));
    if source.kind.media.is_json() {
        let base = at.checked_add(further).filter(|base| *base <= source.tail());
        point.base = base.ok_or_else(too_far)?;
        return Ok(point);
    }
    // Only the record at that position: a limit of one byte yields one record.
    let mut record = RecordBuffer::new(false);
    StreamReader::new(source, at).fill(&mut record, 1).await?;
    let mut part = record.into_bytes();
    let length = usize::try_from(further).ok().filter(|length| *length <= part.len());
    let length = length.ok_or_else(too_far)?;
    if length == part.len() {
        point.base = at + 1;
        return Ok(point);
    }
    part.truncate(length);
    point.part = Some(part);
    Ok(point)
}
