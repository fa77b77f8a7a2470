//! The clock of a broker and of its topics: tokio's, if the broker was created on a runtime whose clock can be paused.
//!
//! That is one of a single thread. Its clock is the system's, unless a test pauses it (`tokio::time::pause`). Then both
//! the wall clock and the one that cannot be set move as far as the test lets tokio's clock move. Only the runtime's own
//! thread sees that: a topic that is used from other threads, too, goes by two clocks then.
//!
//! A broker that was created elsewhere goes by the system's clock: every publication asks for the time, and asking both
//! clocks costs four times as much.

use std::time::SystemTime;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::log::Clock;
use crate::sync::time::Instant;

pub(super) fn clock() -> Clock {
    let runtime = Handle::try_current();
    if runtime.is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread) {
        Clock::from_functions(instant, wall)
    } else {
        Clock::system()
    }
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
