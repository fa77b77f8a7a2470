//! Creates a client from the configuration, and runs what it does.

use crate::config::Config;
use crate::config::settings::Key;
use crate::error::{Error, Result};
use psa::client::{Client, ClientBuilder, ClientTls, ClientTlsFiles};
use psa_load::client::{failure, runtime};
use std::future::Future;

/// Runs a client command. One thread is enough, because a command waits for one connection.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(work);
    // A thread that still reads standard input must not keep the process alive.
    runtime.shutdown_background();
    outcome
}

/// A builder for a client of the configured server. Nothing is sent yet.
pub(crate) fn builder(config: &Config, name: &str) -> Result<ClientBuilder> {
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
pub(crate) async fn connect(config: &Config, name: &str) -> Result<Client> {
    reach(config, builder(config, name)?).await
}

/// Connects once with a client that [`builder`] has prepared.
pub(crate) async fn reach(config: &Config, builder: ClientBuilder) -> Result<Client> {
    builder.connect().await.map_err(|error| failure(config.text(Key::Server), &error))
}
