//! Who is compared, and what each is called.

use super::process;
use std::path::PathBuf;

/// One that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Rival {
    /// This program's own server
    Psa,
    /// NATS core
    Nats,
    /// Redis pub/sub
    Redis,
    /// Redis streams
    Streams,
    /// NATS JetStream, stream in memory
    Jetstream,
    /// The same bytes to as many sockets with nothing in between
    Ceiling,
    /// A loop that reads a message and writes it to all sockets
    Relay,
}

impl Rival {
    /// As on the command line and in the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rival::Psa => "psa",
            Rival::Nats => "nats",
            Rival::Redis => "redis",
            Rival::Streams => "streams",
            Rival::Jetstream => "jetstream",
            Rival::Ceiling => "ceiling",
            Rival::Relay => "relay",
        }
    }

    /// As in a table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Rival::Psa => "psa",
            Rival::Nats => "NATS",
            Rival::Redis => "Redis pub/sub",
            Rival::Streams => "Redis streams",
            Rival::Jetstream => "JetStream (memory)",
            Rival::Ceiling => "ceiling",
            Rival::Relay => "bare relay",
        }
    }

    /// The server's program, which is also the name of Debian's package; `None` for our own.
    pub(crate) fn program(self) -> Option<&'static str> {
        match self {
            Rival::Nats | Rival::Jetstream => Some("nats-server"),
            Rival::Redis | Rival::Streams => Some("redis-server"),
            Rival::Psa | Rival::Ceiling | Rival::Relay => None,
        }
    }

    /// Where its program is; `Err` with one line that says how to get it.
    pub(crate) fn installed(self) -> Result<Option<PathBuf>, String> {
        let Some(program) = self.program() else { return Ok(None) };
        process::find(program).map(Some).ok_or_else(|| {
            format!(
                "{} is left out: {program} is not installed (`apt-get install {program}`)",
                self.title()
            )
        })
    }
}
