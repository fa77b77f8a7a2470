//! `POST`: appending to a stream, and closing it.
//!
//! The appends of a stream run one after the other, under its lock. So the state that a request is checked against
//! (the producers' numbers, the writers' sequence, whether the stream is open) and the append are one step.
//! Nothing waits under the lock: a stream without room refuses the append.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::headers::{
    self, CLOSED, Media, NEXT_OFFSET, PRODUCER_EPOCH, PRODUCER_SEQ, Producer, TRUE,
};
use super::producers::Verdict;
use super::stream::{Stream, Writers, token_value};
use super::{StreamName, json, problems};
use crate::access::{Grant, Right};
use crate::http::api::Api;
use crate::http::body;
use crate::http::problem::Problem;
use crate::listener::AppendInFlight;
use crate::log::{AppendError, Retention};

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
    let done = request.perform(&api, &stream, &body);
    drop(in_flight);
    api.append_seconds.observe(began.elapsed().as_secs_f64());
    done
}

impl AppendRequest {
    fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            // An empty body may have any content type, even an invalid one.
            media: Media::of(headers).unwrap_or(None),
            closes: headers::closes(headers),
            seq: headers::short(headers, &headers::SEQ)?.map(str::to_owned),
            producer: Producer::of(headers)?,
        })
    }

    fn perform(&self, api: &Api, stream: &Stream, body: &[u8]) -> Result<Response, Problem> {
        if body.is_empty() && !self.closes {
            return Err(Problem::body("it is empty; send what to append, or close the stream"));
        }
        let mut writers = stream.writers();
        if stream.is_closed(&api.broker) {
            return self.answer_closed(stream, &writers, body.is_empty());
        }
        if !body.is_empty() {
            self.check_media(stream)?;
        }
        let new = match self.judge(&writers)? {
            Verdict::Duplicate(highest) => {
                return Ok(self.answer(stream, StatusCode::NO_CONTENT, false, Some(highest)));
            }
            verdict => verdict == Verdict::Next { new: true },
        };
        let regresses = |last: &String| self.seq.as_ref().is_some_and(|seq| seq <= last);
        if writers.seq.as_ref().is_some_and(regresses) {
            return Err(problems::stale_seq());
        }
        let records = match stream.kind.media.is_json() {
            _ if body.is_empty() => Vec::new(),
            true => {
                let records = json::split(body, api.config.limits.max_batch)?;
                if records.is_empty() {
                    return Err(Problem::body("the array is empty; send at least one value"));
                }
                records
            }
            false => vec![body],
        };
        check_sizes(api, &records)?;
        if new && let Err((max, scope)) = stream.make_room(&mut writers) {
            return Err(problems::too_many_producers(max, scope));
        }
        if let Err(refusal) = put(stream, &records) {
            if new {
                stream.give_room_back();
            }
            return match refusal {
                AppendRefusal::Closed if stream.topic.is_deleted() => {
                    Err(problems::unknown(&stream.name))
                }
                AppendRefusal::Closed if api.broker.is_shut() => Err(Problem::shutting_down()),
                // It was closed through another listener, after the check above.
                AppendRefusal::Closed => self.answer_closed(stream, &writers, body.is_empty()),
                AppendRefusal::Stored => Err(problems::stored()),
                AppendRefusal::Other(error) => Err(problem(stream, api, &error)),
            };
        }
        if self.closes {
            stream.close();
            writers.closed_by = self.producer.clone();
        }
        if let Some(producer) = &self.producer {
            writers.producers.note(producer, Instant::now());
        }
        if self.seq.is_some() {
            writers.seq.clone_from(&self.seq);
        }
        let said = self.producer.is_some() && !body.is_empty();
        let status = if said { StatusCode::OK } else { StatusCode::NO_CONTENT };
        let seq = self.producer.as_ref().map(|producer| producer.seq);
        Ok(self.answer(stream, status, self.closes, seq))
    }

    /// The response of a closed stream. Closing it again is not an error, nor is repeating the very append that
    /// closed it.
    fn answer_closed(
        &self,
        stream: &Stream,
        writers: &Writers,
        empty: bool,
    ) -> Result<Response, Problem> {
        let again = match &self.producer {
            Some(producer) => writers.closed_by.as_ref() == Some(producer),
            None => empty && self.closes,
        };
        if !again {
            return Err(problems::closed(&stream.token(stream.tail())));
        }
        let seq = self.producer.as_ref().map(|producer| producer.seq);
        Ok(self.answer(stream, StatusCode::NO_CONTENT, true, seq))
    }

    fn check_media(&self, stream: &Stream) -> Result<(), Problem> {
        let media = &stream.kind.media;
        match &self.media {
            None => Err(Problem::body(format!("its content-type is missing: {}", media.given))),
            Some(said) if !said.matches(media) => Err(problems::content_type(&media.given)),
            Some(_) => Ok(()),
        }
    }

    fn judge(&self, writers: &Writers) -> Result<Verdict, Problem> {
        let Some(producer) = &self.producer else {
            return Ok(Verdict::Next { new: false });
        };
        match writers.producers.judge(producer) {
            Verdict::Stale(current) => Err(problems::producer_stale(current)),
            Verdict::BadStart => Err(problems::producer_start()),
            Verdict::Gap(expected) => Err(problems::producer_gap(expected, producer.seq)),
            verdict => Ok(verdict),
        }
    }

    fn answer(
        &self,
        stream: &Stream,
        status: StatusCode,
        closed: bool,
        seq: Option<u64>,
    ) -> Response {
        let mut answer = status.into_response();
        let said = answer.headers_mut();
        said.insert(NEXT_OFFSET, token_value(&stream.token(stream.tail())));
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

/// Why records were not appended.
pub(super) enum AppendRefusal {
    Closed,
    /// The topic is stored. What an idempotent producer sent last is kept in memory alone, so a restart could let it
    /// repeat an append.
    Stored,
    Other(AppendError),
}

/// Appends records to the stream's log.
pub(super) fn put(stream: &Stream, records: &[&[u8]]) -> Result<(), AppendRefusal> {
    if records.is_empty() {
        return Ok(());
    }
    let Some(log) = stream.topic.memory() else { return Err(AppendRefusal::Stored) };
    match log.try_append_batch(records) {
        Ok(_) => {
            stream.note_appended(records.len());
            Ok(())
        }
        Err(AppendError::Closed) => Err(AppendRefusal::Closed),
        Err(error) => Err(AppendRefusal::Other(error)),
    }
}

/// The error response for an append that failed.
pub(super) fn problem(stream: &Stream, api: &Api, error: &AppendError) -> Problem {
    let keeps_all = stream.topic.settings().retention == Retention::Everything;
    match *error {
        // Waiting makes no room in a stream that keeps everything.
        AppendError::Full { limit } if keeps_all => problems::full(limit),
        _ => Problem::append(error, &stream.topic, api),
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
