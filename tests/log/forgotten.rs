//! Waiters that are never run again, and wakers that do what they like: nobody else waits for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use psa::*;

use crate::tasks::{Task, until_waiting};
use crate::{limited, small};

/// Returns when `holds` does. What takes so long never comes.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what} never came");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Readers that wait for the log's next record and are well: threads that block, and tasks.
struct Healthy {
    threads: Vec<JoinHandle<Result<usize, ReadError>>>,
    tasks: Vec<(Task, Cursor<u64>)>,
}

impl Healthy {
    fn new(log: &Log<u64>, threads: usize, tasks: usize) -> Self {
        let before = log.stats().reader_waits;
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let mut cursor = log.subscribe(Start::Next).unwrap();
                std::thread::spawn(move || cursor.blocking_next(|batch| batch.len()))
            })
            .collect();
        let seated = before + threads.len() as u64;
        until_waiting(&threads.iter().collect::<Vec<_>>(), || log.stats().reader_waits, seated);
        let tasks = (0..tasks)
            .map(|_| {
                let (task, mut cursor) = (Task::new(), log.subscribe(Start::Next).unwrap());
                assert!(cursor.poll_ready(&mut task.context()).is_pending());
                (task, cursor)
            })
            .collect();
        Healthy { threads, tasks }
    }

    /// All of them hear of one record.
    fn hear(self) {
        until("a wake-up of a task", || self.tasks.iter().all(|(task, _)| task.woken() > 0));
        until("a wake-up of a thread", || self.threads.iter().all(|thread| thread.is_finished()));
        for thread in self.threads {
            assert!(thread.join().unwrap().unwrap() >= 1);
        }
        for (_, mut cursor) in self.tasks {
            assert!(cursor.try_next(|batch| batch.len()).unwrap().unwrap() >= 1);
        }
    }
}

/// A waker that nobody minds.
struct Deaf;

impl Wake for Deaf {
    fn wake(self: Arc<Self>) {}
}

fn deaf() -> Waker {
    Waker::from(Arc::new(Deaf))
}

// ---- waiters ----

/// Waits and is forgotten. What is returned lives until the end of the test.
type Forgotten = fn(&Log<u64>) -> Option<Cursor<u64>>;

/// Ways in which a reader does so.
const FORGOTTEN: [Forgotten; 4] = [
    // Polled once and kept.
    |log| {
        let mut cursor = log.subscribe(Start::Next).unwrap();
        assert!(cursor.poll_ready(&mut Context::from_waker(&deaf())).is_pending());
        Some(cursor)
    },
    // The same, and leaked.
    |log| {
        let mut cursor = log.subscribe(Start::Next).unwrap();
        assert!(cursor.poll_ready(&mut Context::from_waker(&deaf())).is_pending());
        std::mem::forget(cursor);
        None
    },
    // Its future is leaked, not the cursor.
    |log| {
        let mut cursor = log.subscribe(Start::Next).unwrap();
        let mut next = cursor.next(|_| ());
        assert!(Pin::new(&mut next).poll(&mut Context::from_waker(&deaf())).is_pending());
        std::mem::forget(next);
        Some(cursor)
    },
    // A stream that nobody polls again.
    |log| {
        let mut stream = log.subscribe(Start::Next).unwrap().into_stream();
        let polled = futures_core::Stream::poll_next(
            Pin::new(&mut stream),
            &mut Context::from_waker(&deaf()),
        );
        assert!(polled.is_pending());
        std::mem::forget(stream);
        None
    },
];

/// They come last, so they are woken first.
#[test]
fn readers_that_are_forgotten_keep_no_record_from_others() {
    for forget in FORGOTTEN {
        for forgotten in [1, 2, 3, 8, 40] {
            let log = small().build().unwrap();
            let healthy = Healthy::new(&log, 3, 3);
            let _kept: Vec<_> = (0..forgotten).map(|_| forget(&log)).collect();
            log.blocking_append(7).unwrap();
            healthy.hear();
        }
    }
}

/// Of those who wait, every other one is forgotten.
#[test]
fn readers_that_are_forgotten_among_others_keep_no_record_from_them() {
    let log = small().build().unwrap();
    let (mut kept, mut healthy) = (Vec::new(), Vec::new());
    for n in 0..50 {
        healthy.push(Healthy::new(&log, usize::from(n % 10 == 0), 1));
        kept.push(FORGOTTEN[0](&log));
    }
    log.blocking_append(7).unwrap();
    healthy.into_iter().for_each(Healthy::hear);
}

