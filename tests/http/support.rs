//! An API on a free port, and a client that writes requests and reads answers byte by byte.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use psa::broker::{Broker, BrokerConfig};
use psa::http::{HttpConfig, HttpHandle, HttpServer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long anything may take before a test fails: far more than it needs, since the machine may be
/// busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    pub(crate) handle: HttpHandle,
    pub(crate) task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// An API on a free port, with topics of its own.
pub(crate) fn serve(change: impl FnOnce(&mut HttpConfig, &mut BrokerConfig)) -> Running {
    let (mut config, mut topics) = (HttpConfig::default(), BrokerConfig::default());
    change(&mut config, &mut topics);
    serve_over(Broker::new(topics).unwrap(), |other| *other = config)
}

/// An API on a free port, over a broker that there is.
pub(crate) fn serve_over(broker: Broker, change: impl FnOnce(&mut HttpConfig)) -> Running {
    let mut config = HttpConfig::default();
    change(&mut config);
    config.listen = "127.0.0.1:0".parse().unwrap();
    let server = HttpServer::bind_with(config, broker.clone()).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let task = tokio::spawn(server.run(std::future::pending()));
    Running { address, broker, handle, task }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that it went well, and reads what it says.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// Checks the form of a problem and its code, and gives its facts.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let said = self.json();
        assert_eq!(said["code"], code, "{said}");
        assert_eq!(said["status"], status);
        for member in ["title", "detail"] {
            assert!(said[member].as_str().is_some_and(|text| !text.is_empty()), "{said}");
        }
        let place = said["type"].as_str().expect("a type");
        assert!(place.ends_with(&format!("docs/http.md#{code}")), "{place}");
        // What the address points to is there.
        let document = include_str!("../../docs/http.md");
        assert!(document.contains(&format!("<a id=\"{code}\"></a>")), "docs/http.md lacks {code}");
        said
    }
}

/// A connection that can be read from in pieces.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    pub(crate) async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the API is there");
        Self::of(stream)
    }

    /// On a connection that was made with settings of its own.
    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.expect("the API reads").expect("the API is there");
    }

    /// Reads some more; false at the end, and a reset is one.
    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
        read.expect("something in time").unwrap_or(0) > 0
    }

    /// Takes what is there up to and with `end`; `None` if the connection ends before.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.input.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return Some(self.input.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.take(count).await;
        bytes.unwrap_or_else(|| panic!("{} of {count} bytes, then the end", self.input.len()))
    }

    /// The next bytes, so many; `None` if the connection ends before.
    pub(crate) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.input.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.input.drain(..count).collect())
    }

    /// The head of the next answer; `None` if the connection ends before.
    pub(crate) async fn head(&mut self) -> Option<Answer> {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await?).expect("text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Answer { status: status.expect("a status"), headers, body: Vec::new() })
    }

    /// The next piece of a body in pieces; empty at its end, `None` if it is cut short.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = String::from_utf8(self.until(b"\r\n").await?).expect("text");
        let length = usize::from_str_radix(length.trim(), 16).expect("a length");
        let mut piece = self.exactly(length + 2).await;
        piece.truncate(length);
        Some(piece)
    }

    /// The next answer with its body; `None` if the connection ends before.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head().await?;
        if answer.status == 204 || answer.status == 304 {
            return Some(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a length");
            answer.body = self.exactly(length).await;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            while let piece = self.chunk().await.expect("a whole body")
                && !piece.is_empty()
            {
                answer.body.extend(piece);
            }
        }
        Some(answer)
    }

    /// A request and its answer.
    pub(crate) async fn ask(
        &mut self,
        line: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(&request(line, headers, body)).await;
        self.answer().await.expect("an answer before the end")
    }

    /// Whether the API closes the connection without another word.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.input.is_empty() && !self.more().await
    }
}

/// A request of HTTP/1.1. `line` is its method and path.
pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text += "Host: localhost\r\n";
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !line.starts_with("GET ") {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    [text.as_bytes(), body].concat()
}

impl Running {
    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Client::new(self.address).await.ask(line, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], b"").await
    }

    /// Publishes one record, and gives what the API says.
    pub(crate) async fn publish(&self, topic: &str, record: &[u8]) -> Value {
        self.ask(&format!("POST /topics/{topic}"), &[], record).await.ok()
    }

    pub(crate) fn epoch(&self, topic: &str) -> u64 {
        self.broker.topic(topic).expect("it is there").log().epoch()
    }

    /// As it is told.
    pub(crate) fn epoch_text(&self, topic: &str) -> String {
        format!("{:#018x}", self.epoch(topic))
    }

    /// Publishes ten records to the topic `t`, which keeps few of them. The first that is there.
    pub(crate) async fn collected(&self) -> u64 {
        let settings = json!({"segment_bytes": 4096, "retention": {"records": 1}});
        self.ask("PUT /topics/t", &[], settings.to_string().as_bytes()).await;
        for _ in 0..10 {
            self.publish("t", &[b'x'; 2000]).await;
        }
        let first = self.broker.topic("t").unwrap().log().first_offset();
        assert!(first > 1, "something was collected");
        first
    }
}

/// Begins a request whose body is two bytes, which the caller sends. The API has accepted the request, and waits.
pub(crate) async fn begin(server: &Running, line: &str) -> Client {
    let mut client = Client::new(server.address).await;
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    );
    client.send(head.as_bytes()).await;
    assert_eq!(client.head().await.expect("a word that it waits").status, 100);
    client
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
