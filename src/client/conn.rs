//! One connection, from the name lookup to the WELCOME.

use std::future::poll_fn;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::config::Config;
use super::error::ClientError;
use super::inbox::Inbox;
use super::stream::Stream;
use crate::protocol::{
    DecodeLimits, Decoded, HEADER, Hello, Reply, Request, VERSION_MAX, VERSION_MIN, Welcome,
    decode_reply,
};

/// An open connection after its handshake.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) io: Stream,
    pub(super) inbox: Inbox,
    /// The limits for frames from the server.
    pub(super) limits: DecodeLimits,
    /// The protocol version of this connection.
    pub(super) version: u16,
    /// The largest frame that the server accepts, in bytes.
    pub(super) max_frame: u32,
    /// The largest record that the server accepts, in bytes.
    pub(super) max_record: u32,
}

impl Conn {
    /// Connects and performs the handshake, within the connect timeout.
    pub(super) async fn open(config: &Config) -> Result<Self, ClientError> {
        match timeout(config.connect_timeout, Self::open_patiently(config)).await {
            Ok(opened) => opened,
            Err(_) => Err(ClientError::ConnectTimeout {
                address: config.address.clone(),
                after: config.connect_timeout,
            }),
        }
    }

    async fn open_patiently(config: &Config) -> Result<Self, ClientError> {
        let io = Stream::connect(config).await?;
        let mut conn = Self {
            io,
            inbox: Inbox::default(),
            limits: DecodeLimits { max_frame: config.max_frame, max_record: u32::MAX },
            version: VERSION_MIN,
            max_frame: 0,
            max_record: 0,
        };
        let mut hello = Vec::new();
        Request::Hello(Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            token: &config.token,
            client: &config.name,
        })
        .encode(&mut hello);
        // A server that refuses immediately may close before it has read the HELLO. Its GOODBYE
        // says more than the failed write.
        let sent = match conn.io.write_all(&hello).await {
            Ok(()) => conn.io.flush().await,
            failed => failed,
        };
        let consumed = loop {
            // Owned values, so that the borrow of the buffer ends before it is filled again.
            let found = match conn.decode()? {
                Ok((Reply::Welcome(welcome), consumed)) => {
                    let Welcome { version, .. } = welcome;
                    Ok((version, welcome.max_frame, welcome.max_record, consumed))
                }
                Ok((Reply::Goodbye { code, message }, _)) => {
                    return Err(ClientError::goodbye(code, message));
                }
                Ok(_) => {
                    let what = "its first frame is no WELCOME";
                    return Err(ClientError::Violation { what });
                }
                Err(at_least) => Err(at_least),
            };
            match found {
                Ok((version, max_frame, max_record, consumed)) => {
                    if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
                        let what = "it chose a version that was not offered";
                        return Err(ClientError::Violation { what });
                    }
                    conn.version = version;
                    conn.max_frame = max_frame;
                    conn.max_record = max_record;
                    break consumed;
                }
                Err(at_least) => {
                    if let Err(error) = conn.fill(at_least).await {
                        return Err(sent.err().map_or(error, ClientError::io));
                    }
                }
            }
        };
        if conn.max_frame > config.max_frame {
            return Err(ClientError::MaxFrame { server: conn.max_frame, client: config.max_frame });
        }
        sent.map_err(ClientError::io)?;
        conn.inbox.consume(consumed);
        Ok(conn)
    }

    /// The frame at the front of the received bytes, or how many bytes it needs.
    pub(super) fn decode(&self) -> Result<Result<(Reply<'_>, usize), usize>, ClientError> {
        Ok(match decode_reply(self.inbox.received(), &self.limits)? {
            Decoded::Frame { value, consumed } => Ok((value, consumed)),
            Decoded::NeedMore { at_least } => Err(at_least.max(HEADER)),
        })
    }

    /// Reads from the socket once. Cancel safe.
    pub(super) async fn fill(&mut self, at_least: usize) -> Result<(), ClientError> {
        let Self { io, inbox, .. } = self;
        match poll_fn(|cx| inbox.poll_fill(cx, io, at_least)).await {
            Ok(0) => Err(ClientError::cut()),
            Ok(_) => Ok(()),
            Err(error) => Err(ClientError::io(error)),
        }
    }
}
