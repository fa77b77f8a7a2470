//! TLS under both listeners and under the client, by rustls.
//!
//! The cryptography is ring's: it builds with a C compiler alone, on every machine that has Rust. TLS 1.3 and 1.2.
//!
//! # Listeners
//!
//! A [`Tls`] holds what its files say. It can [read them again](Tls::reload) while servers run: handshakes from
//! then on have the new certificate, connections that are there stay. With a client CA, whoever has no
//! certificate of it is turned away in the handshake, before any token is looked at.
//!
//! A handshake has to be over in the time that its listener gives a HELLO or a request's head. At most so many are
//! computed at a time as [`TlsFiles::handshakes`] says; a client that has sent nothing is not one of them.
//!
//! Each listener names its protocol in the handshake (ALPN: `psa/1`; `h2` and `http/1.1`), so that nobody can lead a
//! browser to the TCP listener.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    self, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// The binary protocol's name in a handshake.
#[cfg(any(feature = "server", feature = "client"))]
const BINARY: &[u8] = b"psa/1";

/// Why TLS cannot be had from these files.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{file}: {why}")]
pub struct TlsError {
    file: String,
    why: String,
}

impl TlsError {
    fn new(file: &Path, why: impl fmt::Display) -> Self {
        Self { file: file.display().to_string(), why: why.to_string() }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a PEM file; at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| TlsError::new(file, error))?;
    if found.is_empty() {
        return Err(TlsError::new(file, "there is no certificate in it; give a PEM file"));
    }
    Ok(found)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| TlsError::new(file, error))
}

fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| TlsError::new(file, error))?;
    }
    Ok(roots)
}

#[cfg(any(feature = "server", feature = "http"))]
pub(crate) use serving::{Accepted, Protocol, ServerStream};
#[cfg(any(feature = "server", feature = "http"))]
pub use serving::{Tls, TlsFiles};

#[cfg(any(feature = "server", feature = "http"))]
mod serving {
    use std::sync::{PoisonError, RwLock};

