//! Waking many, of whom some are never run again. The rescuer is a thread of the model: what nobody wakes is
//! a deadlock.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize as Count, Ordering as Order};
use std::task::{Context, Wake, Waker};

use shuttle::future::block_on;
use shuttle::thread::{self, JoinHandle};

use crate::cancel::poll_once;
use crate::explore::{explore, explore_one};
use crate::log::{Cursor, Log, Overflow, Start};
use crate::support::{Canary, read_available, segment, take, tiny};
use crate::sync::rescuer;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering};

/// A waker that nobody minds.
struct Deaf;

impl Wake for Deaf {
    fn wake(self: Arc<Self>) {}
}

fn deaf() -> Waker {
    Waker::from(Arc::new(Deaf))
}

/// A reader that waits, and is not run again.
fn forgotten(log: &Log<Canary>) -> Cursor<Canary> {
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let _ = cursor.poll_ready(&mut Context::from_waker(&deaf()));
    cursor
}

/// A thread that reads one record.
fn reads_with_its_thread(log: &Log<Canary>) -> JoinHandle<()> {
    let mut cursor = log.subscribe(Start::Next).unwrap();
    thread::spawn(move || cursor.blocking_next(|batch| assert!(batch.len() > 0)).unwrap())
}

/// A task that reads one record.
fn reads_as_a_task(log: &Log<Canary>) -> JoinHandle<()> {
    let mut cursor = log.subscribe(Start::Next).unwrap();
    thread::spawn(move || block_on(take(&mut cursor, 1)))
}

fn append(log: &Log<Canary>, n: u64) {
    log.blocking_append(Canary::new(n)).unwrap();
}

/// Runs a model beside a rescuer.
fn rescued(model: impl FnOnce()) {
    let rescuer = thread::spawn(rescuer::serve);
    model();
    rescuer::end();
    rescuer.join().unwrap();
}

/// They register at any time, so they are in any place among the others.
fn forgotten_readers(many: usize) {
    rescued(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let healthy = [reads_with_its_thread, reads_as_a_task, reads_with_its_thread];
        let healthy = healthy.map(|reads| reads(&log));
        let forgotten = thread::spawn({
            let log = log.clone();
            move || (0..many).map(|_| forgotten(&log)).collect::<Vec<_>>()
        });
        append(&log, 0);
        healthy.into_iter().for_each(|healthy| healthy.join().unwrap());
        drop(forgotten.join().unwrap());
    });
}

#[test]
fn one_forgotten_reader_keeps_nobody_from_waking() {
    explore(|| forgotten_readers(1));
}

#[test]
fn two_forgotten_readers_keep_nobody_from_waking() {
    explore(|| forgotten_readers(2));
}

#[test]
fn three_forgotten_readers_keep_nobody_from_waking() {
    explore(|| forgotten_readers(3));
}

/// All wait before the record comes: the forgotten ones came last, and are woken first.
#[test]
fn who_waits_below_forgotten_readers_is_woken() {
    explore(|| {
        rescued(|| {
            let log: Log<Canary> = tiny().build().unwrap();
            let blocked = [(); 2].map(|()| reads_with_its_thread(&log));
            while log.stats().reader_waits < 2 {
                thread::yield_now();
            }
            let _forgotten = [(); 3].map(|()| forgotten(&log));
            append(&log, 0);
            blocked.into_iter().for_each(|blocked| blocked.join().unwrap());
        });
    });
}

/// The same where there can be no rescuer: the notifier wakes all.
#[test]
fn without_a_rescuer_the_notifier_wakes_everybody() {
    explore(|| {
        rescuer::is_impossible();
        let log: Log<Canary> = tiny().build().unwrap();
        let healthy = [reads_with_its_thread, reads_as_a_task, reads_with_its_thread];
        let healthy = healthy.map(|reads| reads(&log));
        let forgotten = thread::spawn({
            let log = log.clone();
            move || [(); 3].map(|()| forgotten(&log))
        });
        append(&log, 0);
        healthy.into_iter().for_each(|healthy| healthy.join().unwrap());
        drop(forgotten.join().unwrap());
    });
}

/// Publishers that wait for room, two of them forgotten.
#[test]
fn forgotten_publishers_keep_no_room_from_others() {
    explore(|| {
        rescued(|| {
            let builder = tiny::<Canary>().memory_limit(2 * segment()).overflow(Overflow::Block);
            let log = builder.build().unwrap();
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            for first in [0, 2] {
                log.blocking_append_batch([first, first + 1].map(Canary::new)).unwrap();
            }
            let blocked = thread::spawn({
                let log = log.clone();
                move || append(&log, 4)
            });
            let task = thread::spawn({
                let log = log.clone();
                move || block_on(log.append(Canary::new(5))).map(drop).unwrap()
            });
            let waker = deaf();
            let mut kept = [6, 7].map(|n| Box::pin(log.append(Canary::new(n))));
            for future in &mut kept {
                let _ = future.as_mut().poll(&mut Context::from_waker(&waker));
            }
            let mut seen = read_available(&mut cursor);
            // What was forgotten may have found room at its first poll.
            while ![4, 5].iter().all(|n| seen.contains(n)) {
                cursor
                    .blocking_next(|batch| seen.extend(batch.iter().map(|(_, value)| value.read())))
                    .unwrap();
            }
            blocked.join().unwrap();
            task.join().unwrap();
            drop(kept);
        });
    });
}

