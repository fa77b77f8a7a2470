//! `psa serve`: the configuration becomes a server, and signals end it.

use crate::config::settings::Key;
use crate::config::value::Retention as RetentionWords;
use crate::config::{Config, Origin};
use crate::error::{Error, Result};
use crate::signals::Signals;
use psa::broker::BrokerConfig;
use psa::server::{BindError, Limits, Server, ServerConfig, Token};
use psa::{Overflow, Retention};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Serves until a signal ends it.
pub(crate) fn run(config: &Config) -> Result {
    start_log(config)?;
    let server_config = server_config(config)?;
    raise_descriptor_limit();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all();
    match usize::try_from(config.count(Key::Workers)) {
        Ok(0) | Err(_) => {}
        Ok(workers) => {
            runtime.worker_threads(workers);
        }
    }
    let runtime = runtime.build().map_err(|error| Error::failed("runtime", error))?;
    let outcome = runtime.block_on(serve(config, server_config));
    // Connections that were aborted are not waited for.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: &Config, server_config: ServerConfig) -> Result {
    let mut signals = Signals::listen()?;
    let server = Server::bind(server_config).map_err(|error| bind_error(config, &error))?;
    let handle = server.handle();
    say_hello(config, server.local_addr());
    let mut running = std::pin::pin!(server.run(std::future::pending()));
    tokio::select! {
        () = &mut running => return Ok(()),
        _ = signals.next() => {}
    }
    tracing::info!(connections = handle.connections(), "draining; a second signal ends at once");
    handle.drain();
    tokio::select! {
        () = &mut running => Ok(()),
        exit = signals.next() => {
            handle.abort();
            Err(Error::quiet(exit))
        }
    }
}

