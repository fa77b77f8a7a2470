//! Creates a client from the configuration, and turns the client's errors into this program's.

use crate::config::Config;
use crate::config::settings::Key;
use crate::error::{Error, Exit, Result, describe_io};
use psa::client::{Client, ClientBuilder, ClientError, ClientTls, ClientTlsFiles};
use psa::protocol::Code;
use std::fmt;
use std::future::Future;

/// Runs a client command. One thread is enough, because a command waits for one connection.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(work);
    // A thread that still reads standard input must not keep the process alive.
    runtime.shutdown_background();
    outcome
}

/// A runtime with one thread.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::failed("runtime", error))
}

/// A builder for a client of the configured server. Nothing is sent yet.
pub fn builder(config: &Config, name: &str) -> Result<ClientBuilder> {
    let mut builder = Client::builder(config.text(Key::Server)).name(format!("psa {name}"));
    if let Some(token) = config.token()? {
        builder = builder.token(token);
    }
    if let Some(tls) = tls(config)? {
        builder = builder.tls(tls);
    }
    Ok(builder)
}

/// The TLS settings, if any of them asks for TLS.
fn tls(config: &Config) -> Result<Option<ClientTls>> {
    let text = |key| Some(config.text(key)).filter(|text| !text.is_empty());
    let (ca, cert) = (text(Key::ConnectCa), text(Key::ConnectCert));
    if !config.switch(Key::ConnectTls) && ca.is_none() && cert.is_none() {
        return Ok(None);
    }
    let files = ClientTlsFiles {
        ca: ca.map(Into::into),
        identity: cert.zip(text(Key::ConnectPrivate)).map(|(cert, key)| (cert.into(), key.into())),
        server_name: text(Key::ConnectServerName),
    };
    ClientTls::load(&files).map(Some).map_err(|error| Error::usage("TLS", error))
}

/// Connects once, so that an unreachable server is noticed before anything else happens.
pub async fn connect(config: &Config, name: &str) -> Result<Client> {
    reach(config, builder(config, name)?).await
}

/// Connects once with a client that [`builder`] has prepared.
pub async fn reach(config: &Config, builder: ClientBuilder) -> Result<Client> {
    builder.connect().await.map_err(|error| failure(config.text(Key::Server), &error))
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
        ClientError::RecordTooLarge { .. } | ClientError::BatchTooLarge { .. } => Exit::Refused,
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
