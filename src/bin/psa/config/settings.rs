//! The table of settings: the one place where a setting is named, bounded, defaulted and explained.
//!
//! From a row follow its key in the file (`limit.memory`), its variable (`PSA_LIMIT_MEMORY`), its flag
//! (`--limit-memory`), its line in `psa config`, its help text and its row in `docs/configuration.md`
//! (a test compares the two).

use super::value::Kind;
use std::time::Duration;

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// What the code calls it.
    pub(crate) key: Key,
    /// Its name in the file: `section.name`, or `name` at the top.
    pub(crate) name: &'static str,
    /// What its values are.
    pub(crate) kind: Kind,
    /// The default, as a user would write it; empty for settings that are unset by default.
    pub(crate) default: &'static str,
    /// One sentence.
    pub(crate) help: &'static str,
}

impl Setting {
    /// The environment variable: `limit.memory` is `PSA_LIMIT_MEMORY`.
    pub(crate) fn variable(&self) -> String {
        format!("PSA_{}", self.name.to_ascii_uppercase().replace('.', "_"))
    }

    /// The flag without its dashes: `limit.memory` is `limit-memory`.
    pub(crate) fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// The section in the file, empty for the top.
    pub(crate) fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }
}

macro_rules! settings {
    ($($key:ident, $name:literal, $kind:expr, $default:literal, $help:literal;)*) => {
        /// The settings, for the code to name them by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Key { $(#[doc = $help] $key),* }

        /// Every setting, in the order of [`Key`] and of the printed configuration.
        pub(crate) static SETTINGS: &[Setting] = &[
            $(Setting { key: Key::$key, name: $name, kind: $kind, default: $default, help: $help }),*
        ];
    };
}

const MIN_WAIT: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

settings! {
    Server, "server", Kind::Address, "127.0.0.1:9853",
        "The server that the client commands connect to, HOST:PORT.";
    Token, "token", Kind::Secret, "",
        "The shared secret: `psa serve` asks for it, the other commands send it.";
    TokenFile, "token_file", Kind::Path, "",
        "A file whose first line is the token; keeps it out of the process list.";
    Listen, "listen", Kind::Address, "127.0.0.1:9853",
        "Where `psa serve` listens, HOST:PORT; port 0 takes a free one.";
    AllowPublic, "allow_public_without_token", Kind::Switch, "false",
        "Listen on an address that other machines can reach although no token is set.";
    Workers, "workers", Kind::Count { min: 0, max: 1024 }, "0",
        "Threads that serve connections; 0 is one for each processor.";
    DrainTimeout, "drain_timeout", Kind::Wait { min: Duration::ZERO, max: DAY, off: false }, "10s",
        "After SIGTERM, how long subscribers may take to receive what was acknowledged.";
    LogLevel, "log.level", Kind::Filter, "info",
        "What is logged: error, warn, info, debug, trace, or a list such as `info,psa::server=debug`.";
    LogFormat, "log.format", Kind::Choice(&["text", "json"]), "text",
        "How log lines are written to standard error.";
    TopicAutoCreate, "topic.auto_create", Kind::Switch, "true",
        "Publishing or subscribing to an unknown topic creates it.";
    TopicSegment, "topic.segment", Kind::Size { min: 4 * KIB, max: GIB, off: false }, "1MiB",
        "The arena of one segment, the unit in which memory is taken and given back.";
    TopicRetention, "topic.retention", Kind::Retention, "nothing",
        "What a topic keeps although every subscriber has passed it: nothing, everything, `1000 records`, a size or an age.";
    TopicOverflow, "topic.overflow", Kind::Choice(&["block", "reject", "evict"]), "block",
        "At a topic's memory limit: hold its publishers, refuse the records, or evict the slowest subscribers.";
    TopicMemory, "topic.memory", Kind::Size { min: 64 * KIB, max: 64 * TIB, off: false }, "256MiB",
        "The memory limit of one topic.";
    LimitMemory, "limit.memory", Kind::Size { min: MIB, max: 64 * TIB, off: false }, "1GiB",
        "The memory limit of all topics together.";
    LimitFrame, "limit.frame", Kind::Size { min: 4 * KIB, max: GIB, off: false }, "8MiB",
        "The largest frame that a client may send.";
    LimitRecord, "limit.record", Kind::Size { min: 1, max: GIB, off: false }, "1MiB",
        "The largest record.";
    LimitTopics, "limit.topics", Kind::Count { min: 1, max: 10_000_000 }, "10000",
        "Topics on the server.";
    LimitConnections, "limit.connections", Kind::Count { min: 1, max: 10_000_000 }, "20000",
        "Connections at a time.";
    LimitSubscriptions, "limit.subscriptions", Kind::Count { min: 1, max: 10_000_000 }, "100000",
        "Subscriptions of all connections together.";
    LimitConnectionSubscriptions, "limit.connection_subscriptions", Kind::Count { min: 1, max: 10_000_000 }, "1024",
        "Subscriptions of one connection.";
    LimitLeases, "limit.leases", Kind::Count { min: 0, max: 10_000_000 }, "10000",
        "Leases on the server, held or waiting for their holder.";
    LimitLeaseTime, "limit.lease_time", Kind::Wait { min: MIN_WAIT, max: YEAR, off: false }, "7d",
        "The longest time that a lease may ask to outlive its connection.";
    TimeoutHandshake, "timeout.handshake", Kind::Wait { min: MIN_WAIT, max: DAY, off: false }, "5s",
        "From accepting a connection to its hello.";
    TimeoutIdle, "timeout.idle", Kind::Wait { min: MIN_WAIT, max: YEAR, off: true }, "off",
        "A connection without subscriptions that says nothing for this long is closed.";
    TimeoutWriteStall, "timeout.write_stall", Kind::Wait { min: MIN_WAIT, max: YEAR, off: true }, "off",
        "A connection that takes no byte of what waits for it for this long is closed.";
}
