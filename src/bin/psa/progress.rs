//! A progress bar on standard error, when that is a terminal and the work takes long enough to want one.

use crate::units::human_count;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Work that is done before this passes shows no bar.
const PATIENCE: Duration = Duration::from_millis(700);

/// How far a publisher is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `None` if nobody would see it, or if input is typed on the terminal.
    bar: Option<ProgressBar>,
    began: Instant,
    shown: bool,
}

impl Progress {
    /// `total` is the input's size in bytes, if it is known.
    pub(crate) fn new(total: Option<u64>, typed: bool) -> Progress {
        let bar = (io::stderr().is_terminal() && !typed).then(|| {
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
            bar
        });
        Progress { bar, began: Instant::now(), shown: false }
    }

    /// `bytes` of input are published, `records` of them acknowledged.
    pub(crate) fn update(&mut self, bytes: u64, records: u64) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(bytes);
        if !self.shown && self.began.elapsed() > PATIENCE {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
        if self.shown {
            bar.set_message(format!("{} records", human_count(records)));
        }
    }

    /// Takes the bar off the screen, so that what is written next stands alone.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
