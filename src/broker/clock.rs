//! The clock of a broker and of its topics: tokio's.
//!
//! It is the system's, unless a test pauses it (`tokio::time::pause`). Then both the wall clock and the one that cannot
//! be set move as far as the test lets tokio's clock move. Only the runtime's own thread sees that: a topic that is used
//! from other threads, too, goes by two clocks then.

use std::time::SystemTime;

use crate::log::Clock;
use crate::sync::time::Instant;

pub(super) fn clock() -> Clock {
    Clock::from_functions(instant, wall)
}

fn instant() -> Instant {
    tokio::time::Instant::now().into()
}

/// The system's wall clock, and as much more or less as tokio's clock differs from the system's.
fn wall() -> SystemTime {
    let here = || tokio::time::Instant::now().into_std();
    let (wall, before, real, after) =
        (SystemTime::now(), here(), std::time::Instant::now(), here());
    // A clock that is not paused shows the system's time between two looks at it.
    if before > real {
        wall + (before - real)
    } else {
        wall - real.saturating_duration_since(after)
    }
}
