//! The table of settings: the only place that defines the name, bounds, default and help text of a setting.
//!
//! A row determines the setting's key in the file (`limit.memory`), its variable (`PSA_LIMIT_MEMORY`), its flag
//! (`--limit-memory`), its line in `psa config`, its help text, and its row in `docs/configuration.md`, which a
//! test compares with the table.

use super::value::Kind;
use std::time::Duration;

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The setting's name in the code.
    pub(crate) key: Key,
    /// Its name in the file: `section.name`, or `name` at the top.
    pub(crate) name: &'static str,
    /// The kind of its values.
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
        // Flags of the connection have no prefix, because every command has them.
        self.name.trim_start_matches("connect.").replace(['.', '_'], "-")
    }

    /// The section in the file, empty for the top.
    pub(crate) fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }
}

macro_rules! settings {
    ($($key:ident, $name:literal, $kind:expr, $default:literal, $help:literal;)*) => {
        /// The settings, as the code names them.
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
/// A bound for counts: more than any machine can hold today, and far from every overflow.
const MANY: u64 = 10_000_000;

settings! {
    Server, "server", Kind::Server, "127.0.0.1:9853",
        "The server that the client commands connect to: `HOST:PORT` or `psa://TOKEN@HOST:PORT`; with `psa+tls://`, over TLS.";
    Token, "token", Kind::Secret, "",
        "The shared secret: `psa serve` asks for it, the other commands send it.";
    TokenFile, "token_file", Kind::Path, "",
        "A file whose first line is the token; keeps it out of the process list.";
    Listen, "listen", Kind::Address, "127.0.0.1:9853",
        "Where `psa serve` listens, HOST:PORT; port 0 takes a free one.";
    AllowPublic, "allow_public_without_token", Kind::Switch, "false",
        "Listen on an address that other machines can reach although no token is set.";
    Data, "data", Kind::Folder, "",
        "The folder for topics that are stored; it is created if it is missing. Unset, all topics are in memory alone.";
    Workers, "workers", Kind::Count { min: 0, max: 1024 }, "0",
        "Threads that serve connections; 0 is one for each processor.";
    SendBuffer, "send_buffer", Kind::Size { min: 2 * KIB, max: GIB, none: "system" }, "system",
        "The kernel's send buffer of each connection; a small one makes a slow reader show early.";
    ReceiveBuffer, "receive_buffer", Kind::Size { min: 2 * KIB, max: GIB, none: "system" }, "system",
        "The kernel's receive buffer of each connection.";
    HttpListen, "http.listen", Kind::Address, "",
        "Where `psa serve` listens for HTTP, HOST:PORT, usually 127.0.0.1:9854; unset, it does not.";
    HttpOrigins, "http.origins", Kind::Origins, "",
        "Origins whose pages may use the HTTP API from a browser, separated by commas; `*` allows every one.";
    HttpHosts, "http.hosts", Kind::Hosts, "",
        "Names, besides localhost and IP addresses, under which clients may address an HTTP API without a token.";
    HttpTokenInQuery, "http.token_in_query", Kind::Switch, "false",
        "Accept a token in the address, too, as `access_token`: for EventSource, which cannot send headers.";
    HttpConnections, "http.connections", Kind::Count { min: 1, max: MANY }, "10000",
        "HTTP connections at a time, and event streams at a time.";
    HttpAddressConnections, "http.address_connections", Kind::Count { min: 0, max: MANY }, "0",
        "HTTP connections of one address at a time, or of one /64 network of IPv6; 0 is no limit, as behind a proxy.";
    HttpKeepAlive, "http.keep_alive", Kind::Wait { min: MIN_WAIT, max: DAY, none: "off" }, "1m15s",
        "How long an HTTP connection may idle between two requests.";
    HttpAppendWait, "http.append_wait", Kind::Wait { min: Duration::ZERO, max: DAY, none: "" }, "5s",
        "How long a publisher over HTTP waits for room where the topic makes publishers wait.";
    HttpLongestWait, "http.longest_wait", Kind::Wait { min: Duration::ZERO, max: DAY, none: "" }, "1m",
        "The longest time that a request for records waits for some; longer requests are capped to it.";
    HttpHeartbeat, "http.heartbeat", Kind::Wait { min: MIN_WAIT, max: DAY, none: "" }, "15s",
        "How often an event stream sends a sign of life while there is nothing else to send.";
    HttpLifetime, "http.lifetime", Kind::Wait { min: MIN_WAIT, max: YEAR, none: "off" }, "1h",
        "How long an event stream lives before its client reconnects and continues, give or take a tenth.";
    HttpCache, "http.cache", Kind::Size { min: 0, max: TIB, none: "" }, "64MiB",
        "Memory for encoded events that event streams share, all topics together.";
    AccessFile, "access.file", Kind::Path, "",
        "A file of tokens, each with rights of its own, beside the shared token; read again at SIGHUP.";
    TlsCertificate, "tls.certificate", Kind::Path, "",
        "The certificate of `psa serve`, PEM: with it, both listeners speak TLS and nothing else; read again at SIGHUP.";
    TlsPrivate, "tls.key", Kind::Path, "",
        "The certificate's private key, PEM.";
    TlsClientCa, "tls.client_ca", Kind::Path, "",
        "Certificate authorities, PEM: every client must have a certificate from one of them.";
    TlsHandshakes, "tls.handshakes", Kind::Count { min: 1, max: MANY }, "1024",
        "Handshakes that each listener computes at a time; more wait for their turn.";
    ConnectTls, "connect.tls", Kind::Switch, "false",
        "The client commands speak TLS.";
    ConnectCa, "connect.ca", Kind::Path, "",
        "Certificate authorities, PEM, that the client commands trust instead of the system's; turns TLS on.";
    ConnectCert, "connect.cert", Kind::Path, "",
        "The client commands' own certificate, PEM, for servers that ask for one; turns TLS on.";
    ConnectPrivate, "connect.key", Kind::Path, "",
        "The private key of that certificate, PEM.";
    ConnectServerName, "connect.server_name", Kind::Text, "",
        "The name that the server's certificate must have, if it is not the host in `server`.";
    LogLevel, "log.level", Kind::Filter, "info",
        "What is logged: error, warn, info, debug, trace, or a list such as `info,psa::server=debug`.";
    LogFormat, "log.format", Kind::Choice(&["text", "json"]), "text",
        "How log lines are written to standard error.";
    TopicCreateOnPublish, "topic.create_on_publish", Kind::Switch, "true",
        "Publishing to an unknown topic creates it.";
    TopicCreateOnSubscribe, "topic.create_on_subscribe", Kind::Switch, "true",
        "Subscribing to an unknown topic creates it.";
    TopicSegment, "topic.segment", Kind::Size { min: 4 * KIB, max: GIB, none: "" }, "256KiB",
        "The arena of one segment, the unit in which memory is taken and given back.";
    TopicRetention, "topic.retention", Kind::Retention, "16MiB",
        "What a topic keeps after every subscriber has passed it: nothing, everything, `1000 records`, a size or an age.";
    TopicOverflow, "topic.overflow", Kind::Choice(&["block", "reject", "evict"]), "block",
        "At a topic's memory limit, or, if it is stored, at its limit on the disk: hold its publishers, reject the records, or evict the slowest subscribers.";
    TopicMemory, "topic.memory", Kind::Size { min: 64 * KIB, max: 64 * TIB, none: "" }, "64MiB",
        "The memory limit of one topic.";
    TopicDurability, "topic.durability", Kind::Choice(&["memory", "written", "synced"]), "",
        "What an acknowledgement means; unset, it is synced with a folder for data, and memory without one.";
    TopicStoredRetention, "topic.stored_retention", Kind::Retention, "everything",
        "The same as topic.retention, for topics that are stored; their limit on the disk bounds it.";
    TopicDisk, "topic.disk", Kind::Size { min: 4 * MIB, max: 64 * TIB, none: "" }, "1GiB",
        "The limit on the disk of one stored topic.";
    LimitMemory, "limit.memory", Kind::Size { min: 64 * KIB, max: 64 * TIB, none: "" }, "1GiB",
        "The memory of all topics together.";
    LimitTopicMemory, "limit.topic_memory", Kind::Size { min: 64 * KIB, max: 64 * TIB, none: "" }, "1GiB",
        "The largest memory limit that a topic may be created with.";
    LimitTopicDisk, "limit.topic_disk", Kind::Size { min: 4 * MIB, max: 64 * TIB, none: "" }, "1TiB",
        "The largest limit on the disk that a topic may be created with.";
    LimitDisk, "limit.disk", Kind::Size { min: 4 * MIB, max: 64 * TIB, none: "off" }, "off",
        "The files of all stored topics together; at the limit, no topic is created, and each does what its overflow policy says.";
    LimitDiskFree, "limit.disk_free", Kind::Size { min: 0, max: 64 * TIB, none: "auto" }, "auto",
        "What stored topics leave free on the file system; `auto` is a twentieth of it, at most 1GiB.";
    LimitTopics, "limit.topics", Kind::Count { min: 1, max: MANY }, "10000",
        "Topics.";
    LimitLeases, "limit.leases", Kind::Count { min: 0, max: MANY }, "10000",
        "Leases, held or waiting for their holder.";
    LimitTopicLeases, "limit.topic_leases", Kind::Count { min: 0, max: MANY }, "1024",
        "Leases of one topic.";
    LimitLeaseTime, "limit.lease_time", Kind::Wait { min: MIN_WAIT, max: YEAR, none: "" }, "1d",
        "The longest time that a lease may outlive its holder; longer requests are capped to it. The last commit of an expired lease is remembered for as long.";
    LimitConnections, "limit.connections", Kind::Count { min: 1, max: MANY }, "20000",
        "Connections at a time.";
    LimitAddressConnections, "limit.address_connections", Kind::Count { min: 0, max: MANY }, "0",
        "Connections of one address at a time, or of one /64 network of IPv6; 0 is no limit.";
    LimitSubscriptions, "limit.subscriptions", Kind::Count { min: 1, max: MANY }, "100000",
        "Subscriptions of all connections together.";
    LimitConnectionTopics, "limit.connection_topics", Kind::Count { min: 1, max: MANY }, "1024",
        "Topics that one connection may create.";
    LimitConnectionSubscriptions, "limit.connection_subscriptions", Kind::Count { min: 1, max: MANY }, "1024",
        "Subscriptions of one connection.";
    LimitConnectionLeases, "limit.connection_leases", Kind::Count { min: 0, max: MANY }, "256",
        "Leases that one connection may hold.";
    LimitFrame, "limit.frame", Kind::Size { min: 8 * KIB, max: GIB, none: "" }, "8MiB",
        "The largest frame.";
    LimitRecord, "limit.record", Kind::Size { min: 1, max: GIB, none: "" }, "1MiB",
        "The largest record.";
    LimitChunk, "limit.chunk", Kind::Size { min: 1, max: GIB, none: "" }, "256KiB",
        "Bytes of records in one delivery; one larger record still makes one.";
    LimitChunkRecords, "limit.chunk_records", Kind::Count { min: 1, max: 100_000_000 }, "65536",
        "Records in one delivery.";
    LimitInput, "limit.input", Kind::Size { min: 8 * KIB, max: TIB, none: "" }, "32MiB",
        "Memory for input that has arrived in part or waits for room, all connections together.";
    LimitReplies, "limit.replies", Kind::Size { min: KIB, max: GIB, none: "" }, "64KiB",
        "Replies that one connection may leave unread before the server stops reading from it.";
    TimeoutHandshake, "timeout.handshake", Kind::Wait { min: MIN_WAIT, max: DAY, none: "off" }, "10s",
        "From accepting a connection to its hello.";
    TimeoutFrame, "timeout.frame", Kind::Wait { min: MIN_WAIT, max: DAY, none: "off" }, "1m",
        "From a frame's first byte to its last.";
    TimeoutIdle, "timeout.idle", Kind::Wait { min: MIN_WAIT, max: YEAR, none: "off" }, "10m",
        "How long a connection without a subscription may be silent.";
    TimeoutStall, "timeout.stall", Kind::Wait { min: MIN_WAIT, max: YEAR, none: "off" }, "1m",
        "How long a connection may take nothing of what waits for it.";
    TimeoutDrain, "timeout.drain", Kind::Wait { min: Duration::ZERO, max: DAY, none: "" }, "10s",
        "After SIGTERM, how long subscribers may take to receive what was acknowledged.";
}
