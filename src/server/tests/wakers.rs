//! Whom a waker wakes, and that a waker that panics keeps no other task from being woken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Wake, Waker};

use super::super::tail::Tails;
use super::super::wakers::{Registry, SubscriptionWaker, TaskWaker};
use super::CountingWaker;
use crate::broker::{Broker, BrokerConfig, Purpose};

#[test]
fn a_subscription_waker_notes_its_slot_and_only_once() {
    let count = Arc::new(CountingWaker::default());
    let task = Waker::from(count.clone());
    let connection = Arc::new(TaskWaker::default());
    let mut woken = Vec::new();
    connection.register(&task, &mut woken);
    let a = SubscriptionWaker::new(connection.clone(), 3);
    let b = SubscriptionWaker::new(connection.clone(), 7);
    let wakers = [Waker::from(a.clone()), Waker::from(b)];
    wakers[0].wake_by_ref();
    wakers[0].wake_by_ref();
    wakers[1].wake_by_ref();
    connection.register(&task, &mut woken);
    assert_eq!((woken.as_slice(), count.0.load(Ordering::Relaxed)), (&[3, 7][..], 2));
    woken.clear();
    a.reset();
    wakers[0].wake_by_ref();
    connection.register(&task, &mut woken);
    assert_eq!(woken, [3]);
}

#[test]
fn only_deadlines_that_passed_wake() {
    let counts: [Arc<CountingWaker>; 3] = std::array::from_fn(|_| Arc::default());
    let registry = Registry::default();
    for (i, (count, deadline)) in counts.iter().zip([0, 5, 6]).enumerate() {
        let connection = connection_of(Waker::from(count.clone()));
        connection.set_deadline(deadline);
        registry.add(i as u64, connection);
    }
    let woken = || counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
    registry.wake_due(5);
    assert_eq!(woken(), [0, 1, 0]);
    registry.wake_all();
    assert_eq!(woken(), [1, 2, 1]);
    registry.remove(0);
    registry.wake_all();
    assert_eq!(woken(), [1, 3, 2]);
}

struct Panics;
impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker's own fault");
    }
}

/// The waker of a connection whose task `task` wakes.
fn connection_of(task: Waker) -> Arc<TaskWaker> {
    let connection = Arc::new(TaskWaker::default());
    connection.register(&task, &mut Vec::new());
    connection
}

#[test]
fn a_waker_that_panics_keeps_no_other_connection_from_being_woken() {
    let count = Arc::new(CountingWaker::default());
    let registry = Registry::default();
    for (i, task) in [Arc::new(Panics).into(), count.clone().into()].into_iter().enumerate() {
        let connection = connection_of(task);
        connection.set_deadline(1);
        registry.add(i as u64, connection);
    }
    registry.wake_all();
    registry.wake_due(1);
    assert_eq!(count.0.load(Ordering::Relaxed), 2);
}

#[test]
fn a_waker_that_panics_keeps_no_other_member_from_being_woken() {
    let tails = Arc::new(Tails::new(0));
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let topic = broker.open("t", Purpose::Publish).unwrap();
    let counts: [Arc<CountingWaker>; 3] = std::array::from_fn(|_| Arc::default());
    let [leader, second, third] = counts.each_ref().map(|count| Waker::from(count.clone()));
    let tasks = [leader, Waker::from(Arc::new(Panics)), second, third];
    let mut waiters =
        tasks.map(|task| tails.add(&topic, SubscriptionWaker::new(connection_of(task), 0)));
    for waiter in &mut waiters {
        assert!(!waiter.is_ready(0, Waker::noop(), false, |_| false));
    }
    assert!(waiters[0].is_ready(0, Waker::noop(), true, |_| true), "its leader finds something");
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(tails.poll_serve(cx, &mut Vec::new(), &mut Vec::new()).is_pending());
    assert_eq!(counts.each_ref().map(|count| count.0.load(Ordering::Relaxed)), [0, 1, 1]);
}

#[test]
fn a_leader_can_leave_although_the_waker_of_the_next_one_panics() {
    let tails = Arc::new(Tails::new(0));
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let topic = broker.open("t", Purpose::Publish).unwrap();
    let tasks = [Waker::noop().clone(), Waker::from(Arc::new(Panics))];
    let [mut leader, mut next] =
        tasks.map(|task| tails.add(&topic, SubscriptionWaker::new(connection_of(task), 0)));
    for waiter in [&mut leader, &mut next] {
        assert!(!waiter.is_ready(0, Waker::noop(), false, |_| false));
    }
    drop(leader);
    assert!(next.is_ready(0, Waker::noop(), true, |_| true));
}
