//! A publisher for rivals: the same loop as for `psa` ([`Pump`]), and a thread that counts the replies of servers
//! that send any.
//!
//! Redis replies to each `PUBLISH` with the number of subscribers it was sent to, which is checked, and to each
//! `XADD` with an id. NATS sends no replies, so a ping after the last message shows when it was accepted.

use super::connection::Connection;
use super::peer::{CONNECT, Messages, Peer};
use super::rival::Rival;
use psa_load::error::{Error, Exit, Result};
use psa_load::pump::Pump;
use psa_load::source::{Amount, Pace, Published, Window};
use psa_load::wire::lost;
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
    /// The number of subscribers that each message must be sent to, if the server reports it.
    pub(crate) receivers: Option<u64>,
}

impl Publisher {
    /// A publisher for this server.
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

    /// Publishes everything and waits until the server has accepted it. `published` is updated with the progress.
    pub(crate) fn run(&self, published: &Arc<AtomicU64>) -> Result<Published> {
        let mut connection = Connection::connect(self.address)?;
        match self.rival {
            Rival::Nats | Rival::Jetstream => {
                connection.expect(b"\r\n")?;
                connection.send(format!("{CONNECT}PING\r\n").as_bytes())?;
                connection.expect(b"PONG\r\n")?;
            }
            Rival::Relay => {
                connection.send(b"p")?;
                connection.expect(b"k")?;
            }
            _ => {}
        }
        let answers = match self.rival {
            Rival::Redis => Some((1, self.receivers)),
            Rival::Streams => Some((2, None)),
            _ => None,
        };
        let counting = answers.map(|(lines, receivers)| {
            let stream = connection.stream.try_clone();
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
        let (written, records) = pump.run(make, &mut connection.stream, &sent, began);
        if written.is_err() {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        let counted = counting.map(|thread| {
            thread.join().map_err(|_| Error::failed("the publisher", "it panicked"))?
        });
        // If the connection broke, the server's last reply explains why, so report the reading side first.
        counted.transpose()?;
        written?;
        if matches!(self.rival, Rival::Nats | Rival::Jetstream) {
            connection.send(b"PING\r\n")?;
            connection.expect(b"PONG\r\n")?;
        }
        let took = began.elapsed();
        let longest_wait = Duration::ZERO;
        Ok(Published { records, began, took, longest_wait, refused: 0 })
    }
}

/// Reads this many lines of replies and checks them for errors.
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
