//! A progress bar on standard error, when that is a terminal and the work takes long enough to want one.

use crate::terminal;
use crate::units::human_count;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Work that is done before this passes shows no bar.
const PATIENCE: Duration = Duration::from_millis(700);

/// How often to look whether something moves.
const LOOK: Duration = Duration::from_millis(500);

/// How far a publisher is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `None` if nobody would see it, or if input is typed on the terminal.
    state: Option<Arc<Mutex<State>>>,
}

#[derive(Debug)]
struct State {
    bar: ProgressBar,
    began: Instant,
    shown: bool,
    /// Acknowledged so far.
    records: u64,
    /// When that last changed.
    moved: Instant,
    /// Whether an answer is due.
    owed: bool,
}

impl Progress {
    /// `total` is the input's size in bytes, if it is known. Must be called within a runtime.
    pub(crate) fn new(total: Option<u64>, typed: bool) -> Progress {
        if typed || !io::stderr().is_terminal() || terminal::is_dumb() {
            return Progress { state: None };
        }
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{bytes:>10} of {total_bytes} [{wide_bar}] {bytes_per_sec}, {eta} left, {msg}",
            ),
            None => (ProgressBar::no_length(), "{bytes:>10} {spinner} {bytes_per_sec}, {msg}"),
        };
        bar.set_draw_target(ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let now = Instant::now();
        let state = State { bar, began: now, shown: false, records: 0, moved: now, owed: false };
        let state = Arc::new(Mutex::new(state));
        let looking = Arc::downgrade(&state);
        // While nothing moves, nobody calls `update`: that is when there is something to say.
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(state) = looking.upgrade() else { return };
                lock(&state).draw();
            }
        });
        Progress { state: Some(state) }
    }

    /// `bytes` of input are published, `records` of them acknowledged.
    pub(crate) fn update(&mut self, bytes: u64, records: u64) {
        let Some(state) = &self.state else { return };
        let mut state = lock(state);
        state.bar.set_position(bytes);
        state.records = records;
        state.moved = Instant::now();
        state.draw();
    }

    /// Whether the server owes an answer.
    pub(crate) fn owed(&mut self, owed: bool) {
        let Some(state) = &self.state else { return };
        let mut state = lock(state);
        if owed && !std::mem::replace(&mut state.owed, owed) {
            state.moved = Instant::now();
        }
        state.owed = owed;
    }

    /// Takes the bar off the screen, so that what is written next stands alone.
    pub(crate) fn finish(&mut self) {
        if let Some(state) = self.state.take() {
            lock(&state).bar.finish_and_clear();
        }
    }
}

impl State {
    fn draw(&mut self) {
        if !self.shown && self.began.elapsed() > PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
        if self.shown {
            let still = if self.owed { self.moved.elapsed() } else { Duration::ZERO };
            self.bar.set_message(message(self.records, still));
        }
    }
}

fn message(records: u64, still: Duration) -> String {
    let records = human_count(records);
    match still.as_secs() {
        0 => format!("{records} records"),
        seconds => format!("{records} records, nothing acknowledged for {seconds} s"),
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_that_stands_still_says_so() {
        assert_eq!(message(1_234, Duration::from_millis(999)), "1,234 records");
        let text = message(1_234, Duration::from_millis(2_500));
        assert_eq!(text, "1,234 records, nothing acknowledged for 2 s");
    }
}
