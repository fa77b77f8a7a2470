//! What a lease keeps, whatever its holder does.

use psa::*;
use static_assertions::assert_not_impl_any;

use crate::watchdog::watched;

// Nothing hands out `&mut` to what it has to keep: it could be swapped for another log's.
assert_not_impl_any!(Lease<u64>: std::ops::DerefMut, AsMut<Cursor<u64>>, std::borrow::BorrowMut<Cursor<u64>>);
assert_not_impl_any!(Lease<[u8]>: std::ops::DerefMut, AsMut<Cursor<[u8]>>);
assert_not_impl_any!(Next<'static, u64, fn(&Batch<'_, u64>)>: std::ops::DerefMut);
assert_not_impl_any!(Records<u64>: std::ops::DerefMut, AsMut<Cursor<u64>>, Clone);
// And what is one of a kind is not copied. (A cursor's clone is a cursor of its own, with a pin of its own.)
assert_not_impl_any!(Lease<u64>: Clone);
assert_not_impl_any!(Publisher<u64>: Clone);

const OPTIONS: LeaseOptions = LeaseOptions {
    ttl: std::time::Duration::from_secs(3600),
    start: Start::Earliest,
    take_over: false,
};

/// Strings, so that one that is read too late is a use after free.
fn say(log: &Log<String>, numbers: std::ops::Range<u64>) {
    numbers.for_each(|n| drop(log.blocking_append(format!("a rather long string, number {n}"))));
}

/// A commit of what was never read here is refused, whatever log the holder read meanwhile.
#[test]
fn a_lease_that_was_swapped_keeps_what_its_log_has() {
    watched(|_| {
        let build =
            || Log::<String>::builder().segment_records(4).pool_segments(0).build().unwrap();
        let (log, other) = (build(), build());
        say(&other, 0..1000);
        say(&log, 0..4);
        let mut lease = log.lease("x", OPTIONS).unwrap();
        let mut far = other.lease("x", LeaseOptions { start: Start::Next, ..OPTIONS }).unwrap();
        // Whole leases can be swapped: they take along what they belong to.
        std::mem::swap(&mut lease, &mut far);
        assert_eq!((lease.offset(), far.offset()), (1000, 0));
        assert!(matches!(far.commit(..=500), Err(CommitError::NotRead { asked: 500, next: 0 })));
        lease.commit(..=500).unwrap();
        drop(lease);
        say(&log, 4..40);
        assert_eq!(log.first_offset(), 0);
        let mut seen = 0;
        while let Ok(Some(())) = far.try_next(|batch| {
            for (offset, record) in batch.iter() {
                assert_eq!(*record, format!("a rather long string, number {offset}"));
            }
            seen += batch.len();
        }) {}
        assert_eq!(seen, 40);
        far.commit(..=39).unwrap();
        assert_eq!(log.stats().live_segments, 1);
    });
}

/// A forgotten lease is one whose holder went without a word: it can be taken over, and holds back what it held.
#[test]
fn a_forgotten_lease_is_taken_over() {
    watched(|_| {
        let log = Log::<u64>::builder().segment_records(4).build().unwrap();
        (0..10).for_each(|n| drop(log.blocking_append(n)));
        let mut lease = log.lease("x", LeaseOptions { start: Start::Next, ..OPTIONS }).unwrap();
        (10..20).for_each(|n| drop(log.blocking_append(n)));
        lease.try_next(|batch| batch.len()).unwrap();
        std::mem::forget(lease);
        assert!(matches!(log.lease("x", OPTIONS), Err(LeaseError::Held { .. })));
        let mut again = log.lease("x", LeaseOptions { take_over: true, ..OPTIONS }).unwrap();
        assert_eq!(again.offset(), 10);
        let first = again.try_next(|batch| batch.as_slice()[0]).unwrap();
        assert_eq!(first, Some(10));
        again.release();
        assert_eq!(log.leases(), []);
    });
}

/// Of a lease that was taken over, each call says so, and nothing that it does reaches the new one.
#[test]
fn who_lost_a_lease_cannot_move_it() {
    watched(|_| {
        let log = Log::<u64>::builder().segment_records(4).build().unwrap();
        let mut old = log.lease("x", OPTIONS).unwrap();
        (0..10).for_each(|n| drop(log.blocking_append(n)));
        while let Ok(Some(_)) = old.try_next(|batch| batch.len()) {}
        let new = log.lease("x", LeaseOptions { take_over: true, ..OPTIONS }).unwrap();
        assert_eq!(old.commit(..=9), Err(CommitError::TakenOver));
        assert_eq!(old.committed(), None);
        assert_eq!(old.try_next(|batch| batch.len()), Err(ReadError::TakenOver));
        old.release();
        assert_eq!(new.committed(), Some(0));
        assert_eq!(log.leases().len(), 1);
    });
}