/// All tasks of a runtime wait, and then one of them does not return.
#[test]
fn readers_on_a_runtime_that_stands_still_keep_no_record_from_others() {
    let log = small().build().unwrap();
    let healthy = Healthy::new(&log, 2, 2);
    let (end, ends) = channel::<()>();
    let runtime = std::thread::spawn({
        let log = log.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let tasks: Vec<_> = (0..40)
                .map(|_| {
                    let mut cursor = log.subscribe(Start::Next).unwrap();
                    runtime.spawn(async move { cursor.next(|batch| batch.len()).await })
                })
                .collect();
            runtime.block_on(async move {
                tokio::task::yield_now().await;
                ends.recv().unwrap_err();
                for task in tasks {
                    assert!(task.await.unwrap().unwrap() >= 1);
                }
            });
        }
    });
    until("the tasks' turn", || log.stats().reader_waits >= 44);
    log.blocking_append(7).unwrap();
    healthy.hear();
    drop(end);
    runtime.join().unwrap();
}

/// A log at its limit, and publishers that wait for room.
struct Full {
    log: Log<u64>,
    cursor: Cursor<u64>,
    healthy: Vec<JoinHandle<u64>>,
}

impl Full {
    fn new() -> Self {
        let log = limited(2, Overflow::Block);
        let cursor = log.subscribe(Start::Earliest).unwrap();
        log.blocking_append_batch(0..4).unwrap();
        log.blocking_append_batch(4..8).unwrap();
        let blocked = std::thread::spawn({
            let log = log.clone();
            move || log.blocking_append(8).unwrap()
        });
        let task = std::thread::spawn({
            let log = log.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            move || runtime.block_on(log.append(9)).unwrap()
        });
        until_waiting(&[&blocked, &task], || log.stats().publisher_waits, 2);
        Full { log, cursor, healthy: vec![blocked, task] }
    }

    /// Reads, so that there is room for all who are well.
    fn makes_room(mut self) {
        self.cursor.try_next(|batch| assert_eq!(batch.len(), 4)).unwrap();
        until("room", || self.healthy.iter().all(|thread| thread.is_finished()));
        let mut offsets = self.healthy.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(offsets.by_ref().map(|offset| offset - 8).sum::<u64>(), 1);
    }
}

#[test]
fn publishers_that_are_forgotten_keep_no_room_from_others() {
    for forgotten in [1, 2, 3, 40] {
        let full = Full::new();
        let log = full.log.clone();
        let mut kept: Vec<_> = (0..forgotten).map(|n| Box::pin(log.append(n))).collect();
        for future in &mut kept {
            assert!(future.as_mut().poll(&mut Context::from_waker(&deaf())).is_pending());
        }
        full.makes_room();
        drop(kept);
    }
}

#[test]
fn publishers_that_are_leaked_keep_no_room_from_others() {
    let full = Full::new();
    let log: &'static Log<u64> = Box::leak(Box::new(full.log.clone()));
    for n in 0..40 {
        let mut future = Box::pin(log.append(n));
        assert!(future.as_mut().poll(&mut Context::from_waker(&deaf())).is_pending());
        std::mem::forget(future);
    }
    full.makes_room();
}

#[test]
fn appenders_that_are_leaked_keep_no_room_from_others() {
    let ends = 16u32.to_le_bytes();
    let record = || Packed::new(&ends, &[7; 16]).unwrap();
    let builder = || Log::<[u8]>::builder().segment_bytes(64).segment_records(4);
    let segment = builder().build().unwrap().stats().live_bytes;
    let log = builder().memory_limit(2 * segment).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    while log.try_append_batch(record()).is_ok() {}
    let blocked = std::thread::spawn({
        let log = log.clone();
        move || log.blocking_append([7; 16]).unwrap()
    });
    until_waiting(&[&blocked], || log.stats().publisher_waits, 1);
    for _ in 0..40 {
        let mut appender = log.appender();
        let waker = deaf();
        let mut cx = Context::from_waker(&waker);
        assert!(appender.poll_append_batch(&mut cx, record()).is_pending());
        std::mem::forget(appender);
    }
    cursor.try_next(|_| ()).unwrap();
    until("room", || blocked.is_finished());
    blocked.join().unwrap();
}

// ---- wakers ----

/// A waker that does not return before the test is over.
struct Blocks(Mutex<Receiver<()>>, AtomicBool);

impl Blocks {
    fn new() -> (Sender<()>, Arc<Self>) {
        let (end, ends) = channel();
        (end, Arc::new(Blocks(Mutex::new(ends), AtomicBool::new(false))))
    }
}

impl Wake for Blocks {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::Relaxed);
        let _ = self.0.lock().unwrap().recv();
    }
}