    use tokio::{net::TcpStream, sync::Semaphore};
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{ServerConfig, server::WebPkiClientVerifier},
    };

    use super::*;

    pub(crate) type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

    /// Whether a connection can begin a handshake with these bytes, as far as they are there. A frame of the
    /// binary protocol begins with its length, which may be 22, too; its third byte is 0 in every HELLO.
    fn may_be_tls(begin: &[u8]) -> bool {
        match begin {
            [22] | [22, 3] => true,
            [22, 3, minor] => (1..=4).contains(minor),
            _ => false,
        }
    }

    /// Where a server's certificate is.
    #[derive(Clone, Debug)]
    pub struct TlsFiles {
        /// The certificate and those between it and the authority, in PEM, its own first.
        pub certificate: PathBuf,
        /// Its private key, in PEM.
        pub key: PathBuf,
        /// Authorities, in PEM, of which every client must have a certificate; `None` if it needs none.
        pub client_ca: Option<PathBuf>,
        /// Handshakes that are computed at a time, by each listener; more wait for their turn. 1,024 is plenty.
        pub handshakes: usize,
    }

    /// TLS for a server. A clone is the same: give one to each listener.
    #[derive(Clone)]
    pub struct Tls(Arc<Inner>);

    struct Inner {
        files: TlsFiles,
        current: RwLock<Configs>,
        #[cfg(feature = "server")]
        binary: Semaphore,
        #[cfg(feature = "http")]
        http: Semaphore,
    }

    struct Configs {
        #[cfg(feature = "server")]
        binary: Arc<ServerConfig>,
        #[cfg(feature = "http")]
        http: Arc<ServerConfig>,
    }

    /// Which listener asks.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Protocol {
        #[cfg(feature = "server")]
        Binary,
        #[cfg(feature = "http")]
        Http,
    }

    /// What a connection turned out to be.
    pub(crate) enum Accepted {
        Secure(Box<ServerStream>),
        /// The client does not speak TLS.
        Plain(TcpStream),
    }

    impl Tls {
        /// Reads the files.
        ///
        /// # Errors
        ///
        /// [`TlsError`] names the file, and says what is wrong with it.
        pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
            let current = RwLock::new(read(&files)?);
            let most = files.handshakes.clamp(1, Semaphore::MAX_PERMITS);
            Ok(Self(Arc::new(Inner {
                files,
                current,
                #[cfg(feature = "server")]
                binary: Semaphore::new(most),
                #[cfg(feature = "http")]
                http: Semaphore::new(most),
            })))
        }

        /// Reads the files again, for the handshakes to come.
        ///
        /// # Errors
        ///
        /// As [`load`](Self::load); then everything stays as it is.
        pub fn reload(&self) -> Result<(), TlsError> {
            let new = read(&self.0.files)?;
            *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = new;
            Ok(())
        }

        /// Shakes hands, however long the client takes: the caller keeps the time. Cancel safe, in that
        /// the connection ends with it.
        pub(crate) async fn accept(
            &self,
            protocol: Protocol,
            stream: TcpStream,
        ) -> io::Result<Accepted> {
            let mut begin = [0; 3];
            let there = stream.peek(&mut begin).await?;
            if there == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !may_be_tls(&begin[..there]) {
                return Ok(Accepted::Plain(stream));
            }
            let turns = match protocol {
                #[cfg(feature = "server")]
                Protocol::Binary => &self.0.binary,
                #[cfg(feature = "http")]
                Protocol::Http => &self.0.http,
            };
            let _turn = turns.acquire().await.map_err(io::Error::other)?;
            let config = {
                let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner);
                match protocol {
                    #[cfg(feature = "server")]
                    Protocol::Binary => current.binary.clone(),
                    #[cfg(feature = "http")]
                    Protocol::Http => current.http.clone(),
                }
            };
            Ok(Accepted::Secure(Box::new(TlsAcceptor::from(config).accept(stream).await?)))
        }
    }

    impl fmt::Debug for Tls {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_tuple("Tls").field(&self.0.files).finish()
        }
    }

    fn read(files: &TlsFiles) -> Result<Configs, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(&files.certificate, error))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let roots = Arc::new(authorities(file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = verifier.build().map_err(|error| TlsError::new(file, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder
            .with_single_cert(certificates(&files.certificate)?, key(&files.key)?)
            .map_err(|error| TlsError::new(&files.key, error))?;
        let with = |names: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Configs {
            #[cfg(feature = "server")]
            binary: with(&[BINARY]),
            #[cfg(feature = "http")]
            http: with(&[b"h2", b"http/1.1"]),
        })
    }
}

#[cfg(feature = "client")]
pub(crate) use connecting::ClientStream;
#[cfg(feature = "client")]
pub use connecting::{ClientTls, ClientTlsFiles};

#[cfg(feature = "client")]
mod connecting {
    use tokio::net::TcpStream;
    use tokio_rustls::{
        TlsConnector,
        rustls::{ClientConfig, pki_types::ServerName},
    };

    use super::*;

    pub(crate) type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

    /// What a client trusts, and who it is.
    #[derive(Clone, Debug, Default)]
    pub struct ClientTlsFiles {
        /// Authorities, in PEM, of which the server must have a certificate. `None`: those that the system
        /// trusts.
        pub ca: Option<PathBuf>,
        /// The client's own certificate and its key, in PEM, if the server asks for one.
        pub identity: Option<(PathBuf, PathBuf)>,
        /// The name that the server's certificate must have. `None`: the host that is connected to.
        pub server_name: Option<String>,
    }

    /// TLS for a client.
    #[derive(Clone)]
    pub struct ClientTls {
        config: Arc<ClientConfig>,
        name: Option<String>,
    }

    impl ClientTls {
        /// Reads the files.
        ///
        /// # Errors
        ///
        /// [`TlsError`] names the file, and says what is wrong with it.
        pub fn load(files: &ClientTlsFiles) -> Result<Self, TlsError> {
            let system = Path::new("the system's certificates");
            let roots = match &files.ca {
                Some(file) => authorities(file)?,
                None => {
                    let found = rustls_native_certs::load_native_certs();
                    let mut roots = RootCertStore::empty();
                    roots.add_parsable_certificates(found.certs);
                    if roots.is_empty() {
                        let why = "there are none; name an authority's file";
                        return Err(TlsError::new(system, why));
                    }
                    roots
                }
            };
            let builder = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| TlsError::new(system, error))?
                .with_root_certificates(roots);
            let mut config = match &files.identity {
                None => builder.with_no_client_auth(),
                Some((certificate, private)) => builder
                    .with_client_auth_cert(certificates(certificate)?, key(private)?)
                    .map_err(|error| TlsError::new(private, error))?,
            };
            config.alpn_protocols = vec![BINARY.to_vec()];
            Ok(Self { config: Arc::new(config), name: files.server_name.clone() })
        }

        /// Shakes hands with the server at `HOST:PORT`.
        pub(crate) async fn connect(
            &self,
            address: &str,
            stream: TcpStream,
        ) -> io::Result<ClientStream> {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = self.name.as_deref().unwrap_or(host).to_owned();
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            TlsConnector::from(self.config.clone()).connect(name, stream).await
        }
    }

    impl fmt::Debug for ClientTls {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
        }
    }
}
