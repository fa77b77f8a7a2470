//! What happens to a connection that the listener has accepted.

use super::connection::Connection;
#[cfg(feature = "tls")]
use super::connection::serve_secure;
use super::shutdown::Shared;
use crate::listener::{Counted, Lifecycle, Refused, Serve, Stage, send_refusal};
use crate::net::TcpStream;
use crate::protocol::{Code, Reply};

impl Serve for Shared {
    const OVER: &'static str = "";

    fn life(&self) -> &Lifecycle {
        &self.life
    }

    fn advance(&self, stage: Stage) {
        Self::advance(self, stage);
    }

    fn refuse(&self, stream: &TcpStream, why: Refused) {
        match why {
            Refused::ShuttingDown => {
                goodbye(stream, Code::ShuttingDown, "the server shuts down; connect again later")
            }
            Refused::TooManyOfAddress { .. } => goodbye(
                stream,
                Code::TooManyConnections,
                "your address has as many connections as the server allows; end one, or try again later",
            ),
            Refused::TooMany { .. } => goodbye(
                stream,
                Code::TooManyConnections,
                "the server has as many connections as it allows; try again later",
            ),
        }
    }
}

/// Serves a connection in a task of its own.
pub(super) fn welcome(stream: TcpStream, counted: Counted<Shared>) {
    #[cfg(feature = "tls")]
    if let Some(tls) = counted.of().config.tls.clone() {
        tokio::spawn(serve_secure(tls, stream, counted));
        return;
    }
    tokio::spawn(Connection::new(stream, counted));
}

/// Sends a GOODBYE, as far as a single write takes it, and closes the connection.
pub(super) fn goodbye(stream: &TcpStream, code: Code, message: &str) {
    let mut goodbye = Vec::new();
    Reply::Goodbye { code, message }.encode(&mut goodbye);
    send_refusal(stream, &goodbye);
}
