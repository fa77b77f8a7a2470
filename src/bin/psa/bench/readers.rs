//! Subscribers: many sockets, few threads, one large buffer each thread.
//!
//! A subscriber here is a socket, a [`Verifier`] and the few bytes of a unit that a read cut. Reading goes
//! through the thread's own buffer, as much at a time as the socket has, and what was read is checked
//! there and then. Where the server's work ends, little is added: the same readers measure the machine's
//! limit, so what they cost is in both figures.

use super::verify::{Bad, Sink, Tally, Verifier};
use super::wire::{Target, Wire, lost};
use crate::error::{Error, Exit, Result};
use psa::protocol::{Start, TopicName};
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Bytes that one read takes at most: near what stays in a core's own cache.
const READ: usize = 256 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One subscriber, before it reads.
#[derive(Debug)]
pub(crate) struct Subscriber<S> {
    pub(crate) stream: std::net::TcpStream,
    /// What was read from the stream already.
    pub(crate) input: Vec<u8>,
    pub(crate) verifier: Verifier,
    pub(crate) sink: S,
    /// It does not read until this becomes true.
    pub(crate) hold: Option<watch::Receiver<bool>>,
    /// How to go on if the server cuts it off, as it may with one that it evicts.
    pub(crate) resume: Option<Resume>,
}

/// Where a subscriber that was cut off goes on.
#[derive(Clone, Debug)]
pub(crate) struct Resume {
    pub(crate) target: Target,
    pub(crate) topic: String,
    pub(crate) epoch: u64,
}

/// One subscriber, afterwards.
#[derive(Debug)]
pub(crate) struct Finished<S> {
    pub(crate) sink: S,
    pub(crate) tally: Tally,
    /// The offset behind the last record.
    pub(crate) next: u64,
    /// Whether the server said that the topic ended.
    pub(crate) closed: bool,
    /// When the last bytes came.
    pub(crate) last: Option<Instant>,
    /// Times that it was cut off and went on.
    pub(crate) resumed: u64,
}

/// Subscribers that read, on threads of their own.
#[derive(Debug)]
pub(crate) struct Readers<S> {
    threads: Vec<JoinHandle<Result<Vec<Finished<S>>>>>,
    delivered: Arc<AtomicU64>,
}

impl<S: Sink> Readers<S> {
    /// Lets them read, spread over so many threads.
    pub(crate) fn start(subscribers: Vec<Subscriber<S>>, threads: usize) -> Readers<S> {
        let threads = threads.clamp(1, subscribers.len().max(1));
        let delivered = Arc::new(AtomicU64::new(0));
        let mut shares: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
        for (i, subscriber) in subscribers.into_iter().enumerate() {
            shares[i % threads].push(subscriber);
        }
        let run = |share| {
            let delivered = delivered.clone();
            std::thread::spawn(move || read_all(share, &delivered))
        };
        let threads = shares.into_iter().map(run).collect();
        Readers { threads, delivered }
    }

    /// Records that came so far, to all of them together.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Whether all have come to their end.
    pub(crate) fn are_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all have come to their end.
    pub(crate) fn join(self) -> Result<Vec<Finished<S>>> {
        let mut all = Vec::new();
        for thread in self.threads {
            let share = thread.join();
            all.extend(share.map_err(|_| Error::failed("a reader", "it panicked"))??);
        }
        Ok(all)
    }
}

fn read_all<S: Sink>(
    share: Vec<Subscriber<S>>,
    delivered: &Arc<AtomicU64>,
) -> Result<Vec<Finished<S>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::failed("runtime", error))?;
    let unit = share.iter().map(|one| one.verifier.shape().longest_unit()).max().unwrap_or(0);
    BUFFER.with_borrow_mut(|buffer| buffer.resize(READ + unit, 0));
    runtime.block_on(async {
        let read = |one: Subscriber<S>| tokio::spawn(one.read(delivered.clone()));
        let tasks: Vec<_> = share.into_iter().map(read).collect();
        let mut all = Vec::with_capacity(tasks.len());
        for task in tasks {
            all.push(task.await.map_err(|_| Error::failed("a reader", "it panicked"))??);
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

impl<S: Sink> Subscriber<S> {
    async fn read(mut self, delivered: Arc<AtomicU64>) -> Result<Finished<S>> {
        if let Some(hold) = &mut self.hold {
            // An error means that whoever holds us is gone: read on.
            let _ = hold.wait_for(|go| *go).await;
        }
        let (mut stream, mut resumed, mut last) = (register(&self.stream)?, 0, None);
        // What the handshake brought along.
        let kept = std::mem::take(&mut self.input);
        let done = self.verifier.feed(&kept, &mut self.sink).map_err(|error| bad(&error))?;
        self.input = kept[done..].to_vec();
        while !self.verifier.is_closed() {
            let before = self.verifier.tally().records;
            let read = match self.look(&stream) {
                Err(error) if self.resume.is_some() && is_cut(&error) => {
                    stream = self.reconnect()?;
                    resumed += 1;
                    continue;
                }
                read => read.map_err(|error| lost(&error))?,
            };
            delivered.fetch_add(self.verifier.tally().records - before, Ordering::Relaxed);
            match read {
                Read::Some => last = Some(Instant::now()),
                Read::Nothing => stream.readable().await.map_err(|error| lost(&error))?,
                Read::End if self.resume.is_some() => {
                    stream = self.reconnect()?;
                    resumed += 1;
                }
                Read::End if self.verifier.is_between() && self.input.is_empty() => break,
                Read::End => return Err(lost(&io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let Subscriber { verifier, sink, .. } = self;
        let (tally, next, closed) = (verifier.tally(), verifier.next(), verifier.is_closed());
        Ok(Finished { sink, tally, next, closed, last, resumed })
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

    /// Connects anew and goes on behind the last record that came whole.
    fn reconnect(&mut self) -> Result<TcpStream> {
        let Some(Resume { target, topic, epoch }) = &self.resume else {
            return Err(lost(&io::ErrorKind::UnexpectedEof.into()));
        };
        let topic = TopicName::new(topic).map_err(|error| Error::failed("topic", error))?;
        let start = match self.verifier.next().checked_sub(1) {
            Some(offset) => Start::After { epoch: *epoch, offset },
            None => Start::At(0),
        };
        let mut wire = Wire::connect(target)?;
        wire.subscribe(topic, start)?;
        self.verifier.reconnected();
        let kept;
        (self.stream, kept) = wire.into_parts()?;
        let done = self.verifier.feed(&kept, &mut self.sink).map_err(|error| bad(&error))?;
        self.input = kept[done..].to_vec();
        register(&self.stream)
    }
}

/// Hands a blocking socket over to the runtime.
fn register(stream: &std::net::TcpStream) -> Result<TcpStream> {
    let open = || {
        let stream = stream.try_clone()?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    };
    open().map_err(|error| Error::failed("a subscriber", error))
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn bad(error: &Bad) -> Error {
    Error::new(Exit::Failed, "what the server sent", error)
}