/// The rescuer wakes while others hand on, register, and give up, for two records.
#[test]
fn rescuer_cascade_and_registration_lose_nobody() {
    explore(|| {
        rescued(|| {
            let log: Log<Canary> = tiny().build().unwrap();
            let _forgotten = [(); 2].map(|()| forgotten(&log));
            let patient = [0, 1].map(|_| {
                let mut cursor = log.subscribe(Start::Next).unwrap();
                thread::spawn(move || block_on(take(&mut cursor, 2)))
            });
            let fickle = [0, 1].map(|_| {
                let mut cursor = log.subscribe(Start::Next).unwrap();
                thread::spawn(move || {
                    for _ in 0..2 {
                        let _ = poll_once(pin!(cursor.next(|batch| batch.first_offset())));
                    }
                })
            });
            append(&log, 0);
            append(&log, 1);
            patient.into_iter().chain(fickle).for_each(|thread| thread.join().unwrap());
        });
    });
}

/// Two cascades of two logs are armed at once, and what one of them leaves does not hide the other one.
#[test]
fn the_rescuer_serves_two_logs() {
    explore(|| {
        rescued(|| {
            let logs: [Log<Canary>; 2] = [(); 2].map(|()| tiny().build().unwrap());
            let blocked = [0, 1].map(|n| reads_with_its_thread(&logs[n]));
            let _forgotten = [0, 0, 1, 1].map(|n| forgotten(&logs[n]));
            let other = thread::spawn({
                let log = logs[1].clone();
                move || append(&log, 0)
            });
            append(&logs[0], 0);
            other.join().unwrap();
            blocked.into_iter().for_each(|blocked| blocked.join().unwrap());
        });
    });
}

/// A waker that does not return before all others have been called.
struct Blocks {
    left: AtomicUsize,
    held: Mutex<Vec<thread::Thread>>,
}

struct Blocking(Arc<Blocks>);

impl Wake for Blocking {
    fn wake(self: Arc<Self>) {
        self.0.held.lock().unwrap().push(thread::current());
        while self.0.left.load(Ordering::SeqCst) > 0 {
            thread::park();
        }
    }
}

/// One of the others.
struct Counting(Arc<Blocks>);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        if self.0.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.held.lock().unwrap().iter().for_each(thread::Thread::unpark);
        }
    }
}

/// One waker blocks for ever: whoever called it is held up, the notifier or the rescuer, and nobody else. (Those
/// who are woken are not run here: they could call it, too, and be held up.)
#[test]
fn a_waker_that_blocks_holds_up_no_other_waiter() {
    explore(|| {
        let rescuers = [(); 2].map(|()| thread::spawn(rescuer::serve));
        let log: Log<Canary> = tiny().build().unwrap();
        let blocks = Arc::new(Blocks { left: AtomicUsize::new(4), held: Mutex::new(Vec::new()) });
        let wait = |waker: Waker| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || {
                assert!(cursor.poll_ready(&mut Context::from_waker(&waker)).is_pending());
                cursor
            })
        };
        let counting = [(); 4].map(|()| wait(Waker::from(Arc::new(Counting(blocks.clone())))));
        let blocking = wait(Waker::from(Arc::new(Blocking(blocks.clone()))));
        let cursors: Vec<_> =
            counting.into_iter().chain([blocking]).map(|wait| wait.join().unwrap()).collect();
        append(&log, 0);
        // The blocking one returns when all others have been called, so the next line is reached.
        while blocks.left.load(Ordering::SeqCst) > 0 {
            blocks.held.lock().unwrap().push(thread::current());
            if blocks.left.load(Ordering::SeqCst) > 0 {
                thread::park();
            }
        }
        rescuer::end();
        rescuers.into_iter().for_each(|rescuer| rescuer.join().unwrap());
        drop(cursors);
    });
}

/// Counts, by its references, who still holds on to it.
struct Held;

impl Wake for Held {
    fn wake(self: Arc<Self>) {}
}

/// A log ends while it is armed, while the rescuer looks at it.
#[test]
fn a_log_that_is_armed_ends() {
    explore(|| {
        let held = Arc::new(Held);
        rescued(|| {
            let log: Log<Canary> = tiny().build().unwrap();
            let waker = Waker::from(held.clone());
            let cursors = [(); 4].map(|()| {
                let mut cursor = log.subscribe(Start::Next).unwrap();
                assert!(cursor.poll_ready(&mut Context::from_waker(&waker)).is_pending());
                cursor
            });
            append(&log, 0);
            let ends = thread::spawn(move || drop(log));
            drop(cursors);
            ends.join().unwrap();
        });
        assert_eq!(Arc::strong_count(&held), 1, "a waker was left behind");
    });
}

