//! The settings of the HTTP API: plain values with safe defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::origins::Origins;
pub use crate::access::Token;
use crate::access::{Access, Gate};
use crate::words::HostName;

/// The port that the API listens on by default.
pub const DEFAULT_PORT: u16 = 9854;

/// The configuration of the HTTP API.
///
/// ```
/// use psa::http::{HttpConfig, Token};
///
/// let config = HttpConfig {
///     listen: "127.0.0.1:0".parse()?,
///     token: Some(Token::new("s3cret")),
///     ..HttpConfig::default()
/// };
/// assert!(!format!("{config:?}").contains("s3cret"));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The address to listen on; port 0 takes a free port. Default: 127.0.0.1:9854.
    pub listen: SocketAddr,
    /// The token that a client must present as `Authorization: Bearer …`. Default: none.
    pub token: Option<Token>,
    /// Tokens with limited rights, in addition to `token`, which may do everything. Default: none.
    pub access: Option<Access>,
    /// Whether a token may also be passed in the address, as the parameter `access_token`. Addresses end up in
    /// browser histories and in the logs of proxies, so this is for clients that cannot send a header: a browser's
    /// `EventSource`. Default: false.
    pub token_in_query: bool,
    /// Whether to listen on an address that other machines can reach although neither `token` nor `access` is set.
    /// Default: false, which refuses such a configuration.
    pub allow_public_without_token: bool,
    /// TLS. If it is set, every client must use it. Default: none.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::Tls>,
    /// Origins whose pages may use the API from a browser, such as `https://example.org` (see
    /// [`Origin`](crate::words::Origin)); `*` means every origin. Default: only the API's own.
    pub origins: Vec<String>,
    /// Names, besides `localhost` and plain IP addresses, under which clients may address an API without a token
    /// (see [`HostName`]). Default: none.
    pub hosts: Vec<String>,
    /// The limits that the API enforces on its clients.
    pub limits: HttpLimits,
    /// The size of the kernel's send buffer for each connection, in bytes. Default: `None`, the system's default.
    pub send_buffer: Option<u32>,
    /// The size of the kernel's receive buffer for each connection, in bytes. Default: `None`, the system's default.
    pub receive_buffer: Option<u32>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            token: None,
            access: None,
            token_in_query: false,
            allow_public_without_token: false,
            #[cfg(feature = "tls")]
            tls: None,
            origins: Vec::new(),
            hosts: Vec::new(),
            limits: HttpLimits::default(),
            send_buffer: None,
            receive_buffer: None,
        }
    }
}

/// The limits that the HTTP API enforces on its clients. Each one says what happens when it is reached; none ever
/// ends more than the connection that reached it.
///
/// A timeout of zero means no timeout, unless its description says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// The maximum number of connections. One more gets a 503 and is closed. Default: 10,000.
    pub max_connections: usize,
    /// The maximum number of connections of one address, or of one /64 network of IPv6. One more gets a 503 and is
    /// closed. 0: no limit, since behind a proxy all clients have one address. Default: 0.
    pub max_connections_per_address: usize,
    /// The maximum number of event streams over all connections, WebSockets included. One more gets a 503.
    /// Default: 10,000.
    pub max_streams: usize,
    /// The largest record, in bytes. A larger one gets a 413, and nothing of its batch is appended. Default: 1 MiB.
    pub max_record: usize,
    /// The largest request body, in bytes. A larger one gets a 413. Default: 8 MiB.
    pub max_body: usize,
    /// The maximum number of records in one request body. A body with more gets a 413. Default: 65,536.
    pub max_batch: usize,
    /// Memory for request bodies beyond the first 16 KiB of each, in bytes, for all requests together. When it is
    /// used up, requests wait for a few seconds and then get a 503. At least `max_body`. Default: 32 MiB.
    pub input_bytes: usize,
    /// The maximum size of one response with records, in bytes; a single larger record is still returned.
    /// Default: 256 KiB.
    pub answer_bytes: usize,
    /// Memory for responses that their clients have not taken yet, in bytes, for all of them together. When it is
    /// used up, requests for records get a 503. Default: 64 MiB.
    pub output_bytes: usize,
    /// The maximum payload of one run of events that streams share, in bytes; a single larger record still makes a
    /// run. Default: 64 KiB.
    pub run_bytes: usize,
    /// Memory for the encoded events that one topic keeps for its streams to share, in bytes. Default: 1 MiB.
    pub topic_cache_bytes: usize,
    /// Memory for the encoded events that all topics together keep, in bytes. Default: 64 MiB.
    pub cache_bytes: usize,
    /// How long the head of a request may take, from its first byte; the first head of a connection, from the start
    /// of the connection. A TLS handshake has the same limit. Then the connection is closed. Default: 10 s.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests. Responses announce this in `Keep-Alive`, in whole
    /// seconds. Default: 75 s.
    pub keep_alive: Duration,
    /// How long the body of a request may take. Then the request gets a 408. Default: 60 s.
    pub body_timeout: Duration,
    /// How long a peer may take nothing of what is to be sent to it. Then its connection is cut, and its position in
    /// the log is released. Default: 60 s.
    pub stall_timeout: Duration,
    /// How long a drain may take. Then the connections that are left are cut off. Zero cuts them off immediately.
    /// Default: 10 s.
    pub drain_timeout: Duration,
    /// How long an append waits for room in its topic, if the topic makes publishers wait. Then it gets a 503. With
    /// zero, it does not wait. Default: 5 s.
    pub append_wait: Duration,
    /// The longest time that a request for records may wait for some; longer requests are capped to it. With zero,
    /// none waits. Default: 60 s.
    pub longest_wait: Duration,
    /// How often an event stream sends a sign of life while there is nothing else to send; at least 1 ms.
    /// Default: 15 s.
    pub heartbeat: Duration,
    /// How long an event stream lives, give or take a tenth; its client reconnects and continues. A connection
    /// accepts no further request after this time. Default: 1 h.
    pub lifetime: Duration,
    /// How long a browser waits before it reconnects; each stream is given its own time between these two.
    /// Default: 1 s to 5 s.
    pub retry: (Duration, Duration),
}

