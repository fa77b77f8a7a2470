//! Subscribers: many sockets, few threads, and one large buffer for each thread.
//!
//! A subscriber is a socket, a [`Verifier`], and the few bytes of a unit that a read cut off. A read takes as
//! much as the socket has into the thread's own buffer, and the bytes are checked there immediately. This
//! adds little to the server's work, and since the same readers measure the machine's limit, their cost is
//! part of both figures.

use crate::error::{Error, Exit, Result};
use crate::verify::{Check, Sink, StreamError, Tally, Verifier};
use crate::wire::{Target, Wire, lost};
use psa::Position;
use psa::protocol::{Start, TopicName};
use std::cell::RefCell;
use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The most bytes that one read takes: about as much as fits into a core's own cache.
const READ: usize = 256 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A subscriber that has not started to read.
#[derive(Debug)]
pub struct Subscriber<S, C = Verifier> {
    /// Its socket.
    pub stream: StdStream,
    /// Bytes that were already read from the stream.
    pub input: Vec<u8>,
    /// Checks its records.
    pub verifier: C,
    /// Receives its records after the check.
    pub sink: S,
    /// If set, it does not read until this becomes true.
    pub hold: Option<watch::Receiver<bool>>,
    /// How to continue if the server disconnects it, as it may do with an evicted subscriber.
    pub resume: Option<Resume>,
}

/// How a disconnected subscriber continues.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The server.
    pub target: Target,
    /// Its topic.
    pub topic: String,
    /// The topic's epoch; the subscriber cannot continue in another one.
    pub epoch: u64,
}

/// A subscriber that has reached its end.
#[derive(Debug)]
pub struct Finished {
    /// What it received.
    pub tally: Tally,
    /// The offset after the last record.
    pub next: u64,
    /// Whether it had a [`hold`](Subscriber::hold).
    pub held: bool,
    /// When the last record arrived.
    pub last: Option<Instant>,
    /// How many times it was disconnected and resumed.
    pub resumed: u64,
}

/// Subscribers that read on threads of their own.
#[derive(Debug)]
pub struct Readers {
    threads: Vec<JoinHandle<Result<Vec<Finished>>>>,
    delivered: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
}

impl Readers {
    /// Starts to read, with the subscribers spread over `threads` threads.
    pub fn start<S: Sink, C: Check>(subscribers: Vec<Subscriber<S, C>>, threads: usize) -> Readers {
        let threads = threads.clamp(1, subscribers.len().max(1));
        let (delivered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut shares: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
        for (i, subscriber) in subscribers.into_iter().enumerate() {
            shares[i % threads].push(subscriber);
        }
        let run = |share| {
            let (delivered, failed) = (delivered.clone(), failed.clone());
            std::thread::spawn(move || {
                let read = read_all(share, &delivered);
                failed.fetch_or(read.is_err(), Ordering::AcqRel);
                read
            })
        };
        let threads = shares.into_iter().map(run).collect();
        Readers { threads, delivered, failed }
    }

    /// The number of records delivered so far to all subscribers together.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The counter behind [`Readers::delivered`], which keeps counting.
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.delivered.clone()
    }

    /// Whether all subscribers have reached their end.
    pub fn are_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Whether a subscriber has failed; [`Readers::join`] returns the error.
    pub fn have_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Waits until all subscribers have reached their end.
    pub fn join(self) -> Result<Vec<Finished>> {
        let mut all = Vec::new();
        for thread in self.threads {
            let share = thread.join();
            all.extend(share.map_err(|_| Error::failed("a reader", "it panicked"))??);
        }
        Ok(all)
    }
}

fn read_all<S: Sink, C: Check>(
    share: Vec<Subscriber<S, C>>,
    delivered: &Arc<AtomicU64>,
) -> Result<Vec<Finished>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::failed("runtime", error))?;
    let unit = share.iter().map(|one| one.verifier.longest_unit()).max().unwrap_or(0);
    BUFFER.with_borrow_mut(|buffer| buffer.resize(READ + unit, 0));
    runtime.block_on(async {
        let mut all = Vec::with_capacity(share.len());
        let mut tasks = JoinSet::new();
        for one in share {
            tasks.spawn(one.read(delivered.clone()));
        }
        // The first failure ends all of them.
        while let Some(task) = tasks.join_next().await {
            all.push(task.map_err(|_| Error::failed("a reader", "it panicked"))??);
        }
        Ok(all)
    })
}

