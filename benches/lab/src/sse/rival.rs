//! The servers that are compared, how each is started, and the few requests that differ.

use super::stream::EventFormat;
use crate::compare::process::{self, Process};
use psa_load::error::{Error, Result};
use psa_load::server::without_settings;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Rival {
    /// This server, in the Durable Streams protocol
    Psa,
    /// This server, with its own topics and events
    PsaTopics,
    /// The official Rust server: crate `durable-streams`
    DsRust,
    /// An independent Rust server: crate `durable-streams-server`
    DsAxum,
    /// The reference server: npm `@durable-streams/server`
    DsNode,
}

/// The arguments with which the official Rust server keeps streams in memory, according to its documentation.
const RUST_MEMORY: [&str; 3] = ["--durability", "memory", "--data-dir"];

impl Rival {
    /// The name on the command line and in the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rival::Psa => "psa",
            Rival::PsaTopics => "psa-topics",
            Rival::DsRust => "ds-rust",
            Rival::DsAxum => "ds-axum",
            Rival::DsNode => "ds-node",
        }
    }

    /// Whether it is this server.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, Rival::Psa | Rival::PsaTopics)
    }

    /// The path of its program, or one line that says how to install it.
    pub(crate) fn installed(self, folder: &Path) -> Result<PathBuf, String> {
        let file = match self {
            Rival::Psa | Rival::PsaTopics => {
                return std::env::current_exe().map_err(|error| error.to_string());
            }
            Rival::DsRust => folder.join("durable-streams/bin/durable-streams-server"),
            Rival::DsAxum => folder.join("durable-streams-server/bin/durable-streams-server"),
            Rival::DsNode => folder.join("node/server.mjs"),
        };
        let absent =
            || format!("{} is left out: it is not installed (`.ci/rivals-http`)", self.name());
        let file = std::path::absolute(file).map_err(|error| error.to_string())?;
        if !file.is_file() {
            return Err(absent());
        }
        match self {
            Rival::DsNode => process::find("node").ok_or_else(absent),
            _ => Ok(file),
        }
    }

    /// The installed version, according to the installer's records.
    pub(crate) fn version(self, folder: &Path) -> Option<String> {
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
        // Each crate is installed in a root of its own, so the first one listed is the right one.
        let crates = |file: &str| {
            let text = read(file)?;
            let listed = text.lines().find_map(|line| line.trim().strip_prefix('"'))?;
            Some(listed.split(" (").next()?.to_owned())
        };
        match self {
            Rival::Psa | Rival::PsaTopics => Some(format!("psa {}", env!("CARGO_PKG_VERSION"))),
            Rival::DsRust => crates("durable-streams/.crates.toml"),
            Rival::DsAxum => crates("durable-streams-server/.crates.toml"),
            Rival::DsNode => {
                let text = read("node/node_modules/@durable-streams/server/package.json")?;
                let package: serde_json::Value = serde_json::from_str(&text).ok()?;
                let node = process::find("node").and_then(|node| process::version(&node))?;
                Some(format!(
                    "@durable-streams/server {}, Node.js {node}",
                    package["version"].as_str()?
                ))
            }
        }
    }

    /// Starts it, with streams in memory and as little logging as possible.
    pub(crate) fn start(self, folder: &Path) -> Result<Process> {
        let program =
            self.installed(folder).map_err(|why| Error::failed(self.name().to_owned(), why))?;
        let script = std::path::absolute(folder.join("node/server.mjs"));
        let configure = |command: &mut Command, port: u16, own: &Path| {
            let address = format!("127.0.0.1:{port}");
            match self {
                Rival::Psa | Rival::PsaTopics => {
                    without_settings(command);
                    let own =
                        ["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--http"];
                    command.args(own).arg(address);
                }
                Rival::DsRust => {
                    command.args(["--port", &port.to_string()]).args(RUST_MEMORY).arg(own);
                }
                Rival::DsAxum => {
                    // Its default limits are 10 MiB for a stream and 100 MiB for all streams.
                    command
                        .env("DS_SERVER__BIND_ADDRESS", address)
                        .env("DS_STORAGE__MODE", "memory")
                        .env("DS_LIMITS__MAX_MEMORY_BYTES", (4_u64 << 30).to_string())
                        .env("DS_LIMITS__MAX_STREAM_BYTES", (1_u64 << 30).to_string())
                        .env("DS_OBSERVABILITY__RUST_LOG", "error");
                }
                Rival::DsNode => {
                    command.arg(script.as_ref().map_err(std::io::Error::kind)?);
                    command.arg(port.to_string());
                }
            }
            Ok(())
        };
        Process::start(&program, configure)
    }

    /// How its events carry records.
    pub(crate) fn format(self) -> EventFormat {
        match self {
            Rival::PsaTopics => EventFormat::Single,
            _ => EventFormat::Arrays,
        }
    }

    /// The path of a stream, for creating, appending and deleting.
    pub(crate) fn path(self, stream: &str) -> String {
        match self {
            Rival::PsaTopics => format!("/topics/{stream}"),
            _ => format!("/v1/stream/{stream}"),
        }
    }

    /// The path for following a stream from its beginning.
    pub(crate) fn follow(self, stream: &str) -> String {
        let path = self.path(stream);
        match self {
            Rival::PsaTopics => format!("{path}/events?from=earliest"),
            _ => format!("{path}?offset=-1&live=sse"),
        }
    }

    /// The media type of an append's body, and the text before, between and after its records.
    pub(crate) fn body(self) -> (&'static str, [&'static str; 3]) {
        match self {
            Rival::PsaTopics => ("application/x-ndjson", ["", "\n", "\n"]),
            _ => ("application/json", ["[", ",", "]"]),
        }
    }
}
