//! TLS for both listeners and for the client, using rustls.
//!
//! The cryptography is ring's, which needs only a C compiler to build, on every machine that has Rust. Supports
//! TLS 1.3 and 1.2.
//!
//! A program that has its own rustls configuration, with certificates in memory, a resolver or another cryptography,
//! makes a `Tls` or a `ClientTls` of it. rustls is exported beside them, so that the versions match.
//!
//! # Listeners
//!
//! A [`Tls`] holds the contents of its files. It can [read them again](Tls::reload) while servers run: later
//! handshakes use the new certificate, and existing connections stay open. [`Tls::replace`] does the same with another
//! configuration. With a client CA, a client without a
//! certificate from it is refused in the handshake, before any token is checked.
//!
//! A handshake must complete within the time that its listener allows for a HELLO or for the head of a request. At
//! most [`TlsFiles::handshakes`] of them are computed at a time; a client that has sent nothing does not count.
//!
//! Each listener names its protocol in the handshake (ALPN: `psa/1`; `h2` and `http/1.1`), so that a browser cannot
//! be tricked into talking to the TCP listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The ALPN name of the binary protocol.
#[cfg(any(feature = "server", feature = "client"))]
const BINARY: &[u8] = b"psa/1";

/// Why TLS cannot be set up from the given files.
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

pub use tokio_rustls::rustls;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Reads the certificates of a PEM file; at least one.
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

fn roots(
    file: &Path,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| TlsError::new(file, error))?;
    }
    Ok(roots)
}

#[cfg(any(feature = "server", feature = "http"))]
pub(crate) use serving::{Accepted, Protocol, ServerStream};
#[cfg(any(feature = "server", feature = "http"))]
pub use serving::{Tls, TlsFiles, Validity};

#[cfg(any(feature = "server", feature = "http"))]
mod serving {
    use std::sync::{PoisonError, RwLock};
    use std::time::{Duration, SystemTime};

    use tokio::net::TcpStream;
    use tokio::sync::Semaphore;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::server::WebPkiClientVerifier;

    use super::*;

    pub(crate) type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

    /// Whether these bytes, of which not all may have arrived, can be the beginning of a TLS handshake. A frame of the
    /// binary protocol begins with its length. The first byte of that may also be 22, but the third byte is 0 in every
    /// HELLO.
    fn may_be_tls(begin: &[u8]) -> bool {
        match begin {
            [22] | [22, 3] => true,
            [22, 3, minor] => (1..=4).contains(minor),
            _ => false,
        }
    }

    /// The files of a server's certificate, and the settings that go with them.
    #[derive(Clone, Debug)]
    pub struct TlsFiles {
        /// The certificate chain in PEM: the server's own certificate first, then the intermediate ones.
        pub certificate: PathBuf,
        /// The private key of the server's certificate, in PEM.
        pub key: PathBuf,
        /// The certificate authorities, in PEM, one of which must have issued each client's certificate. `None` if
        /// clients need no certificate.
        pub client_ca: Option<PathBuf>,
        /// The most handshakes that each listener computes at a time; further ones wait for their turn. 1,024 is
        /// plenty.
        pub handshakes: usize,
    }

    /// How long the certificates of a file are valid: from when all of them are, until when the first of them is not.
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Validity {
        /// The file.
        pub file: PathBuf,
        /// When the last of them becomes valid.
        pub not_before: SystemTime,
        /// When the first of them ceases to be.
        pub not_after: SystemTime,
    }

    impl Validity {
        /// `None` if there is none that can be read. rustls takes some that this parser does not.
        fn of(file: &Path, certificates: &[CertificateDer<'_>]) -> Option<Self> {
            let bounds = certificates.iter().filter_map(|certificate| {
                let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
                let validity = parsed.validity();
                Some((time(validity.not_before.timestamp()), time(validity.not_after.timestamp())))
            });
            let (not_before, not_after) =
                bounds.reduce(|all, one| (all.0.max(one.0), all.1.min(one.1)))?;
            Some(Self { file: file.to_owned(), not_before, not_after })
        }
    }

