//! The stand-in for `src/sync` over loom: the same names, with memory that may be weak.
//!
//! # Sequential consistency, in two readings
//!
//! Loom treats a SeqCst access as an AcqRel one, which is too weak: what is right would be reported
//! as wrong. It does know SeqCst fences. Where two threads each write one word and read the other's,
//! which is all that the log needs sequential consistency for, a fence between the write and the read
//! is what it comes to. Machines build it in two ways: a fence *before* each SeqCst read, or one *after*
//! each SeqCst write (a read-modify-write is both). So each model runs under both readings
//! ([`Reading`]), and what fails under one of them is wrong. It takes both: a reading that fences after
//! the write hides that the read's own ordering is missing, and the other way round.
//!
//! Such fences order more than the accesses that they stand for: they can hide that an Acquire or a
//! Release is missing elsewhere. Models that do not need sequential consistency therefore run under a
//! third reading too, without any fence.
//!
//! # The asymmetric barrier, in two builds
//!
//! [`Barrier::Fences`] is what the library falls back to: a SeqCst fence on both sides.
//! [`Barrier::Membarrier`] is the contract of the system call, and no more than that: each thread has
//! a word, `light` is a read-modify-write of one's own word and `heavy` one of everybody's, so of a
//! light and a heavy barrier one comes first and is seen by the other, while two light ones order
//! nothing between them. That the kernel and the processor keep this contract is assumed, not shown.

use std::cell::Cell;

use loom::sync::atomic as model;

pub(crate) use std::sync::atomic::Ordering;
// The counts of `std`'s own pointers are not what is explored here.
pub(crate) use loom::sync::{Mutex, MutexGuard};
pub(crate) use std::sync::{Arc, Weak};

/// Each slot is one more load for whoever looks at the announcements.
pub(crate) const SLOTS: usize = 3;

/// A waiting thread parks after one look: spinning would only lengthen the executions.
pub(crate) const SPINS: u32 = 1;

/// As above.
pub(crate) const LONGEST_LULL: u32 = 0;

/// As above.
pub(crate) const YIELDS: u32 = 0;
/// Once, and without a pause, in which a scheduler would always let the other thread finish.
pub(crate) const ROOM_YIELDS: u32 = 1;
pub(crate) fn yield_for_room() {}

/// None: who steps aside only lengthens the executions.
pub(crate) const TASK_TURN: usize = usize::MAX;

/// As above.
pub(crate) const THREAD_TURN: usize = usize::MAX;

/// As many as a notifier wakes at least: the next one is the rescuer's affair, or the others'.
pub(crate) const WOKEN_WHOLE: usize = 2;

/// Where the fences of SeqCst accesses stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reading {
    BeforeReads,
    AfterWrites,
    /// Nowhere: SeqCst is AcqRel. Weaker than what the language promises.
    NoFence,
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Read,
    Write,
    Both,
}

/// How the asymmetric barrier is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Barrier {
    Fences,
    Membarrier,
}

/// The most threads of a model, the main one included.
const THREADS: usize = 4;

// All threads of a model run on one thread of the operating system, and each test on another one.
thread_local! {
    static READING: Cell<Reading> = const { Cell::new(Reading::BeforeReads) };
    static BARRIER: Cell<Barrier> = const { Cell::new(Barrier::Fences) };
    /// Threads of this execution that were given a word.
    static NUMBERED: Cell<usize> = const { Cell::new(0) };
}

loom::lazy_static! {
    /// A word of each thread, for its light barriers.
    static ref BARRIERS: [model::AtomicUsize; THREADS] = [const { 0 }; THREADS].map(model::AtomicUsize::new);
}

loom::thread_local! {
    static NUMBER: usize = {
        let number = NUMBERED.get();
        assert!(number < THREADS, "a model has at most {THREADS} threads");
        NUMBERED.set(number + 1);
        number
    };
}

/// Chooses what the next model runs under.
pub(crate) fn choose(reading: Reading, barrier: Barrier) {
    READING.set(reading);
    BARRIER.set(barrier);
}

/// Begins an execution, in its main thread.
pub(crate) fn begin() {
    NUMBERED.set(0);
    crate::fixed::begin();
    // Initialised by all threads' common ancestor: looking at them orders nothing between others.
    let _ = BARRIERS.len();
    rescuer::reset();
}

fn number() -> usize {
    NUMBER.with(|number| *number)
}

mod atomic;
pub(crate) use atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

/// `std`'s cell. Each access counts as a write, and loom checks that it comes after all others.
pub(crate) struct UnsafeCell<T> {
    access: loom::cell::UnsafeCell<()>,
    value: std::cell::UnsafeCell<T>,
}

impl<T> UnsafeCell<T> {
    #[track_caller]
    pub(crate) fn new(value: T) -> Self {
        let value = std::cell::UnsafeCell::new(value);
        UnsafeCell { access: loom::cell::UnsafeCell::new(()), value }
    }

    #[track_caller]
    pub(crate) fn get(&self) -> *mut T {
        self.access.with_mut(|_| self.value.get())
    }
}

/// `std`'s cell for plain values, watched in the same way.
pub(crate) struct Tracked<T>(UnsafeCell<T>);

