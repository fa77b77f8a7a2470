//! What bad clients do to the HTTP API. What they are answered is looked at by tests; here they only
//! have to be a burden.

use std::fmt::Write as _;
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What the measured server's clients have to present.
pub(super) const TOKEN: &str = "hostile-bench-token";
/// A topic with more in it than a connection takes.
pub(super) const LARGE: &str = "hostile-large";
/// Where nothing may ever arrive.
pub(super) const PROTECTED: &str = "hostile-protected";

/// A body that is larger than what the server takes.
const OVERSIZED: usize = 16 << 20;

/// One bad client's deed, from its connection on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Connects, and says nothing.
    Silent,
    /// Says half a request's head.
    HalfHead,
    /// Says a head byte by byte, ten a second.
    Trickle,
    /// Announces a body and sends half of it.
    HalfBody,
    /// Sends a body that is larger than may be.
    Oversized,
    /// Sends what is no HTTP.
    Malformed,
    /// Asks for everything with the wrong token.
    Unauthorised,
    /// Follows a topic as events, and never reads.
    UnreadEvents,
    /// Follows it in the Durable Streams protocol, and never reads.
    UnreadDurable,
    /// Follows it over a WebSocket, and never reads.
    UnreadSocket,
    /// Asks for records, and never reads.
    UnreadRecords,
    /// Begins a WebSocket and sends what is no frame.
    BrokenSocket,
    /// Follows a topic and goes away at once.
    Leaver,
}

impl Deed {
    pub(super) const ALL: [Deed; 13] = [
        Deed::Silent,
        Deed::HalfHead,
        Deed::Trickle,
        Deed::HalfBody,
        Deed::Oversized,
        Deed::Malformed,
        Deed::Unauthorised,
        Deed::UnreadEvents,
        Deed::UnreadDurable,
        Deed::UnreadSocket,
        Deed::UnreadRecords,
        Deed::BrokenSocket,
        Deed::Leaver,
    ];

    /// As in the figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Deed::Silent => "silent",
            Deed::HalfHead => "half-head",
            Deed::Trickle => "trickle",
            Deed::HalfBody => "half-body",
            Deed::Oversized => "oversized",
            Deed::Malformed => "malformed",
            Deed::Unauthorised => "unauthorised",
            Deed::UnreadEvents => "unread-events",
            Deed::UnreadDurable => "unread-durable",
            Deed::UnreadSocket => "unread-socket",
            Deed::UnreadRecords => "unread-records",
            Deed::BrokenSocket => "broken-socket",
            Deed::Leaver => "leaver",
        }
    }

    /// Whether it stays until it is sent away.
    pub(super) fn stays(self) -> bool {
        !matches!(self, Deed::Malformed | Deed::Unauthorised | Deed::BrokenSocket | Deed::Leaver)
    }

    /// Does it.
    pub(super) async fn act(self, stream: &mut TcpStream) -> io::Result<()> {
        let post = format!("POST /topics/{PROTECTED}");
        let events = format!("GET /topics/{LARGE}/events");
        match self {
            Deed::Silent => Ok(()),
            Deed::HalfHead => {
                let head = head(&post, TOKEN, &[("Content-Length", "5")]);
                stream.write_all(&head[..head.len() / 2]).await
            }
            Deed::Trickle => {
                for byte in head(&post, TOKEN, &[("Content-Length", "5")]).chunks(1) {
                    stream.write_all(byte).await?;
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                Ok(())
            }
            Deed::HalfBody => {
                let head = head(&post, TOKEN, &[("Content-Length", "1000")]);
                stream.write_all(&[&head[..], &[b'x'; 500]].concat()).await
            }
            Deed::Oversized => {
                let head = head(&post, TOKEN, &[("Transfer-Encoding", "chunked")]);
                stream.write_all(&head).await?;
                let piece = [b"10000\r\n", &[b'x'; 1 << 16][..], b"\r\n"].concat();
                for _ in 0..OVERSIZED >> 16 {
                    stream.write_all(&piece).await?;
                }
                Ok(())
            }
            Deed::Malformed => {
                stream.write_all(b"\x16\x03\x01\0\xff\xfe\r\nPOST / HTTP/9.9\r\n\r\n").await
            }
            Deed::Unauthorised => {
                for line in [&*post, &format!("DELETE /topics/{LARGE}"), "GET /metrics", &events] {
                    let length = [("Content-Length", "1")];
                    let asked =
                        head(line, "wrong", if line.starts_with("GET") { &[] } else { &length });
                    stream.write_all(&[&asked[..], b"x"].concat()).await?;
                }
                Ok(())
            }
            Deed::UnreadEvents | Deed::Leaver => stream.write_all(&head(&events, TOKEN, &[])).await,
            Deed::UnreadDurable => {
                let line = format!("GET /v1/stream/{LARGE}?offset=-1&live=sse");
                stream.write_all(&head(&line, TOKEN, &[])).await
            }
            Deed::UnreadRecords => {
                let line = format!("GET /topics/{LARGE}/records?limit=100000");
                // Many answers, one after the other.
                stream.write_all(&head(&line, TOKEN, &[]).repeat(20)).await
            }
            Deed::UnreadSocket => stream.write_all(&handshake(&events)).await,
            Deed::BrokenSocket => {
                stream.write_all(&handshake(&events)).await?;
                // A frame without a mask, of a kind that is none, with more than there can be.
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
