//! Events that strangers can cause as often as they like, counted so that they do not flood the log. These are
//! the events of accepted connections; the listener counts what it refuses.

use crate::listener::{EventCounter, log_suppressed};

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
}

impl Flood {
    pub(super) fn new() -> Self {
        Self {
            unauthorized: EventCounter::new("connections refused: wrong token"),
            forbidden: EventCounter::new("requests refused: the token does not allow them"),
            ended: EventCounter::new("connections ended by the server"),
            evicted: EventCounter::new("subscribers evicted"),
        }
    }

    /// Logs in summary, for each period that has ended, the events that were not logged individually. To be
    /// called about once a second.
    pub(super) fn report(&self) {
        log_suppressed([&self.unauthorized, &self.forbidden, &self.ended, &self.evicted]);
    }
}
