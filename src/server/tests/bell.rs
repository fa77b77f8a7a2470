//! Who is told when a bell rings.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
};

use super::super::{
    bell::{Bell, Registry, SubBell},
    room::Rooms,
};
use crate::broker::{Broker, BrokerConfig, Purpose};

#[derive(Default)]
struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_bell_says_which_subscription_and_only_once() {
    let count = Arc::new(Count::default());
    let task = Waker::from(count.clone());
    let bell = Arc::new(Bell::default());
    let mut rung = Vec::new();
    bell.listen(&task, &mut rung);
    let (a, b) = (SubBell::new(bell.clone(), 3), SubBell::new(bell.clone(), 7));
    let wakers = [Waker::from(a.clone()), Waker::from(b)];
    wakers[0].wake_by_ref();
    wakers[0].wake_by_ref();
    wakers[1].wake_by_ref();
    bell.listen(&task, &mut rung);
    assert_eq!((rung.as_slice(), count.0.load(Ordering::Relaxed)), (&[3, 7][..], 2));
    rung.clear();
    a.reset();
    wakers[0].wake_by_ref();
    bell.listen(&task, &mut rung);
    assert_eq!(rung, [3]);
}

#[test]
fn only_deadlines_that_passed_ring() {
    let counts: [Arc<Count>; 3] = std::array::from_fn(|_| Arc::default());
    let registry = Registry::default();
    for (i, (count, deadline)) in counts.iter().zip([0, 5, 6]).enumerate() {
        let bell = Arc::new(Bell::default());
        bell.listen(&Waker::from(count.clone()), &mut Vec::new());
        bell.set_deadline(deadline);
        registry.add(i as u64, bell);
    }
    let told = || counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
    registry.ring_due(5);
    assert_eq!(told(), [0, 1, 0]);
    registry.ring_all();
    assert_eq!(told(), [1, 2, 1]);
    registry.remove(0);
    registry.ring_all();
    assert_eq!(told(), [1, 3, 2]);
}

struct Panics;
impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker's own fault");
    }
}

/// The bell of a connection with this task.
fn bell_of(task: Waker) -> Arc<Bell> {
    let bell = Arc::new(Bell::default());
    bell.listen(&task, &mut Vec::new());
    bell
}

#[test]
fn a_waker_that_panics_keeps_no_other_connection_from_being_woken() {
    let count = Arc::new(Count::default());
    let registry = Registry::default();
    for (i, task) in [Arc::new(Panics).into(), count.clone().into()].into_iter().enumerate() {
        let bell = bell_of(task);
        bell.set_deadline(1);
        registry.add(i as u64, bell);
    }
    registry.ring_all();
    registry.ring_due(1);
    assert_eq!(count.0.load(Ordering::Relaxed), 2);
}

#[test]
fn a_waker_that_panics_keeps_nobody_in_the_room_from_being_woken() {
    let rooms = Arc::new(Rooms::new(0));
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let topic = broker.open("t", Purpose::Publish).unwrap();
    let counts: [Arc<Count>; 3] = std::array::from_fn(|_| Arc::default());
    let [leader, second, third] = counts.each_ref().map(|count| Waker::from(count.clone()));
    let tasks = [leader, Waker::from(Arc::new(Panics)), second, third];
    let mut seats = tasks.map(|task| rooms.enter(&topic, SubBell::new(bell_of(task), 0)));
    for seat in &mut seats {
        assert!(!seat.is_ready(0, Waker::noop(), false, |_| false));
    }
    assert!(seats[0].is_ready(0, Waker::noop(), true, |_| true), "its leader finds something");
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(rooms.poll_serve(cx, &mut Vec::new(), &mut Vec::new()).is_pending());
    assert_eq!(counts.each_ref().map(|count| count.0.load(Ordering::Relaxed)), [0, 1, 1]);
}

#[test]
fn a_leader_can_leave_although_the_waker_of_the_next_one_panics() {
    let rooms = Arc::new(Rooms::new(0));
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let topic = broker.open("t", Purpose::Publish).unwrap();
    let tasks = [Waker::noop().clone(), Waker::from(Arc::new(Panics))];
    let [mut leader, mut next] =
        tasks.map(|task| rooms.enter(&topic, SubBell::new(bell_of(task), 0)));
    for seat in [&mut leader, &mut next] {
        assert!(!seat.is_ready(0, Waker::noop(), false, |_| false));
    }
    drop(leader);
    assert!(next.is_ready(0, Waker::noop(), true, |_| true));
}
