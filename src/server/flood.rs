//! What strangers can cause as often as they like in connections that were accepted, beside what the listener
//! refuses.

use crate::listener::{Events, tell};

/// All kinds of it.
#[derive(Debug)]
pub(super) struct Flood {
    /// Wrong tokens.
    pub(super) unauthorized: Events,
    /// Requests that a token does not allow.
    pub(super) forbidden: Events,
    /// Connections that the server ended, for what they sent or did not send.
    pub(super) ended: Events,
}

impl Flood {
    pub(super) fn new() -> Self {
        Self {
            unauthorized: Events::new("connections refused: wrong token"),
            forbidden: Events::new("requests refused: the token does not allow them"),
            ended: Events::new("connections ended by the server"),
        }
    }

    /// Logs what was not logged one by one, where a period is over. To be called about once a second.
    pub(super) fn tell(&self) {
        tell([&self.unauthorized, &self.forbidden, &self.ended]);
    }
}
