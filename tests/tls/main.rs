//! TLS on both listeners and in the client: certificates made for the test, real handshakes.
#![cfg(all(feature = "server", feature = "http", feature = "client", feature = "tls"))]

mod authority;
mod configured;

use authority::Authority;
use psa::broker::Broker;
use psa::client::{Client, ClientError, ClientTls, ClientTlsFiles, SubscribeOptions};
use psa::http::{HttpConfig, HttpServer};
use psa::protocol::{Code, Start};
use psa::server::{Server, ServerConfig, ServerHandle, Tls, TlsFiles};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct Running {
    address: SocketAddr,
    http: SocketAddr,
    handle: ServerHandle,
    tls: Tls,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

fn files(pair: &(PathBuf, PathBuf), client_ca: Option<&Authority>) -> TlsFiles {
    let client_ca = client_ca.map(|authority| authority.file.clone());
    TlsFiles { certificate: pair.0.clone(), key: pair.1.clone(), client_ca, handshakes: 8 }
}

fn serve(files: TlsFiles, timeout: Duration) -> Running {
    serve_with(Tls::load(files).unwrap(), timeout)
}

/// Both listeners over one broker.
fn serve_with(tls: Tls, timeout: Duration) -> Running {
    let mut config = ServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Some(tls.clone()),
        ..ServerConfig::default()
    };
    config.limits.handshake_timeout = timeout;
    let broker = Broker::new(config.broker.clone()).unwrap();
    let server = Server::bind_with(config, broker.clone()).unwrap();
    let mut config = HttpConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Some(tls.clone()),
        ..HttpConfig::default()
    };
    config.limits.head_timeout = timeout;
    let http = HttpServer::bind_with(config, broker).unwrap();
    let (address, http_address, handle) = (server.local_addr(), http.local_addr(), server.handle());
    tokio::spawn(server.run(std::future::pending()));
    tokio::spawn(http.run(std::future::pending()));
    Running { address, http: http_address, handle, tls }
}

const LONG: Duration = Duration::from_secs(60);

fn trusts(authority: &Authority, identity: Option<(PathBuf, PathBuf)>) -> ClientTls {
    let ca = Some(authority.file.clone());
    ClientTls::load(&ClientTlsFiles { ca, identity, server_name: Some("localhost".into()) })
        .unwrap()
}

async fn connect(address: SocketAddr, tls: ClientTls) -> Result<Client, ClientError> {
    Client::builder(address.to_string()).connect_timeout(LONG).tls(tls).connect().await
}

#[tokio::test]
async fn records_go_both_ways_large_and_small() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = serve(files(&authority.issue(folder.path(), "localhost", false), None), LONG);
    let client = connect(server.address, trusts(&authority, None)).await.unwrap();
    let options = SubscribeOptions::new(Start::Earliest);
    let mut subscription = client.subscribe("t", options).await.unwrap();
    // Larger than all buffers of TLS together, and single bytes after them.
    let records: Vec<Vec<u8>> = (0..200u32)
        .map(|i| vec![i as u8; if i % 10 == 0 { 300_000 } else { i as usize }])
        .collect();
    let sending = async {
        for record in &records {
            client.publish("t", record).await.unwrap();
        }
    };
    let receiving = async {
        for expected in &records {
            let record = loop {
                match subscription.next().await.unwrap().unwrap() {
                    psa::client::Event::Record(record) => break record,
                    _ => continue,
                }
            };
            assert!(record.data() == &expected[..]);
        }
    };
    tokio::time::timeout(LONG, async { tokio::join!(sending, receiving) }).await.unwrap();
}

#[tokio::test]
async fn who_is_not_trusted_is_not_talked_to() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let other = Authority::new(folder.path(), "other");
    let good = serve(files(&authority.issue(folder.path(), "localhost", false), None), LONG);
    let old = folder.path().join("old");
    std::fs::create_dir(&old).unwrap();
    let expired = serve(files(&authority.issue(&old, "localhost", true), None), LONG);
    let elsewhere = serve(files(&authority.issue(folder.path(), "elsewhere", false), None), LONG);
    for (server, trusted, part) in [
        (&good, &other, "UnknownIssuer"),
        (&expired, &authority, "expired"),
        (&elsewhere, &authority, "elsewhere"),
    ] {
        let error = connect(server.address, trusts(trusted, None)).await.unwrap_err();
        assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    }
    connect(good.address, trusts(&authority, None)).await.unwrap();
    // The HTTP API's handshake is another protocol's.
    let error = connect(good.http, trusts(&authority, None)).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn a_client_needs_a_certificate_where_one_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, clients) =
        (Authority::new(folder.path(), "authority"), Authority::new(folder.path(), "clients"));
    let pair = authority.issue(folder.path(), "localhost", false);
    let server = serve(files(&pair, Some(&clients)), LONG);
    let error = connect(server.address, trusts(&authority, None)).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    let foreign = authority.issue(folder.path(), "foreign", false);
    assert!(connect(server.address, trusts(&authority, Some(foreign))).await.is_err());
    let own = clients.issue(folder.path(), "own", false);
    connect(server.address, trusts(&authority, Some(own))).await.unwrap();
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_and_so_is_who_does_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = serve(files(&authority.issue(folder.path(), "localhost", false), None), LONG);
    let error = Client::builder(server.address.to_string()).connect().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::TlsRequired), "{error}");
    let mut plain = TcpStream::connect(server.http).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("tls-required"), "{answer}");

    let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
    let without = Server::bind(config).unwrap();
    let address = without.local_addr();
    let running = tokio::spawn(without.run(std::future::pending()));
    let error = connect(address, trusts(&authority, None)).await.unwrap_err();
    assert!(error.to_string().contains("answers without TLS"), "{error}");
    running.abort();
}

