//! The subscribers of the demo: three in this process through the client library, and one in a process of its
//! own.

use crate::error::{Error, Result, describe_io};
use psa::client::{BatchEvent, Client, Position, SubscribeOptions};
use psa_load::client::failure;
use psa_load::server::without_settings;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a subscriber is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Read records.
    Follow,
    /// Stay connected and read nothing.
    Stall,
    /// Drop the connection without saying goodbye.
    Die,
}

/// What a subscriber has received of the topic.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    hash: DefaultHasher,
    pub(super) records: u64,
    pub(super) gaps: u64,
    /// Records whose offset is not the one after the record before them.
    pub(super) out_of_order: u64,
    pub(super) epoch: u64,
    /// The offset of the next record.
    pub(super) next: u64,
}

impl Received {
    /// Adds one record.
    pub(super) fn take(&mut self, offset: u64, record: &[u8]) {
        self.out_of_order += u64::from(offset != self.next);
        self.records += 1;
        self.next = offset + 1;
        self.hash.write(record);
        self.hash.write(b"\n");
    }

    /// The hash of the bytes of all records, each with a line end.
    pub(super) fn hash(&self) -> u64 {
        self.hash.finish()
    }
}

/// A subscriber in this process.
#[derive(Debug)]
pub(super) struct DemoSubscriber {
    pub(super) name: &'static str,
    order: watch::Sender<Order>,
    next: Arc<AtomicU64>,
    task: Option<JoinHandle<Result<Received>>>,
}

impl DemoSubscriber {
    /// Subscribes after the records already received, of which there are none at first.
    pub(super) async fn start(
        client: &Client,
        topic: &'static str,
        name: &'static str,
        received: Received,
    ) -> Result<DemoSubscriber> {
        // Subscribers that have received nothing start before anything is published, so nothing is collected yet.
        let options = match received.next {
            0 => SubscribeOptions::earliest(),
            next => SubscribeOptions::resume(Position { epoch: received.epoch, next }),
        };
        let subscribed = client.subscribe(topic, options).await;
        let subscription = subscribed.map_err(|error| failure(name, &error))?;
        let (order, orders) = watch::channel(Order::Follow);
        let next = Arc::new(AtomicU64::new(received.next));
        let task = tokio::spawn(follow(subscription, received, orders, next.clone(), name));
        Ok(DemoSubscriber { name, order, next, task: Some(task) })
    }

    /// The offset that this subscriber receives next.
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Gives the subscriber an order, which has no effect once it has ended.
    pub(super) fn order(&self, order: Order) {
        self.order.send_replace(order);
    }

    /// Waits until the subscriber has dropped its connection or reached the end of the topic.
    pub(super) async fn end(&mut self) -> Result<Received> {
        match self.task.take() {
            Some(task) => task.await.map_err(|_| Error::failed(self.name, "it panicked"))?,
            None => Err(Error::failed(self.name, "it has ended already")),
        }
    }
}

async fn follow(
    mut subscription: psa::client::Subscription,
    mut received: Received,
    mut orders: watch::Receiver<Order>,
    next: Arc<AtomicU64>,
    name: &'static str,
) -> Result<Received> {
    received.epoch = subscription.position().epoch;
    loop {
        let order = *orders.borrow_and_update();
        if order == Order::Die {
            return Ok(received);
        }
        tokio::select! {
            biased;
            changed = orders.changed() => if changed.is_err() {
                return Ok(received);
            },
            event = subscription.next_batch(), if order == Order::Follow => match event {
                None | Some(Ok(BatchEvent::Closed { .. })) => return Ok(received),
                Some(Err(error)) => return Err(failure(name, &error)),
                Some(Ok(BatchEvent::Records(batch))) => {
                    batch.iter().for_each(|(offset, record)| received.take(offset, record));
                    next.store(received.next, Ordering::Relaxed);
                }
                Some(Ok(BatchEvent::Gap(_))) => received.gaps += 1,
                Some(Ok(_)) => {}
            },
        }
    }
}

/// A subscriber that is a `psa sub` process with a lease, a state file and an output file.
#[derive(Debug)]
pub(super) struct ChildSubscriber {
    child: Child,
}

/// The name of the lease and of the subscriber that holds it.
pub(super) const DORA: &str = "dora";

/// The files of a [`ChildSubscriber`], removed when this is dropped.
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

    /// The output file.
    pub(super) fn output(&self) -> PathBuf {
        self.folder.path().join("dora.txt")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("dora.state")
    }
}

impl ChildSubscriber {
    /// Starts the process, for the first time or again.
    pub(super) fn start(server: &str, topic: &str, files: &Files) -> Result<ChildSubscriber> {
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
        Ok(ChildSubscriber { child })
    }

    /// Kills the process with SIGKILL: it can neither say goodbye nor finish a line.
    pub(super) fn kill(&mut self) -> Result {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| Error::failed("kill `psa sub`", describe_io(&error)))
    }

    /// Waits until the process has reached the end of the topic and exited. Returns false if it failed or did
    /// not exit in time.
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

impl Drop for ChildSubscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a file, as a subscriber would have received them.
pub(super) fn read_lines(path: &Path) -> Result<Received> {
    let bytes = std::fs::read(path).map_err(|error| Error::file(path.display(), &error))?;
    let mut received = Received::default();
    let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if !bytes.is_empty() {
        lines.split(|byte| *byte == b'\n').for_each(|line| received.take(received.next, line));
    }
    Ok(received)
}
