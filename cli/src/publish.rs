//! `psa pub`: records from files or standard input into a topic.
//!
//! Batches are pipelined: many are on their way before the first is acknowledged, and the
//! acknowledgements are counted as they come. When something fails midway, nothing more is sent, the
//! answers to what is on its way are waited for, and the error says how many records are in the topic
//! and which one of the input is the first that is not. Nothing is ever sent twice.
//!
//! A topic takes at most half of its memory limit in one append. How much that is is asked when the first
//! records are there, since their publish may have made the topic; until then, batches are so small that
//! every topic takes them.

use crate::args::PubArgs;
use crate::config::Config;
use crate::connect;
use crate::error::{Error, Exit, Result};
use crate::input::{self, BatchBound, Piece};
use crate::progress::Progress;
use crate::signals::Signals;
use crate::split::Mode;
use crate::units::human_count;
use psa::client::{Client, ClientError, Publisher, PublisherOptions, Ticket};
use psa::protocol::Records;
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bytes of a batch: large enough that its overhead is nothing, small enough to share a connection.
const BATCH: usize = 256 << 10;

/// Bytes of a batch for a topic with the smallest memory limit that can be configured.
const SMALL_BATCH: usize = batch_for(64 << 10);

/// The batch for a topic with this memory limit: with the segment's own bytes less than half of it.
const fn batch_for(memory_limit: u64) -> usize {
    let third = memory_limit / 3;
    if third < BATCH as u64 { third as usize } else { BATCH }
}

/// How long to wait for outstanding answers after a failure or a signal.
const PATIENCE: Duration = Duration::from_secs(2);

/// Publishes everything and waits for the acknowledgements.
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
    // Files are read here: before the signals are taken over, so that they end it where that takes long.
    let builder = connect::builder(config, "pub")?;
    let mut signals = Signals::listen()?;
    let open = async {
        let client = connect::reach(config, builder).await?;
        let publisher = client.publisher(&args.topic, PublisherOptions::default()).await;
        Ok((publisher.map_err(|error| connect::failure(&what, &error))?, client))
    };
    let (publisher, client) = signals.unless(open).await?;
    let record = usize::try_from(publisher.max_record()).unwrap_or(usize::MAX);
    let bound = BatchBound::new(SMALL_BATCH.min(publisher.max_batch()));
    let typed = args.files.is_empty() && io::stdin().is_terminal();
    let mut run = Run {
        publisher,
        ack: !args.no_ack,
        tally: Tally::default(),
        open: VecDeque::new(),
        progress: Progress::new(total, typed),
        unasked: Some(Unasked { client, topic: args.topic.clone(), bound: bound.clone() }),
    };
    let began = Instant::now();
    let mut pieces = input::spawn(args.files, mode, record, bound);
    let outcome = run.all(&mut pieces, &mut signals, &what).await;
    drop(pieces);
    run.progress.finish();
    match outcome {
        Ok(()) => {
            if args.verbose {
                run.tally.report(&args.topic, run.ack, began.elapsed());
            }
            Ok(())
        }
        // Without acknowledgements there is nothing to say about how far it got.
        Err(error) if !run.ack => Err(error),
        Err(error) => {
            run.settle().await;
            Err(error.and(run.tally.how_far()))
        }
    }
}

/// What became of the input so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Records given to the connection.
    sent: u64,
    /// Records acknowledged.
    acknowledged: u64,
    /// Offset of the last acknowledged record.
    last: Option<u64>,
    epoch: u64,
    /// The first record of the input, counted from 1, that is not acknowledged although its answer
    /// came.
    refused: Option<u64>,
}

impl Tally {
    fn report(&self, topic: &str, ack: bool, took: Duration) {
        let topic = crate::error::one_line(topic);
        let count = if ack { self.acknowledged } else { self.sent };
        let noun = if count == 1 { "record" } else { "records" };
        let count = human_count(count);
        let verb = if ack { "acknowledged" } else { "sent" };
        let last = self.last.map_or(String::new(), |offset| {
            format!(", the last at offset {offset} of epoch {}", crate::format::epoch(self.epoch))
        });
        let seconds = took.as_secs_f64();
        let _ =
            writeln!(io::stderr(), "psa: {topic}: {count} {noun} {verb} in {seconds:.2} s{last}");
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

/// A publish that is on its way.
struct Open {
    ticket: Ticket,
    /// The number of its first record in the input, from 1.
    first: u64,
    count: u64,
    /// Bytes of input up to its end.
    read: u64,
}

struct Run {
    publisher: Publisher,
    ack: bool,
    tally: Tally,
    open: VecDeque<Open>,
    progress: Progress,
    unasked: Option<Unasked>,
}

/// The topic's limit was not asked for yet.
struct Unasked {
    client: Client,
    topic: String,
    bound: BatchBound,
}

impl Unasked {
    /// Asks, and lets batches grow. If there is no answer, they stay as they are: small.
    async fn ask(self, max_batch: usize) {
        if let Ok(details) = self.client.describe(&self.topic).await {
            let limit = details.stats.memory_limit.unwrap_or(u64::MAX);
            self.bound.set(batch_for(limit).min(max_batch));
        }
    }
}

impl Run {
    /// Sends everything and takes every answer. Stops at the first failure.
    async fn all(
        &mut self,
        pieces: &mut mpsc::Receiver<Result<Piece>>,
        signals: &mut Signals,
        what: &str,
    ) -> Result {
        let interrupted = |exit: Exit| Error::new(exit, what, "interrupted");
        let refused = |error: ClientError| connect::failure(what, &error);
        let mut failed_input = None;
        let mut ended = false;
        while !ended || !self.open.is_empty() {
            tokio::select! {
                // Answers first: they make room.
                biased;
                exit = signals.next() => return Err(interrupted(exit)),
                answer = answer(&mut self.open), if !self.open.is_empty() => {
                    self.take(answer).map_err(refused)?;
                    tokio::select! {
                        () = self.ask() => {}
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
            self.open.push_back(Open { ticket, first, count, read: *read });
        } else {
            let records: Vec<&[u8]> = records.iter().collect();
            self.publisher.post_batch(&records).await?;
            self.progress.update(*read, first + count - 1);
            if self.unasked.is_some() {
                self.publisher.flush().await?;
                self.ask().await;
            }
        }
        self.tally.sent += count;
        Ok(())
    }

    /// Asks for the topic's limit, the first time; the topic is there now.
    async fn ask(&mut self) {
        if let Some(unasked) = self.unasked.take() {
            unasked.ask(self.publisher.max_batch()).await;
        }
    }

    /// Takes the answer to the oldest publish on its way.
    fn take(&mut self, answer: Answer) -> Result<(), ClientError> {
        self.progress.owed(!self.open.is_empty());
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

    /// After a failure: takes the answers that still come, for a while, so that the count is right.
    async fn settle(&mut self) {
        let all = async {
            while !self.open.is_empty() {
                let answer = answer(&mut self.open).await;
                let _ = self.take(answer);
            }
        };
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }
}

/// The answer to the oldest publish on its way.
struct Answer {
    result: Result<psa::client::Published, ClientError>,
    first: u64,
    count: u64,
    read: u64,
}

/// Waits for the answer to the oldest publish, and takes it out of the queue when it has come. Cancel
/// safe.
async fn answer(open: &mut VecDeque<Open>) -> Answer {
    let Some(oldest) = open.front_mut() else { return std::future::pending().await };
    let result = (&mut oldest.ticket).await;
    let Open { first, count, read, .. } = open.pop_front().expect("it was there before the wait");
    Answer { result, first, count, read }
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