/// Each of them holds up whoever called it: the publisher, or a thread of the library's own.
#[test]
fn wakers_that_block_for_ever_hold_up_nobody_else() {
    for (blocking, threads, tasks) in [(1, 0, 1), (1, 2, 2), (3, 3, 3), (3, 3, 40)] {
        let log = small().build().unwrap();
        // Before, between and after the others.
        let mut healthy = Vec::new();
        let (ends, mut cursors): (Vec<_>, Vec<_>) = (0..blocking)
            .map(|_| {
                healthy.push(Healthy::new(&log, threads, tasks));
                let (end, blocks) = Blocks::new();
                let mut cursor = log.subscribe(Start::Next).unwrap();
                let waker = Waker::from(blocks.clone());
                assert!(cursor.poll_ready(&mut Context::from_waker(&waker)).is_pending());
                (end, (cursor, blocks))
            })
            .unzip();
        let publisher = std::thread::spawn({
            let log = log.clone();
            move || log.blocking_append(7).unwrap()
        });
        healthy.into_iter().for_each(Healthy::hear);
        until("the other wake-ups", || cursors.iter().all(|(_, b)| b.1.load(Ordering::Relaxed)));
        for (cursor, _) in &mut cursors {
            assert_eq!(cursor.try_next(|batch| batch.len()), Ok(Some(1)));
        }
        drop(ends);
        publisher.join().unwrap();
    }
}

/// A log is closed, and the waker of a reader does not return: publishers that wait for room hear of it.
#[test]
fn a_reader_whose_waker_blocks_keeps_the_end_from_no_publisher() {
    let log = limited(2, Overflow::Block);
    let _stalled = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    log.blocking_append_batch(4..8).unwrap();
    let mut reader = log.subscribe(Start::Next).unwrap();
    let (end, blocks) = Blocks::new();
    let waker = Waker::from(blocks);
    assert!(reader.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    let publisher = std::thread::spawn({
        let log = log.clone();
        move || log.blocking_append(8).unwrap_err().reason
    });
    until_waiting(&[&publisher], || log.stats().publisher_waits, 1);
    let closer = std::thread::spawn({
        let log = log.clone();
        move || log.close()
    });
    until("the end", || publisher.is_finished());
    assert_eq!(publisher.join().unwrap(), AppendError::Closed);
    drop(end);
    closer.join().unwrap();
}

/// What the wakers of `acting` do when they are cloned, woken and dropped.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Panics,
    Reenters,
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    Cloned,
    Woken,
    Dropped,
}

struct Acting {
    log: Log<u64>,
    act: Mutex<Option<(Act, When)>>,
    living: AtomicU32,
}

impl Acting {
    fn acts(&self, when: When) {
        let act = *self.act.lock().unwrap();
        match act {
            Some((Act::Panics, at)) if at == when => {
                std::panic::resume_unwind(Box::new("a waker's own fault"));
            }
            Some((Act::Reenters, at)) if at == when => {
                // Not for ever: what is done here wakes others.
                *self.act.lock().unwrap() = None;
                self.log.blocking_append(1).unwrap();
                drop(self.log.subscribe(Start::Earliest).unwrap());
                self.log.stats();
            }
            _ => {}
        }
    }

    fn waker(&'static self) -> Waker {
        fn acting(data: *const ()) -> &'static Acting {
            // SAFETY: each waker is made of a leaked `Acting`.
            unsafe { &*data.cast() }
        }
        static TABLE: RawWakerVTable = RawWakerVTable::new(
            |data| {
                acting(data).acts(When::Cloned);
                acting(data).living.fetch_add(1, Ordering::Relaxed);
                RawWaker::new(data, &TABLE)
            },
            |data| {
                acting(data).living.fetch_sub(1, Ordering::Relaxed);
                acting(data).acts(When::Woken);
            },
            |data| acting(data).acts(When::Woken),
            |data| {
                acting(data).living.fetch_sub(1, Ordering::Relaxed);
                acting(data).acts(When::Dropped);
            },
        );
        self.living.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the table's functions take what is given here, and keep no more than a count.
        unsafe { Waker::from_raw(RawWaker::new(std::ptr::from_ref(self).cast(), &TABLE)) }
    }
}

