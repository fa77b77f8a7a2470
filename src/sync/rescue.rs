//! The wait sets whose waiters must be woken even if no other waiter does it: the *armed* sets.
//!
//! A wait set wakes most of its waiters through each other. That is fast, but cannot be relied upon, since any of
//! them may never run again. So a thread that leaves waiters to be woken by others arms their set first. The rescuer
//! ([`super::rescuer`]) looks at each armed set from time to time, and wakes those waiters that nobody else has
//! woken. This file has the protocol; the rescuer has the thread, its clock and its sleep. A model takes the
//! rescuer's part itself and explores this file as it ships.
//!
//! # Arming
//!
//! A set has one [`Link`]. The thread that finds it disarmed marks it armed and pushes it on `incoming`; for all
//! others, arming is a load. The rescuer moves what is incoming to its list, and looks at the list under a lock that
//! notifiers never take.
//!
//! # No set is forgotten
//!
//! A waking thread puts waiters back into its set and then checks whether the set is armed. The rescuer marks a set
//! disarmed and then checks whether anything is in it. Each writes one word and reads the other's; all four
//! operations are SeqCst, so one of the two sees the other: the waking thread arms the set again, or the rescuer
//! finds what was put back and arms the set itself.
//!
//! # How long a set lives
//!
//! The list has the address of a set, and no reference: a set that is dropped takes itself off the list
//! ([`Link::disarm`]) under the same lock. It takes the lock even if it is not on the list any more: the rescuer that
//! has just taken it off may not have finished with it. The lock is never held while user code runs.

use std::sync::PoisonError;
use std::task::Waker;

use super::rescuer::{current, is_on_duty};
use super::thread::Thread;
use super::{AtomicPtr, Mutex, MutexGuard, Ordering, UnsafeCell, contain};

/// Whom to wake.
pub(crate) enum Call {
    /// A thread that parks in our own code: waking it runs no user code and never blocks.
    Thread(Thread),
    /// A task: its waker is user code, which may panic, block forever, or call back into the log.
    Task(Waker),
}

impl Call {
    /// Wakes. A task is woken only while the caller has nothing in its hands: the call may never return.
    pub(crate) fn wake(self) {
        match self {
            Call::Thread(thread) => thread.unpark(),
            Call::Task(waker) => contain(|| waker.wake()),
        }
    }
}

/// A set of waiters as the rescuer sees it.
///
/// The methods that move waiters are called under the lock of the list, by one thread at a time.
pub(crate) trait Rescued: Sync {
    fn link(&self) -> &Link;
    /// The address of the next waiter to be woken; null if there is none. Another address means that a waiter has
    /// been woken.
    fn pending(&self) -> *const ();
    /// Takes all pending waiters out of everyone's reach but the rescuer's.
    fn make_overdue(&self);
    fn is_overdue(&self) -> bool;
    /// The next of the overdue waiters.
    fn next_overdue(&self) -> Option<Call>;
}

/// No list's address.
const DISARMED: *mut Rescue = std::ptr::dangling_mut();

/// What a set needs in order to be armed.
pub(crate) struct Link {
    /// The list on which the set is armed; null if it never was, [`DISARMED`] if it is no longer. After a fork this
    /// can be the parent's list, which nobody looks at any more.
    armed: AtomicPtr<Rescue>,
    /// The next link of those that are incoming.
    next: AtomicPtr<Link>,
    /// The set itself. Written by the thread that armed it, before the push.
    set: UnsafeCell<Option<*const dyn Rescued>>,
}

// SAFETY: `set` is written by the thread that moved `armed` to this list, and read under the lock of the list by the
// thread that took the link off `incoming`; the push and the take order the two. What it leads to is Sync.
unsafe impl Send for Link {}
// SAFETY: as above.
unsafe impl Sync for Link {}

impl Link {
    pub(crate) fn new() -> Self {
        Link { armed: AtomicPtr::default(), next: AtomicPtr::default(), set: UnsafeCell::new(None) }
    }

    /// Makes sure that the rescuer looks at `set`, whose link this is, after everything that the caller did before.
    /// False if there can be no rescuer: the caller must then wake all waiters itself.
    ///
    /// The set must stay where it is until it is [disarmed](Self::disarm).
    pub(crate) fn arm(&self, set: &(impl Rescued + 'static)) -> bool {
        // A stand-in may have no list.
        let Some(rescue) = current() else { return is_on_duty() };
        let list = std::ptr::from_ref(rescue).cast_mut();
        // SeqCst: pairs with the store in `look`. Either this load finds the set disarmed, or that look
        // finds what the caller put into the set.
        if self.armed.load(Ordering::SeqCst) != list {
            // Acquire: pairs with the Release of the thread that disarmed it, and is finished with the link. Release
            // is not needed: a thread that finds the set armed uses nothing of ours.
            if self.armed.swap(list, Ordering::Acquire) != list {
                rescue.push(self, set);
            }
        }
        is_on_duty()
    }

    /// Takes the set off the list. Call this before the set is dropped, when no other thread can arm it any more.
    pub(crate) fn disarm(&self) {
        // Relaxed: threads that armed it have let go of it. Under the lock even if it is not armed now: the rescuer
        // marks it disarmed and looks at it once more before it gives up the lock.
        let was_ever_armed = !self.armed.load(Ordering::Relaxed).is_null();
        if was_ever_armed && let Some(rescue) = current() {
            rescue.remove(self);
        }
    }
}

/// The sets that are armed.
pub(crate) struct Rescue {
    /// Sets that were armed since the last look.
    incoming: AtomicPtr<Link>,
    list: Mutex<List>,
}

struct List {
    sets: Vec<Armed>,
    /// No set before this one has an overdue waiter.
    first: usize,
    /// How many waiters the rescuer has taken in order to wake them.
    calls: u64,
    /// The value of `calls` at the last look.
    calls_seen: u64,
}

/// One armed set.
struct Armed {
    set: *const dyn Rescued,
    /// What was pending at the last look.
    seen: *const (),
    /// At how many consecutive looks something was pending.
    looks: u32,
}

// SAFETY: a set is Sync, and it is alive as long as it is on the list.
unsafe impl Send for Armed {}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No set is armed.
    Nothing,
    /// Sets are armed, and their waiters are being woken, as far as one can tell so far.
    Pending,
    /// There are waiters that nobody else wakes: [`Rescue::next`] returns them.
    Overdue,
}

