//! The rescuer: a thread of the library's own that wakes those waiters that nobody else wakes.
//!
//! There is no such thread until a wait set is first armed ([`super::rescue`] explains arming), which only happens
//! where waiters must be woken by other waiters, or by a thread that is about to call a task's waker. From then on
//! one thread, `psa-rescue`, serves the whole process.
//!
//! # Duty
//!
//! One thread at a time is *on duty*: it looks at the armed sets once in a [`PERIOD`] (in an [`IDLE_PERIOD`] where
//! the last look found nothing armed), and after [`LINGER`] looks that found nothing it sleeps until the next arming
//! wakes it. A steady stream of armings therefore costs no system call each.
//!
//! Wakers are user code and may never return. So before the thread on duty calls any, it hands its duty over to
//! another thread, which it starts if need be. If a call does not return, the other thread notices that nobody makes
//! progress, hands over in turn, and wakes the remaining waiters. A waker that blocks forever costs one thread, and
//! at most [`MOST`] threads are started. When all of them are stuck, no thread is on duty, arming fails, and
//! notifiers wake all waiters themselves. They also do so where no thread can be started.
//!
//! # After a fork
//!
//! The child has no such thread, and the list's lock may be held by a thread that no longer exists. So the child
//! starts afresh: a handler of `fork` (on systems other than Linux, a check of the process id) makes [`current`]
//! report that nothing is armed and no thread on duty.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::thread::{Builder, Thread};
use std::time::Duration;

use super::rescue::{Found, Rescue};

/// How often the thread on duty looks while something is armed. What it finds at two consecutive looks is overdue.
const PERIOD: Duration = Duration::from_millis(1);

/// How often it looks while nothing is armed.
const IDLE_PERIOD: Duration = Duration::from_millis(4);

/// A set is overdue after this many looks at which a waiter was still to be woken, although others are waking them.
const MOST_LOOKS: u32 = 3;

/// After this many looks at which nothing was armed, a fifth of a second, the thread on duty sleeps. Waking it costs
/// a notifier 10 us or more, which is more than everything else that a notifier does; this way it happens at most
/// five times a second.
const LINGER: u32 = 50;

/// The most threads that are started.
const MOST: usize = 16;

/// A process's rescuer. Never freed: its threads use it until the process ends.
struct Rescuer {
    rescue: Rescue,
    /// [`NOBODY`], [`AWAKE`], or [`ASLEEP`] plus the number of the thread that is on duty and sleeps.
    duty: AtomicU32,
    /// One bit for each idle thread.
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

/// What other threads know of one rescuer thread.
struct Seat {
    thread: OnceLock<Thread>,
    /// Whether the thread was given the duty while it was idle.
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
    // Release: publishes what we have made. Acquire: shows what another thread has made.
    match CURRENT.compare_exchange(seen, fresh, Ordering::Release, Ordering::Acquire) {
        // SAFETY: it is never freed from now on.
        Ok(_) => unsafe { &*fresh },
        Err(theirs) => {
            // SAFETY: no other thread has seen ours; theirs is never freed.
            unsafe {
                drop(Box::from_raw(fresh));
                &*theirs
            }
        }
    }
}

/// The armed sets of this process.
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
            // Relaxed: it finds what it is woken for through `incoming`.
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

    /// No thread is on duty: puts one there.
    #[cold]
    fn start(&'static self) -> bool {
        if !self.take_duty() {
            // Another thread has done it.
            return true;
        }
        self.leave_duty()
    }

    /// Gives away the duty, which the caller has. False if no thread takes it.
    fn leave_duty(&'static self) -> bool {
        if self.hand_over() {
            return true;
        }
        // SeqCst: pairs with `rest`. Either we see the thread that has become idle since `hand_over` looked, or it
        // sees that no thread is on duty.
        self.duty.store(NOBODY, Ordering::SeqCst);
        self.idle.load(Ordering::SeqCst) != 0 && self.start()
    }

    fn take_duty(&self) -> bool {
        // Relaxed: what the thread on duty works on is under the lock of the list.
        self.duty.compare_exchange(NOBODY, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Gives the duty, which the caller has, to an idle thread or to a new one. False if there is none.
    fn hand_over(&'static self) -> bool {
        let mut idle = self.idle.load(Ordering::Relaxed);
        while idle != 0 {
            let number = idle.trailing_zeros();
            // Acquire: pairs with the Release of the thread that became idle; its seat is filled in.
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
        // Only the thread that has the duty comes here, so no other thread counts at the same time. Counted before the
        // spawn: the new thread has the duty as soon as it runs, and may itself start another one.
        let number = self.started.load(Ordering::Relaxed) as usize;
        if number >= MOST {
            return false;
        }
        self.started.store(number as u32 + 1, Ordering::Relaxed);
        // A thread inherits its creator's signal mask, and the program's signals are not for us.
        let blocked = signals::block();
        let thread = Builder::new().name("psa-rescue".into()).spawn(move || self.serve(number));
        drop(blocked);
        if thread.is_err() {
            // The caller still has the duty.
            self.started.store(number as u32, Ordering::Relaxed);
        }
        thread.is_ok()
    }

    fn unpark(&self, number: usize) {
        if let Some(thread) = self.seats[number].thread.get() {
            thread.unpark();
        }
    }

    /// The body of a rescuer thread. It begins on duty.
    fn serve(&'static self, number: usize) {
        let _ = self.seats[number].thread.set(std::thread::current());
        loop {
            self.watch(number);
            // Another thread goes on duty first: the wakers that are called now may not return.
            self.leave_duty();
            while let Some(call) = self.rescue.next() {
                call.wake();
            }
            self.rest(number);
        }
    }

    /// On duty: returns when a waiter is overdue.
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
            // Fails if the thread that armed a set has done so already.
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
            // The bit is still there: only the thread that has the duty clears it.
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

    /// Makes a forked child start afresh. Not a `Once`: a child that is forked in the middle of one would wait
    /// forever.
    pub(super) fn notice() {
        static NOTICED: AtomicBool = AtomicBool::new(false);
        if !NOTICED.load(Ordering::Acquire) {
            // Registered before it is noted, perhaps by several threads, which does no harm: no thread continues
            // without a handler.
            // SAFETY: the handler does only what is allowed after a fork: it stores to an atomic. It is part of the
            // program, which is not unloaded. (Registering fails only for want of memory, which we could do nothing
            // about.)
            unsafe { libc::pthread_atfork(None, None, Some(begin_anew)) };
            NOTICED.store(true, Ordering::Release);
        }
    }

    extern "C" fn begin_anew() {
        // Relaxed: the child has one thread. What the parent had armed stays where it is, unused.
        super::CURRENT.store(std::ptr::null_mut(), Ordering::Relaxed);
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod fork {
    /// `is_of_this_process` notices a fork.
    pub(super) fn notice() {}
}

#[cfg(all(unix, not(miri)))]
mod signals {
    use std::mem::MaybeUninit;

    /// Keeps the calling thread's signals blocked until it is dropped.
    pub(super) struct Blocked(libc::sigset_t);

    /// Blocks all signals except those that a fault of the thread itself raises.
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

#[cfg(not(all(unix, not(miri))))]
mod signals {
    pub(super) struct Blocked;

    pub(super) fn block() -> Blocked {
        Blocked
    }
}
