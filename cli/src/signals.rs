//! Being told to end: Ctrl-C, SIGTERM, a terminal that closed.
//!
//! A hang-up that was ignored when we were started stays ignored: that is how `nohup` and its kind say
//! that we are to outlive the terminal.
//!
//! A command that has taken the signals over must look at them, and a call of the system that does not return
//! keeps it from that: a message onto a full pipe, a terminal that was stopped. So a thread of its own looks
//! too, and ends the process if nobody has taken a signal for a while.

use crate::error::{Error, Exit, Result};
use crate::terminal;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// The signals that ask the process to end. While this exists, they no longer end it by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if it is to be ignored.
    hangup: Option<Signal>,
    /// Whether one was taken, for whoever [watches](watch).
    taken: Arc<AtomicBool>,
}

/// How long a signal may wait until somebody takes it. Far above what a busy machine needs.
const UNTAKEN: Duration = Duration::from_secs(3);

/// How long after a second signal the process may still be there.
const INSISTED: Duration = Duration::from_secs(1);

/// What a hang-up says to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HangUp {
    /// Read the files again.
    Reload,
    /// The terminal that the server was started in is gone.
    TerminalClosed,
}

/// The hang-ups of a server, to which the one signal says two things. Which of them is seen by the terminal:
/// the kernel takes it away from its processes before it tells them.
#[derive(Debug)]
pub(crate) struct HangUps {
    signal: Signal,
    /// Whether there is a terminal whose end is ours.
    terminal: bool,
    /// When to look at the terminal again: a shell that ends may tell its jobs first.
    look: Option<Instant>,
}

/// How long after a hang-up the terminal may still be there although it is about to go.
const LATE: Duration = Duration::from_secs(1);

impl HangUps {
    /// Waits for the next one. Can be dropped and called again.
    pub(crate) async fn next(&mut self) -> HangUp {
        loop {
            let look = self.look;
            tokio::select! {
                Some(()) = self.signal.recv() => {
                    if self.terminal && terminal::is_gone() {
                        return HangUp::TerminalClosed;
                    }
                    self.look = self.terminal.then(|| Instant::now() + LATE);
                    return HangUp::Reload;
                }
                () = tokio::time::sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => {
                    self.look = None;
                    if terminal::is_gone() {
                        return HangUp::TerminalClosed;
                    }
                }
                else => std::future::pending().await,
            }
        }
    }
}

impl Signals {
    /// For a server: a hang-up means to read its files again, as it does to services, unless the terminal is
    /// gone that the server was started in.
    pub(crate) fn listen_as_server() -> Result<(Signals, HangUps)> {
        let mut signals = Signals::take_over()?;
        let hangup = signals.hangup.take();
        // Under `nohup`, it must not end us, and it does not.
        let terminal = hangup.is_some() && terminal::is_there();
        let signal = match hangup {
            Some(hangup) => hangup,
            None => {
                signal(SignalKind::hangup()).map_err(|error| Error::failed("signals", error))?
            }
        };
        Ok((signals, HangUps { signal, terminal, look: None }))
    }

    /// Takes the signals over, for a command that a signal ends soon. Must be called within a runtime.
    pub(crate) fn listen() -> Result<Signals> {
        let signals = Signals::take_over()?;
        let taken = signals.taken.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || watch(&taken))
            .map_err(|error| Error::failed("signals", error))?;
        Ok(signals)
    }

    fn take_over() -> Result<Signals> {
        let take = |kind| signal(kind).map_err(|error| Error::failed("signals", error));
        let hangup = SignalKind::hangup();
        Ok(Signals {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: if is_ignored(hangup) { None } else { Some(take(hangup)?) },
            taken: Arc::default(),
        })
    }

    /// Waits for one; the exit code that belongs to it. Can be dropped and called again.
    pub(crate) async fn next(&mut self) -> Exit {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            Some(_) = async { self.hangup.as_mut()?.recv().await } => SignalKind::hangup(),
        };
        self.taken.store(true, Ordering::Relaxed);
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

/// Ends the process when a signal came that nobody takes, or a second one after which it is still there.
fn watch(taken: &AtomicBool) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let exit = runtime.block_on(async {
        // The system tells each signal to everybody who listens.
        let mut signals = Signals::take_over().ok()?;
        let first = signals.next().await;
        tokio::select! {
            () = tokio::time::sleep(UNTAKEN) => {
                if !taken.load(Ordering::Relaxed) {
                    return Some(first);
                }
                signals.next().await;
            }
            _ = signals.next() => {}
        }
        tokio::time::sleep(INSISTED).await;
        Some(first)
    });
    if let Some(exit) = exit {
        std::process::exit(exit.code().into());
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