impl Default for HttpLimits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            max_connections: 10_000,
            max_connections_per_address: 0,
            max_streams: 10_000,
            max_record: 1 << 20,
            max_body: 8 << 20,
            max_batch: 65_536,
            input_bytes: 32 << 20,
            answer_bytes: 256 << 10,
            output_bytes: 64 << 20,
            run_bytes: 64 << 10,
            topic_cache_bytes: 1 << 20,
            cache_bytes: 64 << 20,
            head_timeout: seconds(10),
            keep_alive: seconds(75),
            body_timeout: seconds(60),
            stall_timeout: seconds(60),
            drain_timeout: seconds(10),
            append_wait: seconds(5),
            longest_wait: seconds(60),
            heartbeat: seconds(15),
            lifetime: seconds(3600),
            retry: (seconds(1), seconds(5)),
        }
    }
}

/// As good as never, and far below what would overflow a clock.
pub(super) const NEVER: Duration = Duration::from_secs(365 * 86_400);

impl HttpLimits {
    /// The same limits, with no time so long that it could overflow a clock.
    pub(super) fn countable(mut self) -> Self {
        for time in [
            &mut self.head_timeout,
            &mut self.keep_alive,
            &mut self.body_timeout,
            &mut self.stall_timeout,
            &mut self.drain_timeout,
            &mut self.append_wait,
            &mut self.longest_wait,
            &mut self.heartbeat,
            &mut self.lifetime,
        ] {
            *time = NEVER.min(*time);
        }
        self
    }
}

/// The largest size of a pool, in bytes: what the semaphore behind it can count.
const LARGEST_POOL: usize = {
    let (counted, most) = (u32::MAX as usize, tokio::sync::Semaphore::MAX_PERMITS);
    if counted < most { counted } else { most }
};

impl HttpConfig {
    /// What is wrong with the configuration as a whole, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        let limits = &self.limits;
        let zero = [
            ("max_connections", limits.max_connections),
            ("max_streams", limits.max_streams),
            ("max_record", limits.max_record),
            ("max_batch", limits.max_batch),
            ("answer_bytes", limits.answer_bytes),
            // Without any, every answer would take nothing of it, and nothing would bound them.
            ("output_bytes", limits.output_bytes),
            ("run_bytes", limits.run_bytes),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, value)| *value == 0) {
            return Some(format!("{name} is 0; give at least 1"));
        }
        if limits.max_body < limits.max_record {
            return Some(format!(
                "max_body is {}, too small for a record of max_record, {}; raise it",
                limits.max_body, limits.max_record
            ));
        }
        if limits.input_bytes < limits.max_body {
            return Some(format!(
                "input_bytes is {}, less than one body of max_body, {}; raise it",
                limits.input_bytes, limits.max_body
            ));
        }
        for (name, bytes) in
            [("input_bytes", limits.input_bytes), ("output_bytes", limits.output_bytes)]
        {
            if bytes > LARGEST_POOL {
                return Some(format!("{name} is {bytes}; give at most {LARGEST_POOL}"));
            }
        }
        if let Err(bad) = Origins::read(&self.origins) {
            return Some(format!("origins: {bad}"));
        }
        if let Some(bad) = self.hosts.iter().find_map(|host| host.parse::<HostName>().err()) {
            return Some(format!("hosts: {bad}"));
        }
        self.gate().validation_error()
    }

    /// Whether clients must use TLS.
    pub(super) fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    pub(super) fn gate(&self) -> Gate {
        Gate::new(self.token.clone(), self.access.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_one_another() {
        assert_eq!(HttpConfig::default().fault(), None);
    }

    #[test]
    fn contradictions_are_named() {
        let faulty = |change: fn(&mut HttpConfig)| {
            let mut config = HttpConfig::default();
            change(&mut config);
            config.fault().expect("a fault")
        };
        assert!(faulty(|c| c.limits.max_record = 9 << 20).contains("max_record"));
        assert!(faulty(|c| c.limits.input_bytes = 1).contains("input_bytes"));
        assert!(faulty(|c| c.limits.output_bytes = usize::MAX).contains("output_bytes"));
        assert!(faulty(|c| c.limits.output_bytes = 0).contains("output_bytes"));
        assert!(faulty(|c| c.limits.max_streams = 0).contains("max_streams"));
        assert!(faulty(|c| c.token = Some(Token::new(""))).contains("token"));
        for bad in ["example.org", "https://", "https://a/"] {
            let config = HttpConfig { origins: vec![bad.into()], ..HttpConfig::default() };
            assert!(config.fault().is_some(), "{bad}");
        }
        let origins = vec!["*".into(), "http://localhost:3000".into()];
        assert_eq!(HttpConfig { origins, ..HttpConfig::default() }.fault(), None);
    }
}