/// Says on standard output where it listens and what to type next. Nobody reading it is no reason to
/// stop.
fn say_hello(config: &Config, address: SocketAddr) {
    let default = config.origin(Key::Server) == &Origin::Default
        && config.text(Key::Server) == address.to_string();
    // An unspecified address is where to listen, not where to connect.
    let mut reach = address;
    if address.ip().is_unspecified() {
        reach.set_ip(match address.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let flag = if default { String::new() } else { format!(" --server {reach}") };
    let token = if config.has_token() {
        "\nBoth need the token: set PSA_TOKEN or use --token-file."
    } else {
        ""
    };
    let hello = format!(
        "psa {} listens on {address}\n\
         Subscribe in another terminal:  psa sub greetings{flag}\n\
         Publish from a third:           echo hello | psa pub greetings{flag}{token}\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut out = io::stdout().lock();
    let _ = out.write_all(hello.as_bytes()).and_then(|()| out.flush());
}

fn bind_error(config: &Config, error: &BindError) -> Error {
    // The error names the address; we know where that was said.
    match config.origin(Key::Listen) {
        Origin::Default => Error::failed("serve", error),
        origin => Error::failed(origin, error),
    }
}

/// The server's own configuration from ours.
fn server_config(config: &Config) -> Result<ServerConfig> {
    let bytes = |key| config.size(key).unwrap_or(0);
    let size = |key| usize::try_from(bytes(key)).unwrap_or(usize::MAX);
    let small = |key| u32::try_from(bytes(key)).unwrap_or(u32::MAX);
    let count = |key| usize::try_from(config.count(key)).unwrap_or(usize::MAX);
    // Zero is "never" to the server.
    let wait = |key| config.wait(key).unwrap_or(Duration::ZERO);
    let buffer = |key| config.size(key).map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
    let limits = Limits {
        max_connections: count(Key::LimitConnections),
        max_frame: small(Key::LimitFrame),
        max_record: small(Key::LimitRecord),
        max_topics_per_connection: u32::try_from(config.count(Key::LimitConnectionTopics))
            .unwrap_or(u32::MAX),
        max_subscriptions_per_connection: count(Key::LimitConnectionSubscriptions),
        max_subscriptions: count(Key::LimitSubscriptions),
        max_leases_per_connection: count(Key::LimitConnectionLeases),
        input_bytes: size(Key::LimitInput),
        reply_bytes: size(Key::LimitReplies),
        chunk_bytes: size(Key::LimitChunk),
        chunk_records: count(Key::LimitChunkRecords),
        handshake_timeout: wait(Key::TimeoutHandshake),
        frame_timeout: wait(Key::TimeoutFrame),
        idle_timeout: wait(Key::TimeoutIdle),
        stall_timeout: wait(Key::TimeoutStall),
        drain_timeout: wait(Key::TimeoutDrain),
    };
    let broker = BrokerConfig {
        create_on_publish: config.switch(Key::TopicCreateOnPublish),
        create_on_subscribe: config.switch(Key::TopicCreateOnSubscribe),
        max_topics: count(Key::LimitTopics),
        max_leases_per_topic: count(Key::LimitTopicLeases),
        max_leases: count(Key::LimitLeases),
        max_lease_ttl: wait(Key::LimitLeaseTime),
        max_bytes: bytes(Key::LimitMemory),
        max_topic_bytes: bytes(Key::LimitTopicMemory),
        topic_bytes: bytes(Key::TopicMemory),
        segment_bytes: size(Key::TopicSegment),
        retention: retention(config.retention()),
        overflow: match config.text(Key::TopicOverflow).as_str() {
            "reject" => Overflow::Reject,
            "evict" => Overflow::Evict,
            _ => Overflow::Block,
        },
    };
    Ok(ServerConfig {
        listen: resolve(config)?,
        token: config.token()?.map(Token::new),
        allow_public_without_token: config.switch(Key::AllowPublic),
        limits,
        broker,
        send_buffer: buffer(Key::SendBuffer),
        receive_buffer: buffer(Key::ReceiveBuffer),
        ..ServerConfig::default()
    })
}

fn retention(words: RetentionWords) -> Retention {
    match words {
        RetentionWords::Nothing => Retention::Nothing,
        RetentionWords::Records(records) => Retention::Records(records),
        RetentionWords::Bytes(bytes) => Retention::Bytes(bytes),
        RetentionWords::Age(age) => Retention::Age(age),
        RetentionWords::Everything => Retention::Everything,
    }
}

/// The address to listen on; a host name is looked up, and its first address taken.
fn resolve(config: &Config) -> Result<SocketAddr> {
    let text = config.text(Key::Listen);
    let fail = |why: String| Error::usage(config.origin(Key::Listen), format!("{text}: {why}"));
    let mut addresses =
        text.to_socket_addrs().map_err(|error| fail(crate::error::describe_io(&error)))?;
    addresses.next().ok_or_else(|| fail("the name has no address".into()))
}

/// Each connection is a descriptor, and the usual soft limit of 1,024 is for programs that use
/// `select`. Failing to raise it is not fatal: the server waits when it has none left.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current = limit.current, "cannot raise the limit of descriptors");
    }
}

/// Log lines go to standard error: text for people, JSON for machines.
fn start_log(config: &Config) -> Result {
    let level = config.text(Key::LogLevel);
    let filter = EnvFilter::builder().parse(&level).map_err(|error| {
        Error::usage(config.origin(Key::LogLevel), format!("{level}: {error}"))
            .hint("write error, warn, info, debug, trace, or target=level")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if config.text(Key::LogFormat) == "json" {
        log.json().init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve as resolve_config};

    #[test]
    fn our_defaults_are_the_servers_defaults() {
        let config = resolve_config(Sources::default()).unwrap();
        let (ours, theirs) = (server_config(&config).unwrap(), ServerConfig::default());
        assert_eq!(ours.listen, theirs.listen);
        assert_eq!(ours.limits, theirs.limits);
        assert_eq!(ours.broker, theirs.broker);
        assert_eq!(
            (ours.send_buffer, ours.receive_buffer, ours.allow_public_without_token),
            (theirs.send_buffer, theirs.receive_buffer, theirs.allow_public_without_token)
        );
        assert!(ours.token.is_none());
    }

    #[test]
    fn every_server_setting_reaches_the_server() {
        // A value for each setting that differs from its default and from the others.
        let text = "listen='127.0.0.2:7'\nallow_public_without_token=true\nsend_buffer=5001\nreceive_buffer=5002\n\
            [topic]\ncreate_on_publish=false\ncreate_on_subscribe=false\nsegment=5003\nretention='5 records'\n\
            overflow='evict'\nmemory=65541\n\
            [limit]\nmemory=65542\ntopic_memory=65543\ntopics=11\nleases=12\ntopic_leases=13\nlease_time='14s'\n\
            connections=15\nsubscriptions=16\nconnection_topics=17\nconnection_subscriptions=18\n\
            connection_leases=19\nframe=1000020\nrecord=21\nchunk=22\nchunk_records=23\ninput=1000024\nreplies=1025\n\
            [timeout]\nhandshake='26s'\nframe='27s'\nidle='off'\nstall='29s'\ndrain='30s'\n";
        let sources = Sources { file: Some(("f", text)), strict: true, ..Sources::default() };
        let ours = server_config(&resolve_config(sources).unwrap()).unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(
            ours.limits,
            Limits {
                max_connections: 15,
                max_frame: 1_000_020,
                max_record: 21,
                max_topics_per_connection: 17,
                max_subscriptions_per_connection: 18,
                max_subscriptions: 16,
                max_leases_per_connection: 19,
                input_bytes: 1_000_024,
                reply_bytes: 1025,
                chunk_bytes: 22,
                chunk_records: 23,
                handshake_timeout: seconds(26),
                frame_timeout: seconds(27),
                idle_timeout: Duration::ZERO,
                stall_timeout: seconds(29),
                drain_timeout: seconds(30),
            }
        );
        assert_eq!(
            ours.broker,
            BrokerConfig {
                create_on_publish: false,
                create_on_subscribe: false,
                max_topics: 11,
                max_leases_per_topic: 13,
                max_leases: 12,
                max_lease_ttl: seconds(14),
                max_bytes: 65_542,
                max_topic_bytes: 65_543,
                topic_bytes: 65_541,
                segment_bytes: 5003,
                retention: Retention::Records(5),
                overflow: Overflow::Evict,
            }
        );
        assert_eq!((ours.send_buffer, ours.receive_buffer), (Some(5001), Some(5002)));
        assert_eq!(ours.listen, "127.0.0.2:7".parse().unwrap());
        assert!(ours.allow_public_without_token);
    }
}
