//! Unit tests: turns in which a waker panics.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use super::turns::Turns;
use crate::log::Log;

struct Panics;
impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker's own fault");
    }
}

#[derive(Default)]
struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_waker_that_panics_takes_nobody_elses_turn() {
    let log = Log::<[u8]>::builder().build().unwrap();
    let turns: Arc<Turns> = Arc::default();
    let (bad, calling) = turns.follow(|| log.watch());
    let mut calling = calling.expect("the first one begins it");
    let count = Arc::new(Count::default());
    let (good, none) = turns.follow(|| log.watch());
    assert!(none.is_none());
    let [panics, counts] = [Waker::from(Arc::new(Panics)), Waker::from(count.clone())];
    assert!(bad.poll_turn(&Context::from_waker(&panics), 0).is_pending());
    assert!(good.poll_turn(&Context::from_waker(&counts), 0).is_pending());
    log.append(b"x").unwrap();
    let cx = &mut Context::from_waker(Waker::noop());
    assert_eq!(pin!(calling.call_some()).poll(cx), Poll::Ready(true));
    assert_eq!(count.0.load(Ordering::Relaxed), 1, "it is woken, too");
    assert!(bad.poll_turn(cx, 0).is_ready() && good.poll_turn(cx, 0).is_ready());
}

#[test]
fn whoever_comes_or_leaves_survives_a_waker_of_the_caller_that_panics() {
    let log = Log::<[u8]>::builder().build().unwrap();
    let turns: Arc<Turns> = Arc::default();
    let (follower, calling) = turns.follow(|| log.watch());
    let mut calling = calling.expect("the first one begins it");
    let panics = Waker::from(Arc::new(Panics));
    let cx = &mut Context::from_waker(Waker::noop());
    // The caller rests, and is woken by the one that comes.
    assert!(pin!(calling.call_some()).poll(&mut Context::from_waker(&panics)).is_pending());
    assert!(follower.poll_turn(cx, 0).is_pending());
    // It waits at the log, and is woken by the one that leaves.
    assert!(pin!(calling.call_some()).poll(&mut Context::from_waker(&panics)).is_pending());
    drop(follower);
    assert_eq!(pin!(calling.call_some()).poll(cx), Poll::Ready(false), "nobody is left");
}
