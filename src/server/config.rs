//! A server's settings: plain values with safe defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::broker::BrokerConfig;
use crate::protocol;

pub use crate::access::Token;
use crate::access::{Access, Gate};

/// All settings of a server.
///
/// ```
/// use psa::server::{ServerConfig, Token};
///
/// let config = ServerConfig {
///     listen: "127.0.0.1:0".parse()?,
///     token: Some(Token::new("s3cret")),
///     ..ServerConfig::default()
/// };
/// assert!(!format!("{config:?}").contains("s3cret"));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address to listen on; port 0 chooses a free port. Default: 127.0.0.1:9853.
    pub listen: SocketAddr,
    /// The token that a client must present in its HELLO. Default: none; then every client that can connect
    /// may use the server.
    pub token: Option<Token>,
    /// Tokens with limited rights, in addition to `token`, which has every right. Default: none.
    pub access: Option<Access>,
    /// Whether the server may listen on an address that other machines can reach although neither `token` nor
    /// `access` is set. Default: false; such a server is refused.
    pub allow_public_without_token: bool,
    /// TLS; if set, every client must speak it. Default: none.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::Tls>,
    /// The server's name in its WELCOME, for people to read. Default: `psa/` and the version.
    pub name: String,
    /// The limits that clients are held to.
    pub limits: Limits,
    /// Topics, leases and their memory.
    pub broker: BrokerConfig,
    /// The kernel's send buffer for each connection, in bytes. Default: `None`, the system's choice, which
    /// grows with the connection's speed. With a small buffer, a slow reader is noticed early.
    pub send_buffer: Option<u32>,
    /// The kernel's receive buffer for each connection, in bytes. Default: `None`, the system's choice.
    pub receive_buffer: Option<u32>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, protocol::DEFAULT_PORT)),
            token: None,
            access: None,
            allow_public_without_token: false,
            #[cfg(feature = "tls")]
            tls: None,
            name: concat!("psa/", env!("CARGO_PKG_VERSION")).into(),
            limits: Limits::default(),
            broker: BrokerConfig::default(),
            send_buffer: None,
            receive_buffer: None,
        }
    }
}

