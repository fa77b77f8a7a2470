//! Who is compared, how each is started, and the few requests that differ.

use super::stream::Form;
use crate::compare::process::{self, Process};
use psa_cli::bench::server::without_settings;
use psa_cli::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Rival {
    /// This program's own server, in the Durable Streams protocol
    Psa,
    /// This program's own server, its own topics and events
    PsaTopics,
    /// The official Rust server: crate `durable-streams`
    DsRust,
    /// An independent Rust server: crate `durable-streams-server`
    DsAxum,
    /// The reference server: npm `@durable-streams/server`
    DsNode,
}

/// The settings of one server's start that its documents name for streams in memory.
const RUST_MEMORY: [&str; 3] = ["--durability", "memory", "--data-dir"];

impl Rival {
    /// As on the command line and in the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rival::Psa => "psa",
            Rival::PsaTopics => "psa-topics",
            Rival::DsRust => "ds-rust",
            Rival::DsAxum => "ds-axum",
            Rival::DsNode => "ds-node",
        }
    }

    /// Whether it is this program.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, Rival::Psa | Rival::PsaTopics)
    }

    /// Its program; `Err` with one line that says how to get it.
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

    /// What was installed, by the installers' own records.
    pub(crate) fn version(self, folder: &Path) -> Option<String> {
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
        // Each crate has a root of its own, and so the first one listed is it.
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

    /// Starts it, with streams in memory and nothing said on the way.
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
                    // Its defaults end a stream at 10 MiB, and all of them at 100 MiB.
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

    /// How it tells records.
    pub(crate) fn form(self) -> Form {
        match self {
            Rival::PsaTopics => Form::Single,
            _ => Form::Arrays,
        }
    }

    /// Where a stream is made, appended to and deleted.
    pub(crate) fn path(self, stream: &str) -> String {
        match self {
            Rival::PsaTopics => format!("/topics/{stream}"),
            _ => format!("/v1/stream/{stream}"),
        }
    }

    /// Where it is followed from the beginning on.
    pub(crate) fn follow(self, stream: &str) -> String {
        let path = self.path(stream);
        match self {
            Rival::PsaTopics => format!("{path}/events?from=earliest"),
            _ => format!("{path}?offset=-1&live=sse"),
        }
    }

    /// The type of an append's body, and what is in front of records, between two and after them.
    pub(crate) fn body(self) -> (&'static str, [&'static str; 3]) {
        match self {
            Rival::PsaTopics => ("application/x-ndjson", ["", "\n", "\n"]),
            _ => ("application/json", ["[", ",", "]"]),
        }
    }
}
