//! `POST /topics/{topic}`: one record, or many in one body.
//!
//! A body becomes one append: all of its records get consecutive offsets, or none of them is appended.

use std::future::poll_fn;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::{Instant, Sleep, timeout};

use super::api::Api;
use super::conditions::{self, Expected};
use super::problem::Problem;
use super::request::TopicName;
use super::start::epoch_text;
use super::{answer, body};
use crate::access::{Grant, Right};
use crate::broker::{Condition, PublishError, PublishWait, Purpose, Refusal, Ticket, Topic, pack};
use crate::listener::{AppendInFlight, Stage};
use crate::log::Position;

/// The media type of a sequence of records, each preceded by its length: four bytes, little-endian.
pub(super) const RECORDS: &str = "application/vnd.psa.records";
/// The media type of newline-delimited JSON.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// Other names of [`NDJSON`].
const NDJSON_ALIASES: [&str; 3] =
    ["application/ndjson", "application/jsonl", "application/x-jsonlines"];

/// How often a request whose time is over looks whether its append can be taken back.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Appends the records in the body.
pub(super) async fn publish(
    State(api): State<Arc<Api>>,
    TopicName(name): TopicName,
    uri: Uri,
    headers: HeaderMap,
    grant: Grant,
    body: Body,
) -> Result<Response, Problem> {
    grant.check(Right::Publish, &name)?;
    let expected = Expected::read(&uri, &headers)?;
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    let limits = &api.config.limits;
    let form = BodyForm::of(&headers);
    let record_too_large = |size| Problem::record_too_large(size, limits.max_record);
    let input = match form {
        BodyForm::Single => {
            body::read(&api, &headers, body, limits.max_record, record_too_large).await?
        }
        _ => {
            let too_large = |_| Problem::body_too_large(limits.max_body);
            body::read(&api, &headers, body, limits.max_body, too_large).await?
        }
    };
    let records = form.split(&input, limits.max_batch)?;
    if let Some(record) = records.iter().find(|record| record.len() > limits.max_record) {
        return Err(record_too_large(Some(record.len())));
    }
    let began = Instant::now();
    // The API may drain by now, and a request that is refused creates no topic.
    let in_flight = AppendInFlight::begin(&*api).ok_or_else(Problem::shutting_down)?;
    // Only now: a malformed request must not create a topic either.
    let topic = match expected.after {
        // A new one would have another epoch.
        Some(_) => api.broker.topic(&name).ok_or_else(|| Problem::unknown_topic(&name))?,
        None => api.broker.open(&name, Purpose::Publish)?,
    };
    let seq = expected.producer.as_ref().map(|producer| producer.seq);
    let offsets = match expected.condition(&topic)? {
        Some(condition) => Some(append_if(&api, in_flight, &topic, &records, condition).await),
        None => append(&api, in_flight, &topic, &records).await,
    };
    api.append_seconds.observe(began.elapsed().as_secs_f64());
    let (offsets, is_duplicate) = match offsets.ok_or_else(Problem::shutting_down)? {
        Ok(offsets) => (offsets, false),
        Err(PublishError::Refused(Refusal::Duplicate { .. })) => {
            let next = topic.log().next_offset();
            (next..next, true)
        }
        Err(PublishError::Refused(refusal)) => {
            return Err(conditions::refused(refusal, seq, &topic));
        }
        Err(error) => return Err(Problem::publish(&error, &topic, &api)),
    };
    let epoch = topic.log().epoch();
    let mut said = json!({
        "epoch": epoch_text(epoch),
        "first_offset": offsets.start,
        "next_offset": offsets.end,
        "count": offsets.end - offsets.start,
        "position": Position { epoch, next: offsets.end }.to_string(),
    });
    if is_duplicate {
        said["duplicate"] = true.into();
    }
    Ok((answer::durability(&topic), answer::json(&said)).into_response())
}

/// As [`append`], if the condition holds. It does not wait for room: the topic may have moved on by then.
async fn append_if(
    api: &Api,
    in_flight: AppendInFlight<&Api>,
    topic: &Topic,
    records: &[&[u8]],
    condition: Condition,
) -> Result<Range<u64>, PublishError> {
    let records = pack(records)?;
    let ends = tokio::time::sleep(api.config.limits.append_wait);
    let ticket = topic.try_publish_if(records.packed(), condition)?;
    let done = settled(topic, ticket, pin!(ends)).await;
    drop(in_flight);
    done
}

/// Appends the records. If there is no room and the topic's overflow policy is not `Reject`, waits for
/// room for up to `append_wait`. `None` if the API drains meanwhile; then nothing was appended.
async fn append(
    api: &Api,
    in_flight: AppendInFlight<&Api>,
    topic: &Topic,
    records: &[&[u8]],
) -> Option<Result<Range<u64>, PublishError>> {
    let records = match pack(records) {
        Ok(packed) => packed,
        Err(error) => return Some(Err(error)),
    };
    let ends = tokio::time::sleep(api.config.limits.append_wait);
    let mut ends = pin!(ends);
    let (ticket, in_flight) = match topic.try_publish(records.packed()) {
        Ok(ticket) => (ticket, in_flight),
        Err(full) if full.waits(topic.settings().overflow) => {
            // A drain does not wait for room. Each poll below is an attempt of its own.
            drop(in_flight);
            let mut wait = PublishWait::default();
            let waiting = poll_fn(|cx| match AppendInFlight::begin(api) {
                Some(in_flight) => {
                    let begun = ready!(topic.poll_publish(cx, records.packed(), &mut wait));
                    Poll::Ready(Some(begun.map(|ticket| (ticket, in_flight))))
                }
                None => Poll::Ready(None),
            });
            let begun = tokio::select! {
                biased;
                () = api.life.reached(Stage::Draining) => return None,
                begun = waiting => begun?,
                () = &mut ends => Err(full),
            };
            match begun {
                Ok(begun) => begun,
                Err(error) => return Some(Err(error)),
            }
        }
        Err(error) => return Some(Err(error)),
    };
    let done = settled(topic, ticket, ends).await;
    drop(in_flight);
    Some(done)
}

