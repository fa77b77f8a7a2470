//! `psa bench idle`: what idle subscribers cost, and how fast one record reaches all of them.
//!
//! The subscribers live in a process of their own (this program again, as `psa bench idle-subscribers`), so
//! that their descriptors and memory are not counted with the server's or the benchmark's. The child reports
//! on its standard output: first `ready`; then one line for each record that all subscribers have received,
//! with the nanoseconds from its sending to its last delivery; at the end, the totals.

use crate::args::{IdleArgs, IdleSubscribersArgs};
use crate::error::{Error, Exit, Result, describe_io};
use crate::facts::{self, Usage};
use crate::readers::Readers;
use crate::report::{Report, Spread};
use crate::rig::{Rig, subscriber};
use crate::server::OwnServer;
use crate::source::{EncodedBatch, Frame};
use crate::verify::{NUMBER, Shape, Sink, Tally};
use crate::wire::{Target, Wire};
use psa::protocol::{Overflow, Retention, Settings, TopicName};
use psa::words::Time;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The size of a record in bytes: its number, and the time at which it was sent.
const SIZE: usize = 16;
/// How many subscribers connect before the measurement, so that one-time allocations (thread buffers, tables,
/// the topic) do not count.
const WARM: usize = 40;
/// How long to wait before the server's memory is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// Opens idle subscribers and reports what they cost.
pub(crate) fn idle(args: &IdleArgs) -> Result {
    let common = &args.common;
    let mut rig = Rig::new(common, &[])?;
    let settings = Settings {
        overflow: Some(Overflow::Block),
        retention: Some(Retention::Nothing),
        ..Settings::default()
    };
    let (warm, topic) = (rig.topic(settings)?, rig.topic(settings)?);
    let warming = SubscriberProcess::start(&rig.target, &warm, WARM)?;
    std::thread::sleep(SETTLE);
    let usage = || rig.own.as_ref().and_then(OwnServer::usage);
    let before = usage();
    let mut idle = SubscriberProcess::start(&rig.target, &topic, args.subs)?;
    std::thread::sleep(SETTLE);
    let after = usage();
    let mut publisher = Wire::connect(&rig.target)?;
    let mut frame = Frame::new(&topic, 1, SIZE)?;
    let mut wakes = Spread::default();
    let runs = common.runs(10);
    for number in 0..u64::from(runs) {
        frame.number(number);
        frame.stamp(Time(SystemTime::now()).nanos());
        publisher.send(frame.bytes())?;
        publisher.reply(|_| ())?;
        wakes.push(idle.number()? as f64 / 1e6);
    }
    let end = usage();
    rig.close(&topic)?;
    rig.close(&warm)?;
    let tally = idle.end(u64::from(runs))?;
    warming.end(0)?;
    let mut report = Report::new("idle", args.describe());
    report.row("idle subscribers", crate::units::human_count(args.subs as u64));
    if let Some((before, after)) = before.zip(after) {
        let each = after.rss.saturating_sub(before.rss) as f64 / args.subs as f64;
        report.set("bytes_per_subscriber", each);
        report.set("server_rss_before_bytes", before.rss);
        report.set("server_rss_after_bytes", after.rss);
        report.row("the server's memory for each", format!("{each:.0} bytes"));
    }
    report.spread("wake_all_ms", "one record reaches all in", &wakes, |ms| format!("{ms:.2} ms"));
    report.set("subscribers", args.subs);
    report.set("record_bytes", SIZE);
    report.set("records", runs);
    report.set("seconds", json!(wakes.median().map(|ms| ms / 1e3)));
    report.set("deliveries_per_s", json!(wakes.median().map(|ms| args.subs as f64 / (ms / 1e3))));
    report.tally(&tally);
    let used = end.zip(after).map(|(end, after)| Usage { cpu: end.cpu - after.cpu, ..end });
    report.used(used, facts::own_cpu().unwrap_or(0.0), tally.records);
    report.print(common.json)
}

