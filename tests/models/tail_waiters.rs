//! The server's tails: subscriptions that wait together at the end of a topic, against the record that
//! arrives, and against one another's leaving. `wakers` and `server_tail` are the source that ships, over a
//! log that shuttle may interrupt at every step. A lost wake-up shows as a deadlock.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use shuttle::future::block_on;
use shuttle::thread;

use crate::broker::Topic;
use crate::explore::explore;
use crate::log::{Cursor, Log, ReadError, Start};
use crate::server_tail::{TailWaiter, Tails};
use crate::support::{Canary, append_all, read_available, take, tiny};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};
use crate::wakers::{SubscriptionWaker, TaskWaker};

/// The server's task that wakes members, until it is told to end.
struct Server {
    tails: Arc<Tails>,
    topic: Arc<Topic>,
    ends: Arc<AtomicBool>,
    task: Arc<Mutex<Option<Waker>>>,
    thread: thread::JoinHandle<()>,
}

impl Server {
    /// Subscriptions wait together, however few there are.
    fn start() -> Self {
        let tails = Arc::new(Tails::new(0));
        let ends = Arc::new(AtomicBool::new(false));
        let task = Arc::new(Mutex::new(None));
        let thread = thread::spawn({
            let (tails, ends, task) = (tails.clone(), ends.clone(), task.clone());
            move || {
                let (mut notified, mut to_wake) = (Vec::new(), Vec::new());
                block_on(poll_fn(|cx| {
                    *task.lock().unwrap() = Some(cx.waker().clone());
                    if ends.load(Ordering::SeqCst) {
                        return Poll::Ready(());
                    }
                    tails.poll_serve(cx, &mut notified, &mut to_wake)
                }));
            }
        });
        Self { tails, topic: Arc::new(Topic), ends, task, thread }
    }

    fn stop(self) {
        self.ends.store(true, Ordering::SeqCst);
        let task = self.task.lock().unwrap().clone();
        task.into_iter().for_each(Waker::wake);
        self.thread.join().unwrap();
    }
}

/// A connection with one subscription.
struct Subscriber {
    cursor: Cursor<Canary>,
    waiter: TailWaiter,
    task: Arc<TaskWaker>,
    waker: Arc<SubscriptionWaker>,
    /// Whether it has checked the log and found nothing.
    waits: bool,
}

impl Subscriber {
    fn new(server: &Server, log: &Log<Canary>) -> Self {
        let task = Arc::new(TaskWaker::default());
        let waker = SubscriptionWaker::new(task.clone(), 0);
        let waiter = server.tails.add(&server.topic, waker.clone());
        Self { cursor: log.subscribe(Start::Next).unwrap(), waiter, task, waker, waits: false }
    }

    /// Checks the log as a session does for a subscription.
    fn is_ready(&mut self) -> bool {
        self.waiter.waker().reset();
        let (own, offset) = (Waker::from(self.waker.clone()), self.cursor.offset());
        let Self { cursor, waiter, .. } = self;
        waiter.is_ready(offset, &own, false, |waker| {
            cursor.poll_ready(&mut Context::from_waker(waker)).is_ready()
        })
    }

    /// Reads until it has that many records.
    async fn take(&mut self, records: usize) -> Vec<u64> {
        let mut got = Vec::new();
        let mut woken = Vec::new();
        // Checks immediately, and again whenever it was woken.
        let mut check = !std::mem::take(&mut self.waits);
        poll_fn(|cx| {
            self.task.register(cx.waker(), &mut woken);
            check |= !woken.is_empty();
            woken.clear();
            while std::mem::take(&mut check) {
                if self.is_ready() {
                    got.extend(read_available(&mut self.cursor));
                    check = got.len() < records;
                }
            }
            if got.len() < records { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        got
    }

    /// Joins the tail, and goes away when it is woken or before, without having read.
    fn join_and_go(mut self) {
        self.is_ready();
        thread::yield_now();
    }
}

#[test]
fn every_member_is_woken() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let server = Server::start();
        let subscribers = [0, 1, 2].map(|_| {
            let mut subscriber = Subscriber::new(&server, &log);
            thread::spawn(move || block_on(subscriber.take(2)))
        });
        append_all(&log, 0..2);
        for subscriber in subscribers {
            assert_eq!(subscriber.join().unwrap(), [0, 1]);
        }
        server.stop();
    });
}

