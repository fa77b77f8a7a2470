//! A client of the HTTP API whose server may die at any moment.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;

/// A connection; a new one when the old one broke.
pub(crate) struct Web {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().expect("text")
    }

    /// The position in a header: the epoch, and the offset.
    #[track_caller]
    pub(crate) fn position(&self) -> (u64, u64) {
        let text = self.header("psa-position");
        let (epoch, offset) = text.split_once(':').expect("an epoch and an offset");
        (number(epoch), offset.parse().expect("an offset"))
    }
}

/// An epoch as it is told.
#[track_caller]
pub(crate) fn number(epoch: &str) -> u64 {
    let digits = epoch.strip_prefix("0x").expect("an epoch is in hexadecimal");
    u64::from_str_radix(digits, 16).expect("an epoch")
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]).into_owned();
        write!(f, "{} {:?} {text:?}", self.status, self.headers)
    }
}

impl Web {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Web { address, connection: None }
    }

    /// Connects if there is no connection. False if nobody listens.
    pub(crate) async fn connect(&mut self) -> bool {
        if self.connection.as_ref().is_some_and(SendRequest::is_closed) {
            self.connection = None;
        }
        if self.connection.is_none() {
            let Ok(stream) = tokio::net::TcpStream::connect(self.address).await else {
                return false;
            };
            let Ok((connection, driver)) = handshake(TokioIo::new(stream)).await else {
                return false;
            };
            tokio::spawn(driver);
            self.connection = Some(connection);
        }
        true
    }

    /// A request and its whole answer; `None` if there was none.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Option<Answer> {
        if !self.connect().await {
            return None;
        }
        // Kept only after a whole answer.
        let mut connection = self.connection.take()?;
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        connection.ready().await.ok()?;
        let (head, body) = connection.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        self.connection = Some(connection);
        Some(Answer { status: head.status, headers: head.headers, body })
    }
}
