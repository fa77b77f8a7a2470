//! Events that strangers can cause as often as they like, counted so that they do not flood the log. These are
//! the events of accepted connections; the listener counts what it refuses.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::listener::{EventCounter, log_suppressed};
use crate::protocol::Code;

/// All such events.
#[derive(Debug)]
pub(super) struct Flood {
    /// Wrong tokens.
    pub(super) unauthorized: EventCounter,
    /// Requests that a token does not allow.
    pub(super) forbidden: EventCounter,
    /// Connections that the server ended because of what they sent or failed to send.
    pub(super) ended: EventCounter,
    /// Gaps of subscribers that were too slow.
    pub(super) evicted: EventCounter,
    /// Requests that were answered with an ERROR.
    pub(super) refused: ByCode,
    /// The same as `ended`, by their codes.
    pub(super) ended_by: ByCode,
}

/// Counts events by their code.
#[derive(Debug)]
pub(super) struct ByCode([AtomicU64; Code::ALL.len()]);

impl ByCode {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Counts one event.
    pub(super) fn note(&self, code: Code) {
        if let Some(at) = Code::ALL.iter().position(|known| *known == code) {
            // Relaxed: a statistic.
            self.0[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events there were with each code that there was.
    pub(super) fn totals(&self) -> Vec<(Code, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Code::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

impl Flood {
    pub(super) fn new() -> Self {
        Self {
            unauthorized: EventCounter::new("connections refused: wrong token"),
            forbidden: EventCounter::new("requests refused: the token does not allow them"),
            ended: EventCounter::new("connections ended by the server"),
            evicted: EventCounter::new("subscribers evicted"),
            refused: ByCode::new(),
            ended_by: ByCode::new(),
        }
    }

    /// Logs in summary, for each period that has ended, the events that were not logged individually. To be
    /// called about once a second.
    pub(super) fn report(&self) {
        log_suppressed([&self.unauthorized, &self.forbidden, &self.ended, &self.evicted]);
    }
}
