//! Giving back what has been unlinked, as soon as no thread looks at it any more.
//!
//! # Which thread gives a segment back
//!
//! The thread that unlinks a segment looks for announcements of it. If there are none, it gives the segment back
//! immediately. If there is one, it puts the segment on the chain's list of *pending* segments. A thread that ends an
//! announcement of a segment that has been unlinked meanwhile sweeps that list: it takes all of it, gives back what
//! no thread announces any more, and puts back the rest.
//!
//! No segment is left on the list by mistake. After a thread has put something on it, that thread looks at the
//! announcements once more, across a heavy barrier. An announcement that it still sees ends later, and the thread
//! that ends it finds the segment on the list. One that it does not see makes it sweep again.
//!
//! So the list holds no more segments than threads have slots in use, and a thread that stalls while it looks at one
//! segment holds back that one.
//!
//! What a sweep finds free goes to a second list, of segments that are *ready*: no thread announces them, and no
//! thread that announces them from now on validates it. A sweeping thread takes one after another from there, and
//! other threads can do so, too.
//!
//! # Held segments
//!
//! A segment whose memory somebody holds ([`super::hold`]) is not given back by the thread that would, but by the one
//! that ends the last hold. That one puts it on the list of segments that are ready.
//!
//! # Records' destructors
//!
//! Records are dropped by the thread that gives their segment back. Their destructors are user code: they may use
//! this log or others, begin new segments, and so unlink more segments. That must not nest: a chain of such
//! destructors would use up the stack. A thread that is giving a segment back therefore only puts what it unlinks
//! meanwhile on the list, and sweeps when it has finished.
//!
//! A destructor may not return for a long time. While it runs, its segment alone is in its thread's hands. All others
//! are on one of the two lists, and a publisher that needs their memory sweeps ([`super::room`]).

use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};

use super::announce::{Announced, is_leaving};
use super::chain::Chain;
use super::record::Record;
use super::segment::Segment;
use crate::sync::reclaim::{self, Collector};
use crate::sync::{Arc, AtomicPtr, Ordering, local};

/// A chain whose list must be swept.
trait Sweep: Send + Sync {
    fn sweep_at_last(&self);
}

type Waiting = RefCell<Vec<Arc<dyn Sweep>>>;

local! {
    /// While the thread gives something back: the chains that it will sweep afterwards.
    static WAITING: Cell<Option<NonNull<Waiting>>> = Cell::new(None);
}

fn waiting() -> Option<NonNull<Waiting>> {
    // Never an error with `std`: a value without a destructor is there until the thread is gone.
    WAITING.try_with(Cell::get).ok().flatten()
}

/// Runs `first`, then sweeps all chains whose sweep was put off meanwhile.
fn in_turn(first: impl FnOnce()) {
    let waiting = Waiting::default();
    let _ = WAITING.try_with(|here| here.set(Some(NonNull::from(&waiting))));
    /// Resets `WAITING` on a panic, too (a model's destructors are not contained).
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            let _ = WAITING.try_with(|here| here.set(None));
        }
    }
    let done = Done;
    first();
    loop {
        // No borrow is held while the chain is swept, or dropped.
        let Some(chain) = waiting.borrow_mut().pop() else { break };
        chain.sweep_at_last();
    }
    drop(done);
}

impl<R: Record + ?Sized> Chain<R> {
    /// Gives back a segment that the caller has unlinked, now or when no thread announces it any more.
    pub(super) fn retire(&self, segment: *mut Segment<R>) {
        let is_nested = waiting().is_some();
        if is_nested || Announced::look().names(segment, self) {
            self.put_on_list(segment);
            self.sweep();
        } else {
            in_turn(|| self.give_back(segment));
        }
    }

    fn put_on_list(&self, segment: *mut Segment<R>) {
        self.pending_segments.fetch_add(1, Ordering::Relaxed);
        // SAFETY: unlinked, and in our hands alone: it is neither on a list nor given back.
        unsafe { push(&self.pending, segment, segment) };
    }

    /// Puts back a list of ready segments, which is in the caller's hands.
    fn put_back_ready(&self, first: *mut Segment<R>) {
        // Release: as in `push`.
        let (none, order) = (ptr::null_mut(), Ordering::Release);
        if self.ready.compare_exchange(none, first, order, Ordering::Relaxed).is_ok() {
            return;
        }
        let mut last = first;
        // SAFETY: in our hands alone.
        while let next = unsafe { (*last).pending.load(Ordering::Relaxed) }
            && !next.is_null()
        {
            last = next;
        }
        // SAFETY: as above.
        unsafe { push(&self.ready, first, last) };
    }

    /// Gives back what is ready, one after another. The rest stays where other threads find it meanwhile.
    fn give_back_ready(&self) {
        loop {
            // Acquire: pairs with the Release in `push`.
            let segment = self.ready.swap(ptr::null_mut(), Ordering::Acquire);
            if segment.is_null() {
                return;
            }
            // SAFETY: taken from the list: in our hands alone, with all that follow it.
            let rest = unsafe { (*segment).pending.load(Ordering::Relaxed) };
            if !rest.is_null() {
                self.put_back_ready(rest);
                // A publisher may have looked while the list was in our hands, and may now be waiting.
                if self.config.is_limited() {
                    self.room.notify_after(|| self.give_back(segment));
                    continue;
                }
            }
            self.give_back(segment);
        }
    }

