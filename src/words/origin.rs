//! Origins and host names from the settings, in the form in which browsers and other clients send them.
//!
//! A setting that is compared with a value which its sender normalizes must be normalized, too, and a setting that no
//! client can ever send is a mistake worth an error. So one parser reads both, for the settings, for the gate and for
//! the headers that browsers get.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why a text is not an origin, or not a host name, that a client could send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {why}")]
pub struct BadOrigin {
    text: String,
    why: &'static str,
}

impl BadOrigin {
    fn new(text: &str, why: &'static str) -> Self {
        Self { text: text.to_owned(), why }
    }
}

/// The origin of a browser's page: scheme, host and port, such as `https://app.example` or
/// `http://localhost:3000`. Written in lower case and without the default port of its scheme, as browsers send it.
///
/// ```
/// use psa::words::Origin;
///
/// let origin: Origin = "HTTPS://App.Example:443".parse()?;
/// assert_eq!(origin.to_string(), "https://app.example");
/// assert!("app.example".parse::<Origin>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        let bad = |why| BadOrigin::new(text, why);
        let example = "is no origin; write it as a browser does, such as https://app.example";
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad(example))?;
        let scheme = scheme.to_ascii_lowercase();
        let first = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let rest_of_scheme =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
        if !first || !scheme.bytes().all(rest_of_scheme) {
            return Err(bad(example));
        }
        if rest.contains(['/', '?', '#']) {
            return Err(bad("has a path; an origin ends with its host or its port"));
        }
        let (name, port) = match rest.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (rest, None),
        };
        let name = host(name).map_err(bad)?;
        let port = match port {
            None => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                let wrong = || bad("has a port that is none; it is a number from 0 to 65535");
                Some(port.parse::<u16>().map_err(|_| wrong())?)
            }
            Some(_) => return Err(bad("has a port that is none; it is a number from 0 to 65535")),
        };
        let port = port.filter(|port| default_port(&scheme) != Some(*port));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self(format!("{scheme}://{name}{port}")))
    }
}

impl Origin {
    /// Whether a page of this origin comes from the server's own address: `authority` is the host and port that the
    /// request addressed, whatever its scheme.
    #[cfg(feature = "http")]
    pub(crate) fn is_at(&self, authority: &str) -> bool {
        let own = self.0.split_once("://").map(|(scheme, _)| format!("{scheme}://{authority}"));
        own.and_then(|own| own.parse().ok()).is_some_and(|own: Self| own == *self)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A name under which clients address a server, such as `psa.example.org`: in lower case, without scheme and port,
/// and without a trailing dot.
///
/// ```
/// use psa::words::HostName;
///
/// let name: HostName = "PSA.Example.org.".parse()?;
/// assert_eq!(name.to_string(), "psa.example.org");
/// assert!("psa.example.org:9854".parse::<HostName>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        let bad = |why| BadOrigin::new(text, why);
        if text.contains("://") || text.contains('/') {
            return Err(bad("is no name; write the host alone, without scheme and path"));
        }
        if !text.ends_with(']') && text.contains(':') && text.parse::<Ipv6Addr>().is_err() {
            return Err(bad("has a port; write the name alone, every port of it is meant"));
        }
        let name = match text.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => host(text.strip_suffix('.').unwrap_or(text)).map_err(bad)?,
        };
        Ok(Self(name))
    }
}

/// Normalizes a host to the form that browsers send.
fn host(text: &str) -> Result<String, &'static str> {
    if let Some(bare) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = bare.parse().map_err(|_| "has no IPv6 address in its brackets")?;
        return Ok(format!("[{address}]"));
    }
    if text.is_empty() {
        return Err("has no host");
    }
    if text.contains('*') {
        return Err("has a wildcard, which is not understood; name each, or `*` alone for all");
    }
    if text.contains('@') {
        return Err("has a user in front of its host; leave that out");
    }
    if !text.is_ascii() {
        return Err("is not ASCII; write the name as it is sent, beginning with xn--");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !text.bytes().all(plain) || text.split('.').rev().skip(1).any(str::is_empty) {
        return Err("has a host that is none");
    }
    let name = text.to_ascii_lowercase();
    // Browsers treat a name whose last label is a number as an IPv4 address, and write it in full.
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if is_number && name.parse::<Ipv4Addr>().is_err() {
        return Err("has a host that is a number, but no IPv4 address");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for (text, sent) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example", "https://app.example"),
            ("https://port.example:443", "https://port.example"),
            ("http://x:80", "http://x"),
            ("http://x:080", "http://x"),
            ("https://x:80", "https://x:80"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://127.0.0.1:9854", "http://127.0.0.1:9854"),
            ("http://[0:0::1]:80", "http://[::1]"),
            ("http://a_b.example.", "http://a_b.example."),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(text.parse::<Origin>().map(|it| it.to_string()), Ok(sent.into()), "{text}");
        }
        for bad in [
            "https://slash.example/",
            "bare.example",
            "null",
            "",
            "*",
            "https://",
            "https://*.wild.example",
            "https://u@x",
            "https://x:y",
            "https://x:",
            "https://x:65536",
            "https://x:+1",
            "https://x/y",
            "https://x?y",
            "1https://x",
            "://x",
            "https://a b",
            "https://bücher.example",
            "https://a..b",
            "https://1.2.3",
            "https://0x7f.1",
            "https://[::x]",
            "https://::1",
        ] {
            // `https://x:` has a port without digits.
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }

    #[cfg(feature = "http")]
    #[test]
    fn the_own_origin_is_known_with_and_without_its_port() {
        let at = |origin: &str, authority: &str| origin.parse::<Origin>().unwrap().is_at(authority);
        assert!(at("http://x:9854", "X:9854") && at("http://x", "x:80") && at("https://x", "x"));
        assert!(at("https://x", "x:443"));
        assert!(!at("http://x", "x:443") && !at("http://x:1", "x:2") && !at("http://x", "y"));
        assert!(!at("http://x", "") && !at("http://x", "x/"));
    }

    #[test]
    fn a_host_is_a_name_alone() {
        for (text, name) in [
            ("psa.example.org", "psa.example.org"),
            ("PSA.Example.org.", "psa.example.org"),
            ("10.0.0.7", "10.0.0.7"),
            ("::1", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(
                text.parse::<HostName>().map(|it| it.to_string()),
                Ok(name.into()),
                "{text}"
            );
        }
        for bad in
            ["https://x/", "*", "a:9854", "[::1]:80", "", ".", "a/b", "*.example", "bücher", "a b"]
        {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
    }
}
