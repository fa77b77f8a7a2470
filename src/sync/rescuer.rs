//! The rescuer: a thread of the library's own that wakes those for whom nobody else comes.
//!
//! There is none until a set of waiters is first armed ([`super::rescue`] says what that means), which
//! only happens where waiters have to be woken by other waiters, or by somebody who is about to call a
//! task's waker. Then one thread, `psa-rescue`, serves the whole process.
//!
//! # Who is on duty
//!
//! One thread at a time is *on duty*: it looks at what is armed once in a [`PERIOD`] (in an [`IDLE_PERIOD`] where
//! the last look found nothing armed), and sleeps for good after [`LINGER`] looks that found nothing, until the next
//! arming wakes it. A steady stream of armings therefore costs no system call each.
//!
//! Wakers are code of a user and may never return. So before the thread on duty calls any, it hands its
//! duty over to another one, which it starts if need be. If a call does not return, the other one notices
//! that nobody goes on, hands over in turn, and wakes the others. A waker that blocks for ever costs one
//! thread, and at most [`MOST`] of them are started. When all are stuck, nobody is on duty, arming fails,
//! and notifiers wake all waiters themselves. They do so too where no thread can be started.
//!
//! # After a fork
//!
//! The child has no such thread, and its lock may be held by one that is gone. So the child begins
//! anew: a handler of `fork` (elsewhere than on Linux a look at the process's number) makes
//! [`current`] say that nothing is armed and nobody on duty.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::thread::{Builder, Thread};
use std::time::Duration;

use super::rescue::{Found, Rescue};

/// How often the thread on duty looks while something is armed. What it finds at two looks in a row is overdue.
const PERIOD: Duration = Duration::from_millis(1);

/// How often it looks while nothing is armed.
const IDLE_PERIOD: Duration = Duration::from_millis(4);

/// A set is overdue after so many looks at which somebody was still to be woken, although others are at it.
const MOST_LOOKS: u32 = 3;

/// After so many looks at which nothing was armed, a fifth of a second, the thread on duty sleeps. To wake it
/// costs a notifier 10 us and more, which is more than all else that it does; this way it does so five times a
/// second at the most.
const LINGER: u32 = 50;

/// The most threads that are started.
const MOST: usize = 16;

/// A process's rescuer. Never freed: threads of ours use it until the process ends.
struct Rescuer {
    rescue: Rescue,
    /// [`NOBODY`], [`AWAKE`], or [`ASLEEP`] and the number of the thread that is on duty and sleeps.
    duty: AtomicU32,
    /// One bit for each thread that has nothing to do.
    idle: AtomicU32,
    /// How many threads were started.
    started: AtomicU32,
    seats: [Seat; MOST],
    /// The process that this belongs to.
    #[cfg(not(target_os = "linux"))]
    process: u32,
}

const NOBODY: u32 = 0;
const AWAKE: u32 = 1;
const ASLEEP: u32 = 2;

/// What others know of one thread.
struct Seat {
    thread: OnceLock<Thread>,
    /// Whether it was given the duty while it was idle.
    called: AtomicBool,
}

/// This process's rescuer; null until something is armed.
static CURRENT: AtomicPtr<Rescuer> = AtomicPtr::new(std::ptr::null_mut());

fn rescuer() -> &'static Rescuer {
    // Acquire: pairs with the Release below.
    let seen = CURRENT.load(Ordering::Acquire);
    // SAFETY: it came from a box that is never freed.
    match unsafe { seen.as_ref() } {
        Some(rescuer) if rescuer.is_of_this_process() => rescuer,
        _ => create(seen),
    }
}

