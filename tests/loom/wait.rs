//! The event count alone. A lost wake-up is a deadlock, which loom reports; a waker that is touched
//! by two is a violation of causality.

#[expect(dead_code, reason = "models use a part of it")]
#[path = "../../src/log/wait/mod.rs"]
mod shipped;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Poll, Wake, Waker};

use loom::thread;
use shipped::{WaitSet, Waiter};

use crate::explore::{explore, explore_all, rouse};
use crate::sync::rescuer;
use crate::sync::thread::park;
use crate::sync::{AtomicU32, Ordering};

/// Something to wait for. Its order is the weakest that a condition can have: what must be seen is
/// the event count's affair.
struct Event {
    set: WaitSet,
    happened: AtomicU32,
}

impl Event {
    fn new() -> Arc<Self> {
        Arc::new(Event { set: WaitSet::new(), happened: AtomicU32::new(0) })
    }

    fn happens(&self, n: u32) {
        self.happened.store(n, Ordering::Relaxed);
        self.set.notify();
    }

    fn look(&self, n: u32) -> Option<()> {
        (self.happened.load(Ordering::Relaxed) >= n).then_some(())
    }

    /// Waits with the thread, as a blocking reader does.
    fn wait(&self, waiter: &mut Waiter, n: u32) {
        waiter.block_until(&self.set, None, || self.look(n)).expect("there is no deadline");
    }
}

/// A waker that nobody minds.
struct Deaf;

impl Wake for Deaf {
    fn wake(self: Arc<Self>) {}
}

/// A waker that remembers. Not one of loom's atomics: what it says is asked after a `join`.
struct Heard(AtomicBool);

