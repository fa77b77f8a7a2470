//! `GET /topics/{topic}/records`: catching up, one response at a time.
//!
//! A response is encoded as a whole, straight from the segments, and is bounded in bytes; then its cursor is
//! dropped. So a client that reads slowly, or never comes back, holds nothing back in the log. If the records
//! that it asks for next are gone, it gets a 410. A client that must not lose records takes a lease, or follows
//! the events.

use std::future::poll_fn;
use std::sync::Arc;

use super::api::Api;
use super::append::{NDJSON, RECORDS};
use super::problem::Problem;
use super::reading::{Requests, wait_for};
use super::request::{Parameters, TopicName, choose};
use super::start::{self, epoch_text};
use super::{answer, encode};
use crate::access::{Grant, Right};
use crate::broker::{Topic, TopicCursor};
use crate::listener::Stage;
use crate::log::{Batch, Limit, Position, ReadError, Start, SubscribeError};
use crate::words::{Period, parse_digits};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

const JSON: &str = "application/json";
const PARAMETERS: [&str; 4] = ["after", "from", "limit", "wait"];
/// Records in one response, unless the client asks for another number.
const RECORDS_BY_DEFAULT: usize = 1_000;
/// The most records that a client may ask for.
const MOST_RECORDS: u64 = 100_000;
/// The most records that are read in one step.
const READ_AT_ONCE: usize = 1_024;

/// Responds with the records from a position on.
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    TopicName(name): TopicName,
    uri: Uri,
    headers: HeaderMap,
    grant: Grant,
    requests: Option<Extension<Arc<Requests>>>,
) -> Result<Response, Problem> {
    grant.check(Right::Subscribe, &name)?;
    let parameters = Parameters::read(uri.query(), &PARAMETERS)?;
    let start = start_of(&parameters)?.unwrap_or(Start::Earliest);
    let limit = parameters.get("limit", |text| match parse_digits(text) {
        Some(limit @ 1..=MOST_RECORDS) => Ok(limit as usize),
        _ => Err(format!("expected a number from 1 to {MOST_RECORDS}")),
    })?;
    let wait = parameters.get("wait", str::parse)?.map(|Period(wait)| wait);
    let form = choose(&headers, &[JSON, NDJSON, RECORDS])?;
    let topic = api.broker.topic(&name).ok_or_else(|| Problem::unknown_topic(&name))?;

    let mut cursor = topic.subscribe(start)?;
    if let Some(wait) = wait {
        let longest = api.config.limits.longest_wait;
        let at = cursor.offset();
        let ready = poll_fn(|cx| cursor.poll_ready(cx));
        let ready = api.ready_or_drained(topic.log(), at, ready);
        wait_for(requests, wait.min(longest), ready).await;
        cursor.stop_waiting();
        api.recheck(&grant, Right::Subscribe, &name)?;
    }
    if topic.is_deleted() {
        return Err(Problem::unknown_topic(&name));
    }
    let mut body = RecordsBody::new(form, cursor.epoch(), cursor.offset());
    let most = api.config.limits.answer_bytes;
    let limit = limit.unwrap_or(RECORDS_BY_DEFAULT);
    body.fill(&mut cursor, limit, most)?;
    // Where it reads from files, nothing there yet does not mean that there is nothing.
    while !body.full && !body.ended && cursor.is_catching_up() {
        let drained = api.life.reached(Stage::Aborting);
        tokio::select! {
            biased;
            () = drained => return Err(Problem::shutting_down()),
            () = poll_fn(|cx| cursor.poll_ready(cx)) => body.fill(&mut cursor, limit, most)?,
        }
    }
    drop(cursor);
    body.finish(&api, &topic)
}

/// Where the parameters say to begin, if they do.
pub(super) fn start_of(parameters: &Parameters) -> Result<Option<Start>, Problem> {
    let after = parameters.get("after", start::after)?;
    let from = parameters.get("from", start::from)?;
    if after.is_some() && from.is_some() {
        return Err(Problem::parameter("from", "given beside after; give one of the two"));
    }
    Ok(after.or(from))
}

/// The body of a response, while it is being written.
struct RecordsBody {
    form: &'static str,
    bytes: Vec<u8>,
    epoch: u64,
    first: u64,
    next: u64,
    /// The log is closed, and everything in it has been read.
    ended: bool,
    full: bool,
}

