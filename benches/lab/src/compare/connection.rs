//! A blocking connection for the few exchanges before and after the records.

use memchr::memmem;
use psa_load::error::{Error, Exit, Result, describe_io};
use psa_load::wire::lost;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long to wait for a reply before giving up on the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// A blocking connection to a rival's server.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    /// Connects to the server.
    pub(crate) fn connect(address: SocketAddr) -> Result<Connection> {
        let connected = TcpStream::connect(address).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let stream = connected.map_err(|error| {
            Error::new(Exit::Unreachable, format!("connect to {address}"), describe_io(&error))
        })?;
        Ok(Connection { stream, input: Vec::new() })
    }

    /// Sends all bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result {
        self.stream.write_all(bytes).map_err(|error| lost(&error))
    }

    /// Waits until these bytes arrive, and discards the input up to their end.
    pub(crate) fn expect(&mut self, answer: &[u8]) -> Result {
        loop {
            if self.input.starts_with(b"-") {
                let why = self.line()?;
                return Err(Error::new(Exit::Refused, "the rival's server", why));
            }
            if let Some(at) = memmem::find(&self.input, answer) {
                self.input.drain(..at + answer.len());
                return Ok(());
            }
            self.more()?;
        }
    }

    /// Reads the next line.
    pub(crate) fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input) {
                let line = String::from_utf8_lossy(&self.input[..end]).trim_end().to_owned();
                self.input.drain(..=end);
                return Ok(line);
            }
            self.more()?;
        }
    }

    /// Reads exactly `count` bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.input.len() < count {
            self.more()?;
        }
        Ok(self.input.drain(..count).collect())
    }

    fn more(&mut self) -> Result {
        let mut scratch = [0; 4096];
        match self.stream.read(&mut scratch).map_err(|error| lost(&error))? {
            0 => Err(lost(&io::ErrorKind::UnexpectedEof.into())),
            read => {
                self.input.extend_from_slice(&scratch[..read]);
                Ok(())
            }
        }
    }

    /// Returns the socket, without its read timeout, and the bytes that were read and not yet used.
    pub(crate) fn into_parts(self) -> Result<(TcpStream, Vec<u8>)> {
        self.stream.set_read_timeout(None).map_err(|error| lost(&error))?;
        Ok((self.stream, self.input))
    }
}