    /// A certificate that expires within this time is warned of: less than what automatic renewals leave.
    const SOON: Duration = Duration::from_secs(14 * DAY);
    const DAY: u64 = 24 * 60 * 60;

    /// Logs which certificates are not valid, or not for long. Otherwise only the clients see that.
    fn warn(validity: &[Validity]) {
        let now = SystemTime::now();
        for Validity { file, not_before, not_after } in validity {
            let file = file.display();
            let days = |time: Duration| time.as_secs() / DAY;
            match (not_after.duration_since(now), not_before.duration_since(now)) {
                (Err(ago), _) => {
                    let days = days(ago.duration());
                    tracing::error!(%file, days, "a certificate has expired, so many days ago: renew it");
                }
                (_, Ok(wait)) if !wait.is_zero() => {
                    let days = days(wait);
                    tracing::error!(%file, days, "a certificate is not valid yet, for so many days: look at the clock");
                }
                (Ok(left), _) if left <= SOON => {
                    let days = days(left);
                    tracing::warn!(%file, days, "a certificate expires in so many days: renew it");
                }
                _ => {}
            }
        }
    }

    /// Seconds since the Unix epoch; what lies before it is the epoch.
    fn time(seconds: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0))
    }

    /// TLS for a server. Clones share the same state: give one to each listener.
    #[derive(Clone)]
    pub struct Tls(Arc<TlsState>);

    struct TlsState {
        /// `None` if the program has made the configuration.
        files: Option<TlsFiles>,
        current: RwLock<Configs>,
        #[cfg(feature = "server")]
        binary: Semaphore,
        #[cfg(feature = "http")]
        http: Semaphore,
    }

    struct Configs {
        /// Of the server's own certificate, and of the authorities of clients, as far as they come from files.
        validity: Vec<Validity>,
        #[cfg(feature = "server")]
        binary: Arc<ServerConfig>,
        #[cfg(feature = "http")]
        http: Arc<ServerConfig>,
    }

    /// The listener that a handshake is for.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Protocol {
        #[cfg(feature = "server")]
        Binary,
        #[cfg(feature = "http")]
        Http,
    }

    /// The kind of connection that a client opened.
    pub(crate) enum Accepted {
        Secure(Box<ServerStream>),
        /// The client does not use TLS.
        Plain(TcpStream),
    }

    impl Tls {
        /// Reads the files. The log warns of certificates that are not valid, or not for more than two weeks:
        /// [`validity`](Self::validity) tells a program.
        ///
        /// # Errors
        ///
        /// [`TlsError`] names the file and describes what is wrong with it.
        pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
            let ((config, validity), handshakes) = (read(&files)?, files.handshakes);
            warn(&validity);
            Ok(Self::new(Some(files), &config, validity, handshakes))
        }

        /// Takes a configuration of your own: certificates in memory, a resolver that chooses or renews them, a crypto
        /// provider other than ring.
        ///
        /// `handshakes` is the most that each listener computes at a time, as in [`TlsFiles::handshakes`]. 0 counts as 1.
        ///
        /// Each listener uses a copy with two changes:
        ///
        /// - `alpn_protocols` are its own, `psa/1` or `h2` and `http/1.1`, instead of yours. So a resolver cannot answer
        ///   ACME's challenge `acme-tls/1` here; use another challenge, or a listener of your own for it.
        /// - `max_early_data_size` is 0: whoever records early data (0-RTT) could send it again, and a record would be
        ///   appended twice.
        ///
        /// The copies share what your configuration shares: resolver, verifier, session cache.
        ///
        /// # Cost
        ///
        /// Two copies of a configuration, whose large parts are shared. Handshakes and connections cost what they cost
        /// with files.
        ///
        /// ```
        /// use std::sync::Arc;
        ///
        /// use psa::server::{ServerConfig, Tls, rustls};
        ///
        /// # let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        /// # let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
        /// # let chain = vec![made.cert.der().clone()];
        /// let provider = Arc::new(rustls::crypto::ring::default_provider());
        /// let config = rustls::ServerConfig::builder_with_provider(provider)
        ///     .with_safe_default_protocol_versions()?
        ///     .with_no_client_auth()
        ///     .with_single_cert(chain, key)?;
        /// let tls = Tls::from_config(Arc::new(config), 1024);
        /// let server = ServerConfig { tls: Some(tls.clone()), ..ServerConfig::default() };
        /// // Later, with another certificate: tls.replace(Arc::new(config));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[must_use]
        pub fn from_config(config: Arc<ServerConfig>, handshakes: usize) -> Self {
            Self::new(None, &config, Vec::new(), handshakes)
        }

        fn new(
            files: Option<TlsFiles>,
            config: &ServerConfig,
            validity: Vec<Validity>,
            handshakes: usize,
        ) -> Self {
            let most = handshakes.clamp(1, Semaphore::MAX_PERMITS);
            Self(Arc::new(TlsState {
                files,
                current: RwLock::new(Configs::of(config, validity)),
                #[cfg(feature = "server")]
                binary: Semaphore::new(most),
                #[cfg(feature = "http")]
                http: Semaphore::new(most),
            }))
        }

        /// Reads the files again, for later handshakes. The log warns as at first.
        ///
        /// # Errors
        ///
        /// As [`load`](Self::load); then nothing changes. And if there are no files, because the configuration was
        /// [your own](Self::from_config): [`replace`](Self::replace) it instead.
        pub fn reload(&self) -> Result<(), TlsError> {
            let Some(files) = &self.0.files else {
                let why = "this TLS was made of a configuration, without files; give it another with Tls::replace";
                return Err(TlsError {
                    file: "nothing to read again".to_owned(),
                    why: why.to_owned(),
                });
            };
            let (config, validity) = read(files)?;
            warn(&validity);
            self.put(&config, validity);
            Ok(())
        }

        /// Uses another configuration for later handshakes, changed as [`from_config`](Self::from_config) says.
        /// Existing connections stay open. This applies to all clones. Of a value that was made from files, the next
        /// [`reload`](Self::reload) reads the files again.
        ///
        /// A client that kept a session of the old configuration may resume it only if the new one has the same
        /// session cache or the same keys for tickets.
        pub fn replace(&self, config: Arc<ServerConfig>) {
            self.put(&config, Vec::new());
        }

        fn put(&self, config: &ServerConfig, validity: Vec<Validity>) {
            let new = Configs::of(config, validity);
            *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        }

        /// How long the certificates are valid that new handshakes use: first that of the server, then the authorities of
        /// clients, if they need one. Nothing is known of a configuration that does not come from files.
        #[must_use]
        pub fn validity(&self) -> Vec<Validity> {
            self.0.current.read().unwrap_or_else(PoisonError::into_inner).validity.clone()
        }

        /// Performs the handshake, however long the client takes: the caller enforces the timeout. It may be dropped at
        /// any point; the connection then ends.
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
            f.debug_struct("Tls").field("files", &self.0.files).finish_non_exhaustive()
        }
    }

    impl Configs {
        /// Copies of the configuration, each with the protocols of its listener.
        fn of(config: &ServerConfig, validity: Vec<Validity>) -> Self {
            let with = |names: &[&[u8]]| {
                let mut config = config.clone();
                config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
                config.max_early_data_size = 0;
                Arc::new(config)
            };
            Self {
                validity,
                #[cfg(feature = "server")]
                binary: with(&[BINARY]),
                #[cfg(feature = "http")]
                http: with(&[b"h2", b"http/1.1"]),
            }
        }
    }

    fn read(files: &TlsFiles) -> Result<(ServerConfig, Vec<Validity>), TlsError> {
        let own = certificates(&files.certificate)?;
        let mut validity = Vec::from_iter(Validity::of(&files.certificate, &own));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(&files.certificate, error))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let issuers = certificates(file)?;
                validity.extend(Validity::of(file, &issuers));
                let roots = Arc::new(roots(file, issuers)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = verifier.build().map_err(|error| TlsError::new(file, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder
            .with_single_cert(own, key(&files.key)?)
            .map_err(|error| TlsError::new(&files.key, error))?;
        Ok((config, validity))
    }
}

#[cfg(feature = "client")]
pub(crate) use connecting::ClientStream;
#[cfg(feature = "client")]
pub use connecting::{ClientTls, ClientTlsFiles};

#[cfg(feature = "client")]
mod connecting {
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::ClientConfig;
    use tokio_rustls::rustls::pki_types::ServerName;

    use super::*;

    pub(crate) type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

    /// The authorities that a client trusts, and its own identity.
    #[derive(Clone, Debug, Default)]
    pub struct ClientTlsFiles {
        /// The certificate authorities, in PEM, one of which must have issued the server's certificate. `None`: those
        /// that the system trusts.
        pub ca: Option<PathBuf>,
        /// The client's own certificate and its key, in PEM, for servers that ask for one.
        pub identity: Option<(PathBuf, PathBuf)>,
        /// The name that the server's certificate must be valid for. `None`: the host that the client connects to.
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
        /// [`TlsError`] names the file and describes what is wrong with it.
        pub fn load(files: &ClientTlsFiles) -> Result<Self, TlsError> {
            let system = Path::new("the system's certificates");
            let roots = match &files.ca {
                Some(file) => roots(file, certificates(file)?)?,
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
            let config = match &files.identity {
                None => builder.with_no_client_auth(),
                Some((certificate, private)) => builder
                    .with_client_auth_cert(certificates(certificate)?, key(private)?)
                    .map_err(|error| TlsError::new(private, error))?,
            };
            let made = Self::from_config(Arc::new(config));
            Ok(Self { name: files.server_name.clone(), ..made })
        }

        /// Takes a configuration of your own: authorities in memory, a verifier, a crypto provider other than ring.
        ///
        /// The client uses a copy with two changes: its `alpn_protocols` are `psa/1` instead of yours, and early data
        /// (0-RTT) is off, since it could be sent again by whoever records it. The copy is made once; connections share
        /// it, and with it the store of sessions.
        ///
        /// ```
        /// use std::sync::Arc;
        ///
        /// use psa::client::{Client, ClientTls, rustls};
        ///
        /// # let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        /// # let authority = made.cert.der().clone();
        /// let mut roots = rustls::RootCertStore::empty();
        /// roots.add(authority)?;
        /// let provider = Arc::new(rustls::crypto::ring::default_provider());
        /// let config = rustls::ClientConfig::builder_with_provider(provider)
        ///     .with_safe_default_protocol_versions()?
        ///     .with_root_certificates(roots)
        ///     .with_no_client_auth();
        /// let tls = ClientTls::from_config(Arc::new(config)).server_name("localhost");
        /// let builder = Client::builder("127.0.0.1:9853").tls(tls);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[must_use]
        pub fn from_config(config: Arc<ClientConfig>) -> Self {
            let mut config = Arc::unwrap_or_clone(config);
            config.alpn_protocols = vec![BINARY.to_vec()];
            config.enable_early_data = false;
            Self { config: Arc::new(config), name: None }
        }

        /// The name that the server's certificate must be valid for, instead of the host that the client connects to.
        #[must_use]
        pub fn server_name(mut self, name: impl Into<String>) -> Self {
            self.name = Some(name.into());
            self
        }

        /// Performs the handshake with the server at `HOST:PORT`.
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
