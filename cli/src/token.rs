//! `psa token`: creates tokens for a server's access file.
//!
//! A token is 256 random bits, written with a prefix by which people and scanners recognize a token that is where it
//! should not be. The entry goes to standard output and the secret to standard error, so that
//! `psa token new NAME … >> access.toml` puts the entry into the file and shows the secret.

use crate::args::{NewTokenArgs, TokenArgs, TokenCommand};
use crate::error::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use psa::server::{Access, Pattern, TokenEntry};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

/// The prefix of every token.
const PREFIX: &str = "psa_";

/// Runs the command.
pub(crate) fn run(args: &TokenArgs) -> Result {
    let TokenCommand::New(args) = &args.command;
    let secret = secret()?;
    // The server's own check of the name, made before anything is written.
    let checked = Access::new(vec![TokenEntry::new(&*args.name, [0; 32])]);
    checked.map_err(|error| Error::usage(&args.name, error))?;
    match &args.secret_file {
        // The secret is written first, because an entry without its secret is useless.
        Some(path) => {
            let shown = path.display();
            let options = &mut std::fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .map_err(|error| Error::file(&shown, &error))?;
            writeln!(file, "{secret}").map_err(|error| Error::file(&shown, &error))?;
        }
        None => {
            let said = writeln!(io::stderr(), "{secret}");
            said.map_err(|error| Error::file("standard error", &error))?;
        }
    }
    crate::print(entry(args, &secret).as_bytes())
}

fn secret() -> Result<String> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|error| Error::failed("random numbers", error))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits)))
}

/// The entry for the access file.
fn entry(args: &NewTokenArgs, secret: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    let mut out = format!("[[token]]\nname = {}\nsha256 = \"", quoted(&args.name));
    for byte in Access::sha256(secret) {
        let _ = write!(out, "{byte:02x}");
    }
    out.push_str("\"\n");
    let mut list = |name: &str, patterns: &[Pattern]| {
        if !patterns.is_empty() {
            let patterns: Vec<_> =
                patterns.iter().map(|pattern| quoted(&pattern.to_string())).collect();
            let _ = writeln!(out, "{name} = [{}]", patterns.join(", "));
        }
    };
    list("publish", &args.publish);
    list("subscribe", &args.subscribe);
    list("manage", &args.manage);
    if args.metrics {
        out.push_str("metrics = true\n");
    }
    if let Some(expires) = &args.expires {
        let _ = writeln!(out, "expires = {}", expires.text);
    }
    out.push('\n');
    out
}
