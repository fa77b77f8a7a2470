//! Wakers whose clone, wake-up or destructor panics, or uses the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};
use std::thread;

use parking_lot::Mutex;
use psa::*;

use crate::watchdog::{panic_as_planned, watched_alone};

static LOG: Mutex<Option<Log<u64>>> = Mutex::new(None);
static MODE: AtomicU32 = AtomicU32::new(0);
static ALIVE: AtomicI64 = AtomicI64::new(0);

const CLONE: u32 = 1;
const WAKE: u32 = 2;
const DROP: u32 = 3;
/// Added to these: it uses the log, and does not panic.
const USES: u32 = 10;

fn act(what: u32) {
    let mode = MODE.load(Ordering::Relaxed);
    if mode == what {
        panic_as_planned();
    }
    if mode == USES + what {
        let log = LOG.lock().clone().unwrap();
        log.blocking_append(1).unwrap();
        drop(log.subscribe(Start::Earliest).unwrap());
        log.stats();
    }
}

// SAFETY: nothing is behind the pointer; each function only counts.
static WAKER: RawWakerVTable = RawWakerVTable::new(
    |number| {
        act(CLONE);
        ALIVE.fetch_add(1, Ordering::Relaxed);
        RawWaker::new(number, table())
    },
    |_| {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
        act(WAKE);
    },
    |_| act(WAKE),
    |_| {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
        act(DROP);
    },
);

fn table() -> &'static RawWakerVTable {
    static TABLE: OnceLock<&'static RawWakerVTable> = OnceLock::new();
    TABLE.get_or_init(|| &WAKER)
}

fn waker(number: usize) -> Waker {
    ALIVE.fetch_add(1, Ordering::Relaxed);
    // SAFETY: see the table.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::without_provenance(number), table())) }
}

fn caught(what: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(what));
}

/// Whatever a waker does, the log works afterwards, nobody else misses a wake-up, and no waker is lost or dropped twice.
#[test]
fn a_waker_that_panics_or_uses_the_log_harms_nobody() {
    watched_alone(|progress| {
        for mode in [CLONE, WAKE, DROP, USES + CLONE, USES + WAKE, USES + DROP] {
            for round in 0..50 {
                progress.at(format!("mode {mode}, round {round}"));
                let log = Log::<u64>::builder().segment_records(4).build().unwrap();
                *LOG.lock() = Some(log.clone());
                harass(&log, mode, round);
                *LOG.lock() = None;
                drop(log);
                assert_eq!(ALIVE.load(Ordering::Relaxed), 0, "mode {mode}");
            }
        }
    });
}

fn harass(log: &Log<u64>, mode: u32, round: u64) {
    let mut cursors: Vec<_> = (0..5).map(|_| log.subscribe(Start::Next).unwrap()).collect();
    let wakers: Vec<_> = (0..10).map(waker).collect();
    for (cursor, waker) in cursors.iter_mut().zip(&wakers) {
        assert!(cursor.poll_ready(&mut Context::from_waker(waker)).is_pending());
    }
    let mut poll = |cursor: usize, waker: usize| {
        let cursor = &mut cursors[cursor];
        caught(|| _ = cursor.poll_ready(&mut Context::from_waker(&wakers[waker])));
    };
    MODE.store(mode, Ordering::Relaxed);
    poll(0, 5);
    caught(|| drop(log.blocking_append(round)));
    poll(0, 6);
    poll(2, 7);
    caught(|| cursors[1].stop_waiting());
    let last = cursors.pop();
    caught(|| drop(last));
    caught(|| drop(log.blocking_append(round)));
    MODE.store(0, Ordering::Relaxed);
    for cursor in &mut cursors {
        while let Ok(Some(_)) = cursor.try_next(|batch| batch.len()) {}
    }
    // A fresh waiter hears of the next record.
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let publisher = thread::spawn({
        let log = log.clone();
        move || log.blocking_append(7)
    });
    cursor.blocking_next(|batch| batch.len()).unwrap();
    publisher.join().unwrap().unwrap();
    drop((cursor, cursors));
    assert_eq!(log.stats().live_segments, 1);
    MODE.store(0, Ordering::Relaxed);
}
