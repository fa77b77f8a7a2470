//! `psa serve`: starts a server from the configuration, and ends it at a signal.

use crate::config::settings::Key;
use crate::config::{Config, Origin};
use crate::error::{Error, Result, one_line};
use crate::log::Log;
use crate::memory;
use crate::reload::Reload;
use crate::service;
use crate::signals::{HangUp, Signals};
use crate::units::{human_count, human_size};
use psa::broker::{Broker, BrokerConfig, FolderError, OpenError};
use psa::http::{HttpBindError, HttpConfig, HttpLimits, HttpServer};
use psa::protocol::Code;
use psa::server::{BindError, Limits, Refusals, Server, ServerConfig, ServerHandle, Token};
use rustix::process::{Resource, getrlimit};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Serves until a signal ends it.
pub(crate) fn run(config: &Config) -> Result {
    // Lives to the end of this function, so that the last log lines are written, too.
    let log = Log::start(config)?;
    log_ignored_variables(config);
    log_memory(config);
    let mut server_config = server_config(config)?;
    let reloads = Reload::from(config)?;
    server_config.access = reloads.access.clone();
    server_config.tls = reloads.tls.clone();
    let http_config = http_config(config, &server_config)?;
    if let Err(error) = psa_load::raise_descriptor_limit() {
        let current = getrlimit(Resource::Nofile).current;
        tracing::warn!(%error, current, "cannot raise the limit of descriptors");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all();
    if let Ok(workers @ 1..) = usize::try_from(config.count(Key::Workers)) {
        runtime.worker_threads(workers);
    }
    let runtime = runtime.build().map_err(|error| Error::failed("runtime", error))?;
    let outcome = runtime.block_on(serve(config, server_config, http_config, reloads, &log));
    // Does not wait for aborted connections.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    config: &Config,
    server_config: ServerConfig,
    http_config: Option<HttpConfig>,
    reload: Reload,
    log: &Log,
) -> Result {
    let (mut signals, mut hang_ups) = Signals::listen_as_server()?;
    let reload = reload.start();
    // Both listeners serve the same topics.
    let opening = tokio::task::spawn_blocking({
        let (settings, data) = (server_config.broker.clone(), config.data());
        move || match data {
            Some(data) => Broker::with_folder(settings, &data),
            None => Ok(Broker::new(settings)?),
        }
    });
    // Reading a large folder takes a while.
    let opened = tokio::select! {
        opened = opening => opened.map_err(|error| Error::failed("serve", error))?,
        exit = signals.next() => return Err(Error::quiet(exit)),
    };
    let broker = opened.map_err(|error| open_error(config, error))?;
    log_recovered(config, &broker);
    let server = Server::bind_with(server_config, broker.clone())
        .map_err(|error| bind_error(config, Key::Listen, &error))?;
    let http = http_config
        .map(|http| HttpServer::bind_with(http, broker.clone()))
        .transpose()
        .map_err(|error: HttpBindError| bind_error(config, Key::HttpListen, &error))?;
    let http = http.map(|http| show_figures(http, &server.handle(), log));
    let (handle, http_handle) = (server.handle(), http.as_ref().map(HttpServer::handle));
    let mut greeting =
        greeting(config, server.local_addr(), http.as_ref().map(HttpServer::local_addr));
    greeting.push_str(&recovered_text(config, &broker));
    // If nobody reads it, the server neither waits nor stops.
    tokio::task::spawn_blocking(move || {
        let mut out = io::stdout().lock();
        let _ = out.write_all(greeting.as_bytes()).and_then(|()| out.flush());
    });
    service::ready();
    let running = async {
        tokio::join!(server.run(std::future::pending()), async {
            if let Some(http) = http {
                http.run(std::future::pending()).await;
            }
        });
    };
    let mut running = std::pin::pin!(running);
    loop {
        tokio::select! {
            () = &mut running => return Ok(()),
            _ = signals.next() => break,
            hang_up = hang_ups.next() => match hang_up {
                HangUp::Reload => reload(),
                HangUp::TerminalClosed => break,
            },
        }
    }
    let connections =
        handle.connections() + http_handle.as_ref().map_or(0, |http| http.connections());
    tracing::info!(connections, "draining; a second signal ends at once");
    service::stopping();
    // Not one listener after the other: what one acknowledges, the subscribers of the other must get.
    broker.shut();
    tokio::select! {
        () = &mut running => Ok(()),
        exit = signals.next() => {
            handle.abort();
            if let Some(http) = &http_handle {
                http.abort();
            }
            Err(Error::quiet(exit))
        }
    }
}

/// Adds what the TCP server and the log count to the metrics of the HTTP API.
fn show_figures(mut http: HttpServer, server: &ServerHandle, log: &Log) -> HttpServer {
    // Each with its name and its help text.
    type Counter = fn(&Refusals) -> u64;
    type ByCode = fn(&ServerHandle) -> Vec<(Code, u64)>;
    let counters: [(&str, &str, Counter); 4] = [
        ("psa_refused_connections", "TCP connections beyond a limit", |all| all.connections),
        ("psa_refused_tls", "TCP connections without TLS, or that failed at it", |all| all.tls),
        ("psa_refused_tokens", "TCP connections without the right token", |all| all.unauthorized),
        ("psa_refused_forbidden", "TCP requests that their token forbids", |all| all.forbidden),
    ];
    for (name, help, read) in counters {
        let server = server.clone();
        http = http.count(name, help, move || read(&server.refusals()));
    }
    let by_code: [(&str, &str, ByCode); 2] = [
        ("psa_refused_requests", "TCP requests that got an ERROR", ServerHandle::refused_requests),
        ("psa_ended_connections", "TCP connections it ended", ServerHandle::ended_connections),
    ];
    for (name, help, read) in by_code {
        let server = server.clone();
        let words = move || read(&server).into_iter().map(|(code, count)| (code.word(), count));
        http = http.count_by(name, help, "code", move || words().collect());
    }
    let (connections, subscriptions) = (server.clone(), server.clone());
    http.show("psa_connections", "Connections of the binary protocol", move || {
        connections.connections() as u64
    })
    .show("psa_subscriptions", "Subscriptions over the binary protocol", move || {
        subscriptions.subscriptions() as u64
    })
    .count("psa_log_lines_dropped", "Lines of the log that were dropped", log.dropped())
}

/// Logs which variables are ignored: container platforms set variables for services, and those for a service named
/// `psa` look like ours. This is information, not a warning.
fn log_ignored_variables(config: &Config) {
    let ignored = config.ignored_links();
    if !ignored.is_empty() {
        let variables = ignored.join(" ");
        tracing::info!(variables, "ignored: a container platform sets these for services");
    }
}

/// The share of the memory that topics may take without a warning, in percent. Connections, input, and encoded events
/// need some, too.
const SHARE_OF_TOPICS: u64 = 80;

/// Logs a memory limit that was derived from the available memory, and warns of one that is too large for it.
fn log_memory(config: &Config) {
    let Some(memory) = memory::available() else { return };
    let limit = config.size(Key::LimitMemory).unwrap_or(0);
    let (setting, value) = ("limit.memory", config.text(Key::LimitMemory));
    if let Origin::Memory(_) = config.origin(Key::LimitMemory) {
        tracing::info!("{setting} is {value}: half of the memory, since {memory}");
    } else if limit / SHARE_OF_TOPICS > memory.bytes / 100 {
        tracing::warn!(
            "{setting} is {value}, and {memory}: the system may end the server before that is reached; \
             lower it, or give more memory"
        );
    }
}

/// Logs what was found in the folder for data. The broker has logged why each topic is damaged.
fn log_recovered(config: &Config, broker: &Broker) {
    let (Some(found), Some(data)) = (broker.recovered(), config.data()) else { return };
    let (folder, took) = (data.display(), found.took.as_secs_f64());
    tracing::info!(
        %folder, topics = found.topics, records = found.records, bytes = found.bytes, cut = found.cut, took,
        "the stored topics were opened"
    );
    if !found.damaged.is_empty() {
        tracing::error!(
            %folder, damaged = found.damaged.len(),
            "the server starts WITHOUT topics that are damaged: stop it, and see what `psa verify` reports"
        );
    }
}

/// The same for standard output.
fn recovered_text(config: &Config, broker: &Broker) -> String {
    let (Some(found), Some(data)) = (broker.recovered(), config.data()) else {
        return String::new();
    };
    let folder = one_line(&data.display().to_string());
    let cut = match found.cut {
        0 => String::new(),
        cut => format!(", {} of torn ends cut", human_size(cut)),
    };
    let mut text = format!(
        "Kept in {folder}: {} topic{}, {} records, {}, opened in {:.3} s{cut}\n",
        human_count(found.topics as u64),
        if found.topics == 1 { "" } else { "s" },
        human_count(found.records),
        human_size(found.bytes),
        found.took.as_secs_f64(),
    );
    for (topic, why) in &found.damaged {
        let line = format!("DAMAGED, and missing: {}: {why}", topic.display());
        text.push_str(&one_line(&line));
        text.push('\n');
    }
    if !found.damaged.is_empty() {
        text.push_str("Stop the server, and see what `psa verify` reports of the folder.\n");
    }
    text
}

/// The text for standard output: where the server listens, and what to type next.
fn greeting(config: &Config, address: SocketAddr, http: Option<SocketAddr>) -> String {
    let default = config.origin(Key::Server) == &Origin::Default
        && config.text(Key::Server) == address.to_string();
    let reach = reachable(address);
    let secure = !config.text(Key::TlsCertificate).is_empty();
    let mut flag = if default { String::new() } else { format!(" --server {reach}") };
    if secure {
        flag.push_str(" --tls");
    }
    let scheme = if secure { "https" } else { "http" };
    let http = http.map_or(String::new(), |http| {
        let header =
            if config.asks_for_token() { " -H \"Authorization: Bearer $PSA_TOKEN\"" } else { "" };
        format!(
            "\nOver HTTP:                      curl -N {scheme}://{}/topics/greetings/events{header}",
            reachable(http)
        )
    });
    let token = if config.asks_for_token() {
        "\nAll need a token: set PSA_TOKEN or use --token-file."
    } else {
        ""
    };
    format!(
        "psa {} listens on {address}\n\
         Subscribe in another terminal:  psa sub greetings{flag}\n\
         Publish from a third:           echo hello | psa pub greetings{flag}{http}{token}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The address to connect to. Nothing can connect to an unspecified address, so this replaces it with localhost.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut reach = address;
    if address.ip().is_unspecified() {
        reach.set_ip(match address.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    reach
}

fn open_error(config: &Config, error: OpenError) -> Error {
    match error {
        OpenError::Config(error) => bind_error(config, Key::Listen, &BindError::from(error)),
        error => {
            let refused = matches!(&error, OpenError::Folder(FolderError::Io { error, .. })
                if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem));
            let failure = bind_error(config, Key::Data, &error);
            if refused { failure.hint("the server must be able to write there") } else { failure }
        }
    }
}

fn bind_error(config: &Config, listen: Key, error: &dyn std::error::Error) -> Error {
    // The error names the address; this adds where the address was configured.
    match config.origin(listen) {
        Origin::Default => Error::failed("serve", error),
        origin => Error::failed(origin, error),
    }
}

/// The server's configuration, from this program's.
fn server_config(config: &Config) -> Result<ServerConfig> {
    let bytes = |key| config.size(key).unwrap_or(0);
    let size = |key| usize::try_from(bytes(key)).unwrap_or(usize::MAX);
    let small = |key| u32::try_from(bytes(key)).unwrap_or(u32::MAX);
    let count = |key| usize::try_from(config.count(key)).unwrap_or(usize::MAX);
    // To the server, zero means "never".
    let wait = |key| config.wait(key).unwrap_or(Duration::ZERO);
    let buffer = |key| config.size(key).map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
    let limits = Limits {
        max_connections: count(Key::LimitConnections),
        max_connections_per_address: count(Key::LimitAddressConnections),
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
        retention: config.retention(Key::TopicRetention),
        // The configuration has checked that it is one of the words.
        overflow: config.text(Key::TopicOverflow).parse().unwrap_or_default(),
        // Likewise, or it is not set.
        durability: config.text(Key::TopicDurability).parse().ok(),
        stored_retention: config.retention(Key::TopicStoredRetention),
        topic_disk: bytes(Key::TopicDisk),
        max_topic_disk: bytes(Key::LimitTopicDisk),
        max_disk: config.size(Key::LimitDisk),
        disk_kept_free: config.size(Key::LimitDiskFree),
    };
    Ok(ServerConfig {
        listen: resolve(config, Key::Listen)?,
        token: config.token()?.map(Token::new),
        allow_public_without_token: config.switch(Key::AllowPublic),
        limits,
        broker,
        send_buffer: buffer(Key::SendBuffer),
        receive_buffer: buffer(Key::ReceiveBuffer),
        ..ServerConfig::default()
    })
}

/// The HTTP API's configuration, if the API is enabled. Settings that both listeners have are the same for both.
fn http_config(config: &Config, server: &ServerConfig) -> Result<Option<HttpConfig>> {
    if config.text(Key::HttpListen).is_empty() {
        return Ok(None);
    }
    let wait = |key| config.wait(key).unwrap_or(Duration::ZERO);
    let count = |key| usize::try_from(config.count(key)).unwrap_or(usize::MAX);
    let bytes = |key| usize::try_from(config.size(key).unwrap_or(0)).unwrap_or(usize::MAX);
    let limits = &server.limits;
    let connections = count(Key::HttpConnections);
    let limits = HttpLimits {
        max_connections: connections,
        max_connections_per_address: count(Key::HttpAddressConnections),
        max_streams: connections,
        max_record: limits.max_record as usize,
        max_body: limits.max_frame as usize,
        // The API cannot count more than 4 GiB of bodies at a time.
        input_bytes: limits.input_bytes.min(u32::MAX as usize),
        cache_bytes: bytes(Key::HttpCache),
        head_timeout: limits.handshake_timeout,
        keep_alive: wait(Key::HttpKeepAlive),
        body_timeout: limits.frame_timeout,
        stall_timeout: limits.stall_timeout,
        drain_timeout: limits.drain_timeout,
        append_wait: wait(Key::HttpAppendWait),
        longest_wait: wait(Key::HttpLongestWait),
        heartbeat: wait(Key::HttpHeartbeat),
        lifetime: wait(Key::HttpLifetime),
        ..HttpLimits::default()
    };
    Ok(Some(HttpConfig {
        listen: resolve(config, Key::HttpListen)?,
        token: server.token.clone(),
        access: server.access.clone(),
        tls: server.tls.clone(),
        token_in_query: config.switch(Key::HttpTokenInQuery),
        allow_public_without_token: server.allow_public_without_token,
        origins: config.words(Key::HttpOrigins),
        hosts: config.words(Key::HttpHosts),
        limits,
        send_buffer: server.send_buffer,
        receive_buffer: server.receive_buffer,
    }))
}

/// The address to listen on. A host name is looked up, and its first address is used.
fn resolve(config: &Config, listen: Key) -> Result<SocketAddr> {
    let text = config.text(listen);
    let fail = |why: String| Error::usage(config.origin(listen), format!("{text}: {why}"));
    let mut addresses =
        text.to_socket_addrs().map_err(|error| fail(crate::error::describe_io(&error)))?;
    addresses.next().ok_or_else(|| fail("the name has no address".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve as resolve_config};
    use psa::{Durability, Overflow, Retention};

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
    fn the_http_api_is_off_unless_it_has_an_address() {
        let config = resolve_config(Sources::default()).unwrap();
        let server = server_config(&config).unwrap();
        assert!(http_config(&config, &server).unwrap().is_none());
    }

    #[test]
    fn our_defaults_are_the_librarys_defaults() {
        let flags = [(Key::HttpListen, "127.0.0.1:9854".to_string())];
        let config = resolve_config(Sources { flags: &flags, ..Sources::default() }).unwrap();
        let server = server_config(&config).unwrap();
        let (ours, theirs) =
            (http_config(&config, &server).unwrap().unwrap(), HttpConfig::default());
        assert_eq!((ours.listen, &ours.limits), (theirs.listen, &theirs.limits));
        assert!(ours.token.is_none() && ours.origins.is_empty() && ours.hosts.is_empty());
    }

    #[test]
    fn every_setting_of_the_http_api_reaches_it() {
        let text = "token='t'\nallow_public_without_token=true\nsend_buffer=5001\nreceive_buffer=5002\n\
            [http]\nlisten='127.0.0.2:8'\norigins='http://a, http://b'\nhosts='c'\nconnections=11\naddress_connections=9\n\
            keep_alive='10s'\nappend_wait='12s'\nlongest_wait='13s'\nheartbeat='14s'\nlifetime='off'\ncache=16\n\
            [limit]\nframe=1000020\nrecord=21\ninput=1000024\nchunk=22\nchunk_records=23\n\
            [timeout]\nhandshake='26s'\nframe='27s'\nstall='29s'\ndrain='30s'\n";
        let sources = Sources { file: Some(("f", text)), strict: true, ..Sources::default() };
        let config = resolve_config(sources).unwrap();
        let ours = http_config(&config, &server_config(&config).unwrap()).unwrap().unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(
            ours.limits,
            HttpLimits {
                max_connections: 11,
                max_connections_per_address: 9,
                max_streams: 11,
                max_record: 21,
                max_body: 1_000_020,
                input_bytes: 1_000_024,
                cache_bytes: 16,
                head_timeout: seconds(26),
                keep_alive: seconds(10),
                body_timeout: seconds(27),
                stall_timeout: seconds(29),
                drain_timeout: seconds(30),
                append_wait: seconds(12),
                longest_wait: seconds(13),
                heartbeat: seconds(14),
                lifetime: Duration::ZERO,
                ..HttpLimits::default()
            }
        );
        assert_eq!(ours.listen, "127.0.0.2:8".parse().unwrap());
        assert_eq!(
            (ours.origins, ours.hosts),
            (vec!["http://a".into(), "http://b".into()], vec!["c".to_string()])
        );
        assert_eq!((ours.send_buffer, ours.receive_buffer), (Some(5001), Some(5002)));
        assert!(ours.allow_public_without_token && ours.token.unwrap().matches("t"));
    }

    #[test]
    fn every_server_setting_reaches_the_server() {
        // Each setting has a value that differs from its default and from the other values.
        let text = "listen='127.0.0.2:7'\nallow_public_without_token=true\nsend_buffer=5001\nreceive_buffer=5002\n\
            [topic]\ncreate_on_publish=false\ncreate_on_subscribe=false\nsegment=5003\nretention='5 records'\n\
            overflow='evict'\nmemory=65541\ndurability='memory'\nstored_retention='6 records'\ndisk=5000004\n\
            [limit]\nmemory=65542\ntopic_memory=65543\ntopic_disk=5000005\ndisk=5000006\ndisk_free=7\ntopics=11\nleases=12\ntopic_leases=13\nlease_time='14s'\n\
            connections=15\naddress_connections=24\nsubscriptions=16\nconnection_topics=17\nconnection_subscriptions=18\n\
            connection_leases=19\nframe=1000020\nrecord=21\nchunk=22\nchunk_records=23\ninput=1000024\nreplies=1025\n\
            [timeout]\nhandshake='26s'\nframe='27s'\nidle='off'\nstall='29s'\ndrain='30s'\n";
        let sources = Sources { file: Some(("f", text)), strict: true, ..Sources::default() };
        let ours = server_config(&resolve_config(sources).unwrap()).unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(
            ours.limits,
            Limits {
                max_connections: 15,
                max_connections_per_address: 24,
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
                durability: Some(Durability::Memory),
                stored_retention: Retention::Records(6),
                topic_disk: 5_000_004,
                max_topic_disk: 5_000_005,
                max_disk: Some(5_000_006),
                disk_kept_free: Some(7),
            }
        );
        assert_eq!((ours.send_buffer, ours.receive_buffer), (Some(5001), Some(5002)));
        assert_eq!(ours.listen, "127.0.0.2:7".parse().unwrap());
        assert!(ours.allow_public_without_token);
    }
}
