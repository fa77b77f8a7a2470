//! `psa pub`: publishes records from files or standard input to a topic.
//!
//! Batches are pipelined: many are in flight before the first is acknowledged, and the
//! acknowledgements are counted as they come. When something fails midway, nothing more is sent. The
//! command waits for the answers to the batches in flight, and the error says how many records are in the topic
//! and which record of the input is the first that is not. Nothing is ever sent twice.
//!
//! A topic accepts at most half of its memory limit in one append. The publisher asks for this limit when the
//! first records are in the topic, because publishing them may have created it. Until then, batches are small
//! enough for every topic.

use crate::args::PubArgs;
use crate::config::Config;
use crate::connect;
use crate::error::{Error, Exit, Result};
use crate::input::{self, BatchBound, Piece};
use crate::progress::Progress;
use crate::say;
use crate::signals::Signals;
use crate::split::Mode;
use crate::units::human_count;
use psa::client::{Client, ClientError, Publisher, PublisherOptions, Ticket};
use psa::protocol::Records;
use psa_load::client::failure;
use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The size of a batch in bytes: large enough that its overhead is negligible, small enough to share a connection.
const BATCH: usize = 256 << 10;

/// The size of a batch in bytes for a topic with the smallest memory limit that can be configured.
const SMALL_BATCH: usize = batch_for(64 << 10);

/// The size of a batch for a topic with this memory limit: less than half of it, including the segment's own bytes.
const fn batch_for(memory_limit: u64) -> usize {
    let third = memory_limit / 3;
    if third < BATCH as u64 { third as usize } else { BATCH }
}

/// How long to wait for outstanding answers after a failure or a signal.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the command: publishes everything and waits for the acknowledgements.
pub(crate) fn run(config: &Config, args: PubArgs) -> Result {
    let mode = if args.split.keep_ends {
        Mode::KeepEnds
    } else if args.split.length_prefixed {
        Mode::LengthPrefixed
    } else if args.split.null {
        Mode::Nul
    } else if args.split.whole {
        Mode::Whole
    } else {
        Mode::Lines
    };
    connect::block_on(publish(config, args, mode))
}

async fn publish(config: &Config, args: PubArgs, mode: Mode) -> Result {
    let total = input::check(&args.files)?;
    let what = format!("publish to `{}`", crate::error::one_line(&args.topic));
    // This reads files. It comes before the signals are taken over, so that a signal ends it even if reading takes long.
    let builder = connect::builder(config, "pub")?;
    let mut signals = Signals::listen()?;
    let open = async {
        let client = connect::reach(config, builder).await?;
        let publisher = client.publisher(&args.topic, PublisherOptions::default()).await;
        Ok((publisher.map_err(|error| failure(&what, &error))?, client))
    };
    let (publisher, client) = signals.unless(open).await?;
    let record = usize::try_from(publisher.max_record()).unwrap_or(usize::MAX);
    let bound = BatchBound::new(SMALL_BATCH.min(publisher.max_batch()));
    let typed = args.files.is_empty() && io::stdin().is_terminal();
    let mut publishing = Publishing {
        publisher,
        ack: !args.no_ack,
        tally: Tally::default(),
        in_flight: VecDeque::new(),
        progress: Progress::new(total, typed),
        limit_query: Some(LimitQuery { client, topic: args.topic.clone(), bound: bound.clone() }),
    };
    let began = Instant::now();
    let mut pieces = input::spawn(args.files, mode, record, bound);
    let outcome = publishing.publish_all(&mut pieces, &mut signals, &what).await;
    drop(pieces);
    publishing.progress.finish();
    match outcome {
        Ok(()) => {
            if args.verbose {
                publishing.tally.report(&args.topic, publishing.ack, began.elapsed());
            }
            Ok(())
        }
        // Without acknowledgements, nothing is known about how far it got.
        Err(error) if !publishing.ack => Err(error),
        Err(error) => {
            publishing.settle().await;
            Err(error.and(publishing.tally.how_far()))
        }
    }
}

/// How much of the input was sent and acknowledged so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// The number of records given to the connection.
    sent: u64,
    /// The number of records acknowledged.
    acknowledged: u64,
    /// The offset of the last acknowledged record.
    last: Option<u64>,
    epoch: u64,
    /// The first record of the input, counted from 1, whose answer was an error.
    refused: Option<u64>,
}

impl Tally {
    fn report(&self, topic: &str, ack: bool, took: Duration) {
        let count = if ack { self.acknowledged } else { self.sent };
        let noun = if count == 1 { "record" } else { "records" };
        let count = human_count(count);
        let verb = if ack { "acknowledged" } else { "sent" };
        let last = self.last.map_or(String::new(), |offset| {
            format!(", the last at offset {offset} of epoch {}", crate::format::epoch(self.epoch))
        });
        let seconds = took.as_secs_f64();
        say(&format!("{topic}: {count} {noun} {verb} in {seconds:.2} s{last}"));
    }

    fn how_far(&self) -> String {
        let mut text = match (self.acknowledged, self.last) {
            (0, _) | (_, None) => "no record was acknowledged".to_string(),
            (1, Some(last)) => format!("1 record was acknowledged, at offset {last}"),
            (count, Some(last)) => {
                format!("{count} records were acknowledged, the last at offset {last}")
            }
        };
        let first = self.refused.unwrap_or(self.acknowledged + 1);
        if self.sent >= first {
            text.push_str(&format!("; the first that was not is record {first} of the input"));
        }
        text
    }
}

/// A batch in flight: sent, and not answered yet.
struct InFlight {
    ticket: Ticket,
    /// The number of its first record in the input, from 1.
    first: u64,
    count: u64,
    /// How many bytes of input had been read after it.
    read: u64,
}

