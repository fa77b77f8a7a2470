//! Subscribers: many sockets, few threads, one large buffer each thread.
//!
//! A subscriber here is a socket, a [`Verifier`] and the few bytes of a unit that a read cut. Reading goes
//! through the thread's own buffer, as much at a time as the socket has, and what was read is checked
//! there and then. Where the server's work ends, little is added: the same readers measure the machine's
//! limit, so what they cost is in both figures.

use super::verify::{Bad, Check, Sink, Tally, Verifier};
use super::wire::{Target, Wire, lost};
use crate::error::{Error, Exit, Result};
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

/// Bytes that one read takes at most: near what stays in a core's own cache.
const READ: usize = 256 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One subscriber, before it reads.
#[derive(Debug)]
pub struct Subscriber<S, C = Verifier> {
    /// Its socket.
    pub stream: StdStream,
    /// What was read from the stream already.
    pub input: Vec<u8>,
    /// What checks its records.
    pub verifier: C,
    /// What else is done with them.
    pub sink: S,
    /// It does not read until this becomes true.
    pub hold: Option<watch::Receiver<bool>>,
    /// How to go on if the server cuts it off, as it may with one that it evicts.
    pub resume: Option<Resume>,
}

/// Where a subscriber that was cut off goes on.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The server.
    pub target: Target,
    /// Its topic.
    pub topic: String,
    /// The topic's epoch: in another one it cannot go on.
    pub epoch: u64,
}

/// One subscriber, afterwards.
#[derive(Debug)]
pub struct Finished {
    /// What came.
    pub tally: Tally,
    /// The offset after the last record.
    pub next: u64,
    /// Whether it stood still for a while.
    pub held: bool,
    /// When the last record came.
    pub last: Option<Instant>,
    /// Times that it was cut off and went on.
    pub resumed: u64,
}

/// Subscribers that read, on threads of their own.
#[derive(Debug)]
pub struct Readers {
    threads: Vec<JoinHandle<Result<Vec<Finished>>>>,
    delivered: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
}

impl Readers {
    /// Lets them read, spread over so many threads.
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

    /// Records that came so far, to all of them together.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The same, as it goes on.
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.delivered.clone()
    }

    /// Whether all have come to their end.
    pub fn are_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Whether one of them could not go on; [`Readers::join`] says why.
    pub fn have_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Waits until all have come to their end.
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
        // The first that fails ends them all.
        while let Some(task) = tasks.join_next().await {
            all.push(task.map_err(|_| Error::failed("a reader", "it panicked"))??);
        }
        Ok(all)
    })
}

/// What one look at the socket brought.
enum Read {
    Some,
    Nothing,
    End,
}

impl<S: Sink, C: Check> Subscriber<S, C> {
    async fn read(self, delivered: Arc<AtomicU64>) -> Result<Finished> {
        let Subscriber { stream, input, verifier, sink, mut hold, resume } = self;
        if let Some(hold) = &mut hold {
            // An error means that whoever holds us is gone: read on.
            let _ = hold.wait_for(|go| *go).await;
        }
        let mut stream = register(stream)?;
        let (held, mut resumed, mut last) = (hold.is_some(), 0, None);
        let mut intake = Intake { input: Vec::new(), verifier, sink, resume };
        intake.begin(&input)?;
        let mut answer = Vec::new();
        while !intake.verifier.is_closed() {
            let before = intake.verifier.tally().records;
            let read = match intake.look(&stream) {
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
                    // Not what comes after the last record: a topic is closed when its publisher says so,
                    // which is no delivery.
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
                Read::End if intake.verifier.is_between() && intake.input.is_empty() => break,
                Read::End => return Err(lost(&io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let (tally, next) = (intake.verifier.tally(), intake.verifier.next());
        Ok(Finished { tally, next, held, last, resumed })
    }
}

/// What is between a socket and the figures.
struct Intake<S, C> {
    /// The bytes of a unit that a read cut.
    input: Vec<u8>,
    verifier: C,
    sink: S,
    resume: Option<Resume>,
}

impl<S: Sink, C: Check> Intake<S, C> {
    /// Takes in what the handshake brought along.
    fn begin(&mut self, kept: &[u8]) -> Result {
        let done = self.verifier.feed(kept, &mut self.sink).map_err(|error| bad(&error))?;
        self.input = kept[done..].to_vec();
        Ok(())
    }

    /// Reads once and checks what came.
    fn look(&mut self, stream: &TcpStream) -> io::Result<Read> {
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

    /// Connects again and continues after the last record that came whole.
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

/// Sends what there is to send, if there is anything.
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

/// Hands a blocking socket over to the runtime.
fn register(stream: StdStream) -> Result<TcpStream> {
    let registered = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    registered.map_err(|error| Error::failed("a subscriber", error))
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn bad(error: &Bad) -> Error {
    Error::new(Exit::Failed, "what the server sent", error)
}
