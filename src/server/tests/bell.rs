//! Who is told when a bell rings.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use super::super::bell::{Bell, Registry, SubBell};

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
