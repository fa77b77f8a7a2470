//! A server on a free port, and a client that is a socket and the codec.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use psa::broker::Broker;
use psa::protocol::{
    CloseReason, Code, DecodeLimits, Decoded, GapReason, Hello, LeaseOrigin, OnGap, Publish,
    Records, Reply, Request, Start, Subscribe, TopicName, TopicStats, decode_reply,
};
use psa::server::{Server, ServerConfig, ServerHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// How long anything may take before a test fails: far more than it needs, since the machine may be
/// busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: ServerHandle,
    pub(crate) task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// A server on a free port.
pub(crate) fn serve(change: impl FnOnce(&mut ServerConfig)) -> Running {
    let mut config = ServerConfig::default();
    change(&mut config);
    let broker = Broker::new(config.broker.clone()).unwrap();
    serve_over(broker, |other| *other = config)
}

/// A server on a free port, over a broker that others use, too.
pub(crate) fn serve_over(broker: Broker, change: impl FnOnce(&mut ServerConfig)) -> Running {
    let mut config = ServerConfig::default();
    change(&mut config);
    config.listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind_with(config, broker).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let task = tokio::spawn(server.run(std::future::pending()));
    Running { address, handle, task }
}

/// Records; a failing test shows how many, not what is in them.
#[derive(Clone, PartialEq)]
pub(crate) struct Batch(pub(crate) Vec<Vec<u8>>);

impl std::ops::Deref for Batch {
    type Target = Vec<Vec<u8>>;

    fn deref(&self) -> &Vec<Vec<u8>> {
        &self.0
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: usize = self.0.iter().map(Vec::len).sum();
        write!(f, "({} records of {bytes} bytes)", self.0.len())
    }
}

/// A reply that owns what it says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Got {
    Welcome {
        max_frame: u32,
        max_record: u32,
    },
    Ack {
        request: u32,
        epoch: u64,
        first: u64,
        count: u32,
    },
    Records {
        sub: u32,
        first: u64,
        time: u64,
        records: Batch,
    },
    Subscribed {
        request: u32,
        sub: u32,
        epoch: u64,
        next: u64,
        tail: u64,
        lease: Option<LeaseOrigin>,
    },
    Gap {
        sub: u32,
        reason: GapReason,
        epoch: u64,
        first_missed: u64,
        next: u64,
    },
    CaughtUp {
        sub: u32,
        next: u64,
    },
    Closed {
        sub: u32,
        reason: CloseReason,
        next: u64,
    },
    Error {
        request: u32,
        code: Code,
        epoch: u64,
        asked: u64,
        first: u64,
        next: u64,
        message: String,
    },
    Goodbye {
        code: Code,
        message: String,
    },
    Pong {
        token: u64,
    },
    Done {
        request: u32,
    },
    Topics {
        request: u32,
        more: bool,
        names: Vec<String>,
    },
    Description {
        request: u32,
        stats: Box<TopicStats>,
        leases: Vec<(String, u64, bool)>,
    },
}

