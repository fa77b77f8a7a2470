//! `POST`: appending to a stream, and closing it.
//!
//! What a request is checked against (the producers' numbers, the writers' sequence, whether the stream is open) and the
//! append are one step of its topic: see [`Topic::try_publish_if`](crate::broker::Topic::try_publish_if). A stream
//! without room refuses the append. Where the stream is stored, the answer waits until the append is as durable as its
//! topic promises, and so does the one to a duplicate.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::headers::{self, CLOSED, Media, NEXT_OFFSET, TRUE};
use super::stream::{Stream, token_value};
use super::{StreamName, json, problems};
use crate::access::{Grant, Right};
use crate::broker::{Condition, Producer, PublishError, Refusal, Ticket, pack};
use crate::http::api::Api;
use crate::http::body;
use crate::http::conditions::{self, PRODUCER_EPOCH, PRODUCER_SEQ};
use crate::http::problem::Problem;
use crate::listener::AppendInFlight;
use crate::log::{AppendError, Overflow, Retention};

/// What a request asks for, besides its body.
struct AppendRequest {
    media: Option<Media>,
    closes: bool,
    seq: Option<String>,
    producer: Option<Producer>,
}

/// Appends the body, closes the stream, or does both in one step.
pub(super) async fn append(
    State(api): State<Arc<Api>>,
    StreamName(name): StreamName,
    headers: HeaderMap,
    grant: Grant,
    body: Body,
) -> Result<Response, Problem> {
    // Closing a stream takes the right to manage it, with or without a last append.
    let closes = headers::closes(&headers);
    grant.check(if closes { Right::Manage } else { Right::Publish }, &name)?;
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    let request = AppendRequest::read(&headers)?;
    // Before the body, whose largest size depends on the stream.
    let stream = api.durable.find(&api.broker, &name)?;
    let limits = &api.config.limits;
    let json = stream.kind.media.is_json();
    let body = if json {
        body::read(&api, &headers, body, limits.max_body, |_| {
            Problem::body_too_large(limits.max_body)
        })
        .await?
    } else {
        let max = limits.max_record;
        let too_large = |size| Problem::record_too_large(size, max);
        body::read(&api, &headers, body, max, too_large).await?
    };
    if closes && !body.is_empty() {
        grant.check(Right::Publish, &name)?;
    }
    stream.touch();
    let began = Instant::now();
    // The API may drain by now.
    let in_flight = AppendInFlight::begin(&*api).ok_or_else(Problem::shutting_down)?;
    let done = match request.begin(&api, &stream, &body) {
        Ok(ticket) => ticket.await.map(|offsets| offsets.end),
        Err(AppendFailure::Refused(error)) => Err(error),
        Err(AppendFailure::Bad(problem)) => return Err(problem),
    };
    drop(in_flight);
    api.append_seconds.observe(began.elapsed().as_secs_f64());
    request.answer(&api, &stream, done, body.is_empty()).await
}

/// Why an append was not begun.
pub(super) enum AppendFailure {
    /// The request is wrong.
    Bad(Problem),
    /// The topic refused it.
    Refused(PublishError),
}

impl From<Problem> for AppendFailure {
    fn from(problem: Problem) -> Self {
        Self::Bad(problem)
    }
}

impl From<PublishError> for AppendFailure {
    fn from(error: PublishError) -> Self {
        Self::Refused(error)
    }
}