impl Wake for Heard {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The plain case: store, look whether anybody waits; push, look whether it was stored.
#[test]
fn a_waiter_misses_no_notification() {
    explore_all(4, || {
        let event = Event::new();
        let notifier = thread::spawn({
            let event = event.clone();
            move || event.happens(1)
        });
        let mut waiter = Waiter::default();
        event.wait(&mut waiter, 1);
        waiter.retire(&event.set);
        notifier.join().unwrap();
    });
}

/// The node is used again: the second wait must not touch its waker before the first notifier has
/// let go of it.
#[test]
fn a_waiter_waits_again() {
    explore_all(3, || {
        let event = Event::new();
        let notifier = thread::spawn({
            let event = event.clone();
            move || {
                event.happens(1);
                event.happens(2);
            }
        });
        let mut waiter = Waiter::default();
        event.wait(&mut waiter, 1);
        event.wait(&mut waiter, 2);
        waiter.retire(&event.set);
        notifier.join().unwrap();
    });
}

/// Two waiters, of which the first one to push pays for the barrier. What the other one waits for has
/// happened; what the first one waits for has not, so it has nothing to hand on. The other one must
/// not rely on a barrier that is not over: `unsettled` in `WaitSet::push` is there for this.
#[test]
fn the_second_waiter_does_not_rely_on_an_unfinished_barrier() {
    explore_all(2, || {
        let event = Event::new();
        let notifier = thread::spawn({
            let event = event.clone();
            move || event.happens(1)
        });
        let uninterested = thread::spawn({
            let event = event.clone();
            move || {
                let mut waiter = Waiter::default();
                let waker = Waker::from(Arc::new(Deaf));
                // Once, as a future that is polled: it stays registered.
                let _ = waiter.poll_until(&event.set, &waker, || event.look(2));
                waiter
            }
        });
        let mut waiter = Waiter::default();
        event.wait(&mut waiter, 1);
        notifier.join().unwrap();
        uninterested.join().unwrap().retire(&event.set);
    });
}

/// Polls some waiters in one thread until each has seen the event.
fn wait_for_all<const N: usize>(event: &Event) {
    let mut waiters = [(); N].map(|()| Some(Waiter::default()));
    let waker = rouse();
    loop {
        for slot in &mut waiters {
            let Some(waiter) = slot else { continue };
            if waiter.poll_until(&event.set, &waker, || event.look(1)) == Poll::Ready(()) {
                waiter.retire(&event.set);
                *slot = None;
            }
        }
        if waiters.iter().all(Option::is_none) {
            return;
        }
        park();
    }
}

/// More waiters than a notifier wakes: the rest is handed on from waiter to waiter. Without a preemption unless more are
/// asked for: with one, this takes many minutes.
#[test]
fn the_cascade_reaches_everybody() {
    explore_all(0, || {
        let event = Event::new();
        let other = thread::spawn({
            let event = event.clone();
            move || wait_for_all::<2>(&event)
        });
        let notifier = thread::spawn({
            let event = event.clone();
            move || event.happens(1)
        });
        wait_for_all::<2>(&event);
        other.join().unwrap();
        notifier.join().unwrap();
    });
}

/// Three waiters that have registered: a patient one, with what it has heard, and two that are taken
/// before it, for they came later.
fn three_registered(event: &Event) -> (Waiter, Arc<Heard>, [Waiter; 2]) {
    let heard = Arc::new(Heard(AtomicBool::new(false)));
    let mut patient = Waiter::default();
    let waker = Waker::from(heard.clone());
    assert!(patient.poll_until(&event.set, &waker, || event.look(1)).is_pending());
    let mut others = [(); 2].map(|()| Waiter::default());
    others.iter_mut().for_each(|other| poll_in_vain(event, other));
    (patient, heard, others)
}

/// Polls a waiter that waits for more than happens here.
fn poll_in_vain(event: &Event, waiter: &mut Waiter) {
    let waker = Waker::from(Arc::new(Deaf));
    assert!(waiter.poll_until(&event.set, &waker, || event.look(2)).is_pending());
}

/// Two waiters are taken by the notifier while they are polled for another reason, and find nothing,
/// for they wait for more than has happened. They register again, and have to hand their wake-up on.
#[test]
fn who_is_woken_for_nothing_hands_its_wake_up_on() {
    explore_all(2, || {
        let event = Event::new();
        let (patient, heard, [mut first, mut second]) = three_registered(&event);
        let notifier = thread::spawn({
            let event = event.clone();
            move || event.happens(1)
        });
        // The last one to push is the first one to be taken.
        poll_in_vain(&event, &mut second);
        poll_in_vain(&event, &mut first);
        notifier.join().unwrap();
        // As their executor does, because they were woken.
        poll_in_vain(&event, &mut second);
        poll_in_vain(&event, &mut first);
        assert!(heard.0.load(Ordering::Relaxed), "the wake-up went no further");
        [patient, first, second].iter_mut().for_each(|waiter| waiter.retire(&event.set));
    });
}

/// Two waiters give up while they are being woken, and hand their wake-up on.
#[test]
fn a_cancelled_wait_hands_its_wake_up_on() {
    explore_all(4, || {
        let event = Event::new();
        let (mut patient, heard, [mut first, mut second]) = three_registered(&event);
        let notifier = thread::spawn({
            let event = event.clone();
            move || event.happens(1)
        });
        second.retire(&event.set);
        first.retire(&event.set);
        notifier.join().unwrap();
        assert!(heard.0.load(Ordering::Relaxed), "the wake-up went no further");
        patient.retire(&event.set);
    });
}

/// Closing wakes everybody, in the closer's thread.
#[test]
fn everybody_is_woken_at_the_end() {
    explore_all(2, || {
        let event = Event::new();
        let closer = thread::spawn({
            let event = event.clone();
            move || {
                event.happened.store(1, Ordering::Relaxed);
                event.set.notify_all();
            }
        });
        wait_for_all::<3>(&event);
        closer.join().unwrap();
    });
}

/// A set that ends takes along the nodes that are still linked: of five waiters two were woken, two are
/// on their way, and one came later.
#[test]
fn what_is_still_registered_goes_with_the_set() {
    explore_all(1, || {
        let event = Event::new();
        let heard = Arc::new(Heard(AtomicBool::new(false)));
        let waker = Waker::from(heard.clone());
        let mut waiters = [(); 5].map(|()| Waiter::default());
        for (n, waiter) in waiters.iter_mut().enumerate() {
            if n == 4 {
                event.happens(1);
            }
            assert!(waiter.poll_until(&event.set, &waker, || event.look(2)).is_pending());
        }
        // Without a word to the set, so that the nodes are its own.
        drop((waiters, waker));
        assert_eq!(Arc::strong_count(&heard), 4);
        drop(event);
        assert_eq!(Arc::strong_count(&heard), 1);
    });
}

/// Waiters of which each remembers whether it was woken, and that are polled by nobody again.
struct Forgotten(Vec<(Waiter, Arc<Heard>)>);

impl Forgotten {
    fn register(event: &Event, many: usize) -> Self {
        let waiters = (0..many).map(|_| {
            let (mut waiter, heard) = (Waiter::default(), Arc::new(Heard(AtomicBool::new(false))));
            let waker = Waker::from(heard.clone());
            assert!(waiter.poll_until(&event.set, &waker, || None::<()>).is_pending());
            (waiter, heard)
        });
        Forgotten(waiters.collect())
    }

