//! The attacks of bad clients on the HTTP API. Tests elsewhere check how the server answers them; here they only
//! serve as load.

use std::fmt::Write as _;
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The token of the measured server.
pub(super) const TOKEN: &str = "hostile-bench-token";
/// A topic with more records than a connection buffers.
pub(super) const LARGE: &str = "hostile-large";
/// A topic that must stay empty.
pub(super) const PROTECTED: &str = "hostile-protected";

/// The size of a body that is larger than the server accepts.
const OVERSIZED: usize = 16 << 20;

/// What one bad client does after it has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attack {
    /// Sends nothing.
    Silent,
    /// Sends half of a request's head.
    HalfHead,
    /// Sends a head byte by byte, ten per second.
    Trickle,
    /// Announces a body and sends half of it.
    HalfBody,
    /// Sends a body that is larger than allowed.
    Oversized,
    /// Sends bytes that are not HTTP.
    Malformed,
    /// Sends several requests with a wrong token.
    Unauthorised,
    /// Follows a topic as an event stream, and never reads.
    UnreadEvents,
    /// Follows a topic in the Durable Streams protocol, and never reads.
    UnreadDurable,
    /// Follows a topic over a WebSocket, and never reads.
    UnreadSocket,
    /// Requests records, and never reads.
    UnreadRecords,
    /// Opens a WebSocket and sends bytes that are not a frame.
    BrokenSocket,
    /// Follows a topic and disconnects shortly afterwards.
    Leaver,
}

impl Attack {
    pub(super) const ALL: [Attack; 13] = [
        Attack::Silent,
        Attack::HalfHead,
        Attack::Trickle,
        Attack::HalfBody,
        Attack::Oversized,
        Attack::Malformed,
        Attack::Unauthorised,
        Attack::UnreadEvents,
        Attack::UnreadDurable,
        Attack::UnreadSocket,
        Attack::UnreadRecords,
        Attack::BrokenSocket,
        Attack::Leaver,
    ];

    /// The name in the figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Attack::Silent => "silent",
            Attack::HalfHead => "half-head",
            Attack::Trickle => "trickle",
            Attack::HalfBody => "half-body",
            Attack::Oversized => "oversized",
            Attack::Malformed => "malformed",
            Attack::Unauthorised => "unauthorised",
            Attack::UnreadEvents => "unread-events",
            Attack::UnreadDurable => "unread-durable",
            Attack::UnreadSocket => "unread-socket",
            Attack::UnreadRecords => "unread-records",
            Attack::BrokenSocket => "broken-socket",
            Attack::Leaver => "leaver",
        }
    }

    /// Whether the client stays connected until the server disconnects it.
    pub(super) fn stays(self) -> bool {
        !matches!(
            self,
            Attack::Malformed | Attack::Unauthorised | Attack::BrokenSocket | Attack::Leaver
        )
    }

    /// Runs the attack on a connection.
    pub(super) async fn run(self, stream: &mut TcpStream) -> io::Result<()> {
        let post = format!("POST /topics/{PROTECTED}");
        let events = format!("GET /topics/{LARGE}/events");
        match self {
            Attack::Silent => Ok(()),
            Attack::HalfHead => {
                let head = head(&post, TOKEN, &[("Content-Length", "5")]);
                stream.write_all(&head[..head.len() / 2]).await
            }
            Attack::Trickle => {
                for byte in head(&post, TOKEN, &[("Content-Length", "5")]).chunks(1) {
                    stream.write_all(byte).await?;
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                Ok(())
            }
            Attack::HalfBody => {
                let head = head(&post, TOKEN, &[("Content-Length", "1000")]);
                stream.write_all(&[&head[..], &[b'x'; 500]].concat()).await
            }
            Attack::Oversized => {
                let head = head(&post, TOKEN, &[("Transfer-Encoding", "chunked")]);
                stream.write_all(&head).await?;
                let piece = [b"10000\r\n", &[b'x'; 1 << 16][..], b"\r\n"].concat();
                for _ in 0..OVERSIZED >> 16 {
                    stream.write_all(&piece).await?;
                }
                Ok(())
            }
            Attack::Malformed => {
                stream.write_all(b"\x16\x03\x01\0\xff\xfe\r\nPOST / HTTP/9.9\r\n\r\n").await
            }
            Attack::Unauthorised => {
                for line in [&*post, &format!("DELETE /topics/{LARGE}"), "GET /metrics", &events] {
                    let length = [("Content-Length", "1")];
                    let asked =
                        head(line, "wrong", if line.starts_with("GET") { &[] } else { &length });
                    stream.write_all(&[&asked[..], b"x"].concat()).await?;
                }
                Ok(())
            }
            Attack::UnreadEvents | Attack::Leaver => {
                stream.write_all(&head(&events, TOKEN, &[])).await
            }
            Attack::UnreadDurable => {
                let line = format!("GET /v1/stream/{LARGE}?offset=-1&live=sse");
                stream.write_all(&head(&line, TOKEN, &[])).await
            }
            Attack::UnreadRecords => {
                let line = format!("GET /topics/{LARGE}/records?limit=100000");
                // Many requests at a time, for many responses.
                stream.write_all(&head(&line, TOKEN, &[]).repeat(20)).await
            }
            Attack::UnreadSocket => stream.write_all(&handshake(&events)).await,
            Attack::BrokenSocket => {
                stream.write_all(&handshake(&events)).await?;
                // A frame without a mask, of an invalid kind, and longer than allowed.
                stream.write_all(&[&[0xff, 0x7f][..], &[0xff; 64]].concat()).await
            }
        }
    }
}

/// The head of a request. `line` is its method and path.
fn head(line: &str, token: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut head =
        format!("{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
    for (name, value) in more {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn handshake(line: &str) -> Vec<u8> {
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    head(line, TOKEN, &upgrade)
}
