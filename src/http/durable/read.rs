//! `GET` and `HEAD`: catching up with a stream, and waiting for more of it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::headers::{self, CLOSED, CURSOR, Lifetime, NEXT_OFFSET, UP_TO_DATE};
use super::reader::{RecordBuffer, StreamReader};
use super::stream::{BadToken, Stream, token_value};
use super::{StreamName, create, live, problems};
use crate::access::{Grant, Right};
use crate::http::answer;
use crate::http::api::Api;
use crate::http::problem::Problem;
use crate::http::reading::{Requests, wait_for};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// How long a request waits for records, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long caches may keep a response that will not change, by the protocol.
const CACHED: &str = "max-age=60, stale-while-revalidate=300";

/// Where to begin.
enum ReadFrom {
    Beginning,
    Tail,
    Token(String),
}

/// What to do at the end of the records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LiveMode {
    No,
    LongPoll,
    Events,
}

/// What a read asks for. Unknown parameters are ignored, as the protocol requires.
struct ReadRequest {
    from: Option<ReadFrom>,
    live: LiveMode,
    cursor: Option<u64>,
}

impl ReadRequest {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut request = Self { from: None, live: LiveMode::No, cursor: None };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "offset" if request.from.is_some() => {
                    return Err(Problem::parameter("offset", "given twice; give it once"));
                }
                "offset" => {
                    request.from = Some(match &*value {
                        "-1" => ReadFrom::Beginning,
                        "now" => ReadFrom::Tail,
                        token => ReadFrom::Token(token.to_owned()),
                    });
                }
                "live" => {
                    request.live = match &*value {
                        "long-poll" => LiveMode::LongPoll,
                        "sse" => LiveMode::Events,
                        _ => {
                            let why = "expected long-poll or sse";
                            return Err(Problem::parameter("live", why));
                        }
                    }
                }
                "cursor" => request.cursor = value.parse().ok(),
                _ => {}
            }
        }
        if request.live != LiveMode::No && request.from.is_none() {
            return Err(Problem::parameter("offset", "missing; -1 is the beginning"));
        }
        Ok(request)
    }

    fn position(&self, stream: &Stream) -> Result<u64, Problem> {
        let token = match &self.from {
            None | Some(ReadFrom::Beginning) => return Ok(0),
            Some(ReadFrom::Tail) => return Ok(stream.tail()),
            Some(ReadFrom::Token(token)) => token,
        };
        stream.position(token).map_err(|bad| match bad {
            BadToken::Malformed => Problem::parameter("offset", "it is not one that was told"),
            BadToken::Beyond => Problem::parameter("offset", "it lies behind the stream's end"),
            BadToken::Foreign => problems::gone(
                "it is of a stream that had this name before, and is gone; begin at -1",
            ),
        })
    }
}

/// Describes a stream in headers.
pub(super) async fn head(
    State(api): State<Arc<Api>>,
    StreamName(name): StreamName,
    grant: Grant,
) -> Result<Response, Problem> {
    grant.check_sees(&name)?;
    let stream = api.durable.find(&api.broker, &name)?;
    let mut answer = StatusCode::OK.into_response();
    let said = answer.headers_mut();
    create::describe(&stream, said);
    said.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match &stream.kind.lifetime {
        Lifetime::Unlimited => {}
        Lifetime::Idle(ttl) => {
            said.insert(headers::TTL, ttl.as_secs().into());
        }
        Lifetime::Until(_, given) => {
            let given = HeaderValue::try_from(given).expect("it came in a header");
            said.insert(headers::EXPIRES_AT, given);
        }
    }
    Ok(answer)
}

