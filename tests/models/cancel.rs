//! Waits that end before what they wait for comes. Whoever was woken and does not care any more hands
//! the wake-up on; a wake-up that is kept shows as a deadlock of the others.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use shuttle::future::block_on;
use shuttle::thread;

use crate::explore::explore;
use crate::log::{Cursor, Log, Overflow, Start};
use crate::support::{Canary, read_available, segment, take, tiny};
use crate::sync::time::Instant;

/// Polls a future once, with a waker that is this call's alone.
pub(crate) fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    block_on(poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))))
}

/// A future that is polled once and then dropped, perhaps between its wake-up and its next poll,
/// keeps nobody else from waking.
#[test]
fn a_cancelled_wait_hands_its_wake_up_on() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let fickle = [0, 1, 2].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || {
                for _ in 0..2 {
                    let polled = poll_once(pin!(cursor.next(|batch| batch.first_offset())));
                    assert!(polled.is_pending() || polled == Poll::Ready(Ok(0)));
                }
            })
        });
        let patient = [0, 1].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || block_on(take(&mut cursor, 1)))
        });
        log.blocking_append(Canary::new(0)).unwrap();
        for reader in patient {
            reader.join().unwrap();
        }
        for reader in fickle {
            reader.join().unwrap();
        }
    });
}

/// A thread that waits with a deadline, which is over at once.
#[test]
fn a_wait_that_is_over_hands_its_wake_up_on() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let fickle = [0, 1, 2].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || {
                let seen = cursor.blocking_next_until(Instant::now(), |batch| batch.first_offset());
                assert!(matches!(seen, Ok(None | Some(0))));
                cursor
            })
        });
        let patient = [0, 1].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || cursor.blocking_next(|batch| assert_eq!(batch.len(), 1)).unwrap())
        });
        log.blocking_append(Canary::new(0)).unwrap();
        for reader in patient {
            reader.join().unwrap();
        }
        for reader in fickle {
            assert!(reader.join().unwrap().offset() <= 1);
        }
    });
}

/// What watches the log's end without a place in it looks once, and goes, or rests. Those who read wait beside
/// it.
fn a_watch_ends_its_wait(rests: bool) {
    let log: Log<Canary> = tiny().build().unwrap();
    let fickle = [0, 1, 2].map(|_| {
        let mut watch = log.watch();
        thread::spawn(move || {
            let _ = poll_once(pin!(poll_fn(|cx| watch.poll_past(cx, 0))));
            if rests {
                watch.stop_waiting();
            }
            rests.then_some(watch)
        })
    });
    let patient = [0, 1].map(|_| {
        let mut cursor = log.subscribe(Start::Next).unwrap();
        thread::spawn(move || block_on(take(&mut cursor, 1)))
    });
    log.blocking_append(Canary::new(0)).unwrap();
    for reader in patient {
        reader.join().unwrap();
    }
    // Until now, one who rests has been there.
    for watch in fickle {
        assert_eq!(watch.join().unwrap().is_some(), rests);
    }
}

#[test]
fn a_watch_that_goes_hands_its_wake_up_on() {
    explore(|| a_watch_ends_its_wait(false));
}

#[test]
fn a_watch_that_rests_hands_its_wake_up_on() {
    explore(|| a_watch_ends_its_wait(true));
}

/// A future is polled by one thread and then by another one, which is the one to be woken: the first
/// one waits for nothing any more but the second one's end.
#[test]
fn a_wait_that_moves_to_another_task_is_woken_there() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let movers = [0, 1].map(|_| {
            let mut cursor: Cursor<Canary> = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || {
                let wait = async move { cursor.next(|batch| batch.first_offset()).await };
                let mut wait = Box::pin(wait);
                match poll_once(wait.as_mut()) {
                    Poll::Ready(seen) => seen,
                    Poll::Pending => thread::spawn(move || block_on(wait)).join().unwrap(),
                }
            })
        });
        log.blocking_append(Canary::new(0)).unwrap();
        for mover in movers {
            assert_eq!(mover.join().unwrap(), Ok(0));
        }
    });
}

/// The same on the side of the publishers: one that waits for room is dropped, and the others do not
/// wait for it.
#[test]
fn a_cancelled_wait_for_room_hands_its_wake_up_on() {
    explore(|| {
        let builder = tiny::<Canary>().memory_limit(2 * segment()).overflow(Overflow::Block);
        let log = builder.build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        for first in [0, 2] {
            log.blocking_append_batch([first, first + 1].map(Canary::new)).unwrap();
        }
        let fickle = [0, 1, 2].map(|_| {
            let log = log.clone();
            thread::spawn(move || poll_once(pin!(log.append(Canary::new(9)))).is_ready())
        });
        let patient = thread::spawn({
            let log = log.clone();
            move || block_on(log.append(Canary::new(4))).unwrap()
        });
        let mut seen = read_available(&mut cursor);
        // With the fickle ones' records, there may be no room again until the next look.
        while !seen.contains(&4) {
            cursor
                .blocking_next(|batch| seen.extend(batch.iter().map(|(_, value)| value.read())))
                .unwrap();
        }
        patient.join().unwrap();
        let appended =
            fickle.into_iter().filter_map(|fickle| fickle.join().unwrap().then_some(())).count();
        seen.extend(read_available(&mut cursor));
        assert_eq!(seen.len(), 5 + appended);
    });
}
