//! TLS from configurations that the program has made, without files: both listeners, the client.

use std::path::PathBuf;
use std::sync::Arc;

use psa::client::ClientTls;
use psa::server::Tls;
use psa::server::rustls::pki_types::pem::PemObject as _;
use psa::server::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use psa::server::rustls::server::WebPkiClientVerifier;
use psa::server::rustls::{self, ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authority::Authority;
use crate::{LONG, connect, files, serve, serve_with, trusts};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A chain and its key, in memory.
fn identity(
    (certificate, key): (PathBuf, PathBuf),
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    (chain, PrivateKeyDer::from_pem_file(key).unwrap())
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&authority.file).unwrap()).unwrap();
    roots
}

/// A server's configuration, with what a listener must not take over from it.
fn server_config(authority: &Authority, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = identity(authority.issue(folder.path(), "localhost", false));
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let roots = Arc::new(roots(clients));
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"other".to_vec()];
    config.max_early_data_size = 16 << 10;
    Arc::new(config)
}

/// A client's configuration, likewise.
fn client_config(authority: &Authority, protocol: &str) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(authority))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config.enable_early_data = true;
    config
}

fn trusts_in_memory(authority: &Authority) -> ClientTls {
    ClientTls::from_config(Arc::new(client_config(authority, "other"))).server_name("localhost")
}

/// What the API answers to a client that offers `protocol`.
async fn ask(
    address: std::net::SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<(Option<Vec<u8>>, String)> {
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
    let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    // The preface of HTTP/2 is missing, so its answer is not one of HTTP/1.
    let _ = stream.read_to_end(&mut answer).await;
    Ok((chosen, String::from_utf8_lossy(&answer).into_owned()))
}

#[tokio::test]
async fn both_listeners_and_the_client_take_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = serve_with(Tls::from_config(server_config(&authority, None), 8), LONG);
    let client = connect(server.address, trusts_in_memory(&authority)).await.unwrap();
    client.publish("t", b"x").await.unwrap();
    let config = Arc::new(client_config(&authority, "http/1.1"));
    let (chosen, answer) = ask(server.http, &config).await.unwrap();
    assert_eq!(chosen.as_deref(), Some(&b"http/1.1"[..]));
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    // Files on one side and a configuration on the other.
    connect(server.address, trusts(&authority, None)).await.unwrap();
    let pair = authority.issue(folder.path(), "localhost", false);
    let from_files = serve(files(&pair, None), LONG);
    connect(from_files.address, trusts_in_memory(&authority)).await.unwrap();
}

#[tokio::test]
async fn each_listener_has_its_own_protocols_whatever_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = serve_with(Tls::from_config(server_config(&authority, None), 8), LONG);
    let offers = |protocol| Arc::new(client_config(&authority, protocol));
    for (address, protocol) in [
        (server.http, "other"),
        (server.address, "other"),
        (server.http, "psa/1"),
        (server.address, "h2"),
        (server.address, "http/1.1"),
    ] {
        let error = ask(address, &offers(protocol)).await.unwrap_err();
        assert!(error.to_string().contains("NoApplicationProtocol"), "{protocol}: {error}");
    }
    let (chosen, _) = ask(server.http, &offers("h2")).await.unwrap();
    assert_eq!(chosen.as_deref(), Some(&b"h2"[..]));
    let error = connect(server.http, trusts_in_memory(&authority)).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn nobody_is_offered_early_data() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = serve_with(Tls::from_config(server_config(&authority, None), 8), LONG);
    let config = Arc::new(client_config(&authority, "http/1.1"));
    // The client gets tickets with the answer.
    ask(server.http, &config).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut again = ClientConnection::new(config, name).unwrap();
    assert!(again.early_data().is_none(), "its ticket allows none");
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, clients) =
        (Authority::new(folder.path(), "authority"), Authority::new(folder.path(), "clients"));
    let tls = Tls::from_config(server_config(&authority, Some(&clients)), 8);
    let server = serve_with(tls, LONG);
    let error = connect(server.address, trusts_in_memory(&authority)).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    let own = clients.issue(folder.path(), "own", false);
    let (chain, key) = identity(own);
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&authority))
        .with_client_auth_cert(chain, key)
        .unwrap();
    let tls = ClientTls::from_config(Arc::new(config)).server_name("localhost");
    connect(server.address, tls).await.unwrap();
}

#[tokio::test]
async fn a_configuration_is_replaced_and_connections_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) =
        (Authority::new(folder.path(), "before"), Authority::new(folder.path(), "after"));
    // 0 turns would be none; it counts as one.
    let server = serve_with(Tls::from_config(server_config(&before, None), 0), LONG);
    let client = connect(server.address, trusts_in_memory(&before)).await.unwrap();
    // There are no files to read again, and that changes nothing.
    let error = server.tls.reload().unwrap_err();
    assert!(error.to_string().contains("Tls::replace"), "{error}");
    connect(server.address, trusts_in_memory(&before)).await.unwrap();
    server.tls.replace(server_config(&after, None));
    connect(server.address, trusts_in_memory(&after)).await.unwrap();
    assert!(connect(server.address, trusts_in_memory(&before)).await.is_err());
    let offers = |authority| Arc::new(client_config(authority, "http/1.1"));
    ask(server.http, &offers(&after)).await.unwrap();
    assert!(ask(server.http, &offers(&before)).await.is_err());
    let error = ask(server.http, &Arc::new(client_config(&after, "other"))).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    client.ping().await.unwrap();
}

#[tokio::test]
async fn files_can_be_replaced_until_they_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) =
        (Authority::new(folder.path(), "before"), Authority::new(folder.path(), "after"));
    let pair = before.issue(folder.path(), "localhost", false);
    let server = serve(files(&pair, None), LONG);
    server.tls.replace(server_config(&after, None));
    connect(server.address, trusts(&after, None)).await.unwrap();
    server.tls.reload().unwrap();
    connect(server.address, trusts(&before, None)).await.unwrap();
}
