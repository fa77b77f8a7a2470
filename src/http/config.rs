//! What the HTTP API is set to: plain values with safe defaults.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::origin::{HostName, Origins};
pub use crate::access::Token;
use crate::access::{Access, Gate};

/// The port that the API listens on unless it is told otherwise.
pub const DEFAULT_PORT: u16 = 9854;

/// Everything that the HTTP API can be told.
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
    /// The address to listen on; port 0 takes a free one. Default: 127.0.0.1:9854.
    pub listen: SocketAddr,
    /// What a client must present as `Authorization: Bearer …`. Default: none.
    pub token: Option<Token>,
    /// Tokens that may do some things and not others, beside `token`, which may do everything.
    /// Default: none.
    pub access: Option<Access>,
    /// Whether a token may also stand in the address, as the parameter `access_token`. Addresses are kept
    /// in histories and in the logs of proxies, so this is for those who can send no header: a browser's
    /// `EventSource`. Default: false.
    pub token_in_query: bool,
    /// Whether to listen on an address that other machines can reach although there is neither.
    /// Default: false, such an API is refused.
    pub allow_public_without_token: bool,
    /// TLS, which every client then has to speak. Default: none.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::Tls>,
    /// Origins whose pages may use the API from a browser, such as `https://example.org` (see
    /// [`Origin`](super::Origin)); `*` is every one. Default: none but the API's own.
    pub origins: Vec<String>,
    /// Names, besides `localhost` and plain IP addresses, under which an API without a token may be
    /// addressed (see [`HostName`]). Default: none.
    pub hosts: Vec<String>,
    /// What the API holds its clients to.
    pub limits: HttpLimits,
    /// The kernel's send buffer for each connection in bytes. Default: `None`, the system's.
    pub send_buffer: Option<u32>,
    /// The kernel's receive buffer for each connection in bytes. Default: `None`, the system's.
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

/// What the HTTP API holds its clients to. Each limit says what happens at it; none ever ends more
/// than the connection that met it.
///
/// A timeout of zero is never, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// The most connections. One more gets a 503 and is closed. Default: 10,000.
    pub max_connections: usize,
    /// The most event streams of all connections together, WebSockets among them. One more gets a 503.
    /// Default: 10,000.
    pub max_streams: usize,
    /// The largest record in bytes. A larger one: 413, and nothing of its batch is appended.
    /// Default: 1 MiB.
    pub max_record: usize,
    /// The largest request body in bytes. A larger one: 413. Default: 8 MiB.
    pub max_body: usize,
    /// The most records in one request body. More: 413. Default: 65,536.
    pub max_batch: usize,
    /// Memory for request bodies beyond the first 16 KiB of each, in bytes, all requests together.
    /// When it is used up, requests wait for a few seconds and then get a 503. At least `max_body`.
    /// Default: 32 MiB.
    pub input_bytes: usize,
    /// The most that one answer with records may have, in bytes; a single larger record still makes
    /// one. Default: 256 KiB.
    pub answer_bytes: usize,
    /// Memory for answers that their clients have not taken yet, in bytes, all together. When it is
    /// used up, requests for records get a 503. Default: 64 MiB.
    pub output_bytes: usize,
    /// The most payload in one run of events that streams share, in bytes; a single larger record
    /// still makes one. Default: 64 KiB.
    pub run_bytes: usize,
    /// Encoded events that one topic keeps for its streams to share, in bytes. Default: 1 MiB.
    pub topic_cache_bytes: usize,
    /// Encoded events that all topics keep together, in bytes. Default: 64 MiB.
    pub cache_bytes: usize,
    /// The time that a request's head may take from its first byte on, and a connection's first one from
    /// the connection's beginning on, a TLS handshake likewise. Default: 10 s.
    pub head_timeout: Duration,
    /// How long a connection may idle between two requests. Answers say so in `Keep-Alive`, in whole
    /// seconds. Default: 75 s.
    pub keep_alive: Duration,
    /// The time that a request's body may take. Then 408. Default: 60 s.
    pub body_timeout: Duration,
    /// The time that a peer may take nothing of what is to be sent. Then its connection is cut, and
    /// its place in the log is let go. Default: 60 s.
    pub stall_timeout: Duration,
    /// The time that a drain may take. Then what is still connected is cut off. Default: 10 s.
    pub drain_timeout: Duration,
    /// The longest time that an append waits for room in its topic, where the topic makes publishers
    /// wait. Then 503. Default: 5 s.
    pub append_wait: Duration,
    /// The longest time that a request for records may wait for some; a longer wish is cut to it.
    /// Default: 60 s.
    pub longest_wait: Duration,
    /// How often an event stream says that it lives while there is nothing else to say. Default: 15 s.
    pub heartbeat: Duration,
    /// How long an event stream lives, more or less a tenth; its client connects again and goes on.
    /// So do connections of HTTP/2. Default: 1 h.
    pub lifetime: Duration,
    /// After what time a browser connects again; each stream is told its own time between these.
    /// Default: 1 s to 5 s.
    pub retry: (Duration, Duration),
}

impl Default for HttpLimits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            max_connections: 10_000,
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

/// As good as never, and far from what a clock cannot hold.
pub(super) const NEVER: Duration = Duration::from_secs(365 * 86_400);

impl HttpLimits {
    /// The same, with no time so long that a clock could not count it.
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

/// The most bytes that a pool can count: what fits the semaphore behind it.
const LARGEST_POOL: usize = u32::MAX as usize;

impl HttpConfig {
    /// What is wrong with the values taken together, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        let limits = &self.limits;
        let zero = [
            ("max_connections", limits.max_connections),
            ("max_streams", limits.max_streams),
            ("max_record", limits.max_record),
            ("max_batch", limits.max_batch),
            ("answer_bytes", limits.answer_bytes),
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
        self.gate().fault()
    }

    /// Whether clients speak TLS.
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
        assert!(faulty(|c| c.limits.output_bytes = 1 << 40).contains("output_bytes"));
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