#[test]
fn a_leader_that_goes_leaves_nobody_behind() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let server = Server::start();
        let goes = Subscriber::new(&server, &log);
        let stay = [0, 1].map(|_| {
            let mut subscriber = Subscriber::new(&server, &log);
            thread::spawn(move || block_on(subscriber.take(1)))
        });
        let goes = thread::spawn(move || goes.join_and_go());
        append_all(&log, 0..1);
        goes.join().unwrap();
        for subscriber in stay {
            assert_eq!(subscriber.join().unwrap(), [0]);
        }
        server.stop();
    });
}

/// Cursors that wait at the log on their own rely on a leader to pass a notification on, even if that leader
/// has already read the record in question.
#[test]
fn a_leader_passes_the_notification_on_to_other_waiters() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let server = Server::start();
        let together = [0, 1].map(|_| {
            let mut subscriber = Subscriber::new(&server, &log);
            thread::spawn(move || block_on(subscriber.take(2)))
        });
        let alone = [0, 1, 2].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || block_on(take(&mut cursor, 1)))
        });
        append_all(&log, 0..1);
        for cursor in alone {
            cursor.join().unwrap();
        }
        // Not earlier: this notification would reach the waiters that the first one missed.
        append_all(&log, 1..2);
        for subscriber in together {
            assert_eq!(subscriber.join().unwrap(), [0, 1]);
        }
        server.stop();
    });
}

/// A subscription that reads on while the others have not been woken yet gets ahead of them, and may become
/// the leader when the leader goes away.
#[test]
fn nobody_relies_on_one_who_is_ahead() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let server = Server::start();
        // It has a record to read, so it does not join before it has read what arrives meanwhile.
        let mut ahead = Subscriber::new(&server, &log);
        append_all(&log, 0..1);
        let [mut goes, mut behind] = [0, 1].map(|_| Subscriber::new(&server, &log));
        // One leads, and the other already relies on it.
        for subscriber in [&mut goes, &mut behind] {
            subscriber.waits = !subscriber.is_ready();
        }
        let goes = thread::spawn(move || drop(goes));
        let behind = thread::spawn(move || block_on(behind.take(1)));
        let ahead = thread::spawn(move || block_on(ahead.take(3)));
        append_all(&log, 1..2);
        assert_eq!(behind.join().unwrap(), [1]);
        // Not earlier: this notification would reach the subscriptions that the first one missed.
        append_all(&log, 2..3);
        assert_eq!(ahead.join().unwrap(), [0, 1, 2]);
        goes.join().unwrap();
        server.stop();
    });
}

/// The end of a log is notified like a record.
#[test]
fn every_member_learns_of_the_end() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let server = Server::start();
        let subscribers = [0, 1].map(|_| {
            let mut subscriber = Subscriber::new(&server, &log);
            thread::spawn(move || {
                let mut woken = Vec::new();
                let mut check = true;
                block_on(poll_fn(|cx| {
                    subscriber.task.register(cx.waker(), &mut woken);
                    check |= !woken.is_empty();
                    woken.clear();
                    if std::mem::take(&mut check) && subscriber.is_ready() {
                        return Poll::Ready(());
                    }
                    Poll::Pending
                }));
                let end = subscriber.cursor.try_next(|_| ());
                assert!(matches!(end, Err(ReadError::Closed)), "{end:?}");
            })
        });
        log.close();
        drop(log);
        for subscriber in subscribers {
            subscriber.join().unwrap();
        }
        server.stop();
    });
}
