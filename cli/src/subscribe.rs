//! `psa sub`: writes a topic's records to standard output or to a file.
//!
//! Three things happen concurrently: records are received and formatted, the previous piece is written
//! by the [writing thread](crate::writer), and the command waits for signals. A piece that was written is
//! recorded in the state (by the thread) and then committed to the lease (here), in this order, so at every
//! instant: committed <= recorded <= written. Dying between two of these steps repeats records to the
//! next run, which recognizes them by their offsets; it never loses one.

use crate::args::{Format, OnGap, SubArgs};
use crate::config::Config;
use crate::connect;
use crate::consumer::Consumer;
use crate::error::{Error, Exit, Result, one_line};
use crate::format::Formatter;
use crate::intake::{Intake, Missing};
use crate::say;
use crate::signals::Signals;
use crate::units::human_count;
use crate::writer::{Sink, Work, Writer, standard_consumer};
use psa::client::{
    BatchEvent, Client, ClientError, LeaseOptions, LeaseOrigin, SubscribeOptions, Subscription,
};
use psa::protocol::{self, CloseReason, Code};
use psa::words::{Period, Time};
use psa::{Position, Start};
use psa_load::client::failure;
use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

/// While the writer is busy, receiving continues up to this many bytes.
const AHEAD: usize = 1 << 20;

/// How long the writer, and then the last commit, may take after a signal.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait until the server notices that a lease's former holder is gone.
const FORMER_HOLDER: Duration = Duration::from_secs(1);

/// The first pause between two attempts to reach a server. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts to reach a server.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long to try to reconnect, unless the user gives a time.
const RECONNECT: Duration = Duration::from_secs(60);

/// Runs the command: follows a topic until it ends, enough records have arrived, or a signal ends it.
pub(crate) fn run(config: &Config, args: SubArgs) -> Result {
    connect::block_on(subscribe(config, args))
}

async fn subscribe(config: &Config, args: SubArgs) -> Result {
    let topic = format!("subscribe to `{}`", one_line(&args.topic));
    // This reads files. It comes before the signals are taken over, so that a signal ends it even if reading takes long.
    let client =
        connect::builder(config, "sub")?.build().map_err(|error| failure(&topic, &error))?;
    let mut stop = Stop::listen(args.output.is_none())?;
    let mut sink = open_sink(&args, &mut stop).await?;
    stop.watch(&sink);
    let recorded = sink.position();
    let open =
        async { open(&client, &args, recorded).await.map_err(|error| failure(&topic, &error)) };
    let subscription = stop.unless(open).await?;
    let subscription = check_lease(&args, &topic, subscription).await?;
    sink.begin()?;
    let server_position = subscription.position();
    let begin = recorded.unwrap_or_else(|| first_position(&args, server_position));
    if args.verbose {
        say(&format!(
            "{}: begins at offset {} of epoch {}",
            one_line(&args.topic),
            begin.next,
            crate::format::epoch(begin.epoch)
        ));
    }
    let format = if args.null { Format::Null } else { args.format };
    let formatter = Formatter::new(format, &args.topic);
    let mut follower = Follower {
        intake: Intake::new(&args.topic, formatter, begin, args.count, recorded.is_none()),
        subscription,
        writer: Writer::spawn(sink),
        spare: Vec::new(),
        args,
        what: topic,
    };
    let outcome = follower.follow(&mut stop).await;
    let taken = follower.intake.taken();
    let verbose = follower.args.verbose;
    let ended = follower.finish(outcome, &mut stop.signals).await;
    if verbose {
        say(&format!("{} {}", human_count(taken), if taken == 1 { "record" } else { "records" }));
    }
    ended
}

/// What ends a subscriber from outside: a signal, or an output that nobody reads any more.
struct Stop {
    signals: Signals,
    consumer: Consumer,
    /// The name of the consumer's output, if that is not standard output.
    named: Option<String>,
}

impl Stop {
    fn listen(standard: bool) -> Result<Stop> {
        let consumer = if standard { standard_consumer() } else { Consumer::lasting() };
        Ok(Stop { signals: Signals::listen()?, consumer, named: None })
    }

