//! Publishing with many publishes in flight.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::config::Config;
use super::error::{ClientError, Outcome};
use super::link::{Answer, AnswerReceiver, Failures, Link, LinkOptions};
use super::link::{RequestInfo, Unacknowledged};
use crate::protocol::{DecodeLimits, Decoded, Publish, Records, Request, TopicName};
use crate::protocol::{RecordsError, decode_request, encode_publish};

/// The position of published records in their topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Published {
    /// The topic's epoch.
    pub epoch: u64,
    /// The offset of the first record.
    pub first: u64,
    /// How many records there are; the others follow the first one densely.
    pub count: u32,
}

impl Published {
    /// The offsets of the records.
    #[must_use]
    pub const fn offsets(&self) -> Range<u64> {
        // The decoder has checked that it does not overflow.
        self.first..self.first.wrapping_add(self.count as u64)
    }

    pub(super) fn from_answer(answer: Answer) -> Result<Self, ClientError> {
        match answer {
            Answer::Published { epoch, first, count } => Ok(Self { epoch, first, count }),
            _ => Err(ClientError::Violation { what: "it answered a publish with something else" }),
        }
    }
}

/// How much a [`Publisher`] may have in flight, and how long it waits for answers.
#[derive(Clone, Copy, Debug)]
pub struct PublisherOptions {
    /// The most publishes without an answer; beyond that, [`Publisher::send`] waits for room. 1,024
    /// by default.
    pub max_in_flight: usize,
    /// The most bytes, counted from the oldest publish without an answer (one publish may exceed
    /// it). This bounds the publisher's memory. 8 MiB by default.
    pub max_in_flight_bytes: u64,
    /// The connection counts as lost when an answer is due and nothing was received for this long.
    /// `None`, the default, waits forever: a topic that blocks at its limit answers nothing until
    /// its subscribers have advanced.
    pub answer_timeout: Option<Duration>,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self { max_in_flight: 1024, max_in_flight_bytes: 8 << 20, answer_timeout: None }
    }
}

/// Publishes to one topic over its own connection, without waiting for each answer.
///
/// # Order
///
/// Publishes reach the topic in the order in which `send` and the other publishing methods *return*,
/// so a task that awaits each in turn keeps its order. The records of one publish stay together.
///
/// This is the order within one connection. After [`reconnect`](Self::reconnect), a publish of the
/// broken connection whose outcome is unknown may still be carried out, even after later ones: the
/// server may still be reading what the broken connection had delivered. Acknowledged publishes keep
/// their order.
///
/// # Failure
///
/// A publish that the server refuses (too large, topic full) fails alone; later ones are not held
/// back. When the connection breaks, every open [`Ticket`] reports whether its publish certainly was
/// not carried out or may have been; from then on `send` fails until [`reconnect`](Self::reconnect).
/// Nothing is ever sent twice automatically: [`take_unacknowledged`](Self::take_unacknowledged)
/// returns the publishes without an answer, and [`resend`](Self::resend) is the caller's decision.
///
/// ```no_run
/// # async fn example(client: psa::client::Client) -> Result<(), psa::client::ClientError> {
/// use psa::client::PublisherOptions;
///
/// let publisher = client.publisher("news", PublisherOptions::default()).await?;
/// for i in 0..1_000_000_u64 {
///     publisher.send(&i.to_le_bytes()).await?; // waits only when too much is in flight
/// }
/// publisher.flush().await?; // all of them are acknowledged
/// # Ok(()) }
/// ```
///
/// # Dropping
///
/// Publishes that were sent are still written and answered in the background, for up to the client's
/// request timeout, if the runtime lives that long. To be certain, `flush` first.
#[derive(Debug)]
pub struct Publisher {
    config: Arc<Config>,
    options: LinkOptions,
    topic: String,
    link: Link,
    /// Unacknowledged publishes of earlier connections.
    unacknowledged: Mutex<Vec<Unacknowledged>>,
    /// Failures of earlier connections that no flush has reported yet.
    failures: Mutex<Failures>,
}

impl Publisher {
    pub(super) async fn open(
        config: Arc<Config>,
        topic: &str,
        options: PublisherOptions,
    ) -> Result<Self, ClientError> {
        TopicName::new(topic)?;
        if options.max_in_flight == 0 || options.max_in_flight_bytes == 0 {
            let what = "nothing may be in flight; give a limit of at least 1";
            return Err(ClientError::Config { what });
        }
        let options = LinkOptions {
            max_in_flight: options.max_in_flight,
            max_in_flight_bytes: options.max_in_flight_bytes,
            answer_timeout: options.answer_timeout,
            keep: true,
            first_number: 1,
        };
        Ok(Self {
            link: Link::open(&config, options).await?,
            config,
            options,
            topic: topic.to_owned(),
            unacknowledged: Mutex::default(),
            failures: Mutex::default(),
        })
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    fn name(&self) -> TopicName<'_> {
        TopicName::new(&self.topic).expect("checked when the publisher was made")
    }

