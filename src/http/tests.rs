//! Unit tests: dispatching streams whose wakers panic.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::dispatch::Dispatch;
use crate::log::Log;

struct PanickingWaker;
impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker's own fault");
    }
}

#[derive(Default)]
struct CountingWaker(AtomicUsize);
impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_waker_that_panics_costs_no_other_stream_its_turn() {
    let log = Log::<[u8]>::builder().build().unwrap();
    let dispatch: Arc<Dispatch> = Arc::default();
    let (bad, task) = dispatch.follow(|| log.watch());
    let mut task = task.expect("the first one begins it");
    let count = Arc::new(CountingWaker::default());
    let (good, none) = dispatch.follow(|| log.watch());
    assert!(none.is_none());
    let [panics, counts] = [Waker::from(Arc::new(PanickingWaker)), Waker::from(count.clone())];
    assert!(bad.poll_turn(&Context::from_waker(&panics), 0).is_pending());
    assert!(good.poll_turn(&Context::from_waker(&counts), 0).is_pending());
    log.blocking_append(b"x").unwrap();
    let cx = &mut Context::from_waker(Waker::noop());
    assert_eq!(pin!(task.dispatch_some()).poll(cx), Poll::Ready(true));
    assert_eq!(count.0.load(Ordering::Relaxed), 1, "it is woken, too");
    assert!(bad.poll_turn(cx, 0).is_ready() && good.poll_turn(cx, 0).is_ready());
}

#[test]
fn followers_survive_a_waker_of_the_dispatcher_that_panics() {
    let log = Log::<[u8]>::builder().build().unwrap();
    let dispatch: Arc<Dispatch> = Arc::default();
    let (follower, task) = dispatch.follow(|| log.watch());
    let mut task = task.expect("the first one begins it");
    let panics = Waker::from(Arc::new(PanickingWaker));
    let cx = &mut Context::from_waker(Waker::noop());
    // The dispatcher is idle. A follower that registers wakes it.
    assert!(pin!(task.dispatch_some()).poll(&mut Context::from_waker(&panics)).is_pending());
    assert!(follower.poll_turn(cx, 0).is_pending());
    // It waits at the log. A follower that leaves wakes it.
    assert!(pin!(task.dispatch_some()).poll(&mut Context::from_waker(&panics)).is_pending());
    drop(follower);
    assert_eq!(pin!(task.dispatch_some()).poll(cx), Poll::Ready(false), "nobody is left");
}
