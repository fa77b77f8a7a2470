//! Those who follow: three in this process through the client library, and one in a process of her own.

use crate::bench::server::without_settings;
use crate::connect::failure;
use crate::error::{Error, Result, describe_io};
use psa::client::{BatchEvent, Client, Position, SubscribeOptions};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a follower is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Read what comes.
    Follow,
    /// Stay connected and read nothing.
    Stall,
    /// Drop the connection, without a word.
    Die,
}

/// What somebody has seen of the topic.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    hash: DefaultHasher,
    pub(super) records: u64,
    pub(super) gaps: u64,
    /// Records that did not follow the one before them.
    pub(super) strays: u64,
    pub(super) epoch: u64,
    /// The offset that comes next.
    pub(super) next: u64,
}

impl Seen {
    /// One more record.
    pub(super) fn take(&mut self, offset: u64, record: &[u8]) {
        self.strays += u64::from(offset != self.next);
        self.records += 1;
        self.next = offset + 1;
        self.hash.write(record);
        self.hash.write(b"\n");
    }

    /// Of all the records' bytes, each with a line end.
    pub(super) fn hash(&self) -> u64 {
        self.hash.finish()
    }
}

/// One who follows in this process.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) name: &'static str,
    order: watch::Sender<Order>,
    next: Arc<AtomicU64>,
    task: Option<JoinHandle<Result<Seen>>>,
}

impl Follower {
    /// Subscribes after what was seen already, which at first is nothing.
    pub(super) async fn start(
        client: &Client,
        topic: &'static str,
        name: &'static str,
        seen: Seen,
    ) -> Result<Follower> {
        // Who has seen nothing is at the beginning of the story, where nothing is collected yet.
        let options = match seen.next {
            0 => SubscribeOptions::earliest(),
            next => SubscribeOptions::resume(Position { epoch: seen.epoch, next }),
        };
        let subscribed = client.subscribe(topic, options).await;
        let subscription = subscribed.map_err(|error| failure(name, &error))?;
        let (order, orders) = watch::channel(Order::Follow);
        let next = Arc::new(AtomicU64::new(seen.next));
        let task = tokio::spawn(follow(subscription, seen, orders, next.clone(), name));
        Ok(Follower { name, order, next, task: Some(task) })
    }

    /// The offset that this one gets next.
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Gives an order; a dead one hears nothing.
    pub(super) fn order(&self, order: Order) {
        self.order.send_replace(order);
    }

    /// Waits until it has died, or seen the end.
    pub(super) async fn end(&mut self) -> Result<Seen> {
        match self.task.take() {
            Some(task) => task.await.map_err(|_| Error::failed(self.name, "it panicked"))?,
            None => Err(Error::failed(self.name, "it has ended already")),
        }
    }
}

async fn follow(
    mut subscription: psa::client::Subscription,
    mut seen: Seen,
    mut orders: watch::Receiver<Order>,
    next: Arc<AtomicU64>,
    name: &'static str,
) -> Result<Seen> {
    seen.epoch = subscription.position().epoch;
    loop {
        let order = *orders.borrow_and_update();
        if order == Order::Die {
            return Ok(seen);
        }
        tokio::select! {
            biased;
            changed = orders.changed() => if changed.is_err() {
                return Ok(seen);
            },
            event = subscription.next_batch(), if order == Order::Follow => match event {
                None | Some(Ok(BatchEvent::Closed { .. })) => return Ok(seen),
                Some(Err(error)) => return Err(failure(name, &error)),
                Some(Ok(BatchEvent::Records(batch))) => {
                    batch.iter().for_each(|(offset, record)| seen.take(offset, record));
                    next.store(seen.next, Ordering::Relaxed);
                }
                Some(Ok(BatchEvent::Gap(_))) => seen.gaps += 1,
                Some(Ok(_)) => {}
            },
        }
    }
}

/// One who follows as `psa sub` with a lease, a state file and an output file.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

/// The name of the lease, and of her who holds it.
pub(super) const DORA: &str = "dora";

/// Files that are gone when this is dropped.
#[derive(Debug)]
pub(super) struct Files {
    folder: TempDir,
}

impl Files {
    pub(super) fn new() -> Result<Files> {
        let folder = tempfile::Builder::new().prefix("psa-demo-").tempdir();
        let folder = folder.map_err(|error| Error::file("a temporary folder", &error))?;
        Ok(Files { folder })
    }

    /// What she wrote.
    pub(super) fn output(&self) -> PathBuf {
        self.folder.path().join("dora.txt")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("dora.state")
    }
}

impl Process {
    /// Starts her, for the first time or again.
    pub(super) fn start(server: &str, topic: &str, files: &Files) -> Result<Process> {
        let program = std::env::current_exe();
        let spawn = |program: PathBuf| {
            let mut command = Command::new(program);
            command.args(["sub", topic, "--server", server, "--lease", DORA, "--lease-ttl", "1m"]);
            command.arg("--state").arg(files.state()).arg("--output").arg(files.output());
            without_settings(&mut command);
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
        };
        let child = program.and_then(spawn);
        let child = child.map_err(|error| Error::failed("start `psa sub`", describe_io(&error)))?;
        Ok(Process { child })
    }

    /// Kills her with SIGKILL: she cannot say goodbye, nor finish a line.
    pub(super) fn kill(&mut self) -> Result {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| Error::failed("kill `psa sub`", describe_io(&error)))
    }

    /// Waits until she has seen the end and ended; false if she did not end well or in time.
    pub(super) async fn end(&mut self, patience: Duration) -> bool {
        let ended = async {
            loop {
                match self.child.try_wait() {
                    Ok(Some(status)) => return status.success(),
                    Ok(None) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Err(_) => return false,
                }
            }
        };
        tokio::time::timeout(patience, ended).await.unwrap_or(false)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file's lines as a follower would have seen them.
pub(super) fn read_lines(path: &Path) -> Result<Seen> {
    let bytes = std::fs::read(path).map_err(|error| Error::file(path.display(), &error))?;
    let mut seen = Seen::default();
    let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if !bytes.is_empty() {
        lines.split(|byte| *byte == b'\n').for_each(|line| seen.take(seen.next, line));
    }
    Ok(seen)
}
