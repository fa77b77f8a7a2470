//! A progress bar on standard error, shown if that is a terminal and the work takes long enough.

use crate::terminal;
use crate::units::human_count;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Work that is done before this time has passed shows no bar.
const PATIENCE: Duration = Duration::from_millis(700);

/// How often to redraw the bar while nothing moves.
const REDRAW_EVERY: Duration = Duration::from_millis(500);

/// How far a publisher has got.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `None` if nobody would see the bar, or if input is typed on the terminal.
    state: Option<Arc<Mutex<BarState>>>,
}

#[derive(Debug)]
struct BarState {
    bar: ProgressBar,
    began: Instant,
    shown: bool,
    /// The number of records acknowledged so far.
    records: u64,
    /// When that number last changed, or when the server began to owe an answer, if that was later.
    moved: Instant,
    /// Whether the server owes an answer.
    owed: bool,
}

impl Progress {
    /// Creates the bar, which is not shown yet. `total` is the size of the input in bytes, if it is known. Must be
    /// called within a runtime.
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
        let state = BarState { bar, began: now, shown: false, records: 0, moved: now, owed: false };
        let state = Arc::new(Mutex::new(state));
        let weak = Arc::downgrade(&state);
        // While nothing moves, nobody calls `update`; this task then shows for how long.
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(REDRAW_EVERY).await;
                let Some(state) = weak.upgrade() else { return };
                lock(&state).draw();
            }
        });
        Progress { state: Some(state) }
    }

    /// Reports that `bytes` of the input are published, and `records` records acknowledged.
    pub(crate) fn update(&mut self, bytes: u64, records: u64) {
        let Some(state) = &self.state else { return };
        let mut state = lock(state);
        state.bar.set_position(bytes);
        state.records = records;
        state.moved = Instant::now();
        state.draw();
    }

    /// Sets whether the server owes an answer.
    pub(crate) fn owed(&mut self, owed: bool) {
        let Some(state) = &self.state else { return };
        let mut state = lock(state);
        if owed && !std::mem::replace(&mut state.owed, owed) {
            state.moved = Instant::now();
        }
        state.owed = owed;
    }

    /// Removes the bar from the screen, so that later output is not mixed with it.
    pub(crate) fn finish(&mut self) {
        if let Some(state) = self.state.take() {
            lock(&state).bar.finish_and_clear();
        }
    }
}

/// How far reading files has got.
#[derive(Debug)]
pub(crate) struct Reading {
    /// `None` if nobody would see it.
    bar: Option<ProgressBar>,
    began: Instant,
}

impl Reading {
    /// Creates the bar, which is not shown yet.
    pub(crate) fn new() -> Reading {
        let is_seen = io::stderr().is_terminal() && !terminal::is_dumb();
        let bar = is_seen.then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
            let template = "{bytes:>10} of {total_bytes} [{wide_bar}] {bytes_per_sec}, {eta} left";
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style.progress_chars("=> ")),
                Err(_) => bar,
            }
        });
        Reading { bar, began: Instant::now() }
    }

    /// Reports that so many bytes of all were read.
    pub(crate) fn update(&mut self, done: u64, all: u64) {
        let Some(bar) = &self.bar else { return };
        if bar.is_hidden() && self.began.elapsed() > PATIENCE {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.set_length(all);
        bar.set_position(done);
    }

    /// Removes the bar from the screen, so that later output is not mixed with it.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl BarState {
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

fn lock(state: &Mutex<BarState>) -> MutexGuard<'_, BarState> {
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
