//! `GET` and `HEAD`: catching up with a stream, and waiting for more of it.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    StreamName, create,
    headers::{self, CLOSED, CURSOR, DURABILITY, Lifetime, NEXT_OFFSET, UP_TO_DATE},
    live, problems,
    reader::{Reader, Run},
    stream::{BadPlace, Stream, token_value},
};
use crate::{
    access::{Grant, Right},
    http::{
        answer,
        api::Api,
        problem::Problem,
        reading::{Requests, wait_for},
    },
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

/// The longest that a request waits for records.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long caches may keep what will not change, by the protocol.
const CACHED: &str = "max-age=60, stale-while-revalidate=300";

/// Where to begin.
enum From {
    Beginning,
    Tail,
    Token(String),
}

/// How to go on at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Live {
    No,
    LongPoll,
    Events,
}

/// What a read asks for. Parameters that are not known are passed over: the protocol says so.
struct Asked {
    from: Option<From>,
    live: Live,
    cursor: Option<u64>,
}

impl Asked {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut asked = Self { from: None, live: Live::No, cursor: None };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "offset" if asked.from.is_some() => {
                    return Err(Problem::parameter("offset", "given twice; give it once"));
                }
                "offset" => {
                    asked.from = Some(match &*value {
                        "-1" => From::Beginning,
                        "now" => From::Tail,
                        token => From::Token(token.to_owned()),
                    });
                }
                "live" => {
                    asked.live = match &*value {
                        "long-poll" => Live::LongPoll,
                        "sse" => Live::Events,
                        _ => {
                            let why = "expected long-poll or sse";
                            return Err(Problem::parameter("live", why));
                        }
                    }
                }
                "cursor" => asked.cursor = value.parse().ok(),
                _ => {}
            }
        }
        if asked.live != Live::No && asked.from.is_none() {
            return Err(Problem::parameter("offset", "missing; -1 is the beginning"));
        }
        Ok(asked)
    }

    fn place(&self, stream: &Stream) -> Result<u64, Problem> {
        let token = match &self.from {
            None | Some(From::Beginning) => return Ok(0),
            Some(From::Tail) => return Ok(stream.tail()),
            Some(From::Token(token)) => token,
        };
        stream.place(token).map_err(|bad| match bad {
            BadPlace::Malformed => Problem::parameter("offset", "it is not one that was told"),
            BadPlace::Beyond => Problem::parameter("offset", "it lies behind the stream's end"),
            BadPlace::Foreign => problems::gone(
                "it is of a stream that had this name before, and is gone; begin at -1",
            ),
        })
    }
}

