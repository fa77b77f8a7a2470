//! Being told to end: Ctrl-C, SIGTERM, a terminal that closed.
//!
//! A hang-up that was ignored when we were started stays ignored: that is how `nohup` and its kind say
//! that we are to outlive the terminal.

use crate::error::{Error, Exit, Result};
use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to end. While this exists, they no longer end it by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if it is to be ignored.
    hangup: Option<Signal>,
}

/// Is told when the process is to read its files again (SIGHUP).
#[derive(Debug)]
pub(crate) struct Reloads(Option<Signal>);

impl Reloads {
    /// Waits for the next one; for ever if hang-ups mean the end.
    pub(crate) async fn next(&mut self) {
        if let Some(signal) = &mut self.0
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

impl Signals {
    /// For a process that has files to read again, if it `reloads`: then a hang-up means that, as it does to
    /// services, and the end of a terminal ends nothing.
    pub(crate) fn listen_and_reload(reloads: bool) -> Result<(Signals, Reloads)> {
        let mut signals = Signals::listen()?;
        if !reloads {
            return Ok((signals, Reloads(None)));
        }
        let hangup = signals.hangup.take();
        let hangup = match hangup {
            Some(hangup) => hangup,
            // Even under `nohup`: it says that a hang-up must not end us, and it does not.
            None => {
                signal(SignalKind::hangup()).map_err(|error| Error::failed("signals", error))?
            }
        };
        Ok((signals, Reloads(Some(hangup))))
    }

    /// Takes the signals over. Must be called within a runtime.
    pub(crate) fn listen() -> Result<Signals> {
        let take = |kind| signal(kind).map_err(|error| Error::failed("signals", error));
        let hangup = SignalKind::hangup();
        Ok(Signals {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: if is_ignored(hangup) { None } else { Some(take(hangup)?) },
        })
    }

    /// Waits for one; the exit code that belongs to it. Can be dropped and called again.
    pub(crate) async fn next(&mut self) -> Exit {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            Some(_) = async { self.hangup.as_mut()?.recv().await } => SignalKind::hangup(),
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

/// Whether the process ignores a signal. Only Linux tells without unsafe code; elsewhere the answer is no.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status) >> (kind.as_raw_value() - 1) & 1 == 1
}

/// The set of ignored signals, signal 1 in the lowest bit, from the text of a `/proc/PID/status`.
fn ignored_in(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignored_signals_are_read() {
        assert_eq!(ignored_in("Name:\tpsa\nSigIgn:\t0000000000001001\nSigCgt:\t02\n"), 0x1001);
        assert_eq!(ignored_in(""), 0);
    }
}
