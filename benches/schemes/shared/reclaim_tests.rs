//! What a scheme promises in which a guard holds only what it may see, and the last one gives it back.

#![allow(
    clippy::let_unit_value,
    clippy::unit_arg,
    reason = "what a scheme keeps of a birth may be nothing"
)]

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::reclaim::{
    Birth, Collector, Guard, ReadGuard, Role, announce, born, collector, enter, protect, retire,
};

/// An object that knows whether it was reclaimed.
struct Object {
    birth: Birth,
    state: AtomicUsize,
    reclaimed: Arc<AtomicUsize>,
}

const ALIVE: usize = 0xA11CE;
const DEAD: usize = 0xDEAD;

fn object(collector: &Collector, reclaimed: &Arc<AtomicUsize>) -> *mut Object {
    let reclaimed = reclaimed.clone();
    let state = AtomicUsize::new(ALIVE);
    Box::into_raw(Box::new(Object { birth: born(collector), state, reclaimed }))
}

/// # Safety
///
/// `object` came from [`object`], and is reclaimed once.
unsafe fn reclaim(object: *mut Object, _: &Collector) {
    // SAFETY: the caller's promise.
    let object = unsafe { Box::from_raw(object) };
    assert_eq!(object.state.swap(DEAD, Ordering::Relaxed), ALIVE, "reclaimed twice");
    object.reclaimed.fetch_add(1, Ordering::Relaxed);
}

/// Puts a new object in the place of the one that is there, and retires that one.
fn replace(place: &AtomicPtr<Object>, collector: &Collector, reclaimed: &Arc<AtomicUsize>) {
    let guard = enter(collector);
    let old = place.swap(object(collector, reclaimed), Ordering::SeqCst);
    // SAFETY: the swap gave it to us, so it is there until we retire it.
    let birth = unsafe { (*old).birth };
    // SAFETY: it is in the place no more, and was there once.
    unsafe { retire(&guard, old, birth, reclaim) };
}

/// Retires the last one, and leaves the place empty.
fn clear(place: &AtomicPtr<Object>, collector: &Collector) {
    let guard = enter(collector);
    let old = place.swap(std::ptr::null_mut(), Ordering::SeqCst);
    // SAFETY: as in `replace`.
    unsafe { retire(&guard, old, (*old).birth, reclaim) };
}

/// A thread with a guard on what is in the place, until it is told to go on.
fn guarded<'s>(
    scope: &'s thread::Scope<'s, '_>,
    place: &'s AtomicPtr<Object>,
    collector: &'s Collector,
) -> (Sender<()>, Receiver<()>) {
    let (go, wait) = channel();
    let (tell, told) = channel();
    scope.spawn(move || {
        let guard = enter(collector);
        let seen = protect(place, &guard, Role::Tail);
        tell.send(()).unwrap();
        wait.recv().unwrap();
        // SAFETY: protected.
        assert_eq!(unsafe { &(*seen).state }.load(Ordering::Relaxed), ALIVE);
        drop(guard);
        tell.send(()).unwrap();
    });
    told.recv().unwrap();
    (go, told)
}

fn count(reclaimed: &AtomicUsize) -> usize {
    reclaimed.load(Ordering::Relaxed)
}

#[test]
fn what_nobody_sees_is_back_when_the_retiring_guard_ends() {
    let (collector, reclaimed) = (collector(), Arc::default());
    let place = AtomicPtr::new(object(&collector, &reclaimed));
    for n in 1..=100 {
        replace(&place, &collector, &reclaimed);
        assert_eq!(count(&reclaimed), n);
    }
    clear(&place, &collector);
    assert_eq!(count(&reclaimed), 101);
}

#[test]
fn two_hundred_guards_at_once_and_the_last_one_gives_it_back() {
    let (collector, reclaimed) = (collector(), Arc::default());
    let place = AtomicPtr::new(object(&collector, &reclaimed));
    thread::scope(|scope| {
        let guards: Vec<_> = (0..200).map(|_| guarded(scope, &place, &collector)).collect();
        replace(&place, &collector, &reclaimed);
        for (go, told) in guards {
            assert_eq!(count(&reclaimed), 0, "reclaimed under somebody's eyes");
            go.send(()).unwrap();
            told.recv().unwrap();
        }
        // No other retirement, no other guard.
        assert_eq!(count(&reclaimed), 1);
    });
    clear(&place, &collector);
}

#[test]
fn a_guard_that_stalls_holds_nothing_that_came_after_it() {
    let (collector, reclaimed) = (collector(), Arc::default());
    let place = AtomicPtr::new(object(&collector, &reclaimed));
    thread::scope(|scope| {
        let (go, told) = guarded(scope, &place, &collector);
        for n in 0..1000 {
            replace(&place, &collector, &reclaimed);
            // All but the one that the guard sees.
            assert_eq!(count(&reclaimed), n);
        }
        go.send(()).unwrap();
        told.recv().unwrap();
        assert_eq!(count(&reclaimed), 1000);
    });
    clear(&place, &collector);
}

