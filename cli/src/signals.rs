//! Signals that end the process: Ctrl-C, SIGTERM, a terminal that closed.
//!
//! If the hang-up signal was ignored when the process started, it stays ignored: `nohup` and similar programs use this
//! to let a process outlive its terminal.
//!
//! A command that has taken the signals over must handle them, but a system call that does not return can keep it from
//! doing so: a message written to a full pipe, or to a stopped terminal. So a separate thread watches for signals, too,
//! and ends the process if a signal was not handled for a while.

use crate::error::{Error, Exit, Result};
use crate::terminal;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// The signals that ask the process to end. While this exists, they no longer end the process on their own.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if it is to be ignored.
    hangup: Option<Signal>,
    /// Whether a signal was handled; the [`watchdog`] reads this.
    handled: Arc<AtomicBool>,
}

/// How long a signal may wait until it is handled. Far more than a busy machine needs.
const UNHANDLED: Duration = Duration::from_secs(3);

/// How long after a second signal the process may still exist.
const INSISTED: Duration = Duration::from_secs(1);

/// What a hang-up means for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HangUp {
    /// Read the files again.
    Reload,
    /// The terminal that the server was started in is gone.
    TerminalClosed,
}

/// The hang-up signals of a server, which can mean two things. The terminal tells which: the kernel takes it away from
/// its processes before it sends them the signal.
#[derive(Debug)]
pub(crate) struct HangUps {
    signal: Signal,
    /// Whether the process has a terminal whose closing must end it.
    terminal: bool,
    /// When to check the terminal again: a shell that exits may send its jobs the signal first.
    recheck: Option<Instant>,
}

/// How long after a hang-up the terminal may still exist although it is about to close.
const LATE: Duration = Duration::from_secs(1);

impl HangUps {
    /// Waits for the next hang-up. Cancel safe.
    pub(crate) async fn next(&mut self) -> HangUp {
        loop {
            let recheck = self.recheck;
            tokio::select! {
                Some(()) = self.signal.recv() => {
                    if self.terminal && terminal::is_gone() {
                        return HangUp::TerminalClosed;
                    }
                    self.recheck = self.terminal.then(|| Instant::now() + LATE);
                    return HangUp::Reload;
                }
                () = tokio::time::sleep_until(recheck.unwrap_or_else(Instant::now)), if recheck.is_some() => {
                    self.recheck = None;
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
    /// Takes the signals over for a server. A hang-up then means to read its files again, as for other services, unless
    /// the terminal that the server was started in is gone.
    pub(crate) fn listen_as_server() -> Result<(Signals, HangUps)> {
        let mut signals = Signals::take_over()?;
        let hangup = signals.hangup.take();
        // Under `nohup`, a hang-up must not end the process; `hangup` is then `None`.
        let terminal = hangup.is_some() && terminal::is_there();
        let signal = match hangup {
            Some(hangup) => hangup,
            None => {
                signal(SignalKind::hangup()).map_err(|error| Error::failed("signals", error))?
            }
        };
        Ok((signals, HangUps { signal, terminal, recheck: None }))
    }

    /// Takes the signals over for a command, which must end soon after a signal. Must be called within a runtime.
    pub(crate) fn listen() -> Result<Signals> {
        let signals = Signals::take_over()?;
        let handled = signals.handled.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || watchdog(&handled))
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
            handled: Arc::default(),
        })
    }

    /// Waits for a signal, and returns its exit code. Cancel safe.
    pub(crate) async fn next(&mut self) -> Exit {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            Some(_) = async { self.hangup.as_mut()?.recv().await } => SignalKind::hangup(),
        };
        self.handled.store(true, Ordering::Relaxed);
        Exit::Signal(u8::try_from(kind.as_raw_value()).unwrap_or(0))
    }

    /// Does some work that may take long. A signal ends it, with an error.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            exit = self.next() => Err(Error::quiet(exit)),
            outcome = work => outcome,
        }
    }
}

/// Ends the process if a signal is not handled, or if the process still exists some time after a second signal.
fn watchdog(handled: &AtomicBool) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let exit = runtime.block_on(async {
        // Every listener in the process gets each signal.
        let mut signals = Signals::take_over().ok()?;
        let first = signals.next().await;
        tokio::select! {
            () = tokio::time::sleep(UNHANDLED) => {
                if !handled.load(Ordering::Relaxed) {
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

/// Whether the process ignores a signal. Only Linux reports this without unsafe code; elsewhere this returns false.
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