// ---- who wakes whom, without any rescuer ----

/// A task whose waker counts.
struct Reader {
    woken: Arc<Woken>,
    cursor: Cursor<Canary>,
}

struct Woken(Count);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Order::Relaxed);
    }
}

impl Reader {
    fn new(log: &Log<Canary>) -> Self {
        let cursor = log.subscribe(Start::Next).unwrap();
        let woken = Arc::new(Woken(Count::new(0)));
        let mut reader = Reader { woken, cursor };
        assert!(!reader.is_ready());
        reader
    }

    fn is_ready(&mut self) -> bool {
        let waker = Waker::from(self.woken.clone());
        self.cursor.poll_ready(&mut Context::from_waker(&waker)).is_ready()
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Order::Relaxed)
    }

    /// Whether anybody but the task has its waker.
    fn is_known(&self) -> bool {
        Arc::strong_count(&self.woken) > 1
    }
}

fn readers(log: &Log<Canary>, many: usize) -> Vec<Reader> {
    (0..many).map(|_| Reader::new(log)).collect()
}

/// Takes out those that were woken.
fn take_woken(readers: &mut Vec<Reader>) -> Vec<Reader> {
    readers.extract_if(.., |reader| reader.woken() > 0).collect()
}

/// The publisher's bill does not grow with the number of those who wait: it wakes two, and each of
/// them four more.
#[test]
fn each_who_is_woken_wakes_a_few_more() {
    explore_one(|| {
        let log = tiny().build().unwrap();
        let mut waiting = readers(&log, 100);
        append(&log, 7);
        let mut running = take_woken(&mut waiting);
        assert_eq!(running.len(), 2);
        while let Some(mut reader) = running.pop() {
            assert!(reader.is_ready());
            assert_eq!(reader.woken(), 1);
            let next = take_woken(&mut waiting);
            assert_eq!(next.len(), 4.min(waiting.len() + next.len()));
            running.extend(next);
        }
        assert_eq!(waiting.len(), 0);
    });
}

/// Nobody is woken by those who come later: they are on their way already.
#[test]
fn publishers_that_pass_a_cascade_by_pay_nothing() {
    explore_one(|| {
        let log = tiny().build().unwrap();
        let waiting = readers(&log, 10);
        (0..10).for_each(|n| append(&log, n));
        assert_eq!(waiting.iter().filter(|reader| reader.woken() > 0).count(), 2);
    });
}

#[test]
fn a_wake_up_that_nobody_wants_any_more_is_handed_on() {
    fn give_up(give_up: fn(Reader) -> Option<Reader>) {
        let log = tiny().build().unwrap();
        let mut waiting = readers(&log, 10);
        append(&log, 7);
        let _kept: Vec<_> = take_woken(&mut waiting).into_iter().map(give_up).collect();
        assert_eq!(waiting.iter().filter(|reader| reader.woken() > 0).count(), 8);
    }
    explore_one(|| {
        give_up(|mut reader| {
            reader.cursor.stop_waiting();
            Some(reader)
        });
    });
    explore_one(|| {
        give_up(|reader| {
            drop(reader.cursor);
            None
        });
    });
}

#[test]
fn a_future_that_is_dropped_hands_its_wake_up_on() {
    explore_one(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut cursors = [(); 10].map(|()| log.subscribe(Start::Next).unwrap());
        let mut futures = Vec::new();
        for cursor in &mut cursors {
            let woken = Arc::new(Woken(Count::new(0)));
            let waker = Waker::from(woken.clone());
            let mut next = cursor.next(|_| ());
            let polled = std::pin::Pin::new(&mut next).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            futures.push((woken, next));
        }
        append(&log, 7);
        let times = |woken: &Woken| woken.0.load(Order::Relaxed);
        assert_eq!(futures.extract_if(.., |(woken, _)| times(woken) > 0).count(), 2);
        assert!(futures.iter().all(|(woken, _)| times(woken) == 1));
    });
}

/// It is not its turn to be woken yet, but it comes by and finds the record.
#[test]
fn who_has_read_is_not_woken_for_it_afterwards() {
    explore_one(|| {
        let log = tiny().build().unwrap();
        let mut waiting = readers(&log, 20);
        append(&log, 7);
        let mut running = take_woken(&mut waiting);
        let mut early = waiting.remove(3);
        assert!(early.is_ready());
        assert!(!early.is_known());
        while let Some(mut reader) = running.pop() {
            assert!(reader.is_ready());
            running.extend(take_woken(&mut waiting));
        }
        assert_eq!((early.woken(), waiting.len()), (0, 0));
    });
}
