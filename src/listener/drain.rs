//! The stages of a listener's shutdown.
//!
//! 1. No more connections are accepted, and every log is closed. From then on no append succeeds, so the
//!    acknowledged records are exactly those in the logs.
//! 2. Work in progress is completed: subscribers receive everything that was acknowledged, and then the end.
//! 3. Connections that remain after the listener's `drain_timeout` are cut off. An abort cuts off all connections
//!    immediately.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

/// The stage of a listener. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The listener accepts and serves connections.
    Serving = 0,
    /// Work in progress is completed; nothing new is accepted.
    Draining = 1,
    /// Every connection ends immediately.
    Aborting = 2,
}

/// The current stage, and the tasks that wait for the next one.
pub(super) struct Stages {
    /// Separate from the channel, because a connection reads it whenever it does anything: a plain load, no lock.
    now: AtomicU8,
    changed: watch::Sender<()>,
}

impl Stages {
    pub(super) fn new() -> Self {
        Self { now: AtomicU8::new(Stage::Serving as u8), changed: watch::Sender::new(()) }
    }

    pub(super) fn now(&self) -> Stage {
        match self.now.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Draining,
            _ => Stage::Aborting,
        }
    }

    /// Advances to `stage` and returns whether the stage changed. If it did, the waiting tasks must still be
    /// [notified](Self::notify).
    pub(super) fn set(&self, stage: Stage) -> bool {
        self.now.fetch_max(stage as u8, Ordering::AcqRel) < stage as u8
    }

    /// Wakes the tasks that wait in [`reached`](Self::reached).
    pub(super) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Waits until `stage` or a later one is reached.
    pub(super) async fn reached(&self, stage: Stage) {
        // This checks the stage, then waits for any notification since it subscribed, so that none in between is
        // missed. The channel cannot be closed, because its sender is in `self`.
        let _ = self.changed.subscribe().wait_for(|()| self.now() >= stage).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_news_once_and_never_goes_back() {
        let stages = Stages::new();
        assert!(stages.set(Stage::Draining) && !stages.set(Stage::Draining));
        assert!(stages.set(Stage::Aborting) && !stages.set(Stage::Draining));
        assert_eq!(stages.now(), Stage::Aborting);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_stage_is_told_of_it_and_of_a_later_one() {
        let stages = std::sync::Arc::new(Stages::new());
        let waits = [Stage::Draining, Stage::Aborting].map(|stage| {
            let stages = stages.clone();
            tokio::spawn(async move { stages.reached(stage).await })
        });
        stages.reached(Stage::Serving).await;
        tokio::task::yield_now().await;
        assert!(!waits[0].is_finished());
        stages.set(Stage::Aborting);
        stages.notify();
        for wait in waits {
            wait.await.unwrap();
        }
        stages.reached(Stage::Draining).await;
    }
}