/// The result of an append that has begun. Where its records wait because the disk is full, they wait for as long as an
/// append may wait for room.
async fn settled(
    topic: &Topic,
    mut ticket: Ticket,
    mut ends: Pin<&mut Sleep>,
) -> Result<Range<u64>, PublishError> {
    tokio::select! {
        biased;
        done = &mut ticket => return done,
        () = &mut ends => {}
    }
    loop {
        if ticket.cancel() {
            return Err(topic.why_full());
        }
        // It is being written. It may be put back once more, if the disk is full.
        if let Ok(done) = timeout(LOOK_AGAIN, &mut ticket).await {
            return done;
        }
    }
}

/// How a body contains its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyForm {
    /// The body is one record, whatever it contains.
    Single,
    /// Each line is a record, in JSON.
    Lines,
    /// Each record is preceded by its length.
    LengthPrefixed,
}

impl BodyForm {
    fn of(headers: &HeaderMap) -> Self {
        let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
        let media = media.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let is = |known: &&str| media.eq_ignore_ascii_case(known);
        if is(&RECORDS) {
            Self::LengthPrefixed
        } else if is(&NDJSON) || NDJSON_ALIASES.iter().any(is) {
            Self::Lines
        } else {
            Self::Single
        }
    }

    /// Splits a body into its records, at most `max`. A body without a record is an error.
    fn split(self, body: &[u8], max: usize) -> Result<Vec<&[u8]>, Problem> {
        let records = match self {
            Self::Single => return Ok(vec![body]),
            Self::Lines => lines(body, max)?,
            Self::LengthPrefixed => lengths(body, max)?,
        };
        if records.is_empty() {
            return Err(Problem::body("there is no record in it; send at least one"));
        }
        Ok(records)
    }
}

/// Splits lines of JSON. Each line is kept byte for byte, without its line ending; blank lines are skipped.
fn lines(body: &[u8], max: usize) -> Result<Vec<&[u8]>, Problem> {
    let mut records = Vec::new();
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        // `IgnoredAny` does not check that ignored text is UTF-8, so this is checked first.
        let fault = match std::str::from_utf8(line).map(serde_json::from_str::<IgnoredAny>) {
            Ok(Ok(IgnoredAny)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(fault) = fault {
            let line = number + 1;
            let why = format!("line {line} is not JSON: {fault}; nothing was appended");
            return Err(Problem::body(why).fact("line", line));
        }
        if records.len() == max {
            return Err(Problem::batch_too_large(max));
        }
        records.push(line);
    }
    Ok(records)
}

/// Splits records that are preceded by their lengths.
fn lengths(mut body: &[u8], max: usize) -> Result<Vec<&[u8]>, Problem> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let cut = |has: usize| {
            let number = records.len();
            Problem::body(format!(
                "record {number} is cut short: {has} bytes are left; nothing was appended"
            ))
            .fact("record", number)
        };
        let (length, rest) = body.split_first_chunk::<4>().ok_or_else(|| cut(body.len()))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (record, rest) = rest.split_at_checked(length).ok_or_else(|| cut(rest.len()))?;
        if records.len() == max {
            return Err(Problem::batch_too_large(max));
        }
        records.push(record);
        body = rest;
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_as_they_are() {
        let body = b"{\"a\": 1}\r\n\n  \n \"x\" \n[1,2]";
        let expected: [&[u8]; 3] = [b"{\"a\": 1}", b" \"x\" ", b"[1,2]"];
        assert_eq!(lines(body, 3).unwrap(), expected);
        assert!(lines(b"", 3).unwrap().is_empty());
        for bad in [&b"{}\n{"[..], b"hello", b"{} {}", b"\"\xff\""] {
            assert!(lines(bad, 3).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lengths_are_followed_to_the_last_byte() {
        let expected: [&[u8]; 3] = [b"hi", b"", b"\0\n"];
        let body = b"\x02\0\0\0hi\0\0\0\0\x02\0\0\0\0\n";
        assert_eq!(lengths(body, 3).unwrap(), expected);
        for end in 1..body.len() {
            let whole = [6, 10].contains(&end);
            assert_eq!(lengths(&body[..end], 3).is_ok(), whole, "{end}");
        }
        assert!(lengths(&[0xff; 8], 3).is_err());
    }

    #[test]
    fn a_batch_has_its_limit() {
        assert!(lines(b"1\n2\n3", 3).is_ok() && lines(b"1\n2\n3\n4", 3).is_err());
        assert!(lengths(&[0; 12], 3).is_ok() && lengths(&[0; 16], 3).is_err());
    }

    #[test]
    fn the_media_type_says_how_to_read_a_body() {
        let form = |media: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, media.parse().unwrap());
            BodyForm::of(&headers)
        };
        assert_eq!(BodyForm::of(&HeaderMap::new()), BodyForm::Single);
        assert_eq!(form("application/octet-stream"), BodyForm::Single);
        assert_eq!(form("application/json"), BodyForm::Single);
        assert_eq!(form("application/X-NDJSON; charset=utf-8"), BodyForm::Lines);
        assert_eq!(form("application/jsonl"), BodyForm::Lines);
        assert_eq!(form(RECORDS), BodyForm::LengthPrefixed);
    }
}
