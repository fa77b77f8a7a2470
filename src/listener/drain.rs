//! The stages of a listener's drain.
//!
//! A drain ends one listener. The broker, its topics, its other listeners and the program's own code go on, so no log
//! is closed, and others may go on appending without end.
//!
//! 1. *Draining.* No more connections are accepted, and no append begins (`appends`).
//! 2. *Settled.* The appends that had begun have ended. So whatever this listener has acknowledged is in the logs, and
//!    every subscriber has an end ([`DrainEnd`]). It receives everything up to there, and then the goodbye.
//! 3. *Aborting.* Connections that remain after the listener's `drain_timeout` are cut off. An abort cuts off all
//!    connections immediately.
//!
//! Whoever waits at the end of a log is woken when a stage begins: nothing may come in the log that would wake it.
//!
//! # The broker is shut
//!
//! That ends everything: every log is closed, and every listener of the broker begins its drain by itself. Subscribers
//! then read their closed logs to the end, whatever their own end was.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

use super::Lifecycle;
use crate::log::Log;

/// The stage of a listener. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The listener accepts and serves connections.
    Serving = 0,
    /// Nothing new is accepted, no append among it. Those that have begun are completed.
    Draining = 1,
    /// No append is in flight. Subscribers receive what is there, and end.
    Settled = 2,
    /// Every connection ends immediately.
    Aborting = 3,
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
        // Acquire: whoever finds `Settled` sees what was appended before it.
        match self.now.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Draining,
            2 => Stage::Settled,
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

/// Where a subscriber ends when its listener drains: with every record that the listener has acknowledged. It may be
/// sent more than that, and others may append without end, so its end is determined once.
#[derive(Debug, Default)]
pub(crate) struct DrainEnd(Option<u64>);

impl DrainEnd {
    /// Whether the listener drains and a subscriber that is at the offset `at` of `log` has everything. Ask this of
    /// every subscriber when the listener is settled, and then whenever its offset changes.
    ///
    /// Never true of a closed log, nor of a broker that was shut, which closes it: such a log has an end of its own.
    /// The subscriber reads up to there, and learns whether its topic has ended.
    pub(crate) fn is_reached<P>(&mut self, life: &Lifecycle, log: &Log<[u8], P>, at: u64) -> bool {
        // First the stage: no append of this listener ends after it, so the next offset is behind all of them.
        life.is_settled()
            && at >= *self.0.get_or_insert_with(|| log.next_offset())
            && !log.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, BrokerConfig, TopicSettings};

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

    #[test]
    fn an_end_is_determined_once_and_a_closed_log_has_its_own() {
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let topic = broker.create("t", &TopicSettings::default()).unwrap();
        let log = topic.log();
        topic.blocking_append(b"0").unwrap();
        let life = Lifecycle::new(broker, 1, 0, "");
        let (mut one, mut other) = (DrainEnd::default(), DrainEnd::default());
        assert!(!one.is_reached(&life, log, 1), "it serves");
        assert!(life.advance(Stage::Draining) && life.is_settled(), "no append is in flight");
        assert!(!one.is_reached(&life, log, 0) && one.is_reached(&life, log, 1));
        topic.blocking_append(b"1").unwrap();
        assert!(one.is_reached(&life, log, 1) && !other.is_reached(&life, log, 1));
        drop(topic.close());
        assert!(!one.is_reached(&life, log, 2) && !other.is_reached(&life, log, 2));
    }
}
