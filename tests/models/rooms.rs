//! The server's rooms: those who sit in one against the record that comes, and against each other's
//! leaving. `bell` and `room` are the source that ships, over a log whose every step shuttle may interrupt.
//! A call that is lost shows as a deadlock.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use shuttle::future::block_on;
use shuttle::thread;

use crate::bell::{Bell, SubBell};
use crate::broker::Topic;
use crate::explore::explore;
use crate::log::{Cursor, Log, ReadError, Start};
use crate::room::{Rooms, Seat};
use crate::support::{Canary, append_all, read_available, take, tiny};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// The server's task that rings, until it is told to end.
struct Server {
    rooms: Arc<Rooms>,
    topic: Arc<Topic>,
    ends: Arc<AtomicBool>,
    task: Arc<Mutex<Option<Waker>>>,
    thread: thread::JoinHandle<()>,
}

impl Server {
    /// All wait in the room, however few they are.
    fn start() -> Self {
        let rooms = Arc::new(Rooms::new(0));
        let ends = Arc::new(AtomicBool::new(false));
        let task = Arc::new(Mutex::new(None));
        let thread = thread::spawn({
            let (rooms, ends, task) = (rooms.clone(), ends.clone(), task.clone());
            move || {
                let (mut called, mut to_ring) = (Vec::new(), Vec::new());
                block_on(poll_fn(|cx| {
                    *task.lock().unwrap() = Some(cx.waker().clone());
                    if ends.load(Ordering::SeqCst) {
                        return Poll::Ready(());
                    }
                    rooms.poll_serve(cx, &mut called, &mut to_ring)
                }));
            }
        });
        Self { rooms, topic: Arc::new(Topic), ends, task, thread }
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
    seat: Seat,
    bell: Arc<Bell>,
    sub: Arc<SubBell>,
    /// Whether it has looked, and found nothing.
    sits: bool,
}

impl Subscriber {
    fn new(server: &Server, log: &Log<Canary>) -> Self {
        let bell = Arc::new(Bell::default());
        let sub = SubBell::new(bell.clone(), 0);
        let seat = server.rooms.enter(&server.topic, sub.clone());
        Self { cursor: log.subscribe(Start::Next).unwrap(), seat, bell, sub, sits: false }
    }

    /// As a session looks at a subscription.
    fn is_ready(&mut self) -> bool {
        self.seat.bell().reset();
        let (own, offset) = (Waker::from(self.sub.clone()), self.cursor.offset());
        let Self { cursor, seat, .. } = self;
        seat.is_ready(offset, &own, false, |waker| {
            cursor.poll_ready(&mut Context::from_waker(waker)).is_ready()
        })
    }

    /// Reads until there have been so many records.
    async fn take(&mut self, records: usize) -> Vec<u64> {
        let mut got = Vec::new();
        let mut rung = Vec::new();
        // Looked at once, and again whenever it was rung.
        let mut look = !std::mem::take(&mut self.sits);
        poll_fn(|cx| {
            self.bell.listen(cx.waker(), &mut rung);
            look |= !rung.is_empty();
            rung.clear();
            while std::mem::take(&mut look) {
                if self.is_ready() {
                    got.extend(read_available(&mut self.cursor));
                    look = got.len() < records;
                }
            }
            if got.len() < records { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        got
    }

    /// Sits down, and goes at the first ring, or before, without having read.
    fn sit_and_go(mut self) {
        self.is_ready();
        thread::yield_now();
    }
}

#[test]
fn a_room_rings_everybody_who_sits_in_it() {
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
        let goes = thread::spawn(move || goes.sit_and_go());
        append_all(&log, 0..1);
        goes.join().unwrap();
        for subscriber in stay {
            assert_eq!(subscriber.join().unwrap(), [0]);
        }
        server.stop();
    });
}

/// Those who wait at the log by themselves rely on a leader to hand a call on, also on one that has read
/// what the call is about.
#[test]
fn a_room_hands_the_call_on_to_those_beside_it() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let server = Server::start();
        let sitting = [0, 1].map(|_| {
            let mut subscriber = Subscriber::new(&server, &log);
            thread::spawn(move || block_on(subscriber.take(2)))
        });
        let beside = [0, 1, 2].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || block_on(take(&mut cursor, 1)))
        });
        append_all(&log, 0..1);
        for cursor in beside {
            cursor.join().unwrap();
        }
        // Not before: this call would reach whoever the first one did not.
        append_all(&log, 1..2);
        for subscriber in sitting {
            assert_eq!(subscriber.join().unwrap(), [0, 1]);
        }
        server.stop();
    });
}

/// One who reads on while the others have not been rung yet stands further ahead than they do, and may
/// come to lead when the leader goes.
#[test]
fn nobody_relies_on_one_who_is_ahead() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let server = Server::start();
        // Has a record to read, so it does not sit down before it has read what comes meanwhile.
        let mut ahead = Subscriber::new(&server, &log);
        append_all(&log, 0..1);
        let [mut goes, mut behind] = [0, 1].map(|_| Subscriber::new(&server, &log));
        // One leads and one relies on it already.
        for subscriber in [&mut goes, &mut behind] {
            subscriber.sits = !subscriber.is_ready();
        }
        let goes = thread::spawn(move || drop(goes));
        let behind = thread::spawn(move || block_on(behind.take(1)));
        let ahead = thread::spawn(move || block_on(ahead.take(3)));
        append_all(&log, 1..2);
        assert_eq!(behind.join().unwrap(), [1]);
        // Not before: this call would reach whoever the first one did not.
        append_all(&log, 2..3);
        assert_eq!(ahead.join().unwrap(), [0, 1, 2]);
        goes.join().unwrap();
        server.stop();
    });
}

/// The end of a log is told like a record.
#[test]
fn a_room_hears_of_the_end() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let server = Server::start();
        let subscribers = [0, 1].map(|_| {
            let mut subscriber = Subscriber::new(&server, &log);
            thread::spawn(move || {
                let mut rung = Vec::new();
                let mut look = true;
                block_on(poll_fn(|cx| {
                    subscriber.bell.listen(cx.waker(), &mut rung);
                    look |= !rung.is_empty();
                    rung.clear();
                    if std::mem::take(&mut look) && subscriber.is_ready() {
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
