//! The access file: tokens and their rights, as TOML.
//!
//! The file contains what `psa token new` prints: one table for each token, with its hash and without its secret. A file
//! with a problem is refused as a whole, and the error names the line of the first problem.

use crate::error::{Error, Result, describe_io};
use psa::server::{Access, Pattern, TokenEntry};
use psa::words::{BadText, Time};
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;
use toml::Spanned;

/// The largest file that is read, in bytes: many times what the maximum number of tokens needs.
const LARGEST: u64 = 16 << 20;

/// The file, as TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessFile {
    #[serde(default)]
    token: Vec<Spanned<TokenTable>>,
}

/// One token in the file, as TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    name: String,
    sha256: Spanned<String>,
    #[serde(default)]
    publish: Vec<Spanned<String>>,
    #[serde(default)]
    subscribe: Vec<Spanned<String>>,
    #[serde(default)]
    manage: Vec<Spanned<String>>,
    #[serde(default)]
    metrics: bool,
    expires: Option<Spanned<toml::value::Datetime>>,
}

/// When a token expires, and its text in TOML.
#[derive(Clone, Debug)]
pub(crate) struct Expires {
    pub(crate) text: String,
    pub(crate) time: SystemTime,
}

/// Parses a date, on which a token expires as the day begins in UTC, or a time with its zone.
pub(crate) fn parse_expires(text: &str) -> Result<Expires, String> {
    let whole =
        if text.len() == "2027-01-31".len() { format!("{text}T00:00:00Z") } else { text.into() };
    let Time(time) = whole
        .parse()
        .map_err(|_: BadText| "expected 2027-01-31 or 2027-01-31T12:00:00Z".to_string())?;
    // The text goes into the access file, so it must be valid TOML, too.
    let text =
        toml::value::Datetime::from_str(text).map_err(|error| error.to_string())?.to_string();
    Ok(Expires { text, time })
}

/// A problem, and the offset in bytes at which it is.
struct Problem(usize, String);

impl Problem {
    fn at<T>(place: &Spanned<T>, why: impl fmt::Display) -> Self {
        Self(place.span().start, why.to_string())
    }
}

/// Reads the tokens of the file `path`.
pub(crate) fn load(path: &str) -> Result<Vec<TokenEntry>> {
    let fail = |error: std::io::Error| {
        Error::usage(path, describe_io(&error)).hint("access.file names the file of tokens")
    };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > LARGEST {
        return Err(Error::usage(path, format!("it has {size} bytes, more than {LARGEST}")));
    }
    let text = std::fs::read_to_string(path).map_err(fail)?;
    let entries = parse(&text).map_err(|Problem(at, why)| {
        let line =
            text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
        Error::usage(format!("{path}:{line}"), why)
    })?;
    // Conflicts between entries are reported for the whole file.
    Access::new(entries.clone()).map_err(|error| Error::usage(path, error))?;
    Ok(entries)
}

fn parse(text: &str) -> Result<Vec<TokenEntry>, Problem> {
    let file: AccessFile = toml::from_str(text).map_err(|error| {
        let message = error.message().lines().next().unwrap_or("not TOML").to_string();
        Problem(error.span().map_or(0, |span| span.start), message)
    })?;
    file.token.into_iter().map(|table| table.into_inner().into_entry()).collect()
}

impl TokenTable {
    fn into_entry(self) -> Result<TokenEntry, Problem> {
        let sha256 = digest(self.sha256.get_ref()).ok_or_else(|| {
            // The value may be a secret that somebody put in the wrong place, so it is not shown.
            let why = "sha256 has 64 hexadecimal digits; `psa token new` prints them";
            Problem::at(&self.sha256, why)
        })?;
        let mut entry = TokenEntry::new(self.name, sha256);
        entry.publish = patterns(&self.publish)?;
        entry.subscribe = patterns(&self.subscribe)?;
        entry.manage = patterns(&self.manage)?;
        entry.metrics = self.metrics;
        if let Some(expires) = &self.expires {
            let read = parse_expires(&expires.get_ref().to_string());
            entry.expires = Some(read.map_err(|why| Problem::at(expires, why))?.time);
        }
        Ok(entry)
    }
}

fn patterns(texts: &[Spanned<String>]) -> Result<Vec<Pattern>, Problem> {
    texts.iter().map(|text| text.get_ref().parse().map_err(|why| Problem::at(text, why))).collect()
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn refused(text: &str) -> (usize, String) {
        let Err(Problem(at, why)) = parse(text) else { panic!("it is taken: {text}") };
        (text[..at].matches('\n').count() + 1, why)
    }

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn an_entry_is_read_whole() {
        let text = format!(
            "# a comment\n[[token]]\nname = \"a\"\nsha256 = \"{HASH}\"\npublish = [\"x/*\", \"y\"]\nmetrics = true\nexpires = 2001-09-09T01:46:40Z\n\n[[token]]\nname = \"b\"\nsha256 = \"{}\"\nexpires = 1970-01-02\n",
            HASH.to_uppercase()
        );
        let entries = parse(&text).unwrap_or_else(|Problem(at, why)| panic!("{at}: {why}"));
        let (a, b) = (&entries[0], &entries[1]);
        assert_eq!(
            (a.name.as_str(), a.metrics, b.name.as_str(), b.metrics),
            ("a", true, "b", false)
        );
        assert_eq!((a.sha256, b.sha256), (Access::sha256("abc"), Access::sha256("abc")));
        assert!(a.publish[0].matches("x/1") && a.publish[1].matches("y") && a.publish.len() == 2);
        assert!(a.subscribe.is_empty() && a.manage.is_empty() && b.publish.is_empty());
        assert_eq!(a.expires, Some(UNIX_EPOCH + Duration::from_secs(1_000_000_000)));
        assert_eq!(b.expires, Some(UNIX_EPOCH + Duration::from_secs(86_400)));
        assert!(parse("").unwrap_or_default().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_shows_no_secret() {
        let entry = |line: &str| format!("[[token]]\nname = \"a\"\nsha256 = \"{HASH}\"\n{line}\n");
        for (line, expected) in [
            ("publsh = [\"*\"]", "unknown field `publsh`"),
            ("publish = \"*\"", "expected a sequence"),
            ("publish = [\"a\",\n\"\"]", "1 to 255 bytes"),
            ("expires = 2027-01-31T12:00:00", "expected 2027-01-31"),
            ("expires = 2027-02-30", "invalid date"),
            ("expires = \"2027-01-31\"", "expected a TOML datetime"),
            ("x", "key"),
        ] {
            let (at, why) = refused(&entry(line));
            assert!(at >= 4, "line {at}: {why}");
            assert!(why.contains(expected), "{why}");
        }
        let (line, why) = refused("[[token]]\nname = \"a\"\nsha256 = \"psa_hunter2\"\n");
        assert!(line == 3 && !why.contains("hunter2"), "{line}: {why}");
        assert!(refused("[[token]]\nname = \"a\"\n").1.contains("sha256"));
        assert!(refused("[tokens]\n").1.contains("unknown field"));
    }
}