    /// The largest record that the server accepts, in bytes.
    #[must_use]
    pub fn max_record(&self) -> u32 {
        self.link.max_record()
    }

    /// The largest batch that fits into one publish, in bytes: the records, plus 4 bytes for each
    /// record.
    #[must_use]
    pub fn max_batch(&self) -> usize {
        let header = 8 + 4 + 1 + self.topic.len() + 4;
        (self.link.max_frame() as usize).saturating_sub(header)
    }

    /// How many publishes have no answer yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.link.in_flight()
    }

    /// Whether the connection broke; [`reconnect`](Self::reconnect) opens a new one.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.link.is_lost()
    }

    /// Publishes one record; its [`Ticket`] resolves when it is acknowledged.
    ///
    /// Waits only while too much is in flight. *Cancel safe:* if it is dropped before it returns,
    /// nothing is published. The ticket may be dropped: [`flush`](Self::flush) also reports failures.
    ///
    /// # Errors
    ///
    /// If the record is too large, or the connection is lost. Nothing was published then.
    pub async fn send(&self, record: &[u8]) -> Result<Ticket, ClientError> {
        self.send_slices(&[record]).await
    }

    /// Publishes records together: all or none, with dense offsets. Copies them once.
    ///
    /// Waits, and is cancel safe, like [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// If there is no record, a record is too large, the batch is larger than a frame, or the
    /// connection is lost. Nothing was published then.
    pub async fn send_batch<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Ticket, ClientError> {
        self.send_slices(&slices(records)).await
    }

    async fn send_slices(&self, records: &[&[u8]]) -> Result<Ticket, ClientError> {
        let (number, answered) = self.append(records, true).await?;
        Ok(Ticket { number, answered: answered.expect("an acknowledgement was asked for") })
    }

    /// Publishes records that are already in columnar form: all or none. Copies them once.
    ///
    /// Waits, and is cancel safe, like [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// As [`send_batch`](Self::send_batch), and if `records` does not start at 0.
    pub async fn send_records(&self, records: Records<'_>) -> Result<Ticket, ClientError> {
        if records.start() != 0 {
            let what = "the records do not start at 0; take the ends from their own beginning";
            return Err(ClientError::Config { what });
        }
        check_record(records.largest() as usize, self.link.max_record())?;
        let topic = self.name();
        let info = RequestInfo { records: Some(records.count()), wants_answer: true };
        let encode = |request, out: &mut Vec<u8>| {
            Request::Publish(Publish { request, topic, ack: true, records }).encode(out);
            Ok(())
        };
        let (number, answered) = self.link.append(info, encode).await?;
        Ok(Ticket { number, answered: answered.expect("an acknowledgement was asked for") })
    }

    /// Publishes records without asking for an acknowledgement, which causes the least traffic.
    /// Waits only while too much has not yet left this machine. Returns the publish's number.
    ///
    /// Whether it arrived is not known, except that the next [`flush`](Self::flush) reports a
    /// failure. If the connection breaks, [`take_unacknowledged`](Self::take_unacknowledged) does
    /// not return it.
    ///
    /// Cancel safe, like [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// As [`send_batch`](Self::send_batch).
    pub async fn post_batch<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<u64, ClientError> {
        let (number, _) = self.append(&slices(records), false).await?;
        Ok(number)
    }

    async fn append(
        &self,
        records: &[&[u8]],
        ack: bool,
    ) -> Result<(u64, Option<AnswerReceiver>), ClientError> {
        let topic = self.name();
        let info = check_batch(records, ack, self.link.max_record())?;
        self.link.append(info, |request, out| encode_batch(out, request, topic, ack, records)).await
    }

    /// Waits until every earlier publish is answered.
    ///
    /// Sends a PING after them: answers arrive in order, so its PONG is the last. *Cancel safe:* if
    /// it is dropped, nothing is lost; flush again.
    ///
    /// # Errors
    ///
    /// [`ClientError::Failed`] if any publish failed since the last flush, including those whose
    /// ticket has already reported it; [`ClientError::Lost`] if the connection broke: then see
    /// [`take_unacknowledged`](Self::take_unacknowledged).
    pub async fn flush(&self) -> Result<(), ClientError> {
        let info = RequestInfo { records: None, wants_answer: true };
        let ping = |request: u32, out: &mut Vec<u8>| {
            let token = request.into();
            Request::Ping { token }.encode(out);
            Ok(())
        };
        let (_, answered) = self.link.append(info, ping).await?;
        wait(answered.expect("a PING is always answered")).await?;
        let mut failures = std::mem::take(&mut *self.failures());
        failures.merge(self.link.take_failures());
        match failures.first {
            None => Ok(()),
            Some((first, cause)) => {
                Err(ClientError::Failed { failed: failures.count, first, cause: Arc::new(cause) })
            }
        }
    }

    /// Opens a new connection after the old one broke. Does nothing if it is not broken. Makes one
    /// attempt; the caller decides whether to make more.
    ///
    /// Unacknowledged publishes are *not* sent again: they are kept for
    /// [`take_unacknowledged`](Self::take_unacknowledged). *Cancel safe:* if it is dropped before it
    /// returns, the publisher is unchanged.
    ///
    /// # Errors
    ///
    /// Any error while connecting; the publisher is then unchanged.
    pub async fn reconnect(&mut self) -> Result<(), ClientError> {
        if !self.link.is_lost() {
            return Ok(());
        }
        let options = LinkOptions { first_number: self.link.next_number(), ..self.options };
        let link = Link::open(&self.config, options).await?;
        let kept = self.link.take_unacknowledged();
        self.kept().extend(kept);
        let failures = self.link.take_failures();
        self.failures().merge(failures);
        self.link = link;
        Ok(())
    }

    /// Takes all publishes that asked for an acknowledgement and did not get one because the
    /// connection broke: each once, in the order in which they were sent.
    #[must_use = "these publishes may be lost"]
    pub fn take_unacknowledged(&self) -> Vec<Unacknowledged> {
        let mut all = std::mem::take(&mut *self.kept());
        all.extend(self.link.take_unacknowledged());
        all
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Unacknowledged>> {
        self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an unacknowledged publish again. If its outcome was unknown, its records may then be
    /// in the topic twice. It gets a new number.
    ///
    /// Waits, and is cancel safe, like [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// As [`send_batch`](Self::send_batch).
    pub async fn resend(&self, publish: &Unacknowledged) -> Result<Ticket, ClientError> {
        self.send_records(publish.records()).await
    }
}

impl Unacknowledged {
    /// The number of its [`Ticket`].
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Whether it may have been carried out.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// How many records it has.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.records
    }

    /// Its records.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        let any = DecodeLimits { max_frame: u32::MAX, max_record: u32::MAX };
        match decode_request(&self.frame, &any) {
            Ok(Decoded::Frame { value: Request::Publish(publish), .. }) => publish.records,
            _ => unreachable!("the frame is a publish that this library encoded"),
        }
    }
}

