//! One run: creates a stream, connects the clients, appends, and returns the figures. The time of a run goes from
//! the first byte of the first append to the last record that a client reads.

use super::cells::{Cell, Measure};
use super::publisher::{Publisher, ask};
use super::rival::Rival;
use super::stream::EventStream;
use crate::compare::connection::Connection;
use crate::compare::drive::{Outcome, sum_up};
use crate::compare::process::Process;
use psa_load::error::{Error, Exit, Result};
use psa_load::facts;
use psa_load::latency::{LatencySink, Times};
use psa_load::pump::{Pace, Window};
use psa_load::readers::{Readers, Subscriber};
use psa_load::run::ProgressWatch;
use psa_load::verify::Sink;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// A contender in a cell: its server, which stays for all rounds.
pub(crate) struct Contender<'a> {
    pub(crate) rival: Rival,
    cell: Cell,
    folder: &'a Path,
    threads: usize,
    server: Option<Process>,
    streams: u32,
    /// The number of records in one run.
    records: u64,
}

/// What a client does with records after the check.
enum RecordSink {
    Ignore,
    Latency(LatencySink),
}

impl Sink for RecordSink {
    fn records(&mut self, bytes: &[u8], stride: usize) {
        if let RecordSink::Latency(latency) = self {
            latency.records(bytes, stride);
        }
    }
}

impl<'a> Contender<'a> {
    pub(crate) fn new(rival: Rival, cell: Cell, folder: &'a Path, threads: usize) -> Self {
        Contender { rival, cell, folder, threads, server: None, streams: 0, records: 1 }
    }

    /// The processor time that its server has used so far, in seconds.
    pub(crate) fn server_cpu(&self) -> f64 {
        self.server.as_ref().and_then(Process::usage).map_or(0.0, |usage| usage.cpu)
    }

    /// Drops the server after a failure: the next run starts a new one.
    pub(crate) fn restart(&mut self) {
        self.server = None;
    }

    /// Warms the server up and finds out how many records fill a run of this many seconds.
    pub(crate) fn warm_up(&mut self, seconds: f64) -> Result {
        let title = format!("{}, {}: warming up", self.cell.name(), self.rival.name());
        if let Measure::Latency { rate, seconds } = self.cell.measure {
            self.records = (rate * seconds / 4.0).ceil() as u64;
            self.run(&title)?;
            self.records = (rate * seconds).ceil() as u64;
            return Ok(());
        }
        // Start with a guess, then adjust twice to the measured speed.
        self.records = 4 * self.cell.batch() as u64;
        for _ in 0..3 {
            let outcome = self.run(&title)?;
            let each = outcome.records as f64 / outcome.seconds;
            self.records = ((each * seconds) as u64).max(2 * self.cell.batch() as u64);
            if outcome.seconds > 0.4 * seconds {
                break;
            }
        }
        Ok(())
    }

    /// Measures once.
    pub(crate) fn run(&mut self, title: &str) -> Result<Outcome> {
        if self.server.is_none() {
            self.server = Some(self.rival.start(self.folder)?);
        }
        self.streams += 1;
        let (stream, Cell { clients, size, measure }) = (format!("b{}", self.streams), self.cell);
        let server = self.server.as_ref().ok_or_else(|| Error::failed(title, "no server"))?;
        let address = server.address();
        ask(self.rival, address, "PUT", &stream)?;
        let (base, times, late) = (Instant::now(), Times::new()?, Times::new()?);
        let mut all = Vec::with_capacity(clients);
        for _ in 0..clients {
            let sink = match measure {
                Measure::Fanout { .. } => RecordSink::Ignore,
                Measure::Latency { .. } => {
                    RecordSink::Latency(LatencySink { base, times: times.clone() })
                }
            };
            let events = EventStream::new(self.rival.format(), size, self.records);
            all.push(follow(address, &self.rival.follow(&stream), events, sink)?);
        }
        let (before, client) = (server.usage(), facts::own_cpu());
        let readers = Readers::start(all, self.threads);
        let batch = self.cell.batch();
        let publisher = Publisher {
            rival: self.rival,
            address,
            stream: stream.clone(),
            size,
            batch,
            records: self.records,
            pace: match measure {
                Measure::Fanout { .. } => None,
                Measure::Latency { rate, .. } => Some(Pace { rate, base, late: late.clone() }),
            },
            window: match measure {
                Measure::Fanout { ahead, .. } => Some(Window {
                    delivered: readers.counter(),
                    readers: clients as u64,
                    records: ahead * batch as u64 * clients as u64,
                }),
                Measure::Latency { .. } => None,
            },
        };
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let publishing = {
            let (sent, stop) = (sent.clone(), stop.clone());
            std::thread::spawn(move || publisher.run(&sent, &stop))
        };
        let mut watch = ProgressWatch::new(title);
        let watched = loop {
            if readers.are_done() {
                break Ok(());
            }
            // If the publisher fails, the readers wait for records that never arrive.
            if publishing.is_finished() && sent.load(Ordering::Relaxed) < self.records {
                break Ok(());
            }
            if let Err(error) = watch.look(&readers, &sent) {
                break Err(error);
            }
        };
        // Stop the publisher if the clients ended first because they were disconnected.
        stop.store(true, Ordering::Relaxed);
        watch.end();
        let began = publishing.join();
        let began = began.map_err(|_| Error::failed("the publisher", "it panicked"))??;
        watched?;
        let finished = readers.join()?;
        let now = facts::own_cpu();
        let after = server.usage();
        ask(self.rival, address, "DELETE", &stream)?;
        let mut outcome = sum_up(&finished, self.records, began);
        outcome.client_cpu = now.zip(client).map_or(0.0, |(after, before)| after - before);
        outcome.server_cpu =
            after.zip(before).map(|(after, before)| (after.cpu - before.cpu).max(0.0));
        outcome.memory = after.map(|after| (after.rss, after.peak_rss));
        outcome.latency = publisher_latency(measure, &times, &late);
        Ok(outcome)
    }
}

fn publisher_latency(
    measure: Measure,
    times: &Times,
    late: &Times,
) -> Option<(serde_json::Value, serde_json::Value)> {
    matches!(measure, Measure::Latency { .. }).then(|| (times.describe(), late.describe()))
}

/// Starts to follow a stream: sends the request and reads the head of the response.
fn follow(
    address: SocketAddr,
    path: &str,
    verifier: EventStream,
    sink: RecordSink,
) -> Result<Subscriber<RecordSink, EventStream>> {
    let mut connection = Connection::connect(address)?;
    let asked =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    connection.send(asked.as_bytes())?;
    let status = connection.line()?;
    let mut is_chunked = false;
    loop {
        let line = connection.line()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        is_chunked |= line.replace(' ', "") == "transfer-encoding:chunked";
    }
    if !status.starts_with("HTTP/1.1 200") || !is_chunked {
        let why = format!("it answered `{status}`");
        return Err(Error::new(Exit::Refused, format!("GET {path}"), why));
    }
    let (stream, input) = connection.into_parts()?;
    Ok(Subscriber { stream, input, verifier, sink, hold: None, resume: None })
}