    /// Watches an output that has a name. Standard output is watched from the beginning.
    fn watch(&mut self, sink: &Sink) {
        if let Some((name, consumer)) = sink.named_consumer() {
            self.named = Some(name);
            self.consumer = consumer;
        }
    }

    /// Waits until something ends the subscriber, and returns the error to exit with. Cancel safe.
    async fn next(&mut self) -> Error {
        tokio::select! {
            biased;
            exit = self.signals.next() => Error::quiet(exit),
            () = self.consumer.gone() => {
                let broken = io::Error::from(io::ErrorKind::BrokenPipe);
                match &self.named {
                    Some(name) => Error::file(name, &broken),
                    None => Error::stdout(&broken),
                }
            }
        }
    }

    /// Does some work that may take long, unless something ends the subscriber first.
    async fn unless<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            error = self.next() => Err(error),
            outcome = work => outcome,
        }
    }
}

/// Opens the output on a separate thread, because opening a FIFO waits for its reader.
async fn open_sink(args: &SubArgs, stop: &mut Stop) -> Result<Sink> {
    let (state, output) = (args.state.clone(), args.output.clone());
    let (sync, topic) = (args.sync, args.topic.clone());
    let opening = tokio::task::spawn_blocking(move || {
        Sink::open(state.as_deref(), output.as_deref(), sync, &topic)
    });
    let opened = async { opening.await.map_err(|error| Error::failed("output", error))? };
    stop.unless(opened).await
}