impl AppendRequest {
    fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            // An empty body may have any content type, even an invalid one.
            media: Media::of(headers).unwrap_or(None),
            closes: headers::closes(headers),
            seq: headers::short(headers, &headers::SEQ)?.map(str::to_owned),
            producer: conditions::producer(headers)?,
        })
    }

    fn begin(&self, api: &Api, stream: &Stream, body: &[u8]) -> Result<Ticket, AppendFailure> {
        if body.is_empty() && !self.closes {
            let why = "it is empty; send what to append, or close the stream";
            return Err(Problem::body(why).into());
        }
        if stream.is_closed() {
            return Err(PublishError::from(AppendError::Closed).into());
        }
        if !body.is_empty() {
            self.check_media(stream)?;
        }
        let records = records(api, &stream.kind.media, body)?;
        if records.is_empty() && !body.is_empty() {
            return Err(Problem::body("the array is empty; send at least one value").into());
        }
        check_sizes(api, &records)?;
        let mut condition = Condition::default();
        condition.producer.clone_from(&self.producer);
        condition.sequence.clone_from(&self.seq);
        condition.closes = self.closes;
        condition.has_type = true;
        put(stream, &records, condition)
    }

    /// `done` is the offset after the records, in the stream's own log.
    async fn answer(
        &self,
        api: &Api,
        stream: &Stream,
        done: Result<u64, PublishError>,
        empty: bool,
    ) -> Result<Response, Problem> {
        let seq = self.producer.as_ref().map(|producer| producer.seq);
        let refusal = match done {
            Ok(end) => {
                let said = self.producer.is_some() && !empty;
                let status = if said { StatusCode::OK } else { StatusCode::NO_CONTENT };
                return Ok(self.said(stream, status, stream.base() + end, self.closes, seq));
            }
            Err(PublishError::Refused(refusal)) => refusal,
            Err(error) if error.is_closed() => return self.answer_closed(api, stream, empty).await,
            Err(error) => return Err(problem(stream, api, &error)),
        };
        if let Refusal::Duplicate { seq } = refusal {
            let status = StatusCode::NO_CONTENT;
            return Ok(self.said(stream, status, stream.tail(), false, Some(seq)));
        }
        Err(conditions::refused(refusal, seq, &stream.topic))
    }

    /// The response of a closed stream. Closing it again is not an error, nor is repeating the very append that
    /// closed it.
    async fn answer_closed(
        &self,
        api: &Api,
        stream: &Stream,
        empty: bool,
    ) -> Result<Response, Problem> {
        if stream.topic.is_deleted() {
            return Err(problems::unknown(&stream.name));
        }
        let again = match &self.producer {
            Some(producer) => stream.topic.was_closed_by(producer),
            None => empty && self.closes,
        };
        if again && !stream.is_closed() && !api.broker.is_shut() {
            // It is being closed: until that is written down, a crash could open it again.
            let closed = stream.topic.close().await;
            closed.map_err(|error| problem(stream, api, &error))?;
        }
        if !stream.is_closed() && api.broker.is_shut() {
            return Err(Problem::shutting_down());
        }
        if !again {
            return Err(problems::closed(&stream.token(stream.tail())));
        }
        let seq = self.producer.as_ref().map(|producer| producer.seq);
        Ok(self.said(stream, StatusCode::NO_CONTENT, stream.tail(), true, seq))
    }

    fn check_media(&self, stream: &Stream) -> Result<(), Problem> {
        let media = &stream.kind.media;
        match &self.media {
            None => Err(Problem::body(format!("its content-type is missing: {}", media.given))),
            Some(said) if !said.matches(media) => Err(problems::content_type(&media.given)),
            Some(_) => Ok(()),
        }
    }

    fn said(
        &self,
        stream: &Stream,
        status: StatusCode,
        next: u64,
        closed: bool,
        seq: Option<u64>,
    ) -> Response {
        let mut answer = status.into_response();
        let said = answer.headers_mut();
        said.insert(NEXT_OFFSET, token_value(&stream.token(next)));
        if closed {
            said.insert(CLOSED, TRUE);
        }
        if let (Some(producer), Some(seq)) = (&self.producer, seq) {
            said.insert(PRODUCER_EPOCH, producer.epoch.into());
            said.insert(PRODUCER_SEQ, seq.into());
        }
        answer
    }
}

/// The records of a body: none if it is empty, the elements of a JSON stream, otherwise all of it.
pub(super) fn records<'a>(
    api: &Api,
    media: &Media,
    body: &'a [u8],
) -> Result<Vec<&'a [u8]>, Problem> {
    Ok(match media.is_json() {
        _ if body.is_empty() => Vec::new(),
        true => json::split(body, api.config.limits.max_batch)?,
        false => vec![body],
    })
}

/// Begins to append records to the stream's log. In a JSON stream, the condition alone says that they are JSON; and an append
/// with one never waits for room, whatever the topic's policy is.
pub(super) fn put(
    stream: &Stream,
    records: &[&[u8]],
    condition: Condition,
) -> Result<Ticket, AppendFailure> {
    let columns = pack(records)?;
    let rejects = stream.topic.settings().overflow == Overflow::Reject;
    let is_plain = !Condition { has_type: false, ..condition.clone() }.is_noted();
    if is_plain && !stream.kind.media.is_json() && rejects {
        return Ok(stream.topic.try_publish(columns.packed())?);
    }
    Ok(stream.topic.try_publish_if(columns.packed(), condition)?)
}

/// The error response for an append that failed.
pub(super) fn problem(stream: &Stream, api: &Api, error: &PublishError) -> Problem {
    let keeps_all = stream.topic.settings().retention == Retention::Everything;
    match *error {
        // Waiting makes no room in a stream that keeps everything.
        PublishError::Log(AppendError::Full { limit }) if keeps_all => {
            problems::full("memory limit", limit)
        }
        PublishError::DiskLimit { limit } if keeps_all => {
            problems::full("limit on the disk", limit)
        }
        _ => Problem::publish(error, &stream.topic, api),
    }
}

/// Checks that no record is too large.
pub(super) fn check_sizes(api: &Api, records: &[&[u8]]) -> Result<(), Problem> {
    let max = api.config.limits.max_record;
    match records.iter().find(|record| record.len() > max) {
        Some(record) => Err(Problem::record_too_large(Some(record.len()), max)),
        None => Ok(()),
    }
}