/// The process that holds the subscribers.
struct SubscriberProcess {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl SubscriberProcess {
    /// Starts the process and waits until all its subscribers have subscribed.
    fn start(target: &Target, topic: &str, subs: usize) -> Result<SubscriberProcess> {
        let fail = |error: &std::io::Error| Error::failed("open subscribers", describe_io(error));
        let program = std::env::current_exe().map_err(|error| fail(&error))?;
        let mut command = Command::new(program);
        command.args(["bench", "idle-subscribers", "--server", &target.address, "--topic", topic]);
        command.args(["--subs", &subs.to_string()]);
        // The token that this process has, wherever it came from, and no second source of one.
        command.env_remove("PSA_TOKEN_FILE").env("PSA_TOKEN", &target.token);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| fail(&error))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(Error::failed("open subscribers", "it has no output"));
        };
        let mut process = SubscriberProcess { child, lines: BufReader::new(stdout) };
        match process.line()?.as_str() {
            "ready" => Ok(process),
            line => Err(Error::failed("open subscribers", format!("it said `{line}`"))),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Err(Error::new(Exit::Failed, "the subscribers' process", "it ended early")),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(Error::failed("the subscribers' process", describe_io(&error))),
        }
    }

    fn number(&mut self) -> Result<u64> {
        let line = self.line()?;
        line.parse().map_err(|_| Error::failed("the subscribers' process", line))
    }

    /// Reads the totals of all subscribers, after the topic was closed.
    fn end(mut self, records: u64) -> Result<Tally> {
        let mut figure = || self.number();
        let (subscribers, mut tally) = (figure()?, Tally::default());
        (tally.records, tally.lost) = (figure()?, figure()?);
        (tally.duplicated, tally.corrupt) = (figure()?, figure()?);
        tally.lost += (subscribers * records).saturating_sub(tally.records + tally.lost);
        Ok(tally)
    }
}

impl Drop for SubscriberProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts the deliveries of all subscribers, and prints a line whenever all of them have received a record.
#[derive(Clone, Debug)]
struct WakeCounter {
    all: u64,
    got: Arc<AtomicU64>,
    longest: Arc<AtomicU64>,
}

impl Sink for WakeCounter {
    fn records(&mut self, bytes: &[u8], stride: usize) {
        let now = Time(SystemTime::now()).nanos();
        for record in bytes.chunks(stride) {
            let Some(stamp) = record[NUMBER..].first_chunk::<8>() else { continue };
            let took = now.saturating_sub(u64::from_le_bytes(*stamp));
            self.longest.fetch_max(took, Ordering::AcqRel);
            // The next record is sent only after the line for this one was read.
            if (self.got.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(self.all) {
                let longest = self.longest.swap(0, Ordering::AcqRel);
                // A failure is ignored: a parent that exits normally kills this process.
                let _ = crate::print(format!("{longest}\n").as_bytes());
            }
        }
    }
}

/// The child process: opens the subscribers and reports as the module's documentation says.
pub(crate) fn subscribers(target: &Target, args: &IdleSubscribersArgs) -> Result {
    let topic = TopicName::new(&args.topic).map_err(|error| Error::failed("topic", error))?;
    let counter =
        WakeCounter { all: args.subs as u64, got: Arc::default(), longest: Arc::default() };
    let mut all = Vec::with_capacity(args.subs);
    for _ in 0..args.subs {
        all.push(subscriber(target, topic, Shape::log(SIZE), counter.clone(), None, false)?);
    }
    crate::print(b"ready\n")?;
    let finished = Readers::start(all, args.threads).join()?;
    let mut tally = Tally::default();
    finished.iter().for_each(|one| tally.add(&one.tally));
    let figures =
        [finished.len() as u64, tally.records, tally.lost, tally.duplicated, tally.corrupt];
    crate::print(figures.map(|figure| format!("{figure}\n")).concat().as_bytes())
}
