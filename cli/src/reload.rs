//! What `psa serve` reads again when it is told to (SIGHUP).

use crate::access;
use crate::config::Config;
use crate::config::settings::Key;
use crate::error::{Error, Result};
use psa::server::{Access, Tls, TlsFiles};
use std::sync::mpsc;
use std::thread;

/// The files, and where what they say goes.
pub(crate) struct Reload {
    access_file: String,
    pub(crate) access: Option<Access>,
    pub(crate) tls: Option<Tls>,
}

impl Reload {
    /// Reads them for the first time: then a file that cannot be used is the end.
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

    /// Starts what reads the files again, on a thread of its own: a file on a dead mount must keep nobody from
    /// ending the server. Each call of what is returned asks for it; calls that come while one waits are one.
    pub(crate) fn start(self) -> impl Fn() {
        let (ask, asked) = mpsc::sync_channel(1);
        thread::spawn(move || {
            while asked.recv().is_ok() {
                self.again();
            }
        });
        move || {
            let _ = ask.try_send(());
        }
    }

    /// Reads them again. One that cannot be used now changes nothing, and the log says so.
    fn again(&self) {
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