/// Whatever a waker does at whatever moment, waits go on, pins are given back, and no waker is left behind.
#[test]
fn wakers_that_panic_or_come_back_harm_nobody() {
    for act in [Act::Panics, Act::Reenters] {
        for when in [When::Cloned, When::Woken, When::Dropped] {
            let log = small().build().unwrap();
            let acting: &'static Acting = Box::leak(Box::new(Acting {
                log: log.clone(),
                act: Mutex::new(None),
                living: AtomicU32::new(0),
            }));
            // More than a notifier wakes whole, at times.
            for waiting in [5, 30, 5, 30] {
                let wakers = [(); 3].map(|()| acting.waker());
                let mut cursors: Vec<_> =
                    (0..waiting).map(|_| log.subscribe(Start::Next).unwrap()).collect();
                let poll = |cursor: &mut Cursor<u64>, n: usize| {
                    let _ = cursor.poll_ready(&mut Context::from_waker(&wakers[n % 3]));
                };
                cursors.iter_mut().enumerate().for_each(|(n, cursor)| poll(cursor, n));
                let arm = || *acting.act.lock().unwrap() = Some((act, when));
                for attempt in 0..8 {
                    arm();
                    let _ = catch_unwind(AssertUnwindSafe(|| match attempt {
                        0 => poll(&mut cursors[0], 2),
                        1 => cursors[1].stop_waiting(),
                        2 => drop(cursors.pop()),
                        3 => drop(log.blocking_append(2)),
                        4 => poll(&mut cursors[0], 1),
                        5 => poll(&mut cursors[2], 2),
                        6 => drop(cursors.pop()),
                        _ => drop(log.blocking_append(3)),
                    }));
                }
                *acting.act.lock().unwrap() = None;
                for cursor in &mut cursors {
                    while let Ok(Some(_)) = cursor.try_next(|batch| batch.len()) {}
                }
                let healthy = Healthy::new(&log, 1, 1);
                log.blocking_append(4).unwrap();
                healthy.hear();
                drop((cursors, wakers));
                assert_eq!(log.stats().cursors, 0);
                assert_eq!(log.stats().live_segments, 1, "a pin was not given back");
            }
            // Nodes of those who are gone have none either, or go with the set.
            until("the last waker's end", || acting.living.load(Ordering::Relaxed) == 0);
        }
    }
}

/// A panic in a waker's end is its own affair also where a log ends with waits that were leaked.
#[test]
fn a_log_ends_although_the_wakers_of_leaked_waits_panic() {
    let acting: &'static Acting = Box::leak(Box::new(Acting {
        log: small().build().unwrap(),
        act: Mutex::new(None),
        living: AtomicU32::new(0),
    }));
    let log = limited(2, Overflow::Block);
    let cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    log.blocking_append_batch(4..8).unwrap();
    // A chain that is being woken, and one that is not yet.
    for _ in 0..2 {
        for n in 0..20 {
            let waker = acting.waker();
            let mut future = Box::pin(log.append(n));
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            // It has no part in the log: its node is the set's alone.
            std::mem::forget(future);
        }
        log.maintain();
    }
    *acting.act.lock().unwrap() = Some((Act::Panics, When::Dropped));
    drop((cursor, log));
    until("the last waker's end", || acting.living.load(Ordering::Relaxed) == 0);
    *acting.act.lock().unwrap() = None;
}

// ---- other processes ----

/// A child of a fork has none of the library's threads, and wakes everybody all the same.
#[cfg(target_os = "linux")]
#[test]
fn a_child_of_a_fork_wakes_everybody() {
    static LOG: std::sync::OnceLock<Log<u64>> = std::sync::OnceLock::new();
    let log = LOG.get_or_init(|| small().build().unwrap());
    // So that the parent has its thread, and the log is known to it.
    let healthy = Healthy::new(log, 1, 40);
    let _kept: Vec<_> = (0..2).map(|_| FORGOTTEN[0](log)).collect();
    log.blocking_append(7).unwrap();
    let run = |log: &Log<u64>| {
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                let (task, mut cursor) = (Task::new(), log.subscribe(Start::Next).unwrap());
                assert!(cursor.poll_ready(&mut task.context()).is_pending());
                (task, cursor)
            })
            .collect();
        log.blocking_append(8).unwrap();
        let begin = Instant::now();
        while !tasks.iter().all(|(task, _)| task.woken() > 0) {
            if begin.elapsed() > Duration::from_secs(20) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    };
    // SAFETY: the child allocates and starts threads, which glibc allows after a fork, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let well = catch_unwind(AssertUnwindSafe(|| run(log) && run(&small().build().unwrap())));
        // SAFETY: ends the child, without its parent's handlers.
        unsafe { libc::_exit(if well.unwrap_or(false) { 0 } else { 1 }) };
    }
    healthy.hear();
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child was killed");
    assert_eq!(libc::WEXITSTATUS(status), 0, "a wake-up never came in the child");
}