impl From<Reply<'_>> for Got {
    fn from(reply: Reply<'_>) -> Self {
        match reply {
            Reply::Welcome(w) => Self::Welcome { max_frame: w.max_frame, max_record: w.max_record },
            Reply::Ack { request, epoch, first, count } => {
                Self::Ack { request, epoch, first, count }
            }
            Reply::Deliver(chunk) => Self::Records {
                sub: chunk.sub,
                first: chunk.first,
                time: chunk.time,
                records: Batch(chunk.records.iter().map(<[u8]>::to_vec).collect()),
            },
            Reply::Subscribed { request, sub, epoch, next, tail, lease } => {
                Self::Subscribed { request, sub, epoch, next, tail, lease }
            }
            Reply::Gap { sub, reason, epoch, first_missed, next } => {
                Self::Gap { sub, reason, epoch, first_missed, next }
            }
            Reply::CaughtUp { sub, next } => Self::CaughtUp { sub, next },
            Reply::Closed { sub, reason, next } => Self::Closed { sub, reason, next },
            Reply::Error(e) => Self::Error {
                request: e.request,
                code: e.code,
                epoch: e.epoch,
                asked: e.asked,
                first: e.first,
                next: e.next,
                message: e.message.into(),
            },
            Reply::Goodbye { code, message } => Self::Goodbye { code, message: message.into() },
            Reply::Pong { token } => Self::Pong { token },
            Reply::Done { request } => Self::Done { request },
            Reply::Topics { request, more, topics } => Self::Topics {
                request,
                more,
                names: topics.iter().map(|topic| topic.name.to_string()).collect(),
            },
            Reply::Description(d) => Self::Description {
                request: d.request,
                stats: Box::new(d.stats),
                leases: d
                    .leases
                    .iter()
                    .map(|lease| (lease.name.to_string(), lease.committed, lease.held))
                    .collect(),
            },
            other => panic!("a reply that these tests do not know: {other:?}"),
        }
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    /// Connects and says nothing.
    pub(crate) async fn raw(server: &Running) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    /// Connects with a receive buffer that is soon full, and shakes hands.
    pub(crate) async fn narrow(server: &Running) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let stream = socket.connect(server.address).await.unwrap();
        let mut client = Self { stream, input: Vec::new() };
        client.shake_hands("").await;
        client
    }

    /// Connects and shakes hands.
    pub(crate) async fn new(server: &Running) -> Self {
        let mut client = Self::raw(server).await;
        client.shake_hands("").await;
        client
    }

    pub(crate) async fn shake_hands(&mut self, token: &str) {
        self.send(&hello(token)).await;
        let got = self.next().await;
        assert!(matches!(got, Got::Welcome { .. }), "{got:?}");
    }

    pub(crate) async fn send(&mut self, request: &Request<'_>) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.send_bytes(&bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.expect("the server reads").expect("the server is there");
    }

    /// The next reply; `None` at the end of the stream.
    pub(crate) async fn try_next(&mut self) -> Option<Got> {
        let limits = DecodeLimits { max_frame: 64 << 20, max_record: 64 << 20 };
        let wait = async {
            loop {
                match decode_reply(&self.input, &limits).expect("replies are well-formed") {
                    Decoded::Frame { value, consumed } => {
                        let got = Got::from(value);
                        self.input.drain(..consumed);
                        return Some(got);
                    }
                    Decoded::NeedMore { at_least } => {
                        self.input.reserve(at_least.max(64 << 10) - self.input.len());
                    }
                }
                // A reset counts as the end.
                if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a reply in time")
    }

    pub(crate) async fn next(&mut self) -> Got {
        self.try_next().await.expect("a reply before the end")
    }

    /// Asserts that the server says this and closes.
    pub(crate) async fn expect_goodbye(&mut self, code: Code) -> String {
        let message = loop {
            match self.next().await {
                Got::Goodbye { code: said, message } => {
                    assert_eq!(said, code, "{message}");
                    break message;
                }
                _ => continue,
            }
        };
        assert_eq!(self.try_next().await, None);
        message
    }

    /// Whether a reply is there within a short time; none should be.
    pub(crate) async fn is_silent(&mut self, time: Duration) -> bool {
        assert!(self.input.is_empty());
        let mut byte = [0];
        tokio::time::timeout(time, self.stream.peek(&mut byte)).await.is_err()
    }

    /// Publishes with an acknowledgement, and returns the first offset.
    pub(crate) async fn publish(&mut self, topic: &str, records: &[&[u8]]) -> u64 {
        self.send_publish(1, topic, records, true).await;
        match self.next().await {
            Got::Ack { request: 1, first, count, .. } => {
                assert_eq!(count as usize, records.len());
                first
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn send_publish(
        &mut self,
        request: u32,
        topic: &str,
        records: &[&[u8]],
        ack: bool,
    ) {
        self.send_bytes(&publish(request, topic, records, ack)).await;
    }

    /// Subscribes and returns epoch, next and tail.
    pub(crate) async fn subscribe(
        &mut self,
        sub: u32,
        topic: &str,
        start: Start,
    ) -> (u64, u64, u64) {
        self.send(&Request::Subscribe(subscribe(sub, topic, start))).await;
        self.subscribed(sub).await
    }

    pub(crate) async fn subscribed(&mut self, expected: u32) -> (u64, u64, u64) {
        match self.next().await {
            Got::Subscribed { sub, epoch, next, tail, .. } if sub == expected => {
                (epoch, next, tail)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Reads records of `sub` until there are `count`, checks that they come without a gap from
    /// `first` on, and returns them.
    pub(crate) async fn records(
        &mut self,
        expected: u32,
        first: u64,
        count: usize,
    ) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.next().await {
                Got::Records { sub, first: at, records, time } if sub == expected => {
                    assert_eq!(at, first + all.len() as u64);
                    assert!(time > 0);
                    all.extend(records.0);
                }
                Got::CaughtUp { .. } => {}
                other => panic!("{other:?} after {} records", all.len()),
            }
        }
        assert_eq!(all.len(), count);
        all
    }

    pub(crate) async fn stats(&mut self, topic: &str) -> TopicStats {
        *self.describe(topic).await.0
    }

    pub(crate) async fn describe(
        &mut self,
        topic: &str,
    ) -> (Box<TopicStats>, Vec<(String, u64, bool)>) {
        let topic = TopicName::new(topic).unwrap();
        self.send(&Request::Describe { request: 77, topic }).await;
        match self.next().await {
            Got::Description { request: 77, stats, leases } => (stats, leases),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for statistics until they are as they should be.
    pub(crate) async fn stats_until(
        &mut self,
        topic: &str,
        what: &str,
        mut good: impl FnMut(&TopicStats) -> bool,
    ) -> TopicStats {
        let began = Instant::now();
        loop {
            let stats = self.stats(topic).await;
            if good(&stats) {
                return stats;
            }
            assert!(began.elapsed() < PATIENCE, "never: {what}; {stats:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn expect_error(&mut self, request: u32) -> Code {
        match self.next().await {
            Got::Error { request: of, code, .. } if of == request => code,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn expect_done(&mut self, request: u32) {
        assert_eq!(self.next().await, Got::Done { request });
    }
}

pub(crate) fn hello(token: &str) -> Request<'_> {
    Request::Hello(Hello { version_min: 1, version_max: 1, token, client: "tests" })
}

pub(crate) fn hello_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    hello("").encode(&mut bytes);
    bytes
}

/// A PUBLISH frame.
pub(crate) fn publish(request: u32, topic: &str, records: &[&[u8]], ack: bool) -> Vec<u8> {
    let mut end = 0;
    let ends: Vec<u8> = records
        .iter()
        .flat_map(|record| {
            end += record.len() as u32;
            end.to_le_bytes()
        })
        .collect();
    let payload = records.concat();
    let records = Records::new(0, &ends, &payload).unwrap();
    let mut bytes = Vec::new();
    let topic = TopicName::new(topic).unwrap();
    Request::Publish(Publish { request, topic, ack, records }).encode(&mut bytes);
    bytes
}

pub(crate) fn subscribe(sub: u32, topic: &str, start: Start) -> Subscribe<'_> {
    Subscribe {
        request: 1000 + sub,
        sub,
        topic: TopicName::new(topic).unwrap(),
        start,
        on_gap: OnGap::Error,
        caught_up: false,
        lease: None,
    }
}

pub(crate) fn name(name: &str) -> TopicName<'_> {
    TopicName::new(name).unwrap()
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
