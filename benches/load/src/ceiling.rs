//! The machine's limit: the same bytes in the same chunks, written from one shared buffer to the same number
//! of loopback sockets, without a server, and read by the same readers.
//!
//! The buffer holds a few chunks with their headers, numbered from 0, and is sent over and over. It stays in
//! the processor's cache, which the records of a log may not. Each write passes the rest of one chunk, as the
//! server's writes do. The writing threads wait only for their sockets.

use crate::error::{Error, Result, describe_io};
use crate::facts;
use crate::readers::{Finished, Readers, Subscriber};
use crate::verify::{Shape, Verifier, write_number};
use psa::protocol::deliver_header;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Chunks in the shared buffer.
const CHUNKS: u64 = 4;

/// A measurement of the ceiling.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    /// The number of sockets.
    pub subscribers: usize,
    /// The size of a record in bytes.
    pub size: usize,
    /// Records in a chunk.
    pub chunk: u32,
    /// How many records to write to each subscriber, rounded up to whole chunks, or for how long to write.
    pub amount: crate::source::Amount,
    /// Threads that read.
    pub readers: usize,
    /// Threads that write.
    pub writers: usize,
}

/// The result of a measurement: what the machine can do.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Records delivered to all subscribers together.
    pub deliveries: u64,
    /// Seconds from the first write to the last read.
    pub seconds: f64,
    /// Processor time of both sides in seconds.
    pub cpu: f64,
    /// The part of that time that the writing threads used.
    pub writers_cpu: f64,
    /// Lost, duplicated and corrupt records.
    pub faults: u64,
}

impl Limit {
    /// Records delivered per second to all subscribers together.
    pub fn per_second(&self) -> f64 {
        self.deliveries as f64 / self.seconds
    }
}

impl Ceiling {
    /// Measures once.
    pub fn run(&self) -> Result<Limit> {
        let (near, far) = self.sockets().map_err(|error| fail(&error))?;
        let shape = Shape { size: self.size, cycle: CHUNKS * u64::from(self.chunk) };
        let subscriber = |stream| Subscriber {
            stream,
            input: Vec::new(),
            verifier: Verifier::new(shape, 0),
            sink: (),
            hold: None,
            resume: None,
        };
        let readers = Readers::start(far.into_iter().map(subscriber).collect(), self.readers);
        let buffer: Arc<Vec<u8>> = Arc::new(self.buffer());
        let mut shares: Vec<Vec<TcpStream>> = Vec::new();
        shares.resize_with(self.writers.clamp(1, self.subscribers), Vec::new);
        let writers = shares.len();
        for (i, stream) in near.into_iter().enumerate() {
            shares[i % writers].push(stream);
        }
        let (began, cpu) = (Instant::now(), facts::own_cpu());
        let write = |share| {
            let (buffer, all) = (buffer.clone(), *self);
            std::thread::spawn(move || all.write(share, &buffer, began))
        };
        let threads: Vec<_> = shares.into_iter().map(write).collect();
        let (mut sent, mut writers_cpu) = (0, 0.0);
        for thread in threads {
            let share = thread.join().map_err(|_| Error::failed("a writer", "it panicked"))?;
            let (share, cpu) = share.map_err(|error| fail(&error))?;
            sent += share;
            writers_cpu += cpu;
        }
        let finished = readers.join()?;
        let cpu = facts::own_cpu().zip(cpu).map_or(0.0, |(after, before)| after - before);
        let limit = limit(&finished, sent, began, cpu);
        Ok(Limit { writers_cpu, ..limit })
    }

    /// Connects a pair of sockets for each subscriber. Returns the ends to write to and the ends to read from.
    fn sockets(&self) -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for _ in 0..self.subscribers {
            far.push(TcpStream::connect(address)?);
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            near.push(stream);
        }
        Ok((near, far))
    }

    /// Encodes the chunks, one after the other.
    fn buffer(&self) -> Vec<u8> {
        let (size, count) = (self.size as u32, self.chunk);
        let mut buffer = Vec::new();
        for chunk in 0..CHUNKS {
            let first = chunk * u64::from(count);
            buffer.extend_from_slice(&deliver_header(1, count, first, 0, 0, count * size));
            (1..=count).for_each(|i| buffer.extend_from_slice(&(i * size).to_le_bytes()));
            for number in first..first + u64::from(count) {
                let at = buffer.len();
                buffer.resize(at + self.size, b'.');
                write_number(&mut buffer[at..], number);
            }
        }
        buffer
    }

    /// Writes to a share of the sockets as each becomes writable. Returns the number of records written and the
    /// processor time used.
    fn write(
        &self,
        share: Vec<TcpStream>,
        buffer: &Arc<Vec<u8>>,
        began: Instant,
    ) -> io::Result<(u64, f64)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (chunks, until) = match self.amount {
            crate::source::Amount::Records(records) => (records.div_ceil(self.chunk.into()), None),
            crate::source::Amount::Time(time) => (u64::MAX, Some(began + time)),
        };
        runtime.block_on(async {
            let write = |stream| tokio::spawn(write_chunks(stream, buffer.clone(), chunks, until));
            let tasks: Vec<_> = share.into_iter().map(write).collect();
            let mut written = 0;
            for task in tasks {
                written += task.await.map_err(io::Error::other)??;
            }
            Ok((written * u64::from(self.chunk), facts::thread_cpu().unwrap_or(0.0)))
        })
    }
}

/// Writes this many chunks to one socket, or fewer if the time is up. Returns the number written.
async fn write_chunks(
    stream: TcpStream,
    buffer: Arc<Vec<u8>>,
    chunks: u64,
    until: Option<Instant>,
) -> io::Result<u64> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let size = buffer.len() / CHUNKS as usize;
    for done in 0..chunks {
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(done);
        }
        let at = (done % CHUNKS) as usize * size;
        let mut rest = &buffer[at..at + size];
        while !rest.is_empty() {
            match stream.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(wrote) => rest = &rest[wrote..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stream.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        // Take turns after each chunk, as a server does. Otherwise a socket would buffer megabytes that have
        // left the cache before they are read.
        tokio::task::yield_now().await;
    }
    Ok(chunks)
}

fn limit(finished: &[Finished], sent: u64, began: Instant, cpu: f64) -> Limit {
    let mut faults = 0;
    let mut deliveries = 0;
    for one in finished {
        deliveries += one.tally.records;
        faults += one.tally.lost + one.tally.duplicated + one.tally.corrupt;
    }
    let last = finished.iter().filter_map(|one| one.last).max().unwrap_or(began);
    let seconds = (last - began).max(Duration::from_nanos(1)).as_secs_f64();
    let writers_cpu = 0.0;
    Limit { deliveries, seconds, cpu, writers_cpu, faults: faults + sent.abs_diff(deliveries) }
}

fn fail(error: &io::Error) -> Error {
    let failure = Error::failed("the ceiling's sockets", describe_io(error));
    // Both ends of each connection are in this process, so descriptors run out early.
    match error.raw_os_error() {
        Some(24) => failure.hint("raise the limit of open files, or take fewer subscribers"),
        _ => failure,
    }
}