#[cold]
fn create(seen: *mut Rescuer) -> &'static Rescuer {
    fork::notice();
    let fresh = Box::into_raw(Box::new(Rescuer {
        rescue: Rescue::new(),
        duty: AtomicU32::new(NOBODY),
        idle: AtomicU32::new(0),
        started: AtomicU32::new(0),
        seats: [const { Seat { thread: OnceLock::new(), called: AtomicBool::new(false) } }; MOST],
        #[cfg(not(target_os = "linux"))]
        process: std::process::id(),
    }));
    // Release: publishes what we have made. Acquire: what somebody else has.
    match CURRENT.compare_exchange(seen, fresh, Ordering::Release, Ordering::Acquire) {
        // SAFETY: it is never freed from now on.
        Ok(_) => unsafe { &*fresh },
        Err(theirs) => {
            // SAFETY: nobody has seen ours; theirs is never freed.
            unsafe {
                drop(Box::from_raw(fresh));
                &*theirs
            }
        }
    }
}

/// What is armed in this process.
pub(crate) fn current() -> Option<&'static Rescue> {
    Some(&rescuer().rescue)
}

/// Makes sure that a thread is on duty, and awake. False if there cannot be one.
pub(crate) fn is_on_duty() -> bool {
    let rescuer = rescuer();
    // SeqCst: pairs with `sleep`. Either we see that it sleeps, or it sees what was armed.
    match rescuer.duty.load(Ordering::SeqCst) {
        AWAKE => true,
        NOBODY => rescuer.start(),
        asleep => {
            // Relaxed: what it is woken for, it finds through `incoming`.
            let woken =
                rescuer.duty.compare_exchange(asleep, AWAKE, Ordering::Relaxed, Ordering::Relaxed);
            if woken.is_ok() {
                rescuer.unpark((asleep - ASLEEP) as usize);
            }
            true
        }
    }
}

impl Rescuer {
    #[cfg(target_os = "linux")]
    fn is_of_this_process(&self) -> bool {
        true
    }

    #[cfg(not(target_os = "linux"))]
    fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Nobody is on duty: puts somebody there.
    #[cold]
    fn start(&'static self) -> bool {
        if !self.take_duty() {
            // Somebody else has done it.
            return true;
        }
        self.leave_duty()
    }

    /// The caller, who has the duty, gives it away. False if nobody takes it.
    fn leave_duty(&'static self) -> bool {
        if self.hand_over() {
            return true;
        }
        // SeqCst: pairs with `rest`. Either we see the thread that has sat down since `hand_over` looked, or
        // it sees that nobody is on duty.
        self.duty.store(NOBODY, Ordering::SeqCst);
        self.idle.load(Ordering::SeqCst) != 0 && self.start()
    }

