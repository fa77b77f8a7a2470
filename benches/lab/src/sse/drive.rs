//! One run: makes a stream, lets clients follow it, appends, and says what it took. A run's time goes
//! from the first append's first byte to the last record that a client read.

use super::cells::{Cell, Kind};
use super::publisher::{Publisher, ask};
use super::rival::Rival;
use super::stream::Events;
use crate::compare::drive::{Outcome, sum_up};
use crate::compare::plain::Plain;
use crate::compare::process::Process;
use psa_cli::bench::facts;
use psa_cli::bench::latency::{Clock, Times};
use psa_cli::bench::pump::{Pace, Window};
use psa_cli::bench::readers::{Readers, Subscriber};
use psa_cli::bench::run::Watch;
use psa_cli::bench::verify::Sink;
use psa_cli::error::{Error, Exit, Result};
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
    /// Records of one run.
    records: u64,
}

/// What a client does with records beside checking them.
enum Ear {
    Nothing,
    Clock(Clock),
}

impl Sink for Ear {
    fn records(&mut self, bytes: &[u8], stride: usize) {
        if let Ear::Clock(clock) = self {
            clock.records(bytes, stride);
        }
    }
}

impl<'a> Contender<'a> {
    pub(crate) fn new(rival: Rival, cell: Cell, folder: &'a Path, threads: usize) -> Self {
        Contender { rival, cell, folder, threads, server: None, streams: 0, records: 1 }
    }

    /// Processor time of its server so far, in seconds.
    pub(crate) fn server_cpu(&self) -> f64 {
        self.server.as_ref().and_then(Process::usage).map_or(0.0, |usage| usage.cpu)
    }

    /// Whatever happened to its server: the next run gets another.
    pub(crate) fn restart(&mut self) {
        self.server = None;
    }

    /// Warms it up and finds out how many records fill a run of so many seconds.
    pub(crate) fn warm_up(&mut self, seconds: f64) -> Result {
        let title = format!("{}, {}: warming up", self.cell.name(), self.rival.name());
        if let Kind::Latency { rate, seconds } = self.cell.kind {
            self.records = (rate * seconds / 4.0).ceil() as u64;
            self.run(&title)?;
            self.records = (rate * seconds).ceil() as u64;
            return Ok(());
        }
        // First a guess, then twice from what was seen.
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
        let (stream, Cell { clients, size, kind }) = (format!("b{}", self.streams), self.cell);
        let server = self.server.as_ref().ok_or_else(|| Error::failed(title, "no server"))?;
        let address = server.address();
        ask(self.rival, address, "PUT", &stream)?;
        let (base, times, late) = (Instant::now(), Times::new()?, Times::new()?);
        let mut all = Vec::with_capacity(clients);
        for _ in 0..clients {
            let ear = match kind {
                Kind::Fanout { .. } => Ear::Nothing,
                Kind::Latency { .. } => Ear::Clock(Clock { base, times: times.clone() }),
            };
            let events = Events::new(self.rival.form(), size, self.records);
            all.push(follow(address, &self.rival.follow(&stream), events, ear)?);
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
            pace: match kind {
                Kind::Fanout { .. } => None,
                Kind::Latency { rate, .. } => Some(Pace { rate, base, late: late.clone() }),
            },
            window: match kind {
                Kind::Fanout { ahead, .. } => Some(Window {
                    delivered: readers.counter(),
                    readers: clients as u64,
                    records: ahead * batch as u64 * clients as u64,
                }),
                Kind::Latency { .. } => None,
            },
        };
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let publishing = {
            let (sent, stop) = (sent.clone(), stop.clone());
            std::thread::spawn(move || publisher.run(&sent, &stop))
        };
        let mut watch = Watch::new(title);
        let watched = loop {
            if readers.are_done() {
                break Ok(());
            }
            // Readers wait for records that never come if their publisher fails.
            if publishing.is_finished() && sent.load(Ordering::Relaxed) < self.records {
                break Ok(());
            }
            if let Err(error) = watch.look(&readers, &sent) {
                break Err(error);
            }
        };
        // Clients that were cut off end before the publisher does.
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
        outcome.latency = publisher_latency(kind, &times, &late);
        Ok(outcome)
    }
}

fn publisher_latency(
    kind: Kind,
    times: &Times,
    late: &Times,
) -> Option<(serde_json::Value, serde_json::Value)> {
    matches!(kind, Kind::Latency { .. }).then(|| (times.describe(), late.describe()))
}

/// Begins to follow: asks, and reads the answer's head.
fn follow(
    address: SocketAddr,
    path: &str,
    verifier: Events,
    sink: Ear,
) -> Result<Subscriber<Ear, Events>> {
    let mut plain = Plain::connect(address)?;
    let asked =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    plain.send(asked.as_bytes())?;
    let status = plain.line()?;
    let mut in_pieces = false;
    loop {
        let line = plain.line()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        in_pieces |= line.replace(' ', "") == "transfer-encoding:chunked";
    }
    if !status.starts_with("HTTP/1.1 200") || !in_pieces {
        let why = format!("it answered `{status}`");
        return Err(Error::new(Exit::Refused, format!("GET {path}"), why));
    }
    let (stream, input) = plain.into_parts()?;
    Ok(Subscriber { stream, input, verifier, sink, hold: None, resume: None })
}
