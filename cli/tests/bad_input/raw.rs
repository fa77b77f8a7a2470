//! A client that is nothing but a socket and the codec, so that it can be wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use psa::protocol::{
    Code, DecodeLimits, Decoded, GapReason, Hello, OnGap, Publish, Records, Reply, Request, Start,
    Subscribe, TopicName, decode_reply,
};

use super::harness::*;

/// What the server said, as far as the tests look at it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    Welcome { version: u16 },
    Ack { request: u32, epoch: u64, first: u64, count: u32 },
    Records { first: u64, records: Vec<Vec<u8>> },
    Subscribed { request: u32, epoch: u64, next: u64 },
    Gap { reason: GapReason, epoch: u64, first_missed: u64, next: u64 },
    CaughtUp { next: u64 },
    Closed { next: u64 },
    Error(Refused),
    Goodbye(Code),
    Pong(u64),
    Done { request: u32 },
    Topics { names: Vec<String> },
    Other(String),
}

/// An ERROR.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) request: u32,
    pub(crate) code: Code,
    pub(crate) epoch: u64,
    pub(crate) asked: u64,
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) message: String,
}

impl From<&Reply<'_>> for Said {
    fn from(reply: &Reply<'_>) -> Said {
        match reply {
            Reply::Welcome(welcome) => Said::Welcome { version: welcome.version },
            &Reply::Ack { request, epoch, first, count } => {
                Said::Ack { request, epoch, first, count }
            }
            Reply::Deliver(chunk) => Said::Records {
                first: chunk.first,
                records: chunk.records.iter().map(<[u8]>::to_vec).collect(),
            },
            &Reply::Subscribed { request, epoch, next, .. } => {
                Said::Subscribed { request, epoch, next }
            }
            &Reply::Gap { reason, epoch, first_missed, next, .. } => {
                Said::Gap { reason, epoch, first_missed, next }
            }
            &Reply::CaughtUp { next, .. } => Said::CaughtUp { next },
            &Reply::Closed { next, .. } => Said::Closed { next },
            Reply::Error(error) => Said::Error(Refused {
                request: error.request,
                code: error.code,
                epoch: error.epoch,
                asked: error.asked,
                first: error.first,
                next: error.next,
                message: error.message.to_string(),
            }),
            Reply::Goodbye { code, message } => {
                assert!(is_one_line(message), "{message:?}");
                Said::Goodbye(*code)
            }
            &Reply::Pong { token } => Said::Pong(token),
            &Reply::Done { request } => Said::Done { request },
            Reply::Topics { topics, .. } => {
                Said::Topics { names: topics.iter().map(|topic| topic.name.to_string()).collect() }
            }
            other => Said::Other(format!("{other:?}")),
        }
    }
}

fn is_one_line(message: &str) -> bool {
    !message.is_empty() && !message.contains(char::is_control)
}