    /// Gives back what is pending and not announced; later, if the thread is already giving something back.
    #[cold]
    #[inline(never)]
    pub(super) fn sweep(&self) {
        // Relaxed: a thread that saw the caller's announcement put the segment on the list before. See the module.
        let is_empty = |list: &AtomicPtr<Segment<R>>| list.load(Ordering::Relaxed).is_null();
        if is_empty(&self.pending) && is_empty(&self.ready) {
            return;
        }
        let Some(waiting) = waiting() else {
            return in_turn(|| self.sweep_now());
        };
        // `None`: the chain is being dropped, and itself frees what is on its lists.
        let Some(chain) = self.me.upgrade() else { return };
        let chain: Arc<dyn Sweep> = chain;
        // SAFETY: set by `in_turn` of this thread, which is still running.
        let mut waiting = unsafe { waiting.as_ref() }.borrow_mut();
        // Once, although a destructor may come here any number of times.
        if !waiting.iter().any(|other| Arc::ptr_eq(other, &chain)) {
            waiting.push(chain);
        }
    }

    fn sweep_now(&self) {
        loop {
            // Acquire: pairs with the Release in `push`. (As in `close_if_unpinned`, the barrier of the look would do.)
            let mut list = self.pending.swap(ptr::null_mut(), Ordering::Acquire);
            if list.is_null() {
                return self.give_back_ready();
            }
            let look = Announced::look();
            let mut announced = Vec::new();
            while !list.is_null() {
                self.pending_segments.fetch_sub(1, Ordering::Relaxed);
                let segment = list;
                // SAFETY: taken from the list: in our hands alone.
                list = unsafe { (*segment).pending.load(Ordering::Relaxed) };
                if look.names(segment, self) {
                    announced.push(segment);
                } else {
                    // SAFETY: as above.
                    unsafe { push(&self.ready, segment, segment) };
                }
            }
            announced.iter().for_each(|segment| self.put_on_list(*segment));
            // Only addresses are compared: other threads may have given back what is on the list.
            let is_complete = announced.is_empty() || {
                let look = Announced::look();
                announced.into_iter().all(|segment| look.names(segment, self))
            };
            if is_complete {
                // Last, since a destructor may not return: everything else that is pending has a thread that gives it
                // back.
                return self.give_back_ready();
            }
        }
    }

    /// Gives a segment back that no thread announces; if it is held, leaves that to the thread that ends the last hold.
    fn give_back(&self, segment: *mut Segment<R>) {
        // SAFETY: not given back yet: that is done here, or, once the chain's count is given up, by the last hold.
        if !unsafe { (*segment).is_unheld() } {
            // Before the count is given up, so that it never falls below zero.
            self.held_segments.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the chain's own count.
            if !unsafe { Segment::end_hold(segment) } {
                return;
            }
            self.held_segments.fetch_sub(1, Ordering::Relaxed);
        }
        // SAFETY: unlinked, so no thread that announces it from now on validates it; no thread announced it after
        // that; and it is in our hands alone. The chain lives: `self`.
        unsafe { reclaim::retire(segment, take_back::<R>, is_leaving()) };
    }
}

impl<R: Record + ?Sized> Chain<R> {
    /// Gives back an unlinked segment whose last hold has ended. The caller owns it.
    pub(super) fn give_back_held(&self, segment: *mut Segment<R>) {
        self.held_segments.fetch_sub(1, Ordering::Relaxed);
        // Not here: the thread may be giving something back already, and other threads can do it, too.
        // SAFETY: the caller's.
        unsafe { push(&self.ready, segment, segment) };
        self.sweep();
    }
}

impl<R: Record + ?Sized> Sweep for Chain<R> {
    fn sweep_at_last(&self) {
        self.sweep_now();
    }
}

/// Puts segments on a list, `first` to `last`, which are linked to each other.
///
/// # Safety
///
/// They are in the caller's hands alone.
unsafe fn push<R: Record + ?Sized>(
    list: &AtomicPtr<Segment<R>>,
    first: *mut Segment<R>,
    last: *mut Segment<R>,
) {
    let mut after = list.load(Ordering::Relaxed);
    loop {
        // SAFETY: the caller's promise.
        unsafe { (*last).pending.store(after, Ordering::Relaxed) };
        // Release: pairs with the Acquire of the thread that takes the list, for the links.
        match list.compare_exchange_weak(after, first, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => after = now,
        }
    }
}

/// Returns a segment to its chain.
///
/// # Safety
///
/// `segment` came from a box, and is owned by the caller. Its chain lives.
unsafe fn take_back<R: Record + ?Sized>(segment: *mut Segment<R>, _: &Collector) {
    // SAFETY: the caller's promise.
    unsafe {
        let segment = Box::from_raw(segment);
        (*segment.chain).take_back(segment);
    }
}
