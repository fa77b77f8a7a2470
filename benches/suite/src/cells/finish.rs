//! Telling when the last subscriber has everything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::rival::Trouble;

/// After this long without an end a run has failed: records or a wake-up were lost.
const PATIENCE: Duration = Duration::from_secs(60);

type Verdict = Result<Instant, Trouble>;

/// What the subscribers of a run share.
pub struct Finish {
    /// Subscribers that have not begun to receive.
    absent: AtomicUsize,
    /// Subscribers that have not got everything.
    left: AtomicUsize,
    verdict: Mutex<Sender<Verdict>>,
}

/// The other end.
pub struct Finished {
    finish: Arc<Finish>,
    verdict: Receiver<Verdict>,
}

impl Finish {
    /// For so many subscribers.
    pub fn of(subscribers: usize) -> (Arc<Self>, Finished) {
        let (sender, verdict) = channel();
        let finish = Arc::new(Finish {
            absent: AtomicUsize::new(subscribers),
            left: AtomicUsize::new(subscribers),
            verdict: Mutex::new(sender),
        });
        (finish.clone(), Finished { finish, verdict })
    }

    /// A subscriber begins to receive.
    pub fn begins(&self) {
        self.absent.fetch_sub(1, Ordering::Release);
    }

    /// A subscriber has everything, or never will.
    pub fn ends(&self, result: Result<(), Trouble>) {
        let verdict = match result {
            Ok(()) if self.left.fetch_sub(1, Ordering::AcqRel) > 1 => return,
            Ok(()) => Ok(Instant::now()),
            Err(trouble) => Err(trouble),
        };
        let sender = self.verdict.lock().expect("nobody panics under this lock");
        // Nobody listens any more if another one failed first.
        let _ = sender.send(verdict);
    }
}

impl Finished {
    /// Waits until all subscribers have begun, and a little longer, so that they wait for records.
    pub fn all_begin(&self) {
        while self.finish.absent.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(Duration::from_millis(1));
    }

    /// When the last subscriber had everything.
    ///
    /// # Errors
    ///
    /// The first [`Trouble`] that a subscriber had.
    pub fn wait(&self) -> Verdict {
        match self.verdict.recv_timeout(PATIENCE) {
            Ok(verdict) => verdict,
            Err(RecvTimeoutError::Timeout) => Err(Trouble::Stalled),
            // A subscriber that panics takes its share of `Finish` along, as do all that end.
            Err(RecvTimeoutError::Disconnected) => Err(Trouble::Closed),
        }
    }
}
