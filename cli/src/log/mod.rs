//! The log of `psa serve`: lines on standard error, text for people or JSON for machines.
//!
//! A log is a way to look at the server, and must not be a way to stop it. Lines go through a bounded
//! [queue] with a thread behind it: whoever logs never waits, and what cannot be written is dropped
//! and counted.

mod queue;

use crate::config::Config;
use crate::config::settings::Key;
use crate::error::{Error, Result};
use crate::terminal;
use queue::Queue;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// At the end of the process, how long its last lines may take to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The process's log, from its start on. Dropped, it waits a moment for the lines that are on their way.
#[derive(Debug)]
pub(crate) struct Log {
    queue: Arc<Queue>,
}

impl Log {
    /// Starts the log that the configuration asks for.
    ///
    /// # Errors
    ///
    /// If the level is none, as far as the configuration has not seen that.
    pub(crate) fn start(config: &Config) -> Result<Log> {
        let level = config.text(Key::LogLevel);
        let filter = EnvFilter::builder().parse(&level).map_err(|error| {
            Error::usage(config.origin(Key::LogLevel), format!("{level}: {error}"))
                .hint("write error, warn, info, debug, trace, off or target=level")
        })?;
        let queue = Queue::start(io::stderr(), || {
            let lines = "some lines of this log could not be written in time and are missing";
            move |dropped: u64| tracing::warn!(dropped, "{lines}")
        });
        let writer = queue.clone();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            // It would write to standard error by itself, and panic where that cannot be written.
            .log_internal_errors(false)
            .with_writer(move || queue::Lines(writer.clone()));
        if config.text(Key::LogFormat) == "json" {
            log.json().init();
        } else {
            log.with_ansi(terminal::has_colours(&io::stderr())).init();
        }
        Ok(Log { queue })
    }

    /// What counts the lines that were dropped.
    pub(crate) fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let queue = self.queue.clone();
        move || queue.dropped()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush(LAST_LINES);
    }
}
