//! The condition variable that the two lock-based rivals ring, used as well as it can be: the
//! publisher makes a system call only if somebody sleeps.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex};

/// Who sleeps, and the variable on which.
#[derive(Default)]
pub struct Bell {
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    condvar: Condvar,
}

impl Bell {
    /// Wakes all sleepers. To be called after what they wait for has happened.
    pub fn ring(&self) {
        // SeqCst on both sides: either we see the sleeper, or it sees what has happened.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            // Under the lock, so that a sleeper that has looked in vain is asleep by now.
            drop(self.lock.lock());
            self.condvar.notify_all();
        }
    }

    /// Sleeps until `happened`.
    pub fn wait(&self, mut happened: impl FnMut() -> bool) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let lock = self.lock.lock().expect("nobody panics under this lock");
        drop(self.condvar.wait_while(lock, |()| !happened()));
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }
}
