//! The servers that are compared, and their names.

use super::process;
use std::path::PathBuf;

/// A server, or another program, that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Rival {
    /// This server
    Psa,
    /// NATS core
    Nats,
    /// Redis pub/sub
    Redis,
    /// Redis streams
    Streams,
    /// NATS JetStream, stream in memory
    Jetstream,
    /// The same bytes to the same number of sockets, without a server
    Ceiling,
    /// A single thread that reads a message and writes it to all sockets
    Relay,
}

impl Rival {
    /// The name on the command line and in the figures.
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

    /// The name in a table.
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

    /// The server's program, which is also the name of its Debian package; `None` for our own programs.
    pub(crate) fn program(self) -> Option<&'static str> {
        match self {
            Rival::Nats | Rival::Jetstream => Some("nats-server"),
            Rival::Redis | Rival::Streams => Some("redis-server"),
            Rival::Psa | Rival::Ceiling | Rival::Relay => None,
        }
    }

    /// Its version, as far as its program says it.
    pub(crate) fn version(self) -> Option<String> {
        match self.installed() {
            Ok(Some(program)) => process::version(&program),
            _ => Some(format!("psa {}", env!("CARGO_PKG_VERSION"))),
        }
    }

    /// The path of its program, or one line that says how to install it. `None` for our own programs.
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