#[tokio::test]
async fn a_slow_handshake_is_cut_off_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let pair = authority.issue(folder.path(), "localhost", false);
    let server = serve(files(&pair, None), Duration::from_millis(300));
    let (mut slow, mut silent) = (Vec::new(), Vec::new());
    for address in [server.address, server.http] {
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).await.unwrap());
            let mut begun = TcpStream::connect(address).await.unwrap();
            begun.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
            slow.push(begun);
        }
    }
    for stream in slow.iter_mut().chain(&mut silent) {
        let mut rest = Vec::new();
        // An alert or nothing, then the end; a reset is one.
        let ended = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is never cut off");
    }
    // Where there is one turn, who gives up gives it back.
    let narrow = serve(TlsFiles { handshakes: 1, ..files(&pair, None) }, LONG);
    let mut first = TcpStream::connect(narrow.address).await.unwrap();
    first.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let next = tokio::spawn({
        let (address, tls) = (narrow.address, trusts(&authority, None));
        async move { connect(address, tls).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(first);
    next.await.unwrap().unwrap();
    while server.handle.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_handshake_under_way_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = serve(files(&authority.issue(folder.path(), "localhost", false), None), LONG);
    let mut begun = TcpStream::connect(server.address).await.unwrap();
    begun.write_all(&[22, 3, 1]).await.unwrap();
    while server.handle.connections() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.handle.drain();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LONG, begun.read_to_end(&mut rest)).await.expect("it ends");
}

#[tokio::test]
async fn a_certificate_is_read_again_and_connections_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) =
        (Authority::new(folder.path(), "before"), Authority::new(folder.path(), "after"));
    let pair = before.issue(folder.path(), "localhost", false);
    let server = serve(files(&pair, None), LONG);
    let client = connect(server.address, trusts(&before, None)).await.unwrap();
    // What cannot be used changes nothing.
    std::fs::write(&pair.0, "nonsense").unwrap();
    let error = server.tls.reload().unwrap_err();
    assert!(error.to_string().contains("localhost.crt"), "{error}");
    connect(server.address, trusts(&before, None)).await.unwrap();
    after.issue(folder.path(), "localhost", false);
    server.tls.reload().unwrap();
    connect(server.address, trusts(&after, None)).await.unwrap();
    assert!(connect(server.address, trusts(&before, None)).await.is_err());
    // Over the connection that it has: with a new one it would not trust the server.
    client.ping().await.unwrap();
}

/// The lines of the log that this thread writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!(" {field}={value:?}");
            }
        }
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// At the start, and when the files are read again: the server itself serves on.
#[tokio::test]
async fn certificates_that_are_not_valid_for_long_are_warned_of() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let said = || std::mem::take(&mut *lines.0.lock().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let now = SystemTime::now();
    let issue = |from, until| authority.issue_for(folder.path(), "localhost", from, until);
    let pair = issue(now - DAY, now + 30 * DAY);
    let server = serve(files(&pair, Some(&authority)), LONG);
    assert_eq!(said(), [""; 0], "there is time");
    let validity = server.tls.validity();
    assert_eq!(validity.len(), 2, "the server's own, and the authority of its clients");
    assert_eq!(validity[0].file, pair.0);
    let second = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(second(validity[0].not_before), second(now - DAY));
    assert_eq!(second(validity[0].not_after), second(now + 30 * DAY));

    for (from, until, level, part) in [
        (now - 9 * DAY, now + 3 * DAY + DAY / 2, "WARN", "days=3 message=a certificate expires"),
        (
            now - 9 * DAY,
            now - 2 * DAY - DAY / 2,
            "ERROR",
            "days=2 message=a certificate has expired",
        ),
        (
            now + 5 * DAY + DAY / 2,
            now + 90 * DAY,
            "ERROR",
            "days=5 message=a certificate is not valid yet",
        ),
    ] {
        issue(from, until);
        server.tls.reload().unwrap();
        let said = said();
        let [line] = &said[..] else { panic!("{said:?}") };
        let line = line.replace(['"', '`'], "");
        assert!(line.starts_with(level) && line.contains("localhost.crt"), "{line}");
        let days = line.contains(part.split(" message=").next().unwrap());
        assert!(days && line.contains(part.split("message=").nth(1).unwrap()), "{line}");
        assert_eq!(second(server.tls.validity()[0].not_after), second(until));
    }
    // A chain is as good as its first certificate to expire.
    let (good, old) = (issue(now - DAY, now + 30 * DAY), folder.path().join("old"));
    std::fs::create_dir(&old).unwrap();
    let old = authority.issue_for(&old, "localhost", now - 9 * DAY, now - DAY);
    let chain = [&good.0, &old.0].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    std::fs::write(&good.0, chain).unwrap();
    server.tls.reload().unwrap();
    assert_eq!(said().len(), 1);
    assert_eq!(second(server.tls.validity()[0].not_after), second(now - DAY));
}
