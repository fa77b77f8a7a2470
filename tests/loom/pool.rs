//! The pool alone, with segments that are nothing but a value that loom watches: who takes one out must have
//! it to himself, and come after whoever put it in.

/// What the pool asks of the log.
mod record {
    pub(crate) trait Record {}
    impl<T> Record for T {}
}

mod segment {
    use std::marker::PhantomData;

    use crate::explore::Watched;

    pub(crate) struct Segment<R: ?Sized> {
        pub(super) content: Watched,
        pub(super) record: PhantomData<R>,
    }
}

#[path = "../../src/log/pool.rs"]
mod shipped;

use std::marker::PhantomData;
use std::sync::Arc;

use loom::thread;
use segment::Segment;

use crate::explore::{Watched, explore_all};

type Pool = shipped::Pool<u64>;

fn pool(capacity: usize, segments: u64) -> Arc<Pool> {
    let pool = Pool::new(capacity);
    (0..segments).for_each(|n| assert!(put(&pool, n)));
    Arc::new(pool)
}

/// Puts in a segment that was made by this thread. False if it came back.
fn put(pool: &Pool, n: u64) -> bool {
    let segment = Segment { content: Watched::new(n), record: PhantomData };
    match pool.put(Box::new(segment)) {
        Ok(()) => true,
        Err(back) => {
            assert_eq!(back.content.read(), n, "another one's segment came back");
            false
        }
    }
}

/// Takes a segment out, reads it, and drops it.
fn take(pool: &Pool) -> Option<u64> {
    pool.take().map(|segment| segment.content.read())
}

/// What is left when nobody else is there any more, in order: all that was counted.
fn drain(pool: &Pool) -> Vec<u64> {
    let counted = pool.len();
    let mut left: Vec<_> = std::iter::from_fn(|| take(pool)).collect();
    assert_eq!((left.len() as u64, pool.len()), (counted, 0), "the count and the slots differ");
    left.sort_unstable();
    left
}

/// The hand-over by the slot alone. The count orders most of them, too, for it is raised first; but not
/// here, where a taker may know it from another segment.
#[test]
fn a_segment_arrives_as_it_was_put_in() {
    explore_all(5, || {
        let pool = pool(2, 2);
        assert_eq!(take(&pool), Some(0));
        let putter = thread::spawn({
            let pool = pool.clone();
            move || assert!(put(&pool, 2))
        });
        let mut seen = vec![take(&pool).expect("there is one at least")];
        putter.join().unwrap();
        seen.extend(drain(&pool));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    });
}

/// Two want the one segment that there is, and one of them puts another one in.
#[test]
fn a_segment_goes_to_one_taker() {
    explore_all(4, || {
        let pool = pool(1, 1);
        let takers = [10, 20].map(|n| {
            let pool = pool.clone();
            thread::spawn(move || (take(&pool), put(&pool, n)))
        });
        let mut seen = Vec::new();
        let mut there = vec![0];
        for (n, taker) in [10, 20].into_iter().zip(takers) {
            let (taken, put) = taker.join().unwrap();
            seen.extend(taken);
            there.extend(put.then_some(n));
        }
        assert!(!seen.is_empty(), "a segment that was there was not found");
        seen.extend(drain(&pool));
        seen.sort_unstable();
        assert_eq!(seen, there);
    });
}

/// One slot for two who come at once, and one who takes.
#[test]
fn a_full_pool_gives_a_segment_back() {
    explore_all(3, || {
        let pool = pool(1, 0);
        let putters = [0, 1].map(|n| {
            let pool = pool.clone();
            thread::spawn(move || put(&pool, n).then_some(n))
        });
        let mut seen = Vec::from_iter(take(&pool));
        let mut there: Vec<_> = putters.into_iter().filter_map(|p| p.join().unwrap()).collect();
        seen.extend(drain(&pool));
        seen.sort_unstable();
        there.sort_unstable();
        assert_eq!(seen, there);
        assert!(!there.is_empty(), "an empty pool had no room");
    });
}

/// The limit goes by the count: it may be too high while somebody is at work, and never less than what is
/// there. Two takers could lower it by more than was counted, and it would be less than nothing.
#[test]
fn the_count_is_never_too_low() {
    explore_all(4, || {
        let pool = pool(2, 1);
        let takers = [(); 2].map(|()| {
            let pool = pool.clone();
            thread::spawn(move || {
                let taken = take(&pool);
                assert!(pool.len() <= 2);
                taken
            })
        });
        assert!(put(&pool, 1));
        assert!(pool.len() <= 2);
        let mut seen: Vec<_> = takers.into_iter().filter_map(|t| t.join().unwrap()).collect();
        seen.extend(drain(&pool));
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
    });
}