    fn take_duty(&self) -> bool {
        // Relaxed: what the one on duty works on is under the lock of the list.
        self.duty.compare_exchange(NOBODY, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Gives the duty, which the caller has, to a thread that has nothing to do, or to a new one. False if
    /// there is none.
    fn hand_over(&'static self) -> bool {
        let mut idle = self.idle.load(Ordering::Relaxed);
        while idle != 0 {
            let number = idle.trailing_zeros();
            // Acquire: pairs with the Release of the one who sat down; its seat is filled in.
            match self.idle.compare_exchange_weak(
                idle,
                idle & !(1 << number),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    // Release: pairs with `rest`.
                    self.seats[number as usize].called.store(true, Ordering::Release);
                    self.unpark(number as usize);
                    return true;
                }
                Err(now) => idle = now,
            }
        }
        // Only whoever has the duty comes here, so nobody counts beside us.
        let number = self.started.load(Ordering::Relaxed) as usize;
        if number >= MOST {
            return false;
        }
        // A thread inherits what its creator has blocked: the program's signals are not for us.
        let blocked = signals::block();
        let thread = Builder::new().name("psa-rescue".into()).spawn(move || self.serve(number));
        drop(blocked);
        if thread.is_ok() {
            self.started.store(number as u32 + 1, Ordering::Relaxed);
        }
        thread.is_ok()
    }

    fn unpark(&self, number: usize) {
        if let Some(thread) = self.seats[number].thread.get() {
            thread.unpark();
        }
    }

    /// What a thread of ours does. It begins on duty.
    fn serve(&'static self, number: usize) {
        let _ = self.seats[number].thread.set(std::thread::current());
        loop {
            self.watch(number);
            // Somebody else goes on duty first: what is called now may not return.
            self.leave_duty();
            while let Some(call) = self.rescue.next() {
                call.wake();
            }
            self.rest(number);
        }
    }

    /// On duty: returns when somebody is overdue.
    fn watch(&self, number: usize) {
        let mut nothing = 0;
        loop {
            std::thread::sleep(if nothing == 0 { PERIOD } else { IDLE_PERIOD });
            match self.rescue.look(MOST_LOOKS) {
                Found::Overdue => return,
                Found::Pending => nothing = 0,
                Found::Nothing => {
                    nothing += 1;
                    if nothing >= LINGER {
                        self.sleep(number);
                        nothing = 0;
                    }
                }
            }
        }
    }

    /// On duty, and nothing is armed: sleeps until something is.
    fn sleep(&self, number: usize) {
        let asleep = ASLEEP + number as u32;
        // SeqCst: pairs with `is_on_duty`; the load in `is_incoming` follows.
        self.duty.store(asleep, Ordering::SeqCst);
        if self.rescue.is_incoming() {
            // Or whoever armed it has done so already.
            let _ = self.duty.compare_exchange(asleep, AWAKE, Ordering::Relaxed, Ordering::Relaxed);
        }
        while self.duty.load(Ordering::Relaxed) == asleep {
            std::thread::park();
        }
    }

    /// Not on duty: waits until it is.
    fn rest(&self, number: usize) {
        let own = 1 << number;
        // SeqCst: Release pairs with `hand_over`; and see `leave_duty`.
        self.idle.fetch_or(own, Ordering::SeqCst);
        if self.duty.load(Ordering::SeqCst) == NOBODY && self.take_duty() {
            // The bit is still there: only whoever has the duty takes it away.
            self.idle.fetch_and(!own, Ordering::Relaxed);
            return;
        }
        // Acquire: pairs with `hand_over`.
        while !self.seats[number].called.swap(false, Ordering::Acquire) {
            std::thread::park();
        }
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod fork {
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Makes a child begin again. Not a `Once`: a child of a fork in the middle of it would wait for ever.
    pub(super) fn notice() {
        static NOTICED: AtomicBool = AtomicBool::new(false);
        if !NOTICED.swap(true, Ordering::Relaxed) {
            // SAFETY: the handler does what is allowed after a fork: it stores to an atomic. It is part of the
            // program, which is not unloaded. (It fails for want of memory only, and then says so of nothing
            // that we could do about it.)
            unsafe { libc::pthread_atfork(None, None, Some(begin_anew)) };
        }
    }

    extern "C" fn begin_anew() {
        // Relaxed: the child has one thread. What the parent had armed stays where it is, unused.
        super::CURRENT.store(std::ptr::null_mut(), Ordering::Relaxed);
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod fork {
    /// `is_of_this_process` notices.
    pub(super) fn notice() {}
}

#[cfg(all(target_os = "linux", not(miri)))]
mod signals {
    use std::mem::MaybeUninit;

    /// The calling thread's signals are blocked until this is dropped.
    pub(super) struct Blocked(libc::sigset_t);

    /// Blocks all signals but those that a fault of the thread itself raises.
    pub(super) fn block() -> Blocked {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: `sigfillset` and `pthread_sigmask` fill in what they are given, and fail for no argument
        // that is given here.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for own in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
                libc::sigdelset(all.as_mut_ptr(), own);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
            Blocked(before.assume_init())
        }
    }

    impl Drop for Blocked {
        fn drop(&mut self) {
            // SAFETY: as in `block`.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod signals {
    pub(super) fn block() {}
}