/// A publish that was sent. Await it to get the offsets of its records.
///
/// Dropping it does not affect the publish.
#[derive(Debug)]
#[must_use = "a ticket tells whether the publish succeeded; `flush` does too"]
pub struct Ticket {
    number: u64,
    answered: AnswerReceiver,
}

impl Ticket {
    /// The publish's number in its publisher, counting up from 1 (with gaps: a flush takes a number,
    /// too).
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }
}

impl Future for Ticket {
    type Output = Result<Published, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answered).poll(cx));
        Poll::Ready(flatten(answer).and_then(Published::from_answer))
    }
}

/// Waits for an answer.
pub(super) async fn wait(answered: AnswerReceiver) -> Result<Answer, ClientError> {
    flatten(answered.await)
}

fn flatten(
    answer: Result<Result<Answer, ClientError>, tokio::sync::oneshot::error::RecvError>,
) -> Result<Answer, ClientError> {
    answer.unwrap_or_else(|_| {
        // The connection's task was dropped: its runtime has ended.
        Err(ClientError::Lost {
            outcome: Outcome::Unknown,
            cause: Arc::new(ClientError::io(std::io::Error::other("the runtime was shut down"))),
        })
    })
}

pub(super) fn check_record(size: usize, max: u32) -> Result<(), ClientError> {
    if size > max as usize {
        return Err(ClientError::RecordTooLarge { size, max });
    }
    Ok(())
}

/// The bytes of each record. Asked for once, and outside of every lock: `as_ref` is the caller's code, which may panic,
/// publish, or answer differently the next time.
pub(super) fn slices<R: AsRef<[u8]>>(records: &[R]) -> Vec<&[u8]> {
    records.iter().map(AsRef::as_ref).collect()
}

pub(super) fn check_batch(
    records: &[&[u8]],
    wants_answer: bool,
    max: u32,
) -> Result<RequestInfo, ClientError> {
    for record in records {
        check_record(record.len(), max)?;
    }
    Ok(RequestInfo { records: Some(records.len() as u32), wants_answer })
}

pub(super) fn encode_batch(
    out: &mut Vec<u8>,
    request: u32,
    topic: TopicName<'_>,
    ack: bool,
    records: &[&[u8]],
) -> Result<(), ClientError> {
    let each = records.iter().copied();
    encode_publish(out, request, topic, ack, each).map_err(|error| match error {
        RecordsError::Empty => ClientError::EmptyBatch,
        _ => ClientError::BatchTooLarge { size: usize::MAX, max: u32::MAX },
    })
}