/// How a guard comes to an object.
type Find = fn(&AtomicPtr<Object>, &ReadGuard<'_>) -> *mut Object;

/// A guard that begins, and looks only when the object that it was born with is gone, holds the next one.
fn holds_what_it_finds_later(find: Find) {
    let (collector, reclaimed) = (collector(), Arc::default());
    let place = AtomicPtr::new(object(&collector, &reclaimed));
    thread::scope(|scope| {
        // Channels, not barriers: where this thread fails, the other one does, too, and does not wait for ever.
        let (go, wait) = channel();
        let (tell, told) = channel();
        let (place, collector, reclaimed) = (&place, &collector, &reclaimed);
        scope.spawn(move || {
            let guard = enter(collector);
            tell.send(()).unwrap();
            wait.recv().unwrap();
            let seen = find(place, &guard);
            tell.send(()).unwrap();
            wait.recv().unwrap();
            // SAFETY: found under the guard.
            assert_eq!(unsafe { &(*seen).state }.load(Ordering::Relaxed), ALIVE);
            drop(guard);
            tell.send(()).unwrap();
        });
        told.recv().unwrap();
        replace(place, collector, reclaimed);
        assert_eq!(count(reclaimed), 1, "the guard has not looked yet");
        go.send(()).unwrap();
        told.recv().unwrap();
        replace(place, collector, reclaimed);
        assert_eq!(count(reclaimed), 1, "reclaimed under the guard's eyes");
        go.send(()).unwrap();
        told.recv().unwrap();
        assert_eq!(count(reclaimed), 2);
    });
    clear(&place, &collector);
}

#[test]
fn a_guard_holds_what_it_protects_although_it_is_younger() {
    holds_what_it_finds_later(|place, guard| protect(place, guard, Role::Head));
}

#[test]
fn a_guard_holds_what_it_announces_although_it_is_younger() {
    holds_what_it_finds_later(|place, guard| {
        let seen = place.load(Ordering::SeqCst);
        announce(guard, Role::Known, seen);
        assert_eq!(place.load(Ordering::SeqCst), seen);
        seen
    });
}

#[test]
fn a_refreshed_guard_lets_go_of_what_it_held() {
    let (collector, reclaimed) = (collector(), Arc::default());
    let place = AtomicPtr::new(object(&collector, &reclaimed));
    let mut guard = enter(&collector);
    protect(&place, &guard, Role::Head);
    thread::scope(|scope| {
        scope.spawn(|| replace(&place, &collector, &reclaimed));
    });
    assert_eq!(count(&reclaimed), 0);
    guard.refresh();
    assert_eq!(count(&reclaimed), 1);
    drop(guard);
    clear(&place, &collector);
}

#[test]
fn a_guard_within_another_one_ends_without_it() {
    let (collector, reclaimed) = (collector(), Arc::default());
    let place = AtomicPtr::new(object(&collector, &reclaimed));
    let outer = enter(&collector);
    let seen = protect(&place, &outer, Role::Head);
    {
        let mut inner = enter(&collector);
        protect(&place, &inner, Role::Head);
        replace(&place, &collector, &reclaimed);
        inner.refresh();
    }
    assert_eq!(count(&reclaimed), 0);
    // SAFETY: protected by the outer guard.
    assert_eq!(unsafe { &(*seen).state }.load(Ordering::Relaxed), ALIVE);
    drop(outer);
    assert_eq!(count(&reclaimed), 1);
    clear(&place, &collector);
}

/// Looks at what is in the place, in the ways in which the log does.
fn look<'g>(place: &AtomicPtr<Object>, guard: &ReadGuard<'g>, announced: bool) {
    let seen = if announced {
        let seen = place.load(Ordering::SeqCst);
        announce(guard, Role::Known, seen);
        // As the log compares numbers: is it still there?
        if place.load(Ordering::SeqCst) != seen {
            return;
        }
        seen
    } else {
        protect(place, guard, Role::Tail)
    };
    for _ in 0..3 {
        // SAFETY: protected, or announced and found to be still there.
        assert_eq!(
            unsafe { &(*seen).state }.load(Ordering::Relaxed),
            ALIVE,
            "used after it was reclaimed"
        );
        std::hint::spin_loop();
    }
}

#[test]
fn readers_and_writers_at_random_and_nothing_is_left() {
    const THREADS: usize = 8;
    const TURNS: usize = 5_000;
    let (collector, reclaimed) = (collector(), Arc::default());
    let places: Vec<AtomicPtr<Object>> =
        (0..2).map(|_| AtomicPtr::new(object(&collector, &reclaimed))).collect();
    let start = Barrier::new(THREADS);
    let retired = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (places, collector, reclaimed) = (&places, &collector, &reclaimed);
            let (start, retired) = (&start, &retired);
            scope.spawn(move || {
                start.wait();
                for turn in 0..TURNS {
                    let place = &places[turn % places.len()];
                    match (turn * 7 + thread * 3) % 10 {
                        0 => {
                            replace(place, collector, reclaimed);
                            retired.fetch_add(1, Ordering::Relaxed);
                        }
                        1 => {
                            let mut guard = enter(collector);
                            look(place, &guard, false);
                            // Another thread has its turn with our guard in its way.
                            thread::yield_now();
                            look(place, &guard, true);
                            guard.refresh();
                            look(place, &guard, false);
                        }
                        odd => look(place, &enter(collector), odd % 2 == 1),
                    }
                }
            });
        }
    });
    // At rest nothing waits for anything.
    assert_eq!(count(&reclaimed), retired.load(Ordering::Relaxed));
    places.iter().for_each(|place| clear(place, &collector));
    assert_eq!(count(&reclaimed), retired.load(Ordering::Relaxed) + places.len());
}
