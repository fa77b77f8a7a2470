//! `psa sub`: a topic's records onto standard output or into a file.
//!
//! Three things happen at once: records are received and formatted, the piece before them is written
//! by the [writing thread](crate::writer), and signals are waited for. A piece that was written is
//! recorded in the state (by the thread) and then committed to the lease (here), in this order, so that
//! at every instant: committed <= recorded <= written. Dying between two of them repeats records to the
//! next run, which knows them by their offsets; it never loses one.

use crate::args::{Format, OnGap, SubArgs};
use crate::config::Config;
use crate::connect::{self, failure};
use crate::consumer::Consumer;
use crate::error::{Error, Exit, Result, one_line};
use crate::format::Formatter;
use crate::intake::{Intake, Missing};
use crate::signals::Signals;
use crate::units::human_count;
use crate::writer::{Sink, Work, Writer, standard_consumer};
use psa::client::{BatchEvent, Client, ClientError, LeaseOptions, SubscribeOptions, Subscription};
use psa::protocol::{self, CloseReason, Code};
use psa::words::{Period, Time};
use psa::{Position, Start};
use std::future::Future;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// While the writer is busy, receiving goes on up to this many bytes.
const AHEAD: usize = 1 << 20;

/// After a signal, how long the writer and the last commit may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a lease's former holder may take to be noticed as gone.
const FORMER_LIFE: Duration = Duration::from_secs(1);

/// Between two tries to reach a server that is not there: at first, and at the most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long to try to connect again, unless the user says it.
const RECONNECT: Duration = Duration::from_secs(60);

/// Follows a topic until it ends, enough came, or a signal ends it.
pub(crate) fn run(config: &Config, args: SubArgs) -> Result {
    connect::block_on(subscribe(config, args))
}

async fn subscribe(config: &Config, args: SubArgs) -> Result {
    let topic = format!("subscribe to `{}`", one_line(&args.topic));
    // Files are read here: before the signals are taken over, so that they end it where that takes long.
    let client =
        connect::builder(config, "sub")?.build().map_err(|error| failure(&topic, &error))?;
    let mut stop = Stop::listen(args.output.is_none())?;
    let mut sink = open_sink(&args, &mut stop).await?;
    stop.watch(&sink);
    let recorded = sink.position();
    let open =
        async { open(&client, &args, recorded).await.map_err(|error| failure(&topic, &error)) };
    let subscription = stop.unless(open).await?;
    sink.begin()?;
    let place = subscription.position();
    let begin = recorded.unwrap_or_else(|| first_place(&args, place));
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
    let mut follow = Follow {
        intake: Intake::new(&args.topic, formatter, begin, args.count, recorded.is_none()),
        subscription,
        writer: Writer::spawn(sink),
        spare: Vec::new(),
        args,
        what: topic,
    };
    let outcome = follow.all(&mut stop).await;
    let taken = follow.intake.taken();
    let verbose = follow.args.verbose;
    let ended = follow.finish(outcome, &mut stop.signals).await;
    if verbose {
        say(&format!("{} {}", human_count(taken), if taken == 1 { "record" } else { "records" }));
    }
    ended
}

/// What ends a subscriber from outside: a signal, or that nobody reads its output any more.
struct Stop {
    signals: Signals,
    consumer: Consumer,
    /// The name of the output whose consumer it is, if it is not standard output.
    named: Option<String>,
}

impl Stop {
    fn listen(standard: bool) -> Result<Stop> {
        let consumer = if standard { standard_consumer() } else { Consumer::lasting() };
        Ok(Stop { signals: Signals::listen()?, consumer, named: None })
    }

    /// Watches an output that has a name; standard output is watched from the beginning.
    fn watch(&mut self, sink: &Sink) {
        if let Some((name, consumer)) = sink.named_consumer() {
            self.named = Some(name);
            self.consumer = consumer;
        }
    }

    /// Waits for it. Can be dropped and called again.
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

    /// Does some work that may take long, unless it is ended.
    async fn unless<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            error = self.next() => Err(error),
            outcome = work => outcome,
        }
    }
}

/// Opens the output on a thread of its own: opening a FIFO waits for its reader.
async fn open_sink(args: &SubArgs, stop: &mut Stop) -> Result<Sink> {
    let (state, output) = (args.state.clone(), args.output.clone());
    let (sync, topic) = (args.sync, args.topic.clone());
    let opening = tokio::task::spawn_blocking(move || {
        Sink::open(state.as_deref(), output.as_deref(), sync, &topic)
    });
    let opened = async { opening.await.map_err(|error| Error::failed("output", error))? };
    stop.unless(opened).await
}

/// Subscribes. A lease that is held may be our own, from a life that ended a moment ago and whose
/// connection the server has not given up yet: that is waited for, a little. A server that is not there is
/// waited for as long as the user said.
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
            if began.elapsed() >= FORMER_LIFE {
                return Err(error);
            }
            tokio::time::sleep(FORMER_LIFE / 20).await;
            continue;
        }
        let left = args.reconnect.unwrap_or(Duration::ZERO).checked_sub(began.elapsed());
        // What the server answers is an answer, and shows a mistake at once.
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

/// Where to begin and how: the state wins over the flags.
fn options(args: &SubArgs, recorded: Option<Position>) -> SubscribeOptions {
    let options = match recorded {
        // Whether the epoch is the same is seen afterwards, too.
        Some(position) => SubscribeOptions::new(protocol::Start::resume(position)),
        None => asked(args),
    };
    let mut options =
        options.caught_up(args.exit_at_end).give_up_after(args.reconnect.unwrap_or(RECONNECT));
    if let Some(name) = &args.lease {
        options = options.lease(LeaseOptions::new(name, args.lease_ttl).takeover(args.take_over));
    }
    options
}