impl Rescue {
    pub(crate) fn new() -> Self {
        let list = List { sets: Vec::new(), first: 0, calls: 0, calls_seen: 0 };
        Rescue { incoming: AtomicPtr::default(), list: Mutex::new(list) }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, link: &Link, set: &(impl Rescued + 'static)) {
        // SAFETY: we moved `armed` to this list, and the link is not on it yet.
        unsafe { *link.set.get() = Some(std::ptr::from_ref(set) as *const dyn Rescued) };
        let link = std::ptr::from_ref(link).cast_mut();
        let mut seen = self.incoming.load(Ordering::Relaxed);
        loop {
            // SAFETY: as above, and the caller's borrow keeps it.
            unsafe { (*link).next.store(seen, Ordering::Relaxed) };
            // SeqCst: Release hands the link over to the taker in `admit`; and this push precedes the check whether a
            // thread is on duty (see `is_incoming`).
            match self.incoming.compare_exchange_weak(
                seen,
                link,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Whether sets were armed since the last look. A rescuer that has declared itself asleep checks this before it
    /// sleeps: either it sees a push, or the thread that pushed sees that it sleeps.
    pub(crate) fn is_incoming(&self) -> bool {
        // SeqCst: pairs with the push.
        !self.incoming.load(Ordering::SeqCst).is_null()
    }

    /// Moves what is incoming to the list.
    fn admit(&self, list: &mut List) {
        // Acquire: pairs with the pushes.
        let mut link = self.incoming.swap(std::ptr::null_mut(), Ordering::Acquire);
        while !link.is_null() {
            // SAFETY: an armed set is not dropped before it has taken itself off the list, under the lock that we
            // hold.
            let (set, next) = unsafe { (*(*link).set.get(), (*link).next.load(Ordering::Relaxed)) };
            let set = set.expect("a link is pushed with its set");
            list.sets.push(Armed { set, seen: std::ptr::null(), looks: 0 });
            link = next;
        }
    }

    /// Looks at all armed sets, and disarms those in which no waiter is left. A set is overdue if the same waiter is
    /// the next to be woken as at the last look, or after `most` looks at which some waiter was still to be woken.
    pub(crate) fn look(&self, most: u32) -> Found {
        let mut list = self.lock();
        self.admit(&mut list);
        list.first = 0;
        let mut overdue = false;
        list.sets.retain_mut(|armed| {
            // SAFETY: as in `admit`.
            let set = unsafe { &*armed.set };
            let now = set.pending();
            if !now.is_null() {
                if now == armed.seen || armed.looks >= most {
                    set.make_overdue();
                    (armed.seen, armed.looks) = (std::ptr::null(), 0);
                } else {
                    (armed.seen, armed.looks) = (now, armed.looks + 1);
                }
            } else if !set.is_overdue() {
                // SeqCst: see the module documentation. Release: the next thread that arms the set may use the link
                // again.
                set.link().armed.store(DISARMED, Ordering::SeqCst);
                if set.pending().is_null() {
                    return false;
                }
                let list = std::ptr::from_ref(self).cast_mut();
                if set.link().armed.swap(list, Ordering::Acquire) == list {
                    // Another thread has armed it since, and pushes it.
                    return false;
                }
                (armed.seen, armed.looks) = (std::ptr::null(), 0);
            }
            overdue |= set.is_overdue();
            true
        });
        let calls = list.calls;
        let is_progress = std::mem::replace(&mut list.calls_seen, calls) != calls;
        match (overdue, list.sets.is_empty()) {
            // The thread that has taken waiters since the last look continues with the others.
            (true, _) if is_progress => Found::Pending,
            (true, _) => Found::Overdue,
            (false, true) => Found::Nothing,
            (false, false) => Found::Pending,
        }
    }

    /// One overdue waiter. The caller wakes it, and asks for the next one.
    pub(crate) fn next(&self) -> Option<Call> {
        let mut list = self.lock();
        while let Some(armed) = list.sets.get(list.first) {
            // SAFETY: as in `admit`.
            if let Some(call) = unsafe { &*armed.set }.next_overdue() {
                list.calls += 1;
                return Some(call);
            }
            list.first += 1;
        }
        None
    }

    fn remove(&self, link: &Link) {
        let mut list = self.lock();
        // Relaxed: no other thread arms it, and the lock orders us with the rescuer, which disarms it.
        if !std::ptr::eq(link.armed.load(Ordering::Relaxed), self) {
            return;
        }
        self.admit(&mut list);
        list.first = 0;
        // SAFETY: as in `admit`.
        list.sets.retain(|armed| !std::ptr::eq(unsafe { &*armed.set }.link(), link));
    }
}