    fn assert_woken(self, event: &Event) {
        for (n, (mut waiter, heard)) in self.0.into_iter().enumerate() {
            assert!(heard.0.load(Ordering::Relaxed), "waiter {n} was never woken");
            waiter.retire(&event.set);
        }
    }
}

/// A chain is put on top of another one, while a woken waiter takes what is there: whoever takes it sees the
/// links that the other one wrote.
#[test]
fn a_chain_that_another_one_gave_is_taken_whole() {
    explore_all(3, || {
        let event = Event::new();
        let before = Forgotten::register(&event, 3);
        // Two of them are woken; the third one's chain stays among those to be woken.
        event.set.notify();
        let after = Forgotten::register(&event, 3);
        let giver = thread::spawn({
            let event = event.clone();
            move || event.set.notify()
        });
        event.set.hand_on();
        giver.join().unwrap();
        event.set.notify_all();
        before.assert_woken(&event);
        after.assert_woken(&event);
    });
}

/// A notifier takes waiters and puts the rest back, while the rescuer looks at the set, finds nothing, and
/// disarms it. The rescuer comes again if need be.
#[test]
fn what_is_put_back_while_the_rescuer_looks_is_not_forgotten() {
    explore(3, || {
        rescuer::takes_part();
        let event = Event::new();
        let before = Forgotten::register(&event, 3);
        event.set.notify();
        event.set.hand_on();
        // Armed, and nobody is left to be woken.
        before.assert_woken(&event);
        let after = Forgotten::register(&event, 3);
        let notifier = thread::spawn({
            let event = event.clone();
            move || event.set.notify()
        });
        rescuer::round();
        notifier.join().unwrap();
        rescuer::round();
        after.assert_woken(&event);
    });
}

/// The same without sequential consistency, where the set is armed for the first time: the rescuer sees it
/// whole, with all who are in it.
#[test]
fn what_is_armed_is_found_whole() {
    explore(3, || {
        rescuer::takes_part();
        let event = Event::new();
        let forgotten = Forgotten::register(&event, 4);
        let notifier = thread::spawn({
            let event = event.clone();
            move || event.set.notify()
        });
        rescuer::round();
        notifier.join().unwrap();
        rescuer::round();
        forgotten.assert_woken(&event);
    });
}

/// Two notifiers find the set disarmed at once: one of them arms it, and both are relied upon. Arming needs sequential
/// consistency, so not without any.
#[test]
fn two_who_arm_at_once_arm_once() {
    explore(2, || {
        rescuer::takes_part();
        let event = Event::new();
        let first = Forgotten::register(&event, 3);
        let notifier = thread::spawn({
            let event = event.clone();
            move || event.set.notify()
        });
        let second = Forgotten::register(&event, 3);
        event.set.notify();
        rescuer::round();
        notifier.join().unwrap();
        rescuer::round();
        first.assert_woken(&event);
        second.assert_woken(&event);
    });
}

/// A notifier finds the set disarmed. Before it arms it, another one does, and the rescuer disarms it again: the link is
/// the first one's only when the rescuer has finished with it.
#[test]
fn a_set_is_armed_again_only_when_it_was_disarmed() {
    explore_all(2, || {
        rescuer::takes_part();
        let event = Event::new();
        let mut all = vec![Forgotten::register(&event, 3)];
        event.set.notify();
        event.set.hand_on();
        rescuer::round();
        // Armed once, and disarmed.
        all.push(Forgotten::register(&event, 3));
        let notifier = thread::spawn({
            let event = event.clone();
            move || event.set.notify()
        });
        all.push(Forgotten::register(&event, 3));
        event.set.notify();
        event.set.hand_on();
        event.set.hand_on();
        rescuer::round();
        notifier.join().unwrap();
        rescuer::round();
        all.into_iter().for_each(|forgotten| forgotten.assert_woken(&event));
    });
}

/// A set ends while the rescuer finds that nobody is left in it, and takes it off its list.
#[test]
fn a_set_that_was_armed_ends() {
    explore_all(3, || {
        rescuer::takes_part();
        let event = Event::new();
        {
            let forgotten = Forgotten::register(&event, 3);
            event.set.notify();
            event.set.hand_on();
            drop(forgotten);
        }
        let rescuer = thread::spawn(rescuer::round);
        drop(event);
        rescuer.join().unwrap();
        rescuer::round();
    });
}

/// A set ends while the rescuer looks at it.
#[test]
fn a_set_that_is_armed_ends() {
    explore_all(3, || {
        rescuer::takes_part();
        let event = Event::new();
        let heard: Vec<_> = {
            let forgotten = Forgotten::register(&event, 3);
            event.set.notify();
            // Without a word to the set, so that the nodes are its own.
            forgotten.0.into_iter().map(|(_, heard)| heard).collect()
        };
        let rescuer = thread::spawn(rescuer::round);
        drop(event);
        rescuer.join().unwrap();
        rescuer::round();
        assert!(heard.iter().all(|heard| Arc::strong_count(heard) == 1), "a waker was left behind");
    });
}