/// Where the flags say to begin.
fn asked(args: &SubArgs) -> SubscribeOptions {
    if let Some(position) = asked_position(args) {
        return SubscribeOptions::resume(position);
    }
    SubscribeOptions::new(match (args.last, args.from) {
        (Some(count), _) | (None, Start::Last(count)) => protocol::Start::Last(count),
        (None, Start::Next) => protocol::Start::Next,
        (None, Start::At(offset)) => protocol::Start::At(offset),
        (None, Start::Since(time)) => protocol::Start::Since(Time(time).nanos()),
        // What is left is the earliest: no text is read as anything else.
        (None, _) => protocol::Start::Earliest,
    })
}

/// The position that the flags say to go on at.
fn asked_position(args: &SubArgs) -> Option<Position> {
    match args.from {
        Start::Resume(position) => Some(position),
        _ => args.after,
    }
}

/// The first place that the user wants, when no state says it. What lies between it and `place`, where
/// the server begins, is a gap.
fn first_place(args: &SubArgs, place: Position) -> Position {
    match (asked_position(args), args.last, args.from) {
        // A lease that exists begins where it stands, whatever was asked for.
        _ if args.lease.is_some() => place,
        (Some(position), _, _) => position,
        (None, None, Start::At(next)) => Position { next, ..place },
        _ => place,
    }
}

/// Why following ends.
#[derive(Debug)]
enum End {
    /// The topic was closed and everything is here, or everything that was wanted is.
    Done,
    /// It failed, or a signal came; what is here is still written.
    Because(Error),
    /// Nothing can be written any more.
    Unwritable(Error),
}

struct Follow {
    subscription: Subscription,
    intake: Intake,
    writer: Writer,
    /// The memory of a piece that was written.
    spare: Vec<u8>,
    args: SubArgs,
    what: String,
}

impl Follow {
    async fn all(&mut self, stop: &mut Stop) -> End {
        loop {
            self.feed_writer();
            if self.intake.is_complete() {
                return End::Done;
            }
            let receive = self.intake.pending() < AHEAD;
            tokio::select! {
                biased;
                error = stop.next() => return End::Because(error),
                written = self.writer.done() => match written {
                    Ok(work) => self.written(work),
                    Err(error) => return End::Unwritable(error),
                },
                event = self.subscription.next_batch(), if receive => {
                    let taken = take(&mut self.intake, &self.args, &self.what, event);
                    match taken {
                        Ok(false) => {}
                        Ok(true) => return End::Done,
                        Err(error) => return End::Because(error),
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

    /// A piece is written and recorded: what the lease kept for it can go.
    fn written(&mut self, work: Work) {
        if self.args.lease.is_some()
            && work.position.epoch == self.subscription.position().epoch
            && let Some(last) = work.position.next.checked_sub(1)
            && work.position.next > self.subscription.committed()
        {
            // It fails only for a record that was not taken, which this one was.
            let _ = self.subscription.commit_later(last);
        }
        self.spare = work.bytes;
    }

    /// Writes what is here, commits it, and says goodbye.
    async fn finish(mut self, end: End, signals: &mut Signals) -> Result {
        let mut failed = match end {
            End::Done => None,
            End::Because(error) => Some(error),
            End::Unwritable(error) => return Err(error),
        };
        // Whoever sent a signal or went away wants us gone: a pipe that nobody reads must not keep us, and a
        // second signal ends everything at once. What is not written is not recorded either.
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
            let goodbye = signals.unless(within(limit, self.subscription.end(false))).await?;
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

/// Does work for so long at most; `None` if that was too short.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<Option<T>> {
    Ok(tokio::time::timeout(limit, work).await.ok())
}

/// Takes one event in. `Ok(true)` is the end.
fn take(
    intake: &mut Intake,
    args: &SubArgs,
    what: &str,
    event: Option<Result<BatchEvent<'_>, ClientError>>,
) -> Result<bool> {
    match event {
        None => Ok(true),
        Some(Err(error)) => Err(failure(what, &error)),
        Some(Ok(BatchEvent::Records(batch))) => {
            let place = Position { epoch: batch.epoch(), next: batch.first() };
            if let Some(missing) = intake.missing_before(place, None) {
                tell(intake, args, &missing, place)?;
            }
            intake.records(batch.first(), Time(batch.time()).nanos(), batch.records());
            Ok(false)
        }
        Some(Ok(BatchEvent::Gap(gap))) => {
            let place = Position { epoch: gap.epoch, next: gap.next };
            let asked = asked_position(args).map(|position| position.epoch);
            if let Some(missing) = intake.missing_in(gap.reason, gap.first_missed, place, asked) {
                tell(intake, args, &missing, place)?;
            }
            Ok(false)
        }
        Some(Ok(BatchEvent::CaughtUp { .. })) => Ok(args.exit_at_end),
        Some(Ok(BatchEvent::Closed { reason, .. })) => closed(what, reason),
        // An event that a later version adds.
        Some(Ok(_)) => Ok(false),
    }
}

/// Something is missing: it is told, and passed over, unless the user wants to fail.
fn tell(intake: &mut Intake, args: &SubArgs, missing: &Missing, place: Position) -> Result {
    let what = format!("gap in `{}`", intake.topic());
    if args.on_gap == OnGap::Fail {
        return Err(Error::new(Exit::Gap, what, missing).hint("--on-gap report goes on behind it"));
    }
    say(&format!("{what}: {missing}"));
    intake.skip_to(place);
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

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "psa: {}", one_line(line));
}