/// Responds with the records from a position on.
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    StreamName(name): StreamName,
    uri: Uri,
    headers: HeaderMap,
    grant: Grant,
    requests: Option<Extension<Arc<Requests>>>,
) -> Result<Response, Problem> {
    grant.check(Right::Subscribe, &name)?;
    let request = ReadRequest::read(uri.query())?;
    let stream = api.durable.find(&api.broker, &name)?;
    let at = request.position(&stream)?;
    let in_use = stream.begin_use();
    if request.live == LiveMode::Events {
        let peer = requests.and_then(|requests| requests.peer());
        return live::follow(&api, stream, in_use, at, request.cursor, grant, peer);
    }
    let json = stream.kind.media.is_json();
    let mut reader = StreamReader::new(stream.clone(), at);
    let mut records = RecordBuffer::new(json);
    let only_tail = matches!(request.from, Some(ReadFrom::Tail));
    let most = api.config.limits.answer_bytes;
    if !only_tail || request.live == LiveMode::LongPoll {
        reader.fill(&mut records, most).await?;
        let waits = request.live == LiveMode::LongPoll && records.is_empty();
        if waits && !stream.is_closed() {
            let longest = api.config.limits.longest_wait.min(LONGEST_WAIT);
            // It has read everything that was there, so it is in the stream's own log.
            let at = reader.at().saturating_sub(stream.base());
            let ready = poll_fn(|cx| reader.poll_ready(cx));
            let ready = api.ready_or_drained(stream.log(), at, ready);
            wait_for(requests, longest, ready).await;
            reader.stop_waiting();
            api.recheck(&grant, Right::Subscribe, &name)?;
            reader.fill(&mut records, most).await?;
        }
    }
    if records.is_empty() {
        check_alive(&api, &stream)?;
    }

    // First whether it is closed, then where it ends: a closed stream does not grow.
    let closed = stream.is_closed();
    let up_to_date = only_tail && records.is_empty() || reader.is_at_tail();
    let closed = closed && reader.is_at_tail();
    let next = stream.token(reader.at());
    let mut said = HeaderMap::new();
    said.insert(NEXT_OFFSET, token_value(&next));
    said.extend(answer::durability(&stream.topic));
    if up_to_date {
        said.insert(UP_TO_DATE, headers::TRUE);
    }
    if closed {
        said.insert(CLOSED, headers::TRUE);
    }
    if request.live == LiveMode::LongPoll {
        said.insert(CURSOR, next_cursor(request.cursor).into());
    }
    if request.live == LiveMode::LongPoll && records.is_empty() {
        said.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok((StatusCode::NO_CONTENT, said).into_response());
    }
    let media = HeaderValue::try_from(&stream.kind.media.given);
    said.insert(header::CONTENT_TYPE, media.expect("it came in a header"));
    let fixed = !up_to_date && request.from.is_some();
    said.insert(header::CACHE_CONTROL, cache_control(&api, only_tail, fixed));
    if !only_tail {
        let tag = tag(&stream, at, reader.at(), closed);
        if matches(&headers, &tag) {
            said.insert(header::ETAG, tag);
            said.remove(header::CONTENT_TYPE);
            return Ok((StatusCode::NOT_MODIFIED, said).into_response());
        }
        said.insert(header::ETAG, tag);
    }
    drop(reader);
    let count = records.len();
    let bytes = records.into_bytes();
    let permit = api.take_output(bytes.len())?;
    stream.topic.count_delivered(count);
    Ok((said, answer::held(bytes, permit)).into_response())
}

/// Checks that neither the stream nor the server has ended.
fn check_alive(api: &Api, stream: &Stream) -> Result<(), Problem> {
    if stream.topic.is_deleted() {
        return Err(problems::unknown(&stream.name));
    }
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    Ok(())
}

/// What caches may do. A response that reaches the end of the stream must be revalidated each time, by its tag:
/// a cache that kept it would hide new records.
fn cache_control(api: &Api, only_tail: bool, fixed: bool) -> HeaderValue {
    let text = match (only_tail, fixed, api.gate.is_open()) {
        (true, ..) => "no-store".to_owned(),
        (_, true, true) => format!("public, {CACHED}"),
        (_, true, false) => format!("private, {CACHED}"),
        _ => "no-cache".to_owned(),
    };
    HeaderValue::try_from(text).expect("plain text")
}

/// Identifies a response with records: the stream, from where to where, and whether the stream ends there.
fn tag(stream: &Stream, from: u64, to: u64, closed: bool) -> HeaderValue {
    let epoch = stream.log().epoch();
    let end = if closed { ":c" } else { "" };
    let tag = format!("\"{epoch:016x}:{from:x}:{to:x}{end}\"");
    HeaderValue::try_from(tag).expect("plain text")
}

/// Whether the client has the response with this tag already.
fn matches(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let has = |one: &str| {
        one == "*" || one.strip_prefix("W/").unwrap_or(one).as_bytes() == tag.as_bytes()
    };
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut ones = values.filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(','));
    ones.any(|one| has(one.trim()))
}

/// The cursor that a client gets, with which caches distinguish requests made at different times: how many
/// intervals of 20 s have passed since a fixed day. If the client's last cursor is not less than that, a greater
/// one.
pub(super) fn next_cursor(last: Option<u64>) -> u64 {
    /// 2024-10-09, by the protocol.
    const BEGAN: u64 = 1_728_432_000;
    const INTERVAL: u64 = 20;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let current = now.as_secs().saturating_sub(BEGAN) / INTERVAL;
    match last {
        Some(last) if last >= current => last.saturating_add(fastrand::u64(1..=3_600 / INTERVAL)),
        _ => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_only_grow() {
        let now = next_cursor(None);
        assert!(now > 0 && next_cursor(Some(0)) >= now);
        for _ in 0..100 {
            let next = next_cursor(Some(now + 1_000));
            assert!((now + 1_001..=now + 1_180).contains(&next), "{next}");
        }
        assert_eq!(next_cursor(Some(u64::MAX)), u64::MAX);
    }

    #[test]
    fn tags_are_found_among_others() {
        let tag = HeaderValue::from_static("\"a:0:1\"");
        for (given, found) in [
            ("\"a:0:1\"", true),
            ("\"x\", W/\"a:0:1\"", true),
            ("*", true),
            ("\"a:0:1:c\"", false),
            ("a:0:1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(given));
            assert_eq!(matches(&headers, &tag), found, "{given}");
        }
        assert!(!matches(&HeaderMap::new(), &tag));
    }
}
