//! A rival's running server, and the thinnest possible clients for it: a subscriber is a socket after its
//! handshake plus a [`Checker`]; a publisher writes one batch of pre-encoded messages over and over.
//!
//! Every server is started with the settings that the comparison needs and no others: a port of its own,
//! nothing saved, and limits for slow consumers raised so that nothing is dropped. [`Limits::Usual`] leaves
//! these limits at their defaults, for the cell that measures what then happens to a stalled subscriber.

use super::check::{Checker, LineCheck, Units};
use super::connection::Connection;
use super::process::Process;
use super::rival::Rival;
use super::streams::Entries;
use psa_load::error::{Error, Result};
use psa_load::facts::Usage;
use psa_load::readers::Subscriber;
use psa_load::source::EncodedBatch;
use psa_load::verify::{NUMBER, Sink, write_number};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A server's limits for slow consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limits {
    /// The server keeps everything that slow consumers have not read.
    Raised,
    /// The server's defaults.
    Usual,
}

/// The most entries in one reply to `XREAD`.
const BLOCK: usize = 4096;

/// How long JetStream may take to store the messages it was sent.
const SETTLE: Duration = Duration::from_secs(60);

/// A rival's server.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) rival: Rival,
    process: Process,
    /// How JetStream is told to store a stream, as JSON.
    storage: &'static str,
}

/// A stream in memory.
const MEMORY: &str = r#""storage":"memory""#;
/// A stream in files, which takes messages in every way there is.
const FILES: &str = r#""storage":"file","allow_atomic":true,"allow_batched":true"#;

impl Peer {
    /// Starts the server.
    pub(crate) fn start(rival: Rival, limits: Limits) -> Result<Peer> {
        let process = Process::start(&program(rival)?, |command, port, folder| match rival {
            Rival::Nats | Rival::Jetstream => nats(command, port, folder, rival, limits),
            Rival::Redis | Rival::Streams => redis(command, port, folder, limits),
            Rival::Relay | Rival::Psa | Rival::Ceiling => {
                command.args(["relay", "--port", &port.to_string()]);
                Ok(())
            }
        })?;
        Ok(Peer { rival, process, storage: MEMORY })
    }

    /// Starts a server that stores in files, in a folder of its own in `place`. If `forced`, it acknowledges what was forced
    /// to the disk; otherwise what was handed to the system, as it does by default.
    pub(crate) fn stored(rival: Rival, forced: bool, place: &Path) -> Result<Peer> {
        let configure = |command: &mut Command, port, folder: &Path| match rival {
            Rival::Jetstream => jetstream_files(command, port, folder, forced),
            _ => redis_file(command, port, folder, forced),
        };
        let process = Process::start_in(place, &program(rival)?, configure)?;
        Ok(Peer { rival, process, storage: FILES })
    }

    /// The ID of the server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How many records of a topic are stored.
    pub(crate) fn count(&self, topic: &str) -> Result<u64> {
        let number = |text: &str| {
            let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            digits.parse().map_err(|_| Error::failed(topic, format!("it said `{text}`")))
        };
        if self.rival == Rival::Jetstream {
            let info = self.ask(&format!("STREAM.INFO.{topic}"), "")?;
            return number(info.split_once("\"messages\":").unwrap_or_default().1);
        }
        let mut connection = Connection::connect(self.address())?;
        let ask = format!("*2\r\n$4\r\nXLEN\r\n${}\r\n{topic}\r\n", topic.len());
        connection.send(ask.as_bytes())?;
        connection.expect(b":")?;
        number(&connection.line()?)
    }

