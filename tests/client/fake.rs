//! A server for the tests: it speaks the codec over a real socket and does what each test says.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use psa::client::{Client, ClientBuilder};
use psa::protocol::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A listener on a free port, and a client for it that tries again fast.
pub(crate) async fn listen() -> (TcpListener, ClientBuilder) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let builder = client_of(listener.local_addr().unwrap());
    (listener, builder)
}

pub(crate) fn client_of(address: SocketAddr) -> ClientBuilder {
    let ms = Duration::from_millis;
    Client::builder(address.to_string()).backoff(ms(1), ms(4))
}

/// Runs the server's side of a test. Its panics are the test's, by way of [`finish`].
pub(crate) fn play(server: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(server)
}

/// Waits for the server's side to end.
pub(crate) async fn finish(server: JoinHandle<()>) {
    let limit = Duration::from_secs(20);
    let ended = tokio::time::timeout(limit, server).await;
    ended.expect("the server's side ends").expect("it does not panic");
}

/// One connection, seen from the server.
pub(crate) struct Peer {
    pub(crate) io: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    /// Accepts a connection without a word.
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (io, _) = listener.accept().await.unwrap();
        io.set_nodelay(true).unwrap();
        Self { io, received: Vec::new() }
    }

    /// Accepts a connection and shakes hands.
    pub(crate) async fn welcome(listener: &TcpListener) -> Self {
        let mut peer = Self::accept(listener).await;
        peer.take(|request| assert!(matches!(request, Request::Hello(_)), "{request:?}")).await;
        peer.send(&welcome()).await;
        peer
    }

    /// Receives a request and looks at it; `None` at the end of the connection.
    pub(crate) async fn try_take<T>(&mut self, look: impl FnOnce(Request<'_>) -> T) -> Option<T> {
        loop {
            match decode_request(&self.received, &DecodeLimits::default()).expect("a good frame") {
                Decoded::Frame { value, consumed } => {
                    let seen = look(value);
                    self.received.drain(..consumed);
                    return Some(seen);
                }
                Decoded::NeedMore { .. } => match self.io.read_buf(&mut self.received).await {
                    Ok(1..) => {}
                    _ => return None,
                },
            }
        }
    }

    /// Receives a request that must come.
    pub(crate) async fn take<T>(&mut self, look: impl FnOnce(Request<'_>) -> T) -> T {
        self.try_take(look).await.expect("another request")
    }

    /// Receives a PUBLISH: its number and its records.
    pub(crate) async fn published(&mut self) -> (u32, Vec<Vec<u8>>) {
        self.take(|request| match request {
            Request::Publish(publish) => {
                let records = publish.records.iter().map(<[u8]>::to_vec).collect();
                (publish.request, records)
            }
            other => panic!("{other:?} instead of a PUBLISH"),
        })
        .await
    }

    /// Receives a SUBSCRIBE: where to start.
    pub(crate) async fn subscribed(&mut self) -> Start {
        self.take(|request| match request {
            Request::Subscribe(subscribe) => {
                assert_eq!((subscribe.request, subscribe.sub), (1, 1));
                subscribe.start
            }
            other => panic!("{other:?} instead of a SUBSCRIBE"),
        })
        .await
    }

    /// Receives a COMMIT: its request's number and the offset.
    pub(crate) async fn committed(&mut self) -> (u32, u64) {
        self.take(|request| match request {
            Request::Commit { request, sub: 1, offset, ack: true } => (request, offset),
            other => panic!("{other:?} instead of a COMMIT"),
        })
        .await
    }

    pub(crate) async fn send(&mut self, reply: &Reply<'_>) {
        self.send_bytes(&bytes(reply)).await;
    }

    /// The client may be gone already: the test sees what matters on its side.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    pub(crate) async fn ack(&mut self, request: u32, first: u64, count: u32) {
        self.send(&Reply::Ack { request, epoch: EPOCH, first, count }).await;
    }

    pub(crate) async fn fail(&mut self, request: u32, code: Code) {
        self.send(&Reply::Error(ErrorReply::new(request, code, ""))).await;
    }

    pub(crate) async fn goodbye(&mut self, code: Code) {
        let message = "because";
        self.send(&Reply::Goodbye { code, message }).await;
    }

    /// Waits until the client has closed the connection.
    pub(crate) async fn wait_for_end(&mut self) {
        while self.try_take(|_| ()).await.is_some() {}
    }
}

/// The epoch that the tests' topics have unless it matters.
pub(crate) const EPOCH: u64 = 0xe0;

pub(crate) fn welcome() -> Reply<'static> {
    Reply::Welcome(Welcome {
        version: VERSION_MAX,
        max_frame: 1 << 20,
        max_record: 1 << 16,
        server: "fake",
    })
}

pub(crate) fn bytes(reply: &Reply<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    reply.encode(&mut out);
    out
}

pub(crate) fn subscribed(epoch: u64, next: u64, tail: u64) -> Reply<'static> {
    Reply::Subscribed { request: 1, sub: 1, epoch, next, tail, lease: None }
}

pub(crate) fn gap(reason: GapReason, epoch: u64, first_missed: u64, next: u64) -> Reply<'static> {
    Reply::Gap { sub: 1, reason, epoch, first_missed, next }
}

/// The record at an offset of an epoch: any other place has another text.
pub(crate) fn record(epoch: u64, offset: u64) -> Vec<u8> {
    // Now and then an empty one.
    match offset % 5 {
        3 => Vec::new(),
        _ => format!("{epoch:x}:{offset}").into_bytes(),
    }
}

/// A DELIVER of the records of `offsets`, with the ends biased as in a segment.
pub(crate) fn deliver(epoch: u64, offsets: std::ops::Range<u64>) -> Vec<u8> {
    deliver_to(1, epoch, offsets)
}

/// As [`deliver`], for any subscription.
pub(crate) fn deliver_to(sub: u32, epoch: u64, offsets: std::ops::Range<u64>) -> Vec<u8> {
    let bias = 1000 + offsets.start as u32;
    let (mut ends, mut payload) = (Vec::new(), Vec::new());
    for offset in offsets.clone() {
        payload.extend(record(epoch, offset));
        ends.extend((bias + payload.len() as u32).to_le_bytes());
    }
    bytes(&Reply::Deliver(Chunk {
        sub,
        first: offsets.start,
        time: 1_000_000_000 * (1 + offsets.start),
        records: Records::new(bias, &ends, &payload).unwrap(),
    }))
}
