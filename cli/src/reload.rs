//! The files that `psa serve` reads again at SIGHUP.

use crate::access;
use crate::config::Config;
use crate::config::settings::Key;
use crate::error::{Error, Result};
use psa::server::{Access, Tls, TlsFiles};
use std::sync::mpsc;
use std::thread;

/// The files, and the running settings that they update.
pub(crate) struct Reload {
    access_file: String,
    pub(crate) access: Option<Access>,
    pub(crate) tls: Option<Tls>,
}

impl Reload {
    /// Reads the files for the first time. A file that cannot be used is an error.
    pub(crate) fn from(config: &Config) -> Result<Reload> {
        let access_file = config.text(Key::AccessFile);
        let access = match access_file.as_str() {
            "" => None,
            path => {
                let entries = access::load(path)?;
                Some(Access::new(entries).map_err(|error| Error::usage(path, error))?)
            }
        };
        let text = |key| config.text(key);
        let tls = match text(Key::TlsCertificate).as_str() {
            "" => None,
            certificate => {
                let files = TlsFiles {
                    certificate: certificate.into(),
                    key: text(Key::TlsPrivate).into(),
                    client_ca: Some(text(Key::TlsClientCa))
                        .filter(|ca| !ca.is_empty())
                        .map(Into::into),
                    handshakes: usize::try_from(config.count(Key::TlsHandshakes))
                        .unwrap_or(usize::MAX),
                };
                Some(Tls::load(files).map_err(|error| Error::usage("TLS", error))?)
            }
        };
        Ok(Reload { access_file, access, tls })
    }

    /// Starts a thread that reads the files again on request. It is a separate thread so that a file on a dead mount
    /// does not keep the server from being stopped. Each call of the returned function requests a reload; requests that
    /// arrive while one is waiting are combined with it.
    pub(crate) fn start(self) -> impl Fn() {
        let (request, requests) = mpsc::sync_channel(1);
        thread::spawn(move || {
            while requests.recv().is_ok() {
                self.reload();
            }
        });
        move || {
            let _ = request.try_send(());
        }
    }

    /// Reads the files again. A file that cannot be used changes nothing, and is logged.
    fn reload(&self) {
        if self.tls.is_none() && self.access.is_none() {
            tracing::info!(
                "SIGHUP: there is nothing to read again, neither an access file nor a certificate; the server goes on"
            );
        }
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => tracing::info!("certificate read again"),
                Err(error) => {
                    tracing::error!(%error, "certificate refused; the one from before stays in force");
                }
            }
        }
        if let Some(access) = &self.access {
            let file = &self.access_file;
            let replaced = access::load(file)
                .and_then(|new| access.replace(new).map_err(|error| Error::usage(file, error)));
            match replaced {
                Ok(()) => tracing::info!(file, tokens = access.tokens(), "access file read again"),
                Err(error) => {
                    tracing::error!(%error, "access file refused; the tokens from before stay in force");
                }
            }
        }
    }
}
