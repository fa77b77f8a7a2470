//! The log of `psa serve`: lines on standard error, text for people or JSON for machines.
//!
//! Logging must never stop the server. Lines go through a bounded [queue] that a thread of its own
//! writes out: the code that logs never waits, and lines that cannot be written are dropped and
//! counted.

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

/// How long the end of the process waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The process's log. Dropping it waits up to [`LAST_LINES`] for queued lines to be written.
#[derive(Debug)]
pub(crate) struct Log {
    queue: Arc<Queue>,
}

impl Log {
    /// Starts the log that the configuration describes.
    ///
    /// # Errors
    ///
    /// If the log level cannot be parsed. The configuration has already caught most such mistakes.
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
            // Otherwise the formatter writes its own errors to standard error, and panics if that fails.
            .log_internal_errors(false)
            .with_writer(move || queue::QueueWriter(writer.clone()));
        if config.text(Key::LogFormat) == "json" {
            log.json().init();
        } else {
            log.with_ansi(terminal::has_colours(&io::stderr())).init();
        }
        Ok(Log { queue })
    }

    /// Returns a function that reads how many lines were dropped.
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
