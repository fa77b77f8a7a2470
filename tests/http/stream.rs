//! Reading Server-Sent Events as the HTML standard says that a browser does.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::Value;

use super::support::*;

/// An event as a page would get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// `message` unless it says otherwise.
    pub(crate) name: String,
    pub(crate) data: String,
    /// The last id that was seen, in this event or before it.
    pub(crate) id: String,
}

impl Event {
    #[track_caller]
    pub(crate) fn json(&self, name: &str) -> Value {
        assert_eq!(self.name, name, "{self:?}");
        serde_json::from_str(&self.data).expect("JSON")
    }

    /// The offset in the id.
    pub(crate) fn offset(&self) -> u64 {
        let offset = self.id.split_once(':').and_then(|(_, offset)| offset.parse().ok());
        offset.unwrap_or_else(|| panic!("no offset: {self:?}"))
    }
}

/// Bytes in, events out.
#[derive(Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    name: String,
    data: String,
    pub(crate) id: String,
    pub(crate) retry: Option<u64>,
    pub(crate) comments: usize,
    /// Whether the block that is being read has an id of its own.
    has_id: bool,
    /// Names of events without an id of their own.
    pub(crate) without_id: Vec<String>,
    events: VecDeque<Event>,
}

impl Parser {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    let line = String::from_utf8(std::mem::take(&mut self.line)).expect("text");
                    self.take(&line);
                }
                _ => {
                    self.after_return = false;
                    self.line.push(*byte);
                }
            }
        }
    }

    /// All events so far that were not taken yet.
    pub(crate) fn take_all(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    fn take(&mut self, line: &str) {
        if line.is_empty() {
            let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            // The standard passes over such a block. Half of the clients outside of browsers do not.
            assert!(data.pop().is_some(), "a block without data, after {:?}", self.id);
            let name = if name.is_empty() { "message".into() } else { name };
            if !std::mem::take(&mut self.has_id) {
                self.without_id.push(name.clone());
            }
            self.events.push_back(Event { name, data, id: self.id.clone() });
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => self.name = value.into(),
            "data" => {
                assert!(!self.has_id, "the id {} stands before its data", self.id);
                self.data = format!("{}{value}\n", self.data);
            }
            "id" => {
                // Some clients take it for theirs at once: it is not to stand before what it is the id of.
                assert!(!self.data.is_empty(), "the id {value} stands before its data");
                self.id = value.into();
                self.has_id = true;
            }
            "retry" => self.retry = value.parse().ok(),
            other => panic!("an unknown field: {other}"),
        }
    }
}

/// A connection that follows a topic.
pub(crate) struct Stream {
    pub(crate) client: Client,
    pub(crate) parser: Parser,
    /// The event that the stream began with, unless that was a gap.
    pub(crate) begin: Option<Event>,
}

impl From<Client> for Stream {
    fn from(client: Client) -> Self {
        Self { client, parser: Parser::default(), begin: None }
    }
}

impl Stream {
    /// Follows a topic; `path` is what stands after `/topics/`.
    pub(crate) async fn open(address: SocketAddr, path: &str, last: Option<&str>) -> Self {
        let (answer, stream) = Self::try_open(address, path, last).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        stream
    }

    pub(crate) async fn try_open(
        address: SocketAddr,
        path: &str,
        last: Option<&str>,
    ) -> (Answer, Self) {
        Self::try_open_at(address, &format!("/topics/{path}"), last).await
    }

    /// Like [`try_open`](Self::try_open), with the whole path.
    pub(crate) async fn try_open_at(
        address: SocketAddr,
        path: &str,
        last: Option<&str>,
    ) -> (Answer, Self) {
        let mut client = Client::new(address).await;
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last.map(|last| ("last-event-id", last)));
        client.send(&request(&format!("GET {path}"), &headers, b"")).await;
        let head = client.head().await.expect("an answer");
        (head, client.into())
    }

    /// Reads one piece; false at the end.
    pub(crate) async fn more(&mut self) -> bool {
        match self.client.chunk().await {
            Some(piece) if !piece.is_empty() => {
                self.parser.feed(&piece);
                true
            }
            _ => false,
        }
    }

    /// The next event after the one that begins the stream, which it keeps; `None` at the end.
    pub(crate) async fn try_next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.events.pop_front() {
                if event.name != "begin" {
                    return Some(event);
                }
                assert_eq!(self.begin, None, "it begins once");
                let told = event.json("begin");
                let (epoch, offset) = event.id.split_once(':').expect("a position");
                assert_eq!(told["epoch"], epoch);
                let last: i64 = offset.parse().expect("an offset");
                assert_eq!(told["next_offset"], last + 1);
                self.begin = Some(event);
                continue;
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Event {
        self.try_next().await.expect("an event before the end")
    }

    /// The next record; passes over `caught-up`.
    pub(crate) async fn record(&mut self) -> Event {
        loop {
            let event = self.next().await;
            if event.name != "caught-up" {
                return event;
            }
        }
    }
}
