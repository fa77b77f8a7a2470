//! A WebSocket by hand: frame by frame, so that it can also be a bad one.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::Value;

use crate::support::*;

/// The key of the standard's own example, and what answers it.
pub(crate) const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// What a handshake says.
pub(crate) const GOOD: [(&str, &str); 4] = [
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    KEY,
];

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// The bit of a frame that ends its message.
pub(crate) const LAST: u8 = 0x80;

/// A client's frame. `first` is its first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(LAST | length as u8),
        length @ 126..=0xffff => {
            out.push(LAST | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(LAST | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// What a client is told, one by one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// A record with its offset.
    Record(u64, Vec<u8>),
    /// `begin`, `gap`, `caught-up` or `end`, with its facts.
    Event(String, Value),
    /// The end, with its code and reason.
    Close(u16, String),
}

impl Told {
    #[track_caller]
    pub(crate) fn event(self, name: &str) -> Value {
        match self {
            Told::Event(told, facts) if told == name => facts,
            other => panic!("{name} was expected: {other:?}"),
        }
    }
}

/// A connection that follows a topic.
pub(crate) struct Socket {
    pub(crate) client: Client,
    /// Where to go on, by what was taken so far.
    pub(crate) position: String,
    pub(crate) pings: usize,
    /// Whether it answers them.
    pub(crate) answers: bool,
    /// What was told and not taken yet, each with the position after it.
    told: VecDeque<(Told, String)>,
    epoch: String,
}

impl Socket {
    /// Follows a topic; `path` is what stands after `/topics/`.
    pub(crate) async fn open(address: SocketAddr, path: &str, more: &[(&str, &str)]) -> Self {
        let (answer, socket) = Self::try_open(address, path, more).await;
        assert_eq!(answer.status, 101, "{}", answer.text());
        assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("connection"), Some("upgrade"));
        socket
    }

    pub(crate) async fn try_open(
        address: SocketAddr,
        path: &str,
        more: &[(&str, &str)],
    ) -> (Answer, Self) {
        Self::try_open_at(address, &format!("/topics/{path}"), more).await
    }

    /// Like [`try_open`](Self::try_open), with the whole path.
    pub(crate) async fn try_open_at(
        address: SocketAddr,
        path: &str,
        more: &[(&str, &str)],
    ) -> (Answer, Self) {
        let mut client = Client::new(address).await;
        let headers = [&GOOD[..], more].concat();
        client.send(&request(&format!("GET {path}"), &headers, b"")).await;
        let mut head = client.head().await.expect("an answer");
        if let Some(length) = head.header("content-length") {
            head.body = client.take(length.parse().unwrap()).await.unwrap();
        }
        let (position, epoch, told) = Default::default();
        (head, Self { client, position, pings: 0, answers: true, told, epoch })
    }

    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) {
        self.client.send(&frame(first, payload)).await;
    }

    /// The next frame; `None` if the connection ends before it does.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.client.take(2).await?;
        assert_eq!(head[1] & LAST, 0, "a server masks nothing");
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.client.take(2).await?.try_into().unwrap())),
            127 => u64::from_be_bytes(self.client.take(8).await?.try_into().unwrap()),
            length => u64::from(length),
        };
        assert_eq!(head[0] & LAST, LAST, "messages are whole");
        Some((head[0] & !LAST, self.client.take(length.try_into().unwrap()).await?))
    }

    /// What is told next; `None` if the connection is cut.
    pub(crate) async fn try_next(&mut self) -> Option<Told> {
        loop {
            if let Some((told, position)) = self.told.pop_front() {
                self.position = position;
                return Some(told);
            }
            let (kind, payload) = self.frame().await?;
            match kind {
                PING => {
                    self.pings += 1;
                    if self.answers {
                        self.send(LAST | PONG, &payload).await;
                    }
                }
                TEXT => self.read_text(&payload),
                BINARY => self.read_binary(&payload),
                CLOSE => {
                    let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
                    let code = u16::from_be_bytes(payload[..2].try_into().unwrap());
                    self.told.push_back((Told::Close(code, reason), self.position.clone()));
                }
                PONG => {}
                other => panic!("a frame of kind {other}"),
            }
        }
    }

    fn read_text(&mut self, payload: &[u8]) {
        let items: Vec<Value> = serde_json::from_slice(payload).expect("an array");
        for mut item in items {
            self.epoch = item["epoch"].as_str().unwrap().to_owned();
            let told = match item["event"].as_str().map(str::to_owned) {
                Some(name) => {
                    let position = item["position"].as_str().unwrap().to_owned();
                    item.as_object_mut().unwrap().retain(|name, _| *name != "event");
                    (Told::Event(name, item), position)
                }
                None => {
                    let offset = item["offset"].as_u64().unwrap();
                    (Told::Record(offset, data_of(&item)), format!("{}:{offset}", self.epoch))
                }
            };
            self.told.push_back(told);
        }
    }

    fn read_binary(&mut self, mut payload: &[u8]) {
        assert!(!payload.is_empty());
        while let Some((offset, rest)) = payload.split_first_chunk() {
            let (length, rest) = rest.split_first_chunk().expect("a length");
            let (record, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
            let offset = u64::from_le_bytes(*offset);
            let position = format!("{}:{offset}", self.epoch);
            self.told.push_back((Told::Record(offset, record.to_vec()), position));
            payload = rest;
        }
        assert!(payload.is_empty(), "a whole number of records");
    }

    pub(crate) async fn next(&mut self) -> Told {
        self.try_next().await.expect("something before the end")
    }

    /// The next record with its offset; passes over `begin` and `caught-up`.
    pub(crate) async fn record(&mut self) -> (u64, Vec<u8>) {
        loop {
            match self.next().await {
                Told::Record(offset, data) => return (offset, data),
                Told::Event(name, _) if name == "begin" || name == "caught-up" => {}
                other => panic!("a record was expected: {other:?}"),
            }
        }
    }

    /// How it ends: the code and the reason. Passes over everything else.
    pub(crate) async fn end(&mut self) -> (u16, String) {
        loop {
            if let Told::Close(code, reason) = self.next().await {
                return (code, reason);
            }
        }
    }
}

fn data_of(item: &Value) -> Vec<u8> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    match (&item["data"], &item["data_base64"]) {
        (Value::String(text), Value::Null) => text.clone().into_bytes(),
        (Value::Null, Value::String(text)) => STANDARD.decode(text).unwrap(),
        other => panic!("{other:?}"),
    }
}