/// One connection.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    /// Connects and says nothing.
    #[track_caller]
    pub(crate) fn silent(server: &Server) -> Raw {
        Raw::from(TcpStream::connect(server.address).expect("the server listens"))
    }

    /// Takes over a connection that was made elsewhere.
    pub(crate) fn from(stream: TcpStream) -> Raw {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket has timeouts");
        stream.set_nodelay(true).expect("a socket can do that");
        Raw { stream, received: Vec::new() }
    }

    /// Connects and is welcome.
    #[track_caller]
    pub(crate) fn open(server: &Server) -> Raw {
        let mut raw = Raw::silent(server);
        raw.send(&hello(1, 1, ""));
        assert_eq!(raw.next(), Said::Welcome { version: 1 });
        raw
    }

    /// Sends bytes. A server that has closed the connection already is no failure: what it said can
    /// still be read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    pub(crate) fn request(&mut self, request: &Request<'_>) {
        self.send(&encoded(request));
    }

    /// The next frame; `None` at the end.
    #[track_caller]
    pub(crate) fn try_next(&mut self) -> Option<Said> {
        loop {
            let limits = DecodeLimits::default();
            let decoded =
                decode_reply(&self.received, &limits).expect("the server speaks properly");
            if let Decoded::Frame { value, consumed } = decoded {
                let said = Said::from(&value);
                self.received.drain(..consumed);
                return Some(said);
            }
            let mut piece = [0; 1 << 16];
            match self.stream.read(&mut piece) {
                Ok(0) => {
                    assert!(self.received.is_empty(), "it ended in the middle of a frame");
                    return None;
                }
                Ok(count) => self.received.extend(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("waited for a frame: {error}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn next(&mut self) -> Said {
        self.try_next().expect("the server says something before it ends the connection")
    }

    /// Receives until there are at least so many bytes, or everything that comes for now; the whole
    /// frames among them. What is left is half a frame, and lost.
    #[track_caller]
    pub(crate) fn take_frames(mut self, bytes: usize) -> Vec<Said> {
        while self.received.len() < bytes {
            let mut piece = vec![0; bytes - self.received.len()];
            // The end of what there is may come before so many bytes.
            let pause = Some(Duration::from_millis(200));
            self.stream.set_read_timeout(pause).expect("a socket has timeouts");
            match self.stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => self.received.extend(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("waited for a frame: {error}"),
            }
        }
        let mut all = Vec::new();
        let mut at = 0;
        let limits = DecodeLimits::default();
        while let Decoded::Frame { value, consumed } =
            decode_reply(&self.received[at..], &limits).expect("the server speaks properly")
        {
            all.push(Said::from(&value));
            at += consumed;
        }
        all
    }

    /// Receives until there are so many bytes, or it is said that this was all; the whole frames among them.
    /// What is left is half a frame.
    pub(crate) fn take_up_to(&mut self, bytes: usize) -> Vec<Said> {
        let limits = DecodeLimits::default();
        let (mut all, mut at) = (Vec::new(), 0);
        loop {
            while let Decoded::Frame { value, consumed } =
                decode_reply(&self.received[at..], &limits).expect("the server speaks properly")
            {
                all.push(Said::from(&value));
                at += consumed;
            }
            let is_all = matches!(all.last(), Some(Said::CaughtUp { .. } | Said::Closed { .. }));
            if is_all || self.received.len() >= bytes {
                return all;
            }
            let mut piece = vec![0; bytes - self.received.len()];
            match self.stream.read(&mut piece) {
                // Cut off by the server, as one that is evicted may be.
                Ok(0) => return all,
                Ok(count) => self.received.extend(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("waited for a frame: {error}"),
            }
        }
    }

    /// The next frame is an ERROR for this request.
    #[track_caller]
    pub(crate) fn refused(&mut self, request: u32, code: Code) -> Refused {
        match self.next() {
            Said::Error(refused) => {
                assert_eq!((refused.request, refused.code), (request, code), "{refused:?}");
                assert!(is_one_line(&refused.message), "{refused:?}");
                refused
            }
            other => panic!("{other:?} instead of an error {code}"),
        }
    }

    /// The next frame is a GOODBYE, and the connection ends after it.
    #[track_caller]
    pub(crate) fn goodbye(&mut self, code: Code) {
        assert_eq!(self.next(), Said::Goodbye(code));
        assert_eq!(self.try_next(), None, "nothing comes behind a goodbye");
    }

    /// The connection goes on: it answers a ping.
    #[track_caller]
    pub(crate) fn lives(&mut self) {
        let token = fastrand::u64(..);
        self.request(&Request::Ping { token });
        assert_eq!(self.next(), Said::Pong(token));
    }

    /// Publishes one record and gets its offset.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, record: &[u8]) -> u64 {
        self.send(&publish(1, topic, &[record]));
        match self.next() {
            Said::Ack { request: 1, first, count: 1, .. } => first,
            other => panic!("{other:?} instead of an acknowledgement"),
        }
    }

    /// Says that nothing more comes.
    pub(crate) fn finish_sending(&mut self) {
        // It fails only if the server has ended the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

pub(crate) fn encoded(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    bytes
}

pub(crate) fn name(name: &str) -> TopicName<'_> {
    TopicName::new(name).expect("a good name")
}

pub(crate) fn hello(version_min: u16, version_max: u16, token: &str) -> Vec<u8> {
    encoded(&Request::Hello(Hello { version_min, version_max, token, client: "bad" }))
}

/// A PUBLISH that wants an acknowledgement.
pub(crate) fn publish(request: u32, topic: &str, records: &[&[u8]]) -> Vec<u8> {
    let (mut ends, mut payload) = (Vec::new(), Vec::new());
    for record in records {
        payload.extend_from_slice(record);
        ends.extend_from_slice(&u32::try_from(payload.len()).expect("small").to_le_bytes());
    }
    let records = Records::new(0, &ends, &payload).expect("it was just made");
    encoded(&Request::Publish(Publish { request, topic: name(topic), ack: true, records }))
}

/// A SUBSCRIBE whose number is its subscription's.
pub(crate) fn subscribe(request: u32, topic: &str, start: Start, on_gap: OnGap) -> Vec<u8> {
    let (sub, topic) = (request, name(topic));
    let (caught_up, lease) = (false, None);
    encoded(&Request::Subscribe(Subscribe { request, sub, topic, start, on_gap, caught_up, lease }))
}

/// A frame of any kind.
pub(crate) fn frame(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("small");
    [&length.to_le_bytes()[..], &[kind, flags, 0, 0], body].concat()
}