/// The outcome of one read from a socket.
enum Read {
    Some,
    Nothing,
    End,
}

impl<S: Sink, C: Check> Subscriber<S, C> {
    async fn read(self, delivered: Arc<AtomicU64>) -> Result<Finished> {
        let Subscriber { stream, input, verifier, sink, mut hold, resume } = self;
        if let Some(hold) = &mut hold {
            // An error means that the sender is gone: start to read.
            let _ = hold.wait_for(|go| *go).await;
        }
        let mut stream = register(stream)?;
        let (held, mut resumed, mut last) = (hold.is_some(), 0, None);
        let mut intake = Intake { input: Vec::new(), verifier, sink, resume };
        intake.begin(&input)?;
        let mut answer = Vec::new();
        while !intake.verifier.is_closed() {
            let before = intake.verifier.tally().records;
            let read = match intake.read_once(&stream) {
                Err(error) if intake.resume.is_some() && is_cut(&error) => {
                    stream = intake.reconnect()?;
                    resumed += 1;
                    continue;
                }
                read => read.map_err(|error| lost(&error))?,
            };
            let came = intake.verifier.tally().records - before;
            delivered.fetch_add(came, Ordering::Relaxed);
            match read {
                Read::Some => {
                    // Do not count what follows the last record: the end of the topic arrives when the
                    // publisher closes it, and is not a delivery.
                    if came > 0 {
                        last = Some(Instant::now());
                    }
                    intake.verifier.answer(&mut answer);
                    send(&stream, &mut answer).await.map_err(|error| lost(&error))?;
                }
                Read::Nothing => stream.readable().await.map_err(|error| lost(&error))?,
                Read::End if intake.resume.is_some() => {
                    stream = intake.reconnect()?;
                    resumed += 1;
                }
                Read::End if intake.verifier.may_end() && intake.input.is_empty() => break,
                Read::End => return Err(lost(&io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let (tally, next) = (intake.verifier.tally(), intake.verifier.next());
        Ok(Finished { tally, next, held, last, resumed })
    }
}

/// The state of a subscriber between its socket and its figures.
struct Intake<S, C> {
    /// The bytes of a unit that a read cut off.
    input: Vec<u8>,
    verifier: C,
    sink: S,
    resume: Option<Resume>,
}

impl<S: Sink, C: Check> Intake<S, C> {
    /// Checks the bytes that arrived together with the handshake.
    fn begin(&mut self, kept: &[u8]) -> Result {
        let done = self.verifier.feed(kept, &mut self.sink).map_err(|error| bad_stream(&error))?;
        self.input = kept[done..].to_vec();
        Ok(())
    }

    /// Reads once and checks the bytes.
    fn read_once(&mut self, stream: &TcpStream) -> io::Result<Read> {
        BUFFER.with_borrow_mut(|buffer| {
            let kept = self.input.len();
            buffer[..kept].copy_from_slice(&self.input);
            let read = match stream.try_read(&mut buffer[kept..kept + READ]) {
                Ok(0) => return Ok(Read::End),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Read::Nothing);
                }
                Err(error) => return Err(error),
            };
            let bytes = &buffer[..kept + read];
            let done = self.verifier.feed(bytes, &mut self.sink).map_err(io::Error::other)?;
            self.input.clear();
            self.input.extend_from_slice(&bytes[done..]);
            Ok(Read::Some)
        })
    }

    /// Connects again and continues after the last record of a complete chunk.
    fn reconnect(&mut self) -> Result<TcpStream> {
        let Some(Resume { target, topic, epoch }) = &self.resume else {
            return Err(lost(&io::ErrorKind::UnexpectedEof.into()));
        };
        let topic = TopicName::new(topic).map_err(|error| Error::failed("topic", error))?;
        let start = Start::resume(Position { epoch: *epoch, next: self.verifier.next() });
        let mut wire = Wire::connect(target)?;
        wire.subscribe(topic, start)?;
        self.verifier.reconnected();
        let (stream, kept) = wire.into_parts()?;
        self.begin(&kept)?;
        register(stream)
    }
}

/// Sends all of `bytes` and leaves it empty.
async fn send(stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(wrote) => drop(bytes.drain(..wrote)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Registers a blocking socket with the runtime.
fn register(stream: StdStream) -> Result<TcpStream> {
    let registered = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    registered.map_err(|error| Error::failed("a subscriber", error))
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn bad_stream(error: &StreamError) -> Error {
    Error::new(Exit::Failed, "what the server sent", error)
}