    /// The resources that the server has used so far.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.process.usage()
    }

    /// The address on which the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// Creates the topic, if the server must know it in advance.
    pub(crate) fn open(&self, topic: &str) -> Result {
        if self.rival != Rival::Jetstream {
            return Ok(());
        }
        let storage = self.storage;
        let config = format!(
            r#"{{"name":"{topic}","subjects":["{topic}"],{storage},"retention":"limits","discard":"old","num_replicas":1}}"#
        );
        self.ask(&format!("STREAM.CREATE.{topic}"), &config).map(drop)
    }

    /// Waits until this many records are stored: JetStream accepts records before it stores them.
    pub(crate) fn settle(&self, topic: &str, records: u64) -> Result {
        if self.rival == Rival::Jetstream {
            let (began, stored) = (Instant::now(), format!("\"messages\":{records},"));
            while !self.ask(&format!("STREAM.INFO.{topic}"), "")?.contains(&stored) {
                if began.elapsed() > SETTLE {
                    return Err(Error::failed("JetStream", "it did not store what it was sent"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Removes the topic's data from the server.
    pub(crate) fn close(&self, topic: &str) -> Result {
        match self.rival {
            Rival::Jetstream => self.ask(&format!("STREAM.DELETE.{topic}"), "").map(drop),
            Rival::Streams => {
                let mut connection = Connection::connect(self.address())?;
                let delete = format!("*2\r\n$3\r\nDEL\r\n${}\r\n{topic}\r\n", topic.len());
                connection.send(delete.as_bytes())?;
                connection.expect(b":")
            }
            _ => Ok(()),
        }
    }

    /// Subscribes to a topic from its first record on.
    pub(crate) fn subscribe<S: Sink>(
        &self,
        topic: &str,
        size: usize,
        until: u64,
        sink: S,
    ) -> Result<Subscriber<S, Checker>> {
        let mut connection = Connection::connect(self.address())?;
        let verifier = match self.rival {
            Rival::Nats | Rival::Jetstream => {
                connection.expect(b"\r\n")?;
                let subject = if self.rival == Rival::Nats { topic } else { "catch.up" };
                connection.send(format!("{CONNECT}SUB {subject} 1\r\nPING\r\n").as_bytes())?;
                connection.expect(b"PONG\r\n")?;
                let prefix = format!("MSG {subject} 1 {size}\r\n").into_bytes();
                Checker::Units(Units::new(prefix, size, b"\r\n", LineCheck::Nats, until))
            }
            Rival::Redis => {
                let (length, name) = (topic.len(), topic);
                let bulk = format!("${length}\r\n{name}\r\n");
                connection.send(format!("*2\r\n$9\r\nSUBSCRIBE\r\n{bulk}").as_bytes())?;
                connection.expect(format!("*3\r\n$9\r\nsubscribe\r\n{bulk}:1\r\n").as_bytes())?;
                let prefix = format!("*3\r\n$7\r\nmessage\r\n{bulk}${size}\r\n").into_bytes();
                Checker::Units(Units::new(prefix, size, b"\r\n", LineCheck::Redis, until))
            }
            Rival::Streams => {
                let mut entries = Entries::new(topic, size, until, BLOCK);
                let mut first = Vec::new();
                entries.answer(&mut first);
                connection.send(&first)?;
                Checker::Entries(entries)
            }
            Rival::Relay | Rival::Psa | Rival::Ceiling => {
                connection.send(b"s")?;
                connection.expect(b"k")?;
                Checker::Units(Units::new(Vec::new(), size, b"", LineCheck::None, until))
            }
        };
        if self.rival == Rival::Jetstream {
            // From here on the server pushes all stored records, without acknowledgements.
            let config = format!(
                r#"{{"stream_name":"{topic}","config":{{"deliver_subject":"catch.up","deliver_policy":"all","ack_policy":"none","replay_policy":"instant"}}}}"#
            );
            self.ask(&format!("CONSUMER.CREATE.{topic}"), &config)?;
        }
        let (stream, input) = connection.into_parts()?;
        Ok(Subscriber { stream, input, verifier, sink, hold: None, resume: None })
    }

    /// Sends a request to the JetStream API and returns the reply.
    fn ask(&self, what: &str, payload: &str) -> Result<String> {
        let mut connection = Connection::connect(self.address())?;
        connection.expect(b"\r\n")?;
        let length = payload.len();
        let request =
            format!("{CONNECT}SUB answer 1\r\nPUB $JS.API.{what} answer {length}\r\n{payload}\r\n");
        connection.send(request.as_bytes())?;
        connection.expect(b"MSG answer 1 ")?;
        connection.expect(b"\r\n")?;
        let answer = connection.line()?;
        if answer.contains("\"error\"") {
            return Err(Error::failed(format!("JetStream's {what}"), answer));
        }
        Ok(answer)
    }
}

/// The line with which a NATS client introduces itself.
pub(crate) const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"0\",\"protocol\":1,\"headers\":false,\"echo\":true}\r\n";

/// The program of this rival's server: for the relay, this one.
fn program(rival: Rival) -> Result<PathBuf> {
    match rival.installed() {
        Ok(Some(program)) => Ok(program),
        Ok(None) => std::env::current_exe().map_err(|error| Error::failed("start a relay", error)),
        Err(missing) => Err(Error::failed("compare", missing)),
    }
}

/// Configures a NATS server with JetStream in files. By default it forces them to the disk every two minutes.
fn jetstream_files(
    command: &mut Command,
    port: u16,
    folder: &Path,
    forced: bool,
) -> io::Result<()> {
    let sync = if forced { "sync_interval: always, " } else { "" };
    // More batches may be open than the 50 that it allows by default.
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\nping_interval: \"1h\"\nmax_pending: 8589934592\n\
         write_deadline: \"1h\"\njetstream: {{ max_mem: 1073741824, max_file: 274877906944, \
         store_dir: \"jetstream\", {sync}\
         limits: {{ batch: {{ max_inflight_per_stream: 1000, max_inflight_total: 1000 }} }} }}\n"
    );
    std::fs::write(folder.join("nats.conf"), config)?;
    command.args(["-c", "nats.conf"]);
    Ok(())
}

/// Configures a Redis server with an append-only file, which is never written anew. By default it is forced to the disk
/// every second.
fn redis_file(command: &mut Command, port: u16, folder: &Path, forced: bool) -> io::Result<()> {
    let port = port.to_string();
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    command.args(["--appendfsync", if forced { "always" } else { "everysec" }]);
    command.args(["--auto-aof-rewrite-percentage", "0", "--maxclients", "15000", "--dir"]);
    command.arg(folder);
    Ok(())
}

/// Configures a NATS server. Raised limits are never reached.
fn nats(
    command: &mut Command,
    port: u16,
    folder: &Path,
    rival: Rival,
    limits: Limits,
) -> io::Result<()> {
    let mut config = format!("listen: \"127.0.0.1:{port}\"\nping_interval: \"1h\"\n");
    if limits == Limits::Raised {
        config.push_str("max_pending: 8589934592\nwrite_deadline: \"1h\"\n");
    }
    if rival == Rival::Jetstream {
        config.push_str(
            "jetstream: { max_mem: 4294967296, max_file: 0, store_dir: \"jetstream\" }\n",
        );
    }
    std::fs::write(folder.join("nats.conf"), config)?;
    command.args(["-c", "nats.conf"]);
    Ok(())
}

/// Configures a Redis server that saves nothing. With raised limits, the output buffer of a subscriber is unbounded.
fn redis(command: &mut Command, port: u16, folder: &Path, limits: Limits) -> io::Result<()> {
    let port = port.to_string();
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--maxclients", "15000", "--dir"]).arg(folder);
    if limits == Limits::Raised {
        command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
    }
    Ok(())
}

/// Messages in a rival's protocol, all of the same length.
#[derive(Debug)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// Bytes before each record.
    before: usize,
    size: usize,
    /// Bytes from one message to the next.
    stride: usize,
}

impl Messages {
    /// Encodes `count` messages with records of `size` bytes.
    pub(crate) fn new(rival: Rival, topic: &str, count: usize, size: usize) -> Messages {
        let length = topic.len();
        let (prefix, suffix) = match rival {
            Rival::Nats | Rival::Jetstream => (format!("PUB {topic} {size}\r\n"), "\r\n"),
            Rival::Redis => {
                (format!("*3\r\n$7\r\nPUBLISH\r\n${length}\r\n{topic}\r\n${size}\r\n"), "\r\n")
            }
            Rival::Streams => (
                format!(
                    "*5\r\n$4\r\nXADD\r\n${length}\r\n{topic}\r\n$1\r\n*\r\n$1\r\nd\r\n${size}\r\n"
                ),
                "\r\n",
            ),
            Rival::Relay | Rival::Psa | Rival::Ceiling => (String::new(), ""),
        };
        let (before, stride) = (prefix.len(), prefix.len() + size + suffix.len());
        let mut bytes = Vec::with_capacity(stride * count);
        for _ in 0..count {
            bytes.extend_from_slice(prefix.as_bytes());
            bytes.resize(bytes.len() + size, b'.');
            bytes.extend_from_slice(suffix.as_bytes());
        }
        Messages { bytes, before, size, stride }
    }

    fn records(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let (before, size) = (self.before, self.size);
        self.bytes.chunks_exact_mut(self.stride).map(move |message| &mut message[before..][..size])
    }
}

impl EncodedBatch for Messages {
    /// Nothing: these protocols have no request numbers.
    fn set_request(&mut self, _: u32) {}

    fn number(&mut self, first: u64) {
        for (number, record) in (first..).zip(self.records()) {
            write_number(record, number);
        }
    }

    fn stamp(&mut self, stamp: u64) {
        for record in self.records() {
            record[NUMBER..2 * NUMBER].copy_from_slice(&stamp.to_le_bytes());
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