/// Subscribes. If the lease is held, its holder may be an earlier run of this subscriber, which ended a moment ago and
/// whose connection the server has not given up yet; this waits a little for that. For an unreachable server, it waits as
/// long as the user said.
async fn open(
    client: &Client,
    args: &SubArgs,
    recorded: Option<Position>,
) -> Result<Subscription, ClientError> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match client.subscribe(&args.topic, options(args, recorded)).await {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        if error.code() == Some(Code::LeaseHeld) {
            if began.elapsed() >= FORMER_HOLDER {
                return Err(error);
            }
            tokio::time::sleep(FORMER_HOLDER / 20).await;
            continue;
        }
        let left = args.reconnect.unwrap_or(Duration::ZERO).checked_sub(began.elapsed());
        // If the server answered, waiting does not help: the answer is shown immediately.
        let refused = matches!(error, ClientError::Server(_));
        let Some(left) = left.filter(|left| !left.is_zero() && error.passes() && !refused) else {
            return Err(error);
        };
        if pause == FIRST_PAUSE {
            let limit = Period(args.reconnect.unwrap_or_default());
            let what = format!("subscribe to `{}`", one_line(&args.topic));
            say(&format!("{}; trying again for {limit}", failure(what, &error)));
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// With `--verbose`, says what there was of the lease, unless it simply continues. A lease that must exist and does not is an
/// error: a position that was forgotten must not look like one that was kept.
async fn check_lease(
    args: &SubArgs,
    what: &str,
    subscription: Subscription,
) -> Result<Subscription> {
    let (Some(name), Some(origin)) = (&args.lease, subscription.lease_origin()) else {
        return Ok(subscription);
    };
    let next = subscription.committed();
    match origin {
        LeaseOrigin::New if args.lease_must_exist => {
            // Asking for it has made it.
            let _ = within(PATIENCE, subscription.release()).await;
            let why = format!("there is no lease `{name}`, or the server has forgotten it");
            return Err(
                Error::new(Exit::Gap, what, why).hint("without --lease-must-exist, one is made")
            );
        }
        LeaseOrigin::New if args.verbose => {
            say(&format!("lease `{name}` is new: begins at offset {next}"))
        }
        LeaseOrigin::Expired if args.verbose => {
            say(&format!("lease `{name}` had expired: goes on at offset {next}"))
        }
        _ => {}
    }
    Ok(subscription)
}

/// Where to begin and how. A position in the state takes precedence over the flags.
fn options(args: &SubArgs, recorded: Option<Position>) -> SubscribeOptions {
    let options = match recorded {
        // The intake also compares the epochs.
        Some(position) => SubscribeOptions::new(protocol::Start::resume(position)),
        None => requested_start(args),
    };
    let mut options = options.give_up_after(args.reconnect.unwrap_or(RECONNECT));
    if args.exit_at_end {
        options = options.caught_up();
    }
    if let Some(name) = &args.lease {
        let lease = LeaseOptions::new(name, args.lease_ttl);
        options = options.lease(if args.take_over { lease.take_over() } else { lease });
    }
    options
}

/// Where the flags say to begin.
fn requested_start(args: &SubArgs) -> SubscribeOptions {
    if let Some(position) = requested_position(args) {
        return SubscribeOptions::resume(position);
    }
    SubscribeOptions::new(match (args.last, args.from) {
        (Some(count), _) | (None, Start::Last(count)) => protocol::Start::Last(count),
        (None, Start::Next) => protocol::Start::Next,
        (None, Start::At(offset)) => protocol::Start::At(offset),
        (None, Start::Since(time)) => protocol::Start::Since(Time(time).nanos()),
        // Only the earliest remains: no text parses to another start.
        (None, _) => protocol::Start::Earliest,
    })
}

/// The position at which the flags say to continue.
fn requested_position(args: &SubArgs) -> Option<Position> {
    match args.from {
        Start::Resume(position) => Some(position),
        _ => args.after,
    }
}

/// The first position that the user wants, if no state has one. The records between it and `server_position`, where
/// the server begins, are a gap.
fn first_position(args: &SubArgs, server_position: Position) -> Position {
    match (requested_position(args), args.last, args.from) {
        // An existing lease begins at its committed position, whatever was requested.
        _ if args.lease.is_some() => server_position,
        (Some(position), _, _) => position,
        (None, None, Start::At(next)) => Position { next, ..server_position },
        _ => server_position,
    }
}

/// Why following has ended.
#[derive(Debug)]
enum Outcome {
    /// The topic was closed and every record has arrived, or every record that was wanted has.
    Done,
    /// Following failed, or a signal came. The records that have arrived are still written.
    Failed(Error),
    /// Nothing can be written any more.
    Unwritable(Error),
}

/// A subscription and where its records go.
struct Follower {
    subscription: Subscription,
    intake: Intake,
    writer: Writer,
    /// The buffer of a piece that was written, to be reused.
    spare: Vec<u8>,
    args: SubArgs,
    what: String,
}

impl Follower {
    /// Receives records and passes them to the writer until the end.
    async fn follow(&mut self, stop: &mut Stop) -> Outcome {
        loop {
            self.feed_writer();
            if self.intake.is_complete() {
                return Outcome::Done;
            }
            let receive = self.intake.pending() < AHEAD;
            tokio::select! {
                biased;
                error = stop.next() => return Outcome::Failed(error),
                written = self.writer.done() => match written {
                    Ok(work) => self.written(work),
                    Err(error) => return Outcome::Unwritable(error),
                },
                event = self.subscription.next_batch(), if receive => {
                    let taken = take_event(&mut self.intake, &self.args, &self.what, event);
                    match taken {
                        Ok(false) => {}
                        Ok(true) => return Outcome::Done,
                        Err(error) => return Outcome::Failed(error),
                    }
                }
            }
        }
    }

    fn feed_writer(&mut self) {
        if !self.writer.is_busy()
            && let Some(work) = self.intake.work(std::mem::take(&mut self.spare))
        {
            self.writer.give(work);
        }
    }

    /// Call this when a piece is written and recorded: commits its records, so that the lease no longer keeps them.
    fn written(&mut self, work: Work) {
        if self.args.lease.is_some()
            && work.position.epoch == self.subscription.position().epoch
            && let Some(last) = work.position.next.checked_sub(1)
            && work.position.next > self.subscription.committed()
        {
            // This fails only for a record that was not received, and this one was.
            let _ = self.subscription.commit_later(..=last);
        }
        self.spare = work.bytes;
    }

    /// Writes what has arrived, commits it, and ends the subscription.
    async fn finish(mut self, outcome: Outcome, signals: &mut Signals) -> Result {
        let mut failed = match outcome {
            Outcome::Done => None,
            Outcome::Failed(error) => Some(error),
            Outcome::Unwritable(error) => return Err(error),
        };
        // After a signal, or when the reader of the output is gone, the command must end soon: a pipe that nobody
        // reads must not keep it, and a second signal ends it immediately. What is not written is not recorded either.
        let limit = match &failed {
            Some(error) if matches!(error.exit(), Exit::Signal(_) | Exit::OutputClosed) => PATIENCE,
            _ => Duration::MAX,
        };
        let rest = async {
            while self.writer.is_busy() || self.intake.is_dirty() {
                self.feed_writer();
                let work = self.writer.done().await?;
                self.written(work);
            }
            Ok(())
        };
        if let Some(Err(error)) = signals.unless(within(limit, rest)).await? {
            return Err(failed.unwrap_or(error));
        }
        if self.args.lease.is_some() {
            let goodbye = signals.unless(within(limit, self.subscription.end())).await?;
            if let Some(Err(error)) = goodbye
                && failed.is_none()
                && !matches!(error, ClientError::Ended)
            {
                failed = Some(failure(&self.what, &error).hint("the last commit may be missing"));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Does some work within a time limit; `None` if the time ran out.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<Option<T>> {
    Ok(tokio::time::timeout(limit, work).await.ok())
}

/// Takes one event. `Ok(true)` means that following ends.
fn take_event(
    intake: &mut Intake,
    args: &SubArgs,
    what: &str,
    event: Option<Result<BatchEvent<'_>, ClientError>>,
) -> Result<bool> {
    match event {
        None => Ok(true),
        Some(Err(error)) => Err(failure(what, &error)),
        Some(Ok(BatchEvent::Records(batch))) => {
            let position = Position { epoch: batch.epoch(), next: batch.first_offset() };
            if let Some(missing) = intake.missing_before(position, None) {
                report_gap(intake, args, &missing, position)?;
            }
            intake.records(batch.first_offset(), Time(batch.time()).nanos(), batch.records());
            Ok(false)
        }
        Some(Ok(BatchEvent::Gap(gap))) => {
            let position = Position { epoch: gap.epoch, next: gap.next };
            let asked = requested_position(args).map(|requested| requested.epoch);
            if let Some(missing) = intake.missing_in(gap.reason, gap.first_missed, position, asked)
            {
                report_gap(intake, args, &missing, position)?;
            }
            Ok(false)
        }
        Some(Ok(BatchEvent::CaughtUp { .. })) => Ok(args.exit_at_end),
        Some(Ok(BatchEvent::Closed { reason, .. })) => closed(what, reason),
        // An event that a later version adds.
        Some(Ok(_)) => Ok(false),
    }
}

/// Reports missing records and skips them, or fails if the user wants that.
fn report_gap(
    intake: &mut Intake,
    args: &SubArgs,
    missing: &Missing,
    position: Position,
) -> Result {
    let what = format!("gap in `{}`", intake.topic());
    if args.on_gap == OnGap::Fail {
        return Err(Error::new(Exit::Gap, what, missing).hint("--on-gap report goes on behind it"));
    }
    say(&format!("{what}: {missing}"));
    intake.skip_to(position);
    Ok(())
}

fn closed(what: &str, reason: CloseReason) -> Result<bool> {
    let (why, hint) = match reason {
        CloseReason::TopicClosed | CloseReason::Unsubscribed => return Ok(true),
        CloseReason::TopicDeleted => {
            ("the topic was deleted", "its last records may not have come")
        }
        CloseReason::LeaseTakenOver => {
            ("another subscriber took the lease over", "only one can hold it")
        }
        CloseReason::LeaseExpired => ("the lease ended", "use a longer --lease-ttl"),
        _ => ("the server ended the subscription", "subscribe again"),
    };
    Err(Error::new(Exit::Refused, what, why).hint(hint))
}
