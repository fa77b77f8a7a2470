//! `psa sub`: a topic's records onto standard output or into a file.
//!
//! Three things happen at once: records are received and formatted, the piece before them is written
//! by the [writing thread](crate::writer), and signals are waited for. A piece that was written is
//! recorded in the state (by the thread) and then committed to the lease (here), in this order, so that
//! at every instant: committed <= recorded <= written. Dying between two of them repeats records to the
//! next run, which knows them by their offsets; it never loses one.

use crate::args::{OnGap, SubArgs};
use crate::config::Config;
use crate::connect::{self, failure};
use crate::error::{Error, Exit, Result, one_line};
use crate::format::Formatter;
use crate::intake::{Expected, Intake, Missing};
use crate::signals::Signals;
use crate::start::StartArg;
use crate::time::nanos_of;
use crate::units::human_count;
use crate::writer::{Sink, Work, Writer};
use psa::client::{
    BatchEvent, Client, ClientError, LeaseOptions, Place, SubscribeOptions, Subscription,
};
use psa::protocol::{CloseReason, Code, Start};
use std::future::Future;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// While the writer is busy, receiving goes on up to this many bytes.
const AHEAD: usize = 1 << 20;

/// After a signal, how long the writer and the last commit may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a lease's former holder may take to be noticed as gone.
const FORMER_LIFE: Duration = Duration::from_secs(1);

/// Follows a topic until it ends, enough came, or a signal ends it.
pub(crate) fn run(config: &Config, args: SubArgs) -> Result {
    connect::block_on(subscribe(config, args))
}

async fn subscribe(config: &Config, args: SubArgs) -> Result {
    let mut signals = Signals::listen()?;
    let sink = Sink::open(args.state.as_deref(), args.output.as_deref(), args.sync, &args.topic)?;
    let recorded =
        sink.position().map(|position| Expected { epoch: position.epoch, next: position.next });
    let topic = format!("subscribe to `{}`", one_line(&args.topic));
    let client =
        connect::builder(config, "sub")?.build().map_err(|error| failure(&topic, &error))?;
    let open =
        async { open(&client, &args, recorded).await.map_err(|error| failure(&topic, &error)) };
    let subscription = signals.unless(open).await?;
    let place = Expected { epoch: subscription.place().epoch, next: subscription.place().next };
    let begin = recorded.unwrap_or_else(|| first_place(&args, place));
    if args.verbose {
        say(&format!(
            "{}: begins at offset {} of epoch {}",
            one_line(&args.topic),
            begin.next,
            crate::format::epoch(begin.epoch)
        ));
    }
    let formatter = Formatter::new(args.format, &args.topic);
    let mut follow = Follow {
        intake: Intake::new(&args.topic, formatter, begin, args.count, recorded.is_none()),
        subscription,
        writer: Writer::spawn(sink),
        spare: Vec::new(),
        args,
        what: topic,
    };
    let outcome = follow.all(&mut signals).await;
    let taken = follow.intake.taken();
    let verbose = follow.args.verbose;
    let ended = follow.finish(outcome, &mut signals).await;
    if verbose {
        say(&format!("{} records", human_count(taken)));
    }
    ended
}

/// Subscribes. A lease that is held may be our own, from a life that ended a moment ago and whose
/// connection the server has not given up yet: that is waited for, a little.
async fn open(
    client: &Client,
    args: &SubArgs,
    recorded: Option<Expected>,
) -> Result<Subscription, ClientError> {
    let until = Instant::now() + FORMER_LIFE;
    loop {
        match client.subscribe(&args.topic, options(args, recorded)).await {
            Err(error) if error.code() == Some(Code::LeaseHeld) && Instant::now() < until => {
                tokio::time::sleep(FORMER_LIFE / 20).await;
            }
            made => return made,
        }
    }
}

/// Where to begin and how: the state wins over the flags.
fn options(args: &SubArgs, recorded: Option<Expected>) -> SubscribeOptions {
    let start = match recorded {
        // Whether the epoch is the same is seen afterwards, too.
        Some(Expected { epoch, next }) => Place { epoch, next }.start(),
        None => match (args.after, args.last, args.from) {
            (Some((epoch, offset)), _, _) => Start::After { epoch, offset },
            (None, Some(count), _) => Start::Last(count),
            (None, None, StartArg::Earliest) => Start::Earliest,
            (None, None, StartArg::Next) => Start::Next,
            (None, None, StartArg::Offset(offset)) => Start::At(offset),
            (None, None, StartArg::Since(nanos)) => Start::Since(nanos),
        },
    };
    let mut options =
        SubscribeOptions::new(start).caught_up(args.exit_at_end).give_up_after(args.reconnect);
    if let Some(name) = &args.lease {
        options = options.lease(LeaseOptions::new(name, args.lease_ttl).takeover(args.take_over));
    }
    options
}

/// The first place that the user wants, when no state says it. What lies between it and `place`, where
/// the server begins, is a gap.
fn first_place(args: &SubArgs, place: Expected) -> Expected {
    match (args.after, args.last, args.from) {
        // A lease that exists begins where it stands, whatever was asked for.
        _ if args.lease.is_some() => place,
        (Some((epoch, offset)), _, _) => Expected { epoch, next: offset.saturating_add(1) },
        (None, None, StartArg::Offset(offset)) => Expected { epoch: place.epoch, next: offset },
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
    async fn all(&mut self, signals: &mut Signals) -> End {
        loop {
            self.feed_writer();
            if self.intake.is_complete() {
                return End::Done;
            }
            let receive = self.intake.pending() < AHEAD;
            tokio::select! {
                biased;
                exit = signals.next() => return End::Because(Error::quiet(exit)),
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
            && work.epoch == self.subscription.place().epoch
            && let Some(last) = work.next.checked_sub(1)
            && work.next > self.subscription.committed()
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
        // Whoever sent a signal wants us gone: a pipe that nobody reads must not keep us, and a second
        // signal ends everything at once. What is not written is not recorded either.
        let limit = match &failed {
            Some(error) if matches!(error.exit(), Exit::Signal(_)) => PATIENCE,
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
            let place = Expected { epoch: batch.epoch(), next: batch.first() };
            if let Some(missing) = intake.missing_before(place, None) {
                tell(intake, args, &missing, place)?;
            }
            intake.records(batch.first(), nanos_of(batch.time()), batch.records());
            Ok(false)
        }
        Some(Ok(BatchEvent::Gap(gap))) => {
            let place = Expected { epoch: gap.epoch, next: gap.next };
            let asked = args.after.map(|(epoch, _)| epoch);
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
fn tell(intake: &mut Intake, args: &SubArgs, missing: &Missing, place: Expected) -> Result {
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