impl ServerConfig {
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

/// The limits that a server holds its clients to. Each field says what happens when its limit is reached; no
/// limit ever ends more than the connection that reached it.
///
/// A timeout of zero never expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most connections. A further one gets GOODBYE `too-many-connections`. Default: 20,000.
    pub max_connections: usize,
    /// The most connections from one address, or from one /64 network of IPv6; 0 is no limit. A further one gets
    /// GOODBYE `too-many-connections`. Default: 0, since a proxy, or all clients behind one router, have a single
    /// address.
    pub max_connections_per_address: usize,
    /// The largest frame in bytes, header included. A larger one gets GOODBYE `frame-too-large` as soon as its
    /// header has arrived. Default: 8 MiB.
    pub max_frame: u32,
    /// The largest record in bytes. A larger one gets ERROR `record-too-large`, and nothing of its batch is
    /// appended. Default: 1 MiB.
    pub max_record: u32,
    /// The most topics that one connection may create. A further one gets ERROR `too-many-topics`.
    /// Default: 1,024.
    pub max_topics_per_connection: u32,
    /// The most subscriptions of one connection. A further one gets ERROR `too-many-subscriptions`.
    /// Default: 1,024.
    pub max_subscriptions_per_connection: usize,
    /// The most subscriptions of all connections together. A further one gets ERROR
    /// `too-many-subscriptions`. Default: 100,000.
    pub max_subscriptions: usize,
    /// The most leases that one connection may hold. A further one gets ERROR `too-many-leases`.
    /// Default: 256.
    pub max_leases_per_connection: usize,
    /// Memory for frames that have arrived in part or wait for room in their topic, in bytes, for all
    /// connections together. When it is used up, connections with large frames wait for their turn: the server
    /// does not read from them. Input that was read before that was known comes on top, up to the same amount
    /// again. At least `max_frame`. Default: 32 MiB.
    pub input_bytes: usize,
    /// Replies that wait for one client to read them, in bytes. (Deliveries do not count: they are never
    /// queued.) When there are more, the server does not read from the connection until the client reads.
    /// Default: 64 KiB.
    pub reply_bytes: usize,
    /// The most payload in one delivery chunk, in bytes; a single larger record still makes a chunk.
    /// Default: 256 KiB.
    pub chunk_bytes: usize,
    /// The most records in one delivery chunk. Default: 65,536.
    pub chunk_records: usize,
    /// The time from connecting to a complete HELLO. After it: GOODBYE `handshake-timeout`.
    /// Default: 10 s.
    pub handshake_timeout: Duration,
    /// The time that a frame may take from its first byte to its last. After it: GOODBYE `idle-timeout`. Time in
    /// which the server itself does not read does not count. Default: 60 s.
    pub frame_timeout: Duration,
    /// The time that a connection without a subscription may go without sending a frame. After it: GOODBYE
    /// `idle-timeout`. Subscribers may stay silent forever: TCP keep-alive finds the dead ones.
    /// Default: 10 min.
    pub idle_timeout: Duration,
    /// The time that a peer may go without taking any of the bytes to be sent. After it, the connection is reset
    /// (`write-stalled` in the log; the peer would not read a GOODBYE). Default: 60 s.
    pub stall_timeout: Duration,
    /// The time that a drain may take. After it, the connections that are left are cut off. Default: 10 s.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_connections_per_address: 0,
            max_frame: protocol::DEFAULT_MAX_FRAME,
            max_record: protocol::DEFAULT_MAX_RECORD,
            max_topics_per_connection: 1_024,
            max_subscriptions_per_connection: 1_024,
            max_subscriptions: 100_000,
            max_leases_per_connection: 256,
            input_bytes: 32 << 20,
            reply_bytes: 64 << 10,
            chunk_bytes: 256 << 10,
            chunk_records: 65_536,
            handshake_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(600),
            stall_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

// A token that is accepted here fits in a HELLO.
const _: () = assert!(crate::access::MAX_TOKEN == protocol::MAX_TOKEN);

/// Bytes of a frame with one record that are reserved for everything but the payload. The protocol promises
/// them.
const FRAME_OVERHEAD: u32 = 4 << 10;

impl Limits {
    /// What is wrong with the values taken together, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        let zero = [
            ("max_connections", self.max_connections),
            ("max_record", self.max_record as usize),
            ("reply_bytes", self.reply_bytes),
            ("chunk_bytes", self.chunk_bytes),
            ("chunk_records", self.chunk_records),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, value)| *value == 0) {
            return Some(format!("{name} is 0; give at least 1"));
        }
        // A chunk carries at least one record, so a frame must have room for a record and what surrounds it.
        if self.max_frame < self.max_record.saturating_add(FRAME_OVERHEAD) {
            return Some(format!(
                "max_frame is {}, too small for a record of max_record, {}; raise it to {}",
                self.max_frame,
                self.max_record,
                self.max_record.saturating_add(FRAME_OVERHEAD)
            ));
        }
        let largest_chunk = self.chunk_bytes as u64 + 4 * self.chunk_records as u64 + 64;
        if largest_chunk > u64::from(self.max_frame) {
            return Some(format!(
                "a chunk of chunk_bytes and chunk_records may have {largest_chunk} bytes, more than max_frame, {}; lower them or raise it",
                self.max_frame
            ));
        }
        if self.input_bytes < self.max_frame as usize {
            return Some(format!(
                "input_bytes is {}, less than one frame of max_frame, {}; raise it",
                self.input_bytes, self.max_frame
            ));
        }
        None
    }

    /// The shortest timeout that is set, which decides the resolution of the server's clock.
    pub(super) fn shortest_timeout(&self) -> Duration {
        [self.handshake_timeout, self.frame_timeout, self.idle_timeout, self.stall_timeout]
            .into_iter()
            .filter(|timeout| !timeout.is_zero())
            .min()
            .unwrap_or(Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_one_another() {
        assert_eq!(Limits::default().fault(), None);
    }

    #[test]
    fn contradictions_are_named() {
        let faulty = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits.fault().expect("a fault")
        };
        assert!(faulty(|l| l.max_record = 8 << 20).contains("max_record"));
        assert!(faulty(|l| l.chunk_bytes = 8 << 20).contains("chunk_bytes"));
        assert!(faulty(|l| l.input_bytes = 1).contains("input_bytes"));
        assert!(faulty(|l| l.max_connections = 0).contains("max_connections"));
    }
}
