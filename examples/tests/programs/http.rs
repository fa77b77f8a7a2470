//! An HTTP client over hyper, for requests on one connection and for event streams.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A connection for one request after another.
pub(crate) struct Connection {
    address: String,
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<hyper::Result<()>>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        let socket = TcpStream::connect(address).await.expect("somebody listens");
        let (sender, connection) = handshake(TokioIo::new(socket)).await.expect("a connection");
        let task = tokio::spawn(connection);
        Self { address: address.to_owned(), sender, task }
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.address);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        if self.sender.ready().await.is_err() {
            panic!("the connection to {} has ended: {:?}", self.address, (&mut self.task).await);
        }
        self.sender.send_request(request).await.expect("a response")
    }

    /// Publishes, and returns the body of the response.
    pub(crate) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> String {
        let response = self.send("POST", path, &[], body).await;
        assert!(response.status().is_success(), "{response:?}");
        text(response).await
    }
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text").trim().to_owned()
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

/// An event stream on a connection of its own. It reads from the socket only when an event is requested.
pub(crate) struct Events {
    body: Incoming,
    /// Text that was received and not yet parsed.
    rest: String,
    _connection: Connection,
}

impl Events {
    /// Opens a stream, after the event `last` if there is one. The error is the response if it is not a stream.
    pub(crate) async fn open(
        address: &str,
        path: &str,
        last: Option<&str>,
    ) -> Result<Self, (StatusCode, String)> {
        let mut connection = Connection::open(address).await;
        let headers: Vec<_> = last.map(|id| ("last-event-id", id)).into_iter().collect();
        let response = connection.send("GET", path, &headers, "").await;
        if response.status() != StatusCode::OK {
            return Err((response.status(), text(response).await));
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(Self { body: response.into_body(), rest: String::new(), _connection: connection })
    }

    /// The next event; `None` when the stream has ended properly.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((event, rest)) = self.rest.split_once("\n\n") {
                let event = parse(event);
                self.rest = rest.to_owned();
                // An empty event was a comment.
                if event != Event::default() {
                    return Some(event);
                }
            }
            let frame = self.body.frame().await?.expect("the stream ends in order");
            if let Ok(data) = frame.into_data() {
                // The events of these tests have no characters of more than one byte, which a frame could cut.
                self.rest.push_str(std::str::from_utf8(&data).expect("text"));
            }
        }
    }
}

fn parse(lines: &str) -> Event {
    let mut event = Event::default();
    for line in lines.lines() {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("event", kind) => event.kind = kind.to_owned(),
            ("id", id) => event.id = id.to_owned(),
            ("data", data) => event.data = data.to_owned(),
            _ => {}
        }
    }
    event
}
