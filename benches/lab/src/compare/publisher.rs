//! A publisher of a rival: the same loop as `psa`'s ([`Pump`]), and a thread that counts the answers of
//! those that answer.
//!
//! Redis answers each `PUBLISH` with how many subscribers it went to, which is checked, and each `XADD`
//! with an id; NATS answers nothing, so a ping after the last message tells when it has been taken.

use super::peer::{CONNECT, Messages, Peer};
use super::plain::Plain;
use super::rival::Rival;
use psa_cli::bench::pump::Pump;
use psa_cli::bench::source::{Amount, Pace, Published, Window};
use psa_cli::bench::wire::lost;
use psa_cli::error::{Error, Exit, Result};
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What to publish.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    pub(crate) rival: Rival,
    pub(crate) address: SocketAddr,
    pub(crate) topic: String,
    pub(crate) size: usize,
    pub(crate) batch: usize,
    pub(crate) records: u64,
    pub(crate) pace: Option<Pace>,
    pub(crate) window: Option<Window>,
    /// To how many each message must go, where that is told.
    pub(crate) receivers: Option<u64>,
}

impl Publisher {
    /// One for this server.
    pub(crate) fn new(peer: &Peer, topic: &str, size: usize, batch: usize, records: u64) -> Self {
        Publisher {
            rival: peer.rival,
            address: peer.address(),
            topic: topic.to_owned(),
            size,
            batch,
            records,
            pace: None,
            window: None,
            receivers: None,
        }
    }

    /// Publishes all of it and waits until the server has taken it. `published` shows how far it is.
    pub(crate) fn run(&self, published: &Arc<AtomicU64>) -> Result<Published> {
        let mut plain = Plain::connect(self.address)?;
        match self.rival {
            Rival::Nats | Rival::Jetstream => {
                plain.expect(b"\r\n")?;
                plain.send(format!("{CONNECT}PING\r\n").as_bytes())?;
                plain.expect(b"PONG\r\n")?;
            }
            Rival::Relay => {
                plain.send(b"p")?;
                plain.expect(b"k")?;
            }
            _ => {}
        }
        let answers = match self.rival {
            Rival::Redis => Some((1, self.receivers)),
            Rival::Streams => Some((2, None)),
            _ => None,
        };
        let counting = answers.map(|(lines, receivers)| {
            let stream = plain.stream.try_clone();
            let lines = lines * self.records;
            let published = published.clone();
            std::thread::spawn(move || {
                count(stream.map_err(|error| lost(&error))?, lines, receivers, &published)
            })
        });
        let pump = Pump {
            batch: self.batch,
            amount: Amount::Records(self.records),
            pace: self.pace.as_ref(),
            window: self.window.as_ref(),
        };
        let make = |count| Ok(Messages::new(self.rival, &self.topic, count, self.size));
        let began = Instant::now();
        let sent = if counting.is_some() { Arc::default() } else { published.clone() };
        let (written, records) = pump.run(make, &mut plain.stream, &sent, began);
        if written.is_err() {
            let _ = plain.stream.shutdown(Shutdown::Both);
        }
        let counted = counting.map(|thread| {
            thread.join().map_err(|_| Error::failed("the publisher", "it panicked"))?
        });
        // What the server said explains a connection that broke.
        counted.transpose()?;
        written?;
        if matches!(self.rival, Rival::Nats | Rival::Jetstream) {
            plain.send(b"PING\r\n")?;
            plain.expect(b"PONG\r\n")?;
        }
        let took = began.elapsed();
        let longest_wait = Duration::ZERO;
        Ok(Published { records, began, took, longest_wait, refused: 0 })
    }
}

/// Counts so many lines of answers and looks for errors among them.
fn count(
    mut stream: TcpStream,
    lines: u64,
    receivers: Option<u64>,
    published: &AtomicU64,
) -> Result {
    let mut buffer = vec![0; 64 << 10];
    let (mut seen, mut kept) = (0, 0);
    let receivers = receivers.map(|receivers| format!(":{receivers}\r").into_bytes());
    while seen < lines {
        let read = match stream.read(&mut buffer[kept..]) {
            Ok(0) => return Err(lost(&std::io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) => return Err(lost(&error)),
        };
        let bytes = &buffer[..kept + read];
        let mut at = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[at..end];
            if line.starts_with(b"-") || receivers.as_ref().is_some_and(|known| *known != line) {
                let why = format!("it answered `{}`", line.escape_ascii());
                return Err(Error::new(Exit::Refused, "publish", why));
            }
            (at, seen) = (end + 1, seen + 1);
        }
        published.store(seen, Ordering::Relaxed);
        kept = bytes.len() - at;
        buffer.copy_within(at..at + kept, 0);
    }
    Ok(())
}
