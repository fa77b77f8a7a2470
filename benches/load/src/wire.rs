//! A thin connection: the codec over a blocking socket, for the handshake and a few requests. Records are
//! read elsewhere, directly from the socket.

use crate::error::{Error, Exit, Result, describe_io};
use psa::protocol::{
    DecodeLimits, Decoded, Hello, OnGap, Reply, Request, Start, Subscribe, TopicName, VERSION_MAX,
    VERSION_MIN, decode_reply,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long to wait for a reply before giving up on the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT`.
    pub address: String,
    /// The token; empty for none.
    pub token: String,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Wire {
    /// Connects and performs the handshake.
    pub fn connect(target: &Target) -> Result<Wire> {
        let what = format!("connect to {}", target.address);
        let fail = |error: &io::Error| {
            Error::new(Exit::Unreachable, &what, describe_io(error))
                .hint("start a server with `psa serve`, or leave --server out")
        };
        let stream = TcpStream::connect(&target.address).map_err(|error| fail(&error))?;
        stream.set_nodelay(true).map_err(|error| fail(&error))?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| fail(&error))?;
        let mut wire = Wire { stream, input: Vec::new() };
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            token: &target.token,
            client: "psa bench",
        };
        wire.ask(&Request::Hello(hello), |reply| match reply {
            Reply::Welcome(_) => Some(()),
            _ => None,
        })?;
        Ok(wire)
    }

    /// Subscribes; returns the epoch and the first offset that will be delivered.
    pub fn subscribe(&mut self, topic: TopicName<'_>, start: Start) -> Result<(u64, u64)> {
        let subscribe = Subscribe {
            request: 1,
            sub: 1,
            topic,
            start,
            on_gap: OnGap::Continue,
            caught_up: false,
            lease: None,
        };
        self.ask(&Request::Subscribe(subscribe), |reply| match reply {
            Reply::Subscribed { epoch, next, .. } => Some((*epoch, *next)),
            _ => None,
        })
    }

    /// Sends a request and waits for its reply. Bytes after the reply stay in the input buffer.
    pub fn ask<T>(
        &mut self,
        request: &Request<'_>,
        answer: impl Fn(&Reply<'_>) -> Option<T>,
    ) -> Result<T> {
        let mut out = Vec::new();
        request.encode(&mut out);
        self.send(&out)?;
        self.reply(|reply| match reply {
            Reply::Error(error) => Err(refused(error.code, error.message)),
            Reply::Goodbye { code, message } => Err(refused(*code, message)),
            reply => answer(reply).ok_or_else(|| {
                Error::new(Exit::Unreachable, "server", "it answered with something else")
            }),
        })?
    }

    /// Sends all bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result {
        self.stream.write_all(bytes).map_err(|error| lost(&error))
    }

    /// Waits for one frame and passes it to `look`.
    pub(crate) fn reply<T>(&mut self, look: impl FnOnce(&Reply<'_>) -> T) -> Result<T> {
        let mut scratch = [0; 16 << 10];
        loop {
            let decoded = decode_reply(&self.input, &DecodeLimits::default());
            match decoded.map_err(|error| Error::new(Exit::Unreachable, "server", error))? {
                Decoded::Frame { value, consumed } => {
                    let seen = look(&value);
                    self.input.drain(..consumed);
                    return Ok(seen);
                }
                Decoded::NeedMore { .. } => {}
            }
            match self.stream.read(&mut scratch).map_err(|error| lost(&error))? {
                0 => return Err(lost(&io::ErrorKind::UnexpectedEof.into())),
                read => self.input.extend_from_slice(&scratch[..read]),
            }
        }
    }

    /// Builds a connection from a socket and the bytes already read from it.
    pub(crate) fn from_parts(stream: TcpStream, input: Vec<u8>) -> Wire {
        Wire { stream, input }
    }

    /// Returns the socket, without its read timeout, and the bytes that were read and not yet decoded.
    pub fn into_parts(self) -> Result<(TcpStream, Vec<u8>)> {
        self.stream.set_read_timeout(None).map_err(|error| lost(&error))?;
        Ok((self.stream, self.input))
    }
}

/// The error for a server that replied with an error.
fn refused(code: psa::protocol::Code, message: &str) -> Error {
    Error::new(Exit::Refused, "server", format!("{message} [{}]", code.word()))
}

/// The error for a connection that broke.
pub fn lost(error: &io::Error) -> Error {
    let why = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        _ => describe_io(error),
    };
    Error::new(Exit::Unreachable, "server", why)
}