// SAFETY: loom runs one thread at a time, and reports an access that nothing orders after another one.
unsafe impl<T: Send> Sync for Tracked<T> {}

impl<T: Copy> Tracked<T> {
    #[track_caller]
    pub(crate) fn new(value: T) -> Self {
        Tracked(UnsafeCell::new(value))
    }

    #[track_caller]
    pub(crate) fn get(&self) -> T {
        // SAFETY: no reference to it exists.
        unsafe { *self.0.get() }
    }

    #[track_caller]
    pub(crate) fn set(&self, value: T) {
        // SAFETY: as above.
        unsafe { *self.0.get() = value };
    }
}

pub(crate) mod thread {
    use std::sync::Arc;

    use loom::sync::Notify;

    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::thread::yield_now;

    loom::thread_local! {
        static TOKEN: Arc<Notify> = Arc::new(Notify::new());
    }

    /// A thread's token. (Loom's own `unpark` would also end a `join`.)
    #[derive(Clone)]
    pub(crate) struct Thread(Arc<Notify>);

    impl Thread {
        pub(crate) fn unpark(&self) {
            self.0.notify();
        }
    }

    pub(crate) fn current() -> Thread {
        Thread(TOKEN.with(Arc::clone))
    }

    pub(crate) fn park() {
        TOKEN.with(Arc::clone).wait();
    }

    /// Models do not wait for deadlines.
    pub(crate) fn park_timeout(_: std::time::Duration) {
        unreachable!("a model waited for a deadline");
    }
}

#[path = "../../models/clock.rs"]
pub(crate) mod time;

/// What stored topics need.
pub(crate) mod stored {
    pub(crate) use loom::sync::Condvar;
    pub(crate) use loom::thread::JoinHandle;

    pub(crate) fn spawn(
        name: String,
        serve: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        loom::thread::Builder::new().name(name).spawn(serve)
    }

    pub(crate) fn is_current(thread: &JoinHandle<()>) -> bool {
        thread.thread().id() == loom::thread::current().id()
    }
}

#[expect(dead_code, reason = "a model takes a part of it")]
#[path = "../../../src/sync/rescue.rs"]
pub(crate) mod rescue;

/// There is somebody who could rescue, and does so where a model says it: [`round`](rescuer::round). Models that
/// do not need it are spared the steps of arming.
pub(crate) mod rescuer {
    use std::cell::Cell;

    use super::rescue::{Found, Rescue};

    // As above.
    thread_local! {
        static TAKES_PART: Cell<bool> = const { Cell::new(false) };
    }

    loom::lazy_static! {
        static ref RESCUE: Rescue = Rescue::new();
    }

    /// Begins an execution.
    pub(crate) fn reset() {
        TAKES_PART.set(false);
        // As the barriers' words.
        let _ = &*RESCUE;
    }

    /// This model has a rescuer.
    pub(crate) fn takes_part() {
        TAKES_PART.set(true);
    }

    pub(crate) fn current() -> Option<&'static Rescue> {
        TAKES_PART.get().then_some(&*RESCUE)
    }

    pub(crate) fn is_on_duty() -> bool {
        true
    }

    /// Looks at what is armed, and wakes who is pending.
    pub(crate) fn round() {
        if RESCUE.look(0) != Found::Nothing {
            while let Some(call) = RESCUE.next() {
                call.wake();
            }
        }
    }
}

/// See the module documentation.
pub(crate) mod barrier {
    use super::{BARRIER, BARRIERS, Barrier, Ordering, model, number};

    pub(crate) fn init() {}

    pub(crate) fn light() {
        match BARRIER.get() {
            Barrier::Fences => model::fence(Ordering::SeqCst),
            Barrier::Membarrier => {
                BARRIERS[number()].fetch_add(0, Ordering::AcqRel);
            }
        }
    }

    pub(crate) fn full() {
        model::fence(Ordering::SeqCst);
    }

    pub(crate) fn heavy() {
        match BARRIER.get() {
            Barrier::Fences => model::fence(Ordering::SeqCst),
            Barrier::Membarrier => BARRIERS.iter().for_each(|word| {
                word.fetch_add(0, Ordering::AcqRel);
            }),
        }
    }
}

macro_rules! global {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        loom::lazy_static! { $(#[$meta])* static ref $name: $type = $init; }
    };
}
pub(crate) use global;

macro_rules! local {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        loom::thread_local! { $(#[$meta])* static $name: $type = $init; }
    };
}
pub(crate) use local;

pub(crate) mod reclaim;

/// What a model does depends on its schedule alone.
pub(crate) mod random {
    pub(crate) fn unique() -> u64 {
        std::sync::atomic::AtomicU64::fetch_add(&NEXT, 1, std::sync::atomic::Ordering::Relaxed)
    }
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
}

/// A panic in a model's destructor is a finding, and has to come out.
pub(crate) fn contain(destructors: impl FnOnce()) {
    destructors();
}

pub(crate) fn zeroed_u32s(len: usize) -> Box<[AtomicU32]> {
    (0..len).map(|_| AtomicU32::new(0)).collect()
}

pub(crate) fn zeroed_u64s(len: usize) -> Box<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}
