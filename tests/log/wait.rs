//! Waiting, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use psa::*;

use crate::tasks::until_waiting;
use crate::{drain, small};

// ---- closing ----

#[test]
fn cursors_drain_a_closed_log_and_then_see_the_end() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    log.blocking_append_batch(4..6).unwrap();
    log.close();
    log.close();
    assert_eq!(log.blocking_append(6).unwrap_err().reason, AppendError::Closed);
    let mut late = log.subscribe(Start::Earliest).unwrap();
    assert_eq!(drain(&mut cursor), [0, 1, 2, 3, 4, 5]);
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
    assert_eq!(cursor.blocking_next(|_| ()), Err(ReadError::Closed));
    assert_eq!(drain(&mut late), [0, 1, 2, 3, 4, 5], "kept by the first cursor when it came");
}

#[test]
fn the_last_handle_closes_the_log() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let clone = log.clone();
    drop(log);
    clone.blocking_append(1).unwrap();
    drop(clone);
    assert_eq!(drain(&mut cursor), [1]);
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
}

#[test]
fn waiting_ends_with_the_log() {
    let log = small::<u64>().build().unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            std::thread::spawn(move || cursor.blocking_next(|_| ()))
        })
        .collect();
    while log.stats().reader_waits < 4 {
        std::thread::yield_now();
    }
    drop(log);
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), Err(ReadError::Closed));
    }
}

// ---- waiting ----

#[test]
fn a_deadline_is_kept() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let before = Instant::now();
    let deadline = before + Duration::from_millis(20);
    assert_eq!(cursor.blocking_next_until(deadline, |_| ()), Ok(None));
    assert!(before.elapsed() >= Duration::from_millis(20));
    log.blocking_append(5).unwrap();
    assert_eq!(cursor.blocking_next_until(deadline, |b| b.as_slice()[0]), Ok(Some(5)));
}

#[test]
fn one_append_wakes_a_thousand_tasks() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let log = small::<u64>().build().unwrap();
    let tasks: Vec<_> = (0..1000)
        .map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            runtime.spawn(async move {
                let mut sum = 0;
                loop {
                    match cursor.next(|b| b.as_slice().iter().sum::<u64>()).await {
                        Ok(part) => sum += part,
                        Err(end) => return (sum, end),
                    }
                }
            })
        })
        .collect();
    for n in 1..=10 {
        while log.stats().reader_waits < 1000 && n == 1 {
            std::thread::yield_now();
        }
        log.blocking_append(n).unwrap();
    }
    log.close();
    for task in tasks {
        assert_eq!(runtime.block_on(task).unwrap(), (55, ReadError::Closed));
    }
}

#[test]
fn dropped_futures_leave_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let log = small::<u64>().build().unwrap();
        for _ in 0..1000 {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            let wait = cursor.next(|_| ());
            tokio::select! {
                biased;
                _ = wait => unreachable!("nothing was appended"),
                () = std::future::ready(()) => {}
            }
        }
        let mut cursor = log.subscribe(Start::Next).unwrap();
        log.blocking_append(1).unwrap();
        assert_eq!(cursor.next(|b| b.len()).await, Ok(1));
    });
}

/// Two tasks wait, and the waker of one panics: the publisher does not notice, and the other one is
/// woken.
#[test]
fn a_waker_that_panics_harms_nobody_else() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::panic_any("a waker's own fault");
        }
    }
    struct Counts(AtomicUsize);
    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    for panics_first in [false, true] {
        let log = Log::<u64>::builder().build().unwrap();
        let counts = Arc::new(Counts(AtomicUsize::new(0)));
        let mut wakers = [Waker::from(counts.clone()), Waker::from(Arc::new(Panics))];
        if panics_first {
            wakers.reverse();
        }
        let mut cursors = [(); 2].map(|()| log.subscribe(Start::Next).unwrap());
        for (cursor, waker) in cursors.iter_mut().zip(&wakers) {
            assert!(cursor.poll_ready(&mut Context::from_waker(waker)).is_pending());
        }
        assert_eq!(log.blocking_append(7).unwrap(), 0);
        assert_eq!(counts.0.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_record_comes_before_the_deadline() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let late = Instant::now() + Duration::from_secs(3600);
    let reader =
        std::thread::spawn(move || cursor.blocking_next_until(late, |batch| batch.first_offset()));
    until_waiting(&[&reader], || log.stats().reader_waits, 1);
    log.blocking_append(5).unwrap();
    assert_eq!(reader.join().unwrap(), Ok(Some(0)));
}

// ---- turns ----

/// Polls `task` until it is done, and says how often it let others go first: it was pending, and woken
/// at once.
fn times_aside(task: impl Future<Output = ()>) -> usize {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    let mut task = std::pin::pin!(task);
    while task.as_mut().poll(&mut cx).is_pending() {
        assert!(
            woken.0.swap(0, Ordering::Relaxed) > 0,
            "pending with records there, and not woken"
        );
    }
    woken.1.load(Ordering::Relaxed)
}

#[derive(Default)]
struct Woken(AtomicUsize, AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// A log with a mebibyte and a half of records, and a cursor in front of them.
fn backlog(segment_bytes: usize) -> (Log<[u8]>, Cursor<[u8]>, usize) {
    let log = Log::<[u8]>::builder().segment_bytes(segment_bytes).build().unwrap();
    let cursor = log.subscribe(Start::Next).unwrap();
    let records = 1536;
    for _ in 0..records {
        log.blocking_append([7; 1024]).unwrap();
    }
    (log, cursor, records)
}

/// After every 256 KiB but the last.
const ASIDE: usize = 5;

#[test]
fn a_task_that_catches_up_lets_others_go_first() {
    let (_log, mut cursor, records) = backlog(64 << 10);
    let aside = times_aside(async {
        let mut read = 0;
        while read < records {
            read += cursor.next(|batch| batch.len()).await.unwrap();
        }
        assert_eq!(read, records);
    });
    assert_eq!(aside, ASIDE);
}

#[test]
fn a_task_that_catches_up_with_values_lets_others_go_first() {
    let log = Log::<[u8; 1024]>::builder().segment_records(64).build().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    for _ in 0..1536 {
        assert!(log.blocking_append([7; 1024]).is_ok());
    }
    let aside = times_aside(async {
        let mut read = 0;
        while read < 1536 {
            read += cursor.next(|batch| batch.len()).await.unwrap();
        }
    });
    assert_eq!(aside, ASIDE);
}

#[test]
fn a_stream_that_catches_up_lets_others_go_first() {
    // It takes 64 KiB from a segment at a time.
    let (_log, cursor, records) = backlog(1 << 20);
    let aside = times_aside(async {
        let mut stream = cursor.into_stream();
        for offset in 0..records as u64 {
            let next = std::future::poll_fn(|cx| {
                futures_core::Stream::poll_next(std::pin::Pin::new(&mut stream), cx)
            });
            assert_eq!(next.await.unwrap().unwrap().0, offset);
        }
    });
    assert_eq!(aside, ASIDE);
}

#[test]
fn a_task_that_has_read_little_does_not_step_aside() {
    let log = Log::<[u8]>::builder().build().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    log.blocking_append([7; 1024]).unwrap();
    let aside = times_aside(async { assert_eq!(cursor.next(|batch| batch.len()).await, Ok(1)) });
    assert_eq!(aside, 0);
}
