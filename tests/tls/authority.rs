//! Certificates, made for a test. The tests of the binary, in `cli/tests/tls.rs`, have them from here, too.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// An authority, whose certificate is in a file.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) file: PathBuf,
}

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// A certificate and its key, in files.
    pub(crate) fn issue(&self, folder: &Path, name: &str, expired: bool) -> (PathBuf, PathBuf) {
        let date = |year| SystemTime::from(date_time_ymd(year, 1, 1));
        let (from, until) = if expired { (2020, 2021) } else { (2020, 4096) };
        self.issue_for(folder, name, date(from), date(until))
    }

    /// The same, valid between these times, to the second.
    pub(crate) fn issue_for(
        &self,
        folder: &Path,
        name: &str,
        from: SystemTime,
        until: SystemTime,
    ) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (from.into(), until.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}