impl RecordsBody {
    fn new(form: &str, epoch: u64, first: u64) -> Self {
        let form = [JSON, NDJSON, RECORDS].into_iter().find(|known| *known == form);
        let form = form.unwrap_or(JSON);
        let bytes = if form == JSON { b"{\"records\":[".to_vec() } else { Vec::new() };
        Self { form, bytes, epoch, first, next: first, ended: false, full: false }
    }

    fn count(&self) -> u64 {
        self.next - self.first
    }

    /// Reads until there are `records` records, or the body has `bytes` bytes, or there are no more records yet.
    fn fill(
        &mut self,
        cursor: &mut TopicCursor,
        records: usize,
        bytes: usize,
    ) -> Result<(), Problem> {
        let epoch = epoch_text(self.epoch);
        while !self.full {
            let left = records - self.count() as usize;
            let limit = Limit { records: left.min(READ_AT_ONCE), bytes };
            match cursor.peek(limit, |batch| self.take(&epoch, batch, bytes)) {
                Ok(Some(taken)) => cursor.advance(taken),
                Ok(None) => break,
                Err(ReadError::Closed) => {
                    self.ended = true;
                    break;
                }
                // The records before are a good response; the next request reports the loss.
                Err(ReadError::Lagged(_)) if self.count() > 0 => break,
                Err(ReadError::Lagged(lagged)) => {
                    return Err(SubscribeError::Collected {
                        asked: lagged.first_missed,
                        first: lagged.first_missed + lagged.missed,
                        epoch: self.epoch,
                    }
                    .into());
                }
                Err(ReadError::Unreadable) => return Err(Problem::unreadable()),
                Err(ReadError::TakenOver) => break,
            }
            self.full = self.full || self.count() >= records as u64;
        }
        Ok(())
    }

    /// Writes records of `batch` until the body has `most` bytes. Returns how many it wrote.
    fn take(&mut self, epoch: &str, batch: &Batch<'_, [u8]>, most: usize) -> usize {
        let mut taken = 0;
        for (offset, record) in batch.iter() {
            // Always at least one: otherwise a large record could never be read.
            if self.count() > 0 && self.bytes.len() + record.len() > most {
                self.full = true;
                break;
            }
            match self.form {
                RECORDS => encode::length_prefixed(&mut self.bytes, record),
                NDJSON => {
                    encode::json(&mut self.bytes, epoch, offset, record);
                    self.bytes.push(b'\n');
                }
                _ => {
                    if self.count() > 0 {
                        self.bytes.push(b',');
                    }
                    encode::json(&mut self.bytes, epoch, offset, record);
                }
            }
            self.next = offset + 1;
            taken += 1;
        }
        taken
    }

    fn finish(mut self, api: &Api, topic: &Topic) -> Result<Response, Problem> {
        // If the broker was shut, every topic is closed, but that is not its end.
        let ended = self.ended && !api.broker.is_shut();
        if !ended && self.count() == 0 && api.is_draining() {
            return Err(Problem::shutting_down());
        }
        let next = topic.log().next_offset();
        let state = match (ended, self.next < next) {
            (true, _) => "end",
            (false, true) => "more",
            (false, false) => "caught-up",
        };
        let position = Position { epoch: self.epoch, next: self.next }.to_string();
        let count = self.count();
        if self.form == JSON {
            let epoch = epoch_text(self.epoch);
            let (first, next) = (self.first, self.next);
            self.bytes.extend_from_slice(
                format!(
                    "],\"epoch\":\"{epoch}\",\"first_offset\":{first},\"next_offset\":{next},\"count\":{count},\"position\":\"{position}\",\"state\":\"{state}\"}}\n"
                )
                .as_bytes(),
            );
        }
        let permit = api.take_output(self.bytes.len())?;
        topic.count_delivered(count);
        let position = HeaderValue::try_from(position).expect("digits and a colon");
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.form)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (answer::POSITION, position),
            (answer::FIRST_OFFSET, self.first.into()),
            (answer::COUNT, count.into()),
            (answer::STATE, HeaderValue::from_static(state)),
        ];
        Ok((headers, answer::held(self.bytes, permit)).into_response())
    }
}
