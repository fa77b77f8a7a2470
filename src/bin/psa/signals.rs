//! Being told to end: Ctrl-C, SIGTERM, a terminal that closed.

use crate::error::{Error, Exit, Result};
use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to end. While this exists, they no longer end it by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over. Must be called within a runtime.
    pub(crate) fn listen() -> Result<Signals> {
        let take = |kind| signal(kind).map_err(|error| Error::failed("signals", error));
        Ok(Signals {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// Waits for one; the exit code that belongs to it. Can be dropped and called again.
    pub(crate) async fn next(&mut self) -> Exit {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        };
        Exit::Signal(u8::try_from(kind.as_raw_value()).unwrap_or(0))
    }

    /// Does some work that may take long, unless a signal ends it.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            exit = self.next() => Err(Error::quiet(exit)),
            outcome = work => outcome,
        }
    }
}
