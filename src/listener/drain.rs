//! The stages of a listener's end.
//!
//! 1. Nobody is accepted any more, and every log is closed. From then on no append succeeds, so what was
//!    acknowledged is exactly what the logs hold.
//! 2. What was begun is finished: whoever follows a topic gets all that was acknowledged, and then the end.
//! 3. What is still connected after the listener's `drain_timeout` is cut off. So is everything at once after an
//!    abort.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

/// How far a listener has come. Only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It serves.
    Serving = 0,
    /// It finishes what was begun and takes nothing new.
    Draining = 1,
    /// Every connection ends at once.
    Aborting = 2,
}

/// The stage, and whoever waits for the next one.
pub(super) struct Stages {
    /// By itself, since a connection looks at it whenever it does anything: a plain load, and no lock.
    now: AtomicU8,
    moved: watch::Sender<()>,
}

impl Stages {
    pub(super) fn new() -> Self {
        Self { now: AtomicU8::new(Stage::Serving as u8), moved: watch::Sender::new(()) }
    }

    pub(super) fn now(&self) -> Stage {
        match self.now.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Draining,
            _ => Stage::Aborting,
        }
    }

    /// Goes on to `stage`, and says whether that is news, of which those who wait are yet to be
    /// [told](Self::tell).
    pub(super) fn set(&self, stage: Stage) -> bool {
        self.now.fetch_max(stage as u8, Ordering::AcqRel) < stage as u8
    }

    pub(super) fn tell(&self) {
        self.moved.send_replace(());
    }

    /// Ready at `stage`, or when a later one is reached.
    pub(super) async fn reached(&self, stage: Stage) {
        // It looks, then waits for whatever was told since it subscribed: nothing is missed in between. The
        // channel is not closed, since its sender is here.
        let _ = self.moved.subscribe().wait_for(|()| self.now() >= stage).await;
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
        stages.tell();
        for wait in waits {
            wait.await.unwrap();
        }
        stages.reached(Stage::Draining).await;
    }
}
