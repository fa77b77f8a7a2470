//! The settings of a client.

use std::sync::Arc;
use std::time::Duration;

use super::address::ServerAddress;
use super::{Client, ClientError};
use crate::protocol::MAX_TOKEN;

/// How to reach a server, and how long to wait for it. Created by [`Client::builder`].
///
/// ```
/// use std::time::Duration;
/// use psa::client::Client;
///
/// # fn main() -> Result<(), psa::client::ClientError> {
/// let client = Client::builder("127.0.0.1")
///     .token("secret")
///     .name("billing")
///     .connect_timeout(Duration::from_secs(2))
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` or `connect`"]
pub struct ClientBuilder {
    config: Config,
}

/// The settings of a [`ClientBuilder`]. A client shares them once they are checked.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) address: String,
    pub(super) token: String,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<crate::tls::ClientTls>,
    /// The address asks for TLS.
    is_secure: bool,
    pub(super) name: String,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
    pub(super) keepalive: Duration,
    pub(super) max_frame: u32,
    /// The address cannot be read, for this reason.
    fault: Option<ClientError>,
}

impl Config {
    /// Sees to it that an address which asks for TLS gets it.
    fn ask_for_tls(&mut self) -> Result<(), ClientError> {
        #[cfg(feature = "tls")]
        if self.is_secure && self.tls.is_none() {
            let files = crate::tls::ClientTlsFiles::default();
            let tls = crate::tls::ClientTls::load(&files).map_err(|error| ClientError::Tls {
                address: self.address.clone(),
                why: error.to_string(),
            })?;
            self.tls = Some(tls);
        }
        #[cfg(not(feature = "tls"))]
        if self.is_secure {
            let what =
                "psa+tls:// needs TLS, which is not part of this program; enable the feature tls";
            return Err(ClientError::Config { what });
        }
        Ok(())
    }
}

// The token is a secret: it must not reach a log through `{:?}`.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("address", &self.address)
            .field("name", &self.name)
            .field("has_token", &!self.token.is_empty())
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    pub(super) fn new(address: &str) -> Self {
        // Read here: the token in it must not show in `{:?}`.
        let (address, fault) = match address.parse::<ServerAddress>() {
            Ok(address) => (Some(address), None),
            Err(error) => (None, Some(error)),
        };
        let is_secure = address.as_ref().is_some_and(ServerAddress::is_secure);
        let token = address.as_ref().and_then(ServerAddress::token).unwrap_or_default().to_owned();
        let address = address.map(|address| address.place().to_owned()).unwrap_or_default();
        Self {
            config: Config {
                address,
                token,
                #[cfg(feature = "tls")]
                tls: None,
                is_secure,
                fault,
                name: format!("psa {}", env!("CARGO_PKG_VERSION")),
                connect_timeout: Duration::from_secs(5),
                request_timeout: Duration::from_secs(10),
                backoff_min: Duration::from_millis(50),
                backoff_max: Duration::from_secs(5),
                keepalive: Duration::from_secs(15),
                max_frame: 64 << 20,
            },
        }
    }

    /// The token that the server asks for, at most [`MAX_TOKEN`] bytes. None by default.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.config.token = token.into();
        self
    }

    /// Connects with TLS. By default, the connection is not encrypted.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::tls::ClientTls) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// The client's name, for the server's log. The library's name and version by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// How long one attempt to connect may take, from the name lookup to the server's WELCOME. 5 s
    /// by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long to wait for the answer to a request. 10 s by default. This includes a publish to a
    /// topic that blocks at its limit, so allow for the longest wait that you accept. Does not apply
    /// to [`Publisher`](super::Publisher), which has its own timeout.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = timeout;
        self
    }

    /// How long a subscription waits before it reconnects: `min` at first, doubled after each attempt
    /// up to `max`. Each wait is a random time between half and the whole of that. 50 ms and 5 s by
    /// default.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.config.backoff_min = min;
        self.config.backoff_max = max;
        self
    }

    /// A subscription that has received nothing for this long sends a PING to the server, and treats
    /// the connection as lost if nothing arrives within the same time again. 15 s by default.
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.config.keepalive = interval;
        self
    }

    /// The largest frame to accept, in bytes: the buffer of a connection may grow to this size.
    /// 64 MiB by default. Connecting to a server that may send larger frames fails.
    pub fn max_frame(mut self, bytes: u32) -> Self {
        self.config.max_frame = bytes;
        self
    }

    /// Creates the client without connecting: the first request connects.
    ///
    /// # Errors
    ///
    /// [`ClientError::Config`] if a value is invalid.
    pub fn build(self) -> Result<Client, ClientError> {
        let mut config = self.config;
        if let Some(fault) = config.fault.take() {
            return Err(fault);
        }
        config.ask_for_tls()?;
        if config.token.len() > MAX_TOKEN {
            let what = "the token has more than 1024 bytes; give the server's token";
            return Err(ClientError::Config { what });
        }
        let times = [
            config.connect_timeout,
            config.request_timeout,
            config.backoff_min,
            config.backoff_max,
            config.keepalive,
        ];
        if times.iter().any(Duration::is_zero) {
            let what = "a timeout, backoff or keepalive is 0; give a positive time";
            return Err(ClientError::Config { what });
        }
        if config.backoff_min > config.backoff_max {
            let what = "the backoff's minimum is above its maximum; exchange them";
            return Err(ClientError::Config { what });
        }
        if config.max_frame < 8192 {
            let what =
                "max_frame is below 8192 bytes, too small for the server's answers; raise it";
            return Err(ClientError::Config { what });
        }
        Ok(Client::new(Arc::new(config)))
    }

    /// Creates the client and connects once, to find out immediately whether the server is reachable,
    /// speaks this protocol and accepts the token.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and any error while connecting.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let client = self.build()?;
        client.ping().await?;
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_values_are_refused() {
        let builder = || ClientBuilder::new("localhost");
        assert!(builder().build().is_ok());
        assert!(builder().token("x".repeat(1025)).build().is_err());
        assert!(builder().connect_timeout(Duration::ZERO).build().is_err());
        assert!(builder().max_frame(100).build().is_err());
        let second = Duration::from_secs(1);
        assert!(builder().backoff(second * 2, second).build().is_err());
    }

    #[test]
    fn the_token_never_shows_in_debug_output() {
        let in_the_address = ClientBuilder::new("psa://secret@localhost");
        assert_eq!(in_the_address.config.token, "secret");
        let unreadable = ClientBuilder::new("psa://secret@local host");
        let given = ClientBuilder::new("localhost").token("secret");
        for client in [in_the_address, unreadable, given] {
            assert!(!format!("{client:?}").contains("secret"));
            assert!(!format!("{:?}", client.build()).contains("secret"));
        }
    }
}