/// Says what there is to know about a stream.
pub(super) async fn head(
    State(api): State<Arc<Api>>,
    StreamName(name): StreamName,
    grant: Grant,
) -> Result<Response, Problem> {
    grant.check_sees(&name)?;
    let stream = api.durable.find(&api.broker, &name)?;
    let mut answer = StatusCode::OK.into_response();
    let said = answer.headers_mut();
    create::describe(&stream, &api, said);
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

/// Answers with the records from a place on.
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    StreamName(name): StreamName,
    uri: Uri,
    asked_headers: HeaderMap,
    grant: Grant,
    requests: Option<Extension<Arc<Requests>>>,
) -> Result<Response, Problem> {
    grant.check(Right::Subscribe, &name)?;
    let asked = Asked::read(uri.query())?;
    let stream = api.durable.find(&api.broker, &name)?;
    let at = asked.place(&stream)?;
    let attending = stream.attend();
    if asked.live == Live::Events {
        return live::follow(&api, stream, attending, at, asked.cursor, grant);
    }
    let json = stream.kind.media.is_json();
    let mut reader = Reader::new(stream.clone(), at);
    let mut run = Run::new(json);
    let only_tail = matches!(asked.from, Some(From::Tail));
    let most = api.config.limits.answer_bytes;
    if !only_tail || asked.live == Live::LongPoll {
        reader.fill(&mut run, most)?;
        let waits = asked.live == Live::LongPoll && run.is_empty();
        if waits && !stream.is_closed(api.is_draining()) {
            let longest = api.config.limits.longest_wait.min(LONGEST_WAIT);
            let ready = poll_fn(|cx| reader.poll_ready(cx));
            wait_for(requests, longest, ready).await;
            reader.stop_waiting();
            api.still(&grant, Right::Subscribe, &name)?;
            reader.fill(&mut run, most)?;
        }
    }
    if run.is_empty() {
        check_alive(&api, &stream)?;
    }

    // First whether it is closed, then where it ends: a closed stream does not grow.
    let closed = stream.is_closed(api.is_draining());
    let up_to_date = only_tail && run.is_empty() || reader.is_at_tail();
    let closed = closed && reader.is_at_tail();
    let next = stream.token(reader.at());
    let mut said = HeaderMap::new();
    said.insert(NEXT_OFFSET, token_value(&next));
    said.insert(DURABILITY, HeaderValue::from_static("memory"));
    if up_to_date {
        said.insert(UP_TO_DATE, headers::TRUE);
    }
    if closed {
        said.insert(CLOSED, headers::TRUE);
    }
    if asked.live == Live::LongPoll {
        said.insert(CURSOR, later_than(asked.cursor).into());
    }
    if asked.live == Live::LongPoll && run.is_empty() {
        said.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok((StatusCode::NO_CONTENT, said).into_response());
    }
    let media = HeaderValue::try_from(&stream.kind.media.given);
    said.insert(header::CONTENT_TYPE, media.expect("it came in a header"));
    let fixed = !up_to_date && asked.from.is_some();
    said.insert(header::CACHE_CONTROL, cache_control(&api, only_tail, fixed));
    if !only_tail {
        let tag = tag(&stream, at, reader.at(), closed);
        if matches(&asked_headers, &tag) {
            said.insert(header::ETAG, tag);
            said.remove(header::CONTENT_TYPE);
            return Ok((StatusCode::NOT_MODIFIED, said).into_response());
        }
        said.insert(header::ETAG, tag);
    }
    drop(reader);
    let bytes = run.into_bytes();
    let permit = api.take_output(bytes.len())?;
    Ok((said, answer::held(bytes, permit)).into_response())
}

/// Whether there still is something to wait for, and a server.
fn check_alive(api: &Api, stream: &Stream) -> Result<(), Problem> {
    if stream.topic.is_deleted() {
        return Err(problems::unknown(&stream.name));
    }
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    Ok(())
}

/// What caches may do. What ends at the stream's end is asked for again each time, by its tag: a
/// cache that keeps it would hide what comes.
fn cache_control(api: &Api, only_tail: bool, fixed: bool) -> HeaderValue {
    let text = match (only_tail, fixed, api.gate.is_open()) {
        (true, ..) => "no-store".to_owned(),
        (_, true, true) => format!("public, {CACHED}"),
        (_, true, false) => format!("private, {CACHED}"),
        _ => "no-cache".to_owned(),
    };
    HeaderValue::try_from(text).expect("plain text")
}

/// Tells apart all answers with records: which stream, from where to where, and whether it ended.
fn tag(stream: &Stream, from: u64, to: u64, closed: bool) -> HeaderValue {
    let epoch = stream.log().epoch();
    let end = if closed { ":c" } else { "" };
    let tag = format!("\"{epoch:016x}:{from:x}:{to:x}{end}\"");
    HeaderValue::try_from(tag).expect("plain text")
}

/// Whether the client has the answer of this tag.
fn matches(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let has = |one: &str| {
        one == "*" || one.strip_prefix("W/").unwrap_or(one).as_bytes() == tag.as_bytes()
    };
    let values = asked.get_all(header::IF_NONE_MATCH).iter();
    let mut ones = values.filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(','));
    ones.any(|one| has(one.trim()))
}

/// What tells apart requests of different times for caches: the number of the interval of 20 s since
/// a fixed day, or more than what the client had, if that is not less.
pub(super) fn later_than(last: Option<u64>) -> u64 {
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
        let now = later_than(None);
        assert!(now > 0 && later_than(Some(0)) >= now);
        for _ in 0..100 {
            let next = later_than(Some(now + 1_000));
            assert!((now + 1_001..=now + 1_180).contains(&next), "{next}");
        }
        assert_eq!(later_than(Some(u64::MAX)), u64::MAX);
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
            let mut asked = HeaderMap::new();
            asked.insert(header::IF_NONE_MATCH, HeaderValue::from_static(given));
            assert_eq!(matches(&asked, &tag), found, "{given}");
        }
        assert!(!matches(&HeaderMap::new(), &tag));
    }
}
