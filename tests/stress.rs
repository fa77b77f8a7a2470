//! Everything at once, on threads of the operating system: what sanitizers look at (`.ci/sanitize`).
//! Records own memory, so that a record that is read too early or too late is a race or a use after
//! free, not only a wrong number.

use std::thread;

use psa::*;

/// Owns an allocation, and can be checked.
struct Owned(Box<[u64; 4]>);

impl Owned {
    fn new(n: u64) -> Self {
        Owned(Box::new([n, n ^ 1, n ^ 2, n ^ 3]))
    }

    fn check(&self) {
        let [n, others @ ..] = *self.0;
        assert_eq!(others, [n ^ 1, n ^ 2, n ^ 3]);
    }
}

const PUBLISHERS: u64 = 2;
const EACH: u64 = 4_000;

fn tiny<R: Record + ?Sized>() -> Builder<R> {
    // No pool: what is freed too early is freed in earnest, for AddressSanitizer; and ThreadSanitizer,
    // which cannot follow the reclamation, forgets what it knew of the memory (see `.ci/tsan.supp`).
    Log::<R>::builder().segment_records(8).pool_segments(0)
}

fn check(batch: &Batch<'_, Owned>) {
    batch.iter().for_each(|(_, record)| record.check());
}

/// Attaches somewhere, reads a little, goes away, and comes back, until the log is closed.
fn come_and_go(log: &Log<Owned>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    while !log.is_closed() {
        let start = match rng.u8(..4) {
            0 => Start::Earliest,
            1 => Start::Next,
            2 => Start::Last(rng.u64(..40)),
            _ => Start::At(rng.u64(log.first_offset()..=log.next_offset())),
        };
        let Ok(mut cursor) = log.subscribe(start) else { continue };
        for _ in 0..rng.usize(..8) {
            match cursor.try_next(check) {
                Ok(_) | Err(ReadError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
        let stats = log.stats();
        assert!(stats.first_offset <= stats.next_offset);
    }
}

/// Reads everything in order, waiting with the thread; says how many records were read or missed.
fn follow(mut cursor: Cursor<Owned>) -> u64 {
    let mut next = 0;
    loop {
        let read = cursor.blocking_next(|batch| {
            assert_eq!(batch.first_offset(), next);
            check(batch);
            next = batch.next_offset();
        });
        match read {
            Ok(()) => {}
            Err(ReadError::Lagged(lagged)) => {
                assert_eq!(lagged.first_missed, next);
                next += lagged.missed;
            }
            Err(_) => return next,
        }
    }
}

fn churn(log: &Log<Owned>) {
    thread::scope(|scope| {
        let followers: Vec<_> = (0..2)
            .map(|_| {
                let cursor = log.subscribe(Start::Earliest).unwrap();
                scope.spawn(move || follow(cursor))
            })
            .collect();
        for seed in 0..2 {
            scope.spawn(move || come_and_go(log, seed));
        }
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|p| {
                scope.spawn(move || {
                    for n in 0..EACH / 4 {
                        let n = (p << 32) | n;
                        let _ = log.blocking_append(Owned::new(n)).unwrap();
                        log.blocking_append_batch((1..4).map(|i| Owned::new(n << 2 | i))).unwrap();
                    }
                })
            })
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        log.close();
        for follower in followers {
            assert_eq!(follower.join().unwrap(), PUBLISHERS * EACH);
        }
    });
    let stats = log.stats();
    assert_eq!((stats.live_segments, stats.unlinked_segments), (1, 0), "{stats:?}");
}

#[test]
fn without_a_limit() {
    churn(&tiny().build().unwrap());
}

#[test]
fn where_publishers_wait_at_the_limit() {
    let segment = tiny::<Owned>().build().unwrap().stats().live_bytes;
    churn(&tiny().memory_limit(6 * segment).overflow(Overflow::Block).build().unwrap());
}

#[test]
fn where_readers_are_evicted_at_the_limit() {
    let segment = tiny::<Owned>().build().unwrap().stats().live_bytes;
    churn(&tiny().memory_limit(6 * segment).overflow(Overflow::Evict).build().unwrap());
}

/// The exclusive form, of byte records: the word is the commit of index and payload.
#[test]
fn an_exclusive_publisher_of_bytes() {
    let (mut publisher, log) = tiny::<[u8]>().segment_bytes(256).build_exclusive().unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            scope.spawn(move || {
                let mut read = 0;
                while cursor
                    .blocking_next(|batch| {
                        for (offset, record) in batch.iter() {
                            assert!(record.iter().all(|byte| *byte == offset as u8));
                            assert_eq!(record.len() as u64, offset % 19);
                            read += 1;
                        }
                    })
                    .is_ok()
                {}
                assert_eq!(read, EACH);
            });
        }
        for n in 0..EACH {
            publisher.blocking_append(vec![n as u8; (n % 19) as usize]).unwrap();
        }
        drop(publisher);
    });
}

/// Leases that change hands while their log goes on.
#[test]
fn leases_change_hands() {
    let log: Log<Owned> = tiny().build().unwrap();
    thread::scope(|scope| {
        let holders: Vec<_> = (0..3)
            .map(|_| {
                let log = &log;
                scope.spawn(move || {
                    while !log.is_closed() {
                        let options = LeaseOptions {
                            ttl: std::time::Duration::from_secs(3600),
                            start: Start::Earliest,
                            take_over: true,
                        };
                        let Ok(mut lease) = log.lease("shared", options) else { continue };
                        for _ in 0..3 {
                            let Ok(Some(last)) = lease.try_next(|batch| {
                                check(batch);
                                batch.next_offset() - 1
                            }) else {
                                break;
                            };
                            let _ = lease.commit(..=last);
                        }
                    }
                })
            })
            .collect();
        for n in 0..EACH {
            let _ = log.blocking_append(Owned::new(n)).unwrap();
        }
        log.close();
        holders.into_iter().for_each(|holder| holder.join().unwrap());
    });
}