/// A run of the command.
struct Publishing {
    publisher: Publisher,
    ack: bool,
    tally: Tally,
    in_flight: VecDeque<InFlight>,
    progress: Progress,
    /// `None` once the topic's limit was asked for.
    limit_query: Option<LimitQuery>,
}

/// What is needed to ask for the topic's memory limit.
struct LimitQuery {
    client: Client,
    topic: String,
    bound: BatchBound,
}

impl LimitQuery {
    /// Asks for the limit, and sets the size of further batches accordingly. Without an answer, batches stay small.
    async fn ask(self, max_batch: usize) {
        if let Ok(details) = self.client.describe(&self.topic).await {
            let limit = details.stats.memory_limit.unwrap_or(u64::MAX);
            self.bound.set(batch_for(limit).min(max_batch));
        }
    }
}

impl Publishing {
    /// Sends everything and takes every answer. Stops at the first failure.
    async fn publish_all(
        &mut self,
        pieces: &mut mpsc::Receiver<Result<Piece>>,
        signals: &mut Signals,
        what: &str,
    ) -> Result {
        let interrupted = |exit: Exit| Error::new(exit, what, "interrupted");
        let refused = |error: ClientError| failure(what, &error);
        let mut failed_input = None;
        let mut ended = false;
        while !ended || !self.in_flight.is_empty() {
            tokio::select! {
                // Answers before new records, because they make room.
                biased;
                exit = signals.next() => return Err(interrupted(exit)),
                answer = next_acknowledgement(&mut self.in_flight), if !self.in_flight.is_empty() => {
                    self.take(answer).map_err(refused)?;
                    tokio::select! {
                        () = self.query_limit() => {}
                        exit = signals.next() => return Err(interrupted(exit)),
                    }
                }
                piece = pieces.recv(), if !ended => match piece {
                    None => ended = true,
                    Some(Err(error)) => {
                        failed_input = Some(error);
                        ended = true;
                    }
                    Some(Ok(piece)) => tokio::select! {
                        sent = self.send(&piece) => sent.map_err(refused)?,
                        exit = signals.next() => return Err(interrupted(exit)),
                    },
                },
            }
        }
        if !self.ack {
            tokio::select! {
                flushed = self.publisher.flush() => flushed.map_err(refused)?,
                exit = signals.next() => return Err(interrupted(exit)),
            }
        }
        failed_input.map_or(Ok(()), Err)
    }

    async fn send(&mut self, piece: &Piece) -> Result<(), ClientError> {
        let Piece { batch, read } = piece;
        let count = batch.len() as u64;
        let records =
            Records::new(0, &batch.ends, &batch.payload).expect("the splitter packs whole records");
        let first = self.tally.sent + 1;
        self.progress.owed(self.ack);
        if self.ack {
            let ticket = self.publisher.send_records(records).await?;
            self.in_flight.push_back(InFlight { ticket, first, count, read: *read });
        } else {
            let records: Vec<&[u8]> = records.iter().collect();
            self.publisher.post_batch(&records).await?;
            self.progress.update(*read, first + count - 1);
            if self.limit_query.is_some() {
                self.publisher.flush().await?;
                self.query_limit().await;
            }
        }
        self.tally.sent += count;
        Ok(())
    }

    /// Asks for the topic's limit, once. Call this when the topic exists.
    async fn query_limit(&mut self) {
        if let Some(query) = self.limit_query.take() {
            query.ask(self.publisher.max_batch()).await;
        }
    }

    /// Takes the answer to the oldest batch in flight.
    fn take(&mut self, answer: Acknowledgement) -> Result<(), ClientError> {
        self.progress.owed(!self.in_flight.is_empty());
        match answer.result {
            Ok(published) => {
                self.tally.acknowledged += answer.count;
                self.tally.last = Some(published.offsets().end.saturating_sub(1));
                self.tally.epoch = published.epoch;
                self.progress.update(answer.read, self.tally.acknowledged);
                Ok(())
            }
            Err(error) => {
                self.tally.refused.get_or_insert(answer.first);
                Err(error)
            }
        }
    }

    /// After a failure, takes the answers that still come within [`PATIENCE`], so that the count is right.
    async fn settle(&mut self) {
        let all = async {
            while !self.in_flight.is_empty() {
                let answer = next_acknowledgement(&mut self.in_flight).await;
                let _ = self.take(answer);
            }
        };
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }
}

/// The answer to the oldest batch in flight: that it was published, or the error.
struct Acknowledgement {
    result: Result<psa::client::Published, ClientError>,
    first: u64,
    count: u64,
    read: u64,
}

/// Waits for the answer to the oldest batch in flight, and removes the batch from the queue when the answer has come.
/// Cancel safe.
async fn next_acknowledgement(in_flight: &mut VecDeque<InFlight>) -> Acknowledgement {
    let Some(oldest) = in_flight.front_mut() else { return std::future::pending().await };
    let result = (&mut oldest.ticket).await;
    let InFlight { first, count, read, .. } =
        in_flight.pop_front().expect("it was there before the wait");
    Acknowledgement { result, first, count, read }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_counts_what_is_in_the_topic() {
        let tally = |acknowledged, last, sent, refused| Tally {
            sent,
            acknowledged,
            last,
            epoch: 0,
            refused,
        };
        assert_eq!(tally(0, None, 0, None).how_far(), "no record was acknowledged");
        assert_eq!(
            tally(3, Some(12), 3, None).how_far(),
            "3 records were acknowledged, the last at offset 12"
        );
        assert_eq!(
            tally(5, Some(14), 9, Some(4)).how_far(),
            "5 records were acknowledged, the last at offset 14; the first that was not is record 4 of the input"
        );
        assert!(tally(5, Some(4), 9, None).how_far().ends_with("record 6 of the input"));
    }
}
