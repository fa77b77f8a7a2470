//! User code that does not return for a long time: what it holds back, and what goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use parking_lot::Mutex;
use psa::*;

use crate::ledger::{Ledger, Value};
use crate::watchdog::watched;

fn limited(segments: u64, overflow: Overflow) -> Log<Value> {
    let build = || Log::<Value>::builder().segment_records(4).pool_segments(0);
    let segment = build().build().unwrap().stats().live_bytes;
    build().memory_limit(segments * segment).overflow(overflow).build().unwrap()
}

fn evicting(segments: u64) -> Log<Value> {
    limited(segments, Overflow::Evict)
}

/// A destructor that does not return keeps its own segment. Publishers go on in what is left of the limit.
#[test]
fn a_destructor_that_does_not_return_holds_one_segment() {
    watched(|_| {
        let ledger = Arc::new(Ledger::default());
        let log = evicting(4);
        let (inside, over) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let stalls = Value::new(&ledger, 0).at_end({
            let (inside, over) = (inside.clone(), over.clone());
            move || {
                inside.wait();
                over.wait();
            }
        });
        log.blocking_append(stalls).unwrap();
        let append = |n| log.try_append(Value::new(&ledger, n));
        thread::scope(|scope| {
            scope.spawn(|| (1..9).for_each(|n| assert!(append(n).is_ok())));
            inside.wait();
            let refused = (9..400).filter(|n| append(*n).is_err()).count();
            let unlinked = log.stats().unlinked_segments;
            over.wait();
            assert_eq!((refused, unlinked), (0, 1));
        });
        assert_eq!(log.stats().unlinked_segments, 0);
        drop(log);
        assert_eq!(ledger.left().1, 0);
        ledger.assert_nothing_is_wrong();
    });
}

/// The same where it unlinks other segments before it stalls: whoever needs their memory gives them back.
#[test]
fn what_a_destructor_unlinks_before_it_stalls_is_given_back_by_others() {
    // An eviction sweeps what is pending. Where nothing is evicted, the publisher that needs memory has to.
    for overflow in [Overflow::Evict, Overflow::Reject] {
        others_give_back_what_a_stalled_destructor_unlinked(overflow);
    }
}

fn others_give_back_what_a_stalled_destructor_unlinked(overflow: Overflow) {
    watched(|progress| {
        let ledger = Arc::new(Ledger::default());
        let log = Arc::new(limited(8, overflow));
        let (inside, over) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let holds = Arc::new(Mutex::new(None));
        let stalls = Value::new(&ledger, 0).at_end({
            let (inside, over, holds) = (inside.clone(), over.clone(), holds.clone());
            move || {
                // A cursor that holds back all the rest goes.
                drop::<Option<Cursor<Value>>>(holds.lock().take());
                inside.wait();
                over.wait();
            }
        });
        log.blocking_append(stalls).unwrap();
        let append =
            |n| log.try_append(Value::new(&ledger, n)).map(drop).map_err(|refused| refused.reason);
        let mut first = log.subscribe(Start::Earliest).unwrap();
        (1..5).for_each(|n| append(n).unwrap());
        *holds.lock() = Some(log.subscribe(Start::Next).unwrap());
        (5..24).for_each(|n| append(n).unwrap());
        assert_eq!(log.stats().live_segments, 6);
        thread::scope(|scope| {
            // Leaving the first segment gives it back, and so runs the destructor.
            scope.spawn(move || {
                // The cursor would stand in the next one meanwhile, which can only go by eviction.
                if overflow == Overflow::Evict {
                    first.try_next(|batch| batch.len()).unwrap();
                }
                drop(first);
            });
            inside.wait();
            progress.at(format!("{:?}", log.stats()));
            // Something holds back what is appended from now on, so that all of the limit is needed.
            let _keeps = log.subscribe(Start::Next).unwrap();
            let most = if overflow == Overflow::Evict { 400 } else { 24 + 6 * 4 };
            let refused = (24..most).filter(|n| append(*n).is_err()).count();
            let unlinked = log.stats().unlinked_segments;
            over.wait();
            assert_eq!(refused, 0, "a stalled destructor holds one segment of eight");
            assert_eq!(unlinked, 1);
        });
        assert_eq!(log.stats().unlinked_segments, 0);
        drop(log);
        assert_eq!(ledger.left().1, 0);
        ledger.assert_nothing_is_wrong();
    });
}

/// Two destructors of segments that are given back together: the first one stalls, and the second segment is free.
#[test]
fn a_destructor_that_stalls_does_not_hold_what_waits_with_it() {
    watched(|progress| {
        let ledger = Arc::new(Ledger::default());
        let log = Arc::new(evicting(8));
        let (inside, over) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let stalled = Arc::new(AtomicBool::new(false));
        let holds = Arc::new(Mutex::new(None));
        let begins = Value::new(&ledger, 0).at_end({
            let holds = holds.clone();
            move || drop::<Option<Cursor<Value>>>(holds.lock().take())
        });
        // One of those that are unlinked meanwhile; all of them would stall, the first one does.
        let stalls = |n| {
            let (inside, over, stalled) = (inside.clone(), over.clone(), stalled.clone());
            Value::new(&ledger, n).at_end(move || {
                if !stalled.swap(true, Ordering::SeqCst) {
                    inside.wait();
                    over.wait();
                }
            })
        };
        log.blocking_append(begins).unwrap();
        let append =
            |value| log.try_append(value).map(drop).map_err(|refused: Refused<_>| refused.reason);
        let mut first = log.subscribe(Start::Earliest).unwrap();
        (1..5).for_each(|n| append(Value::new(&ledger, n)).unwrap());
        *holds.lock() = Some(log.subscribe(Start::Next).unwrap());
        (5..24).for_each(|n| append(stalls(n)).unwrap());
        assert_eq!(log.stats().live_segments, 6);
        thread::scope(|scope| {
            scope.spawn(move || first.try_next(|batch| batch.len()).map(|_| drop(first)));
            inside.wait();
            progress.at(format!("{:?}", log.stats()));
            let refused = (24..400).filter(|n| append(Value::new(&ledger, *n)).is_err()).count();
            let unlinked = log.stats().unlinked_segments;
            over.wait();
            assert_eq!(refused, 0, "a stalled destructor holds one segment of eight");
            assert_eq!(unlinked, 1);
        });
        assert_eq!(log.stats().unlinked_segments, 0);
        drop(log);
        assert_eq!(ledger.left().1, 0);
        ledger.assert_nothing_is_wrong();
    });
}
