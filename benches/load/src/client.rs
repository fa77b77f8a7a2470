//! What every program with a client needs: a runtime to run it on, and the client's errors as the program's own.

use crate::error::{Error, Exit, Result, describe_io};
use psa::client::ClientError;
use psa::protocol::Code;
use std::fmt;

/// A runtime with one thread, which is enough for one connection.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::failed("runtime", error))
}

/// This program's error for one of the client's; `what` is what the user asked for.
pub fn failure(what: impl fmt::Display, error: &ClientError) -> Error {
    let exit = exit_of(error);
    if let ClientError::Connect { address, source } = error {
        return Error::new(exit, format!("cannot connect to {address}"), describe_io(source))
            .hint("start a server with `psa serve`, or name one with --server");
    }
    match error.code() {
        Some(code) => {
            let refused = Error::new(exit, what, format!("{error} [{}]", code.word()));
            match code {
                Code::TlsRequired => refused.hint("use --tls or --ca FILE"),
                Code::Unauthorized => refused.hint("set PSA_TOKEN, or use --token-file"),
                _ => refused,
            }
        }
        None => Error::new(exit, what, error),
    }
}

fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Config { .. } | ClientError::Name(_) => Exit::Usage,
        ClientError::RecordTooLarge { .. }
        | ClientError::BatchTooLarge { .. }
        | ClientError::OldServer { .. } => Exit::Refused,
        // The server shut down, or closed the connection for being slow: not an answer to a request.
        _ => match error.code() {
            Some(
                Code::ShuttingDown
                | Code::HandshakeTimeout
                | Code::IdleTimeout
                | Code::WriteStalled
                | Code::BadVersion
                | Code::TlsRequired,
            )
            | None => Exit::Unreachable,
            Some(_) => Exit::Refused,
        },
    }
}
