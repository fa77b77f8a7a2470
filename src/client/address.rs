//! Where a server is: `HOST`, `HOST:PORT`, or an address with a scheme.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::ClientError;
use crate::protocol::DEFAULT_PORT;

/// Where a server is, and how to be let in: `HOST`, `HOST:PORT`, or `psa://[TOKEN@]HOST[:PORT]`. `psa+tls://` asks for
/// TLS. The default port is 9853. In the token, what is no letter or digit may be percent-encoded.
///
/// [`Client::builder`](super::Client::builder) reads one; programs with settings of their own can do so, too. The token
/// shows neither in `{}` nor in `{:?}`.
///
/// ```
/// use psa::client::ServerAddress;
/// let address: ServerAddress = "psa+tls://s3cret@example.org".parse()?;
/// assert_eq!((address.place(), address.token()), ("example.org:9853", Some("s3cret")));
/// assert_eq!(address.to_string(), "psa+tls://example.org:9853");
/// # Ok::<(), psa::client::ClientError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ServerAddress {
    place: String,
    token: Option<String>,
    tls: bool,
}

impl ServerAddress {
    /// `HOST:PORT`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The token, if there is one in the address.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Whether the address asks for TLS.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "psa+tls" } else { "psa" }, self.place)
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerAddress")
            .field("place", &self.place)
            .field("has_token", &self.token.is_some())
            .field("tls", &self.tls)
            .finish()
    }
}

fn bad(what: &'static str) -> ClientError {
    ClientError::Config { what }
}

impl FromStr for ServerAddress {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self { place: with_port(text)?, token: None, tls: false });
        };
        let tls = match scheme {
            "psa" => false,
            "psa+tls" => true,
            _ => return Err(bad("the address has another scheme; give psa:// or psa+tls://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (token, place) = match rest.rsplit_once('@') {
            Some((token, place)) => (Some(token), place),
            None => (None, rest),
        };
        if place.contains(['/', '?', '#']) {
            return Err(bad("the address goes on after the port; a topic is no part of it"));
        }
        let decode = |token| percent_decode_str(token).decode_utf8().map(Into::into);
        let token = token.map(decode).transpose();
        let token = token.map_err(|_| bad("the token in the address is no UTF-8"))?;
        Ok(Self { place: with_port(place)?, token, tls })
    }
}

/// Adds the default port to an address without one: `host`, `host:port`, `[v6]`, `[v6]:port`, `v6`.
fn with_port(address: &str) -> Result<String, ClientError> {
    let what = "the address is not HOST or HOST:PORT; give such as 127.0.0.1:9853";
    let bad = ClientError::Config { what };
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(bad.clone())?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or(bad.clone())?),
        };
        (format!("[{host}]"), port)
    } else if address.matches(':').count() > 1 {
        (format!("[{address}]"), None)
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (address.to_owned(), None),
        }
    };
    if matches!(host.as_str(), "" | "[]") || host.chars().any(char::is_whitespace) {
        return Err(bad);
    }
    let port = match port {
        Some(port) => port.parse::<u16>().map_err(|_| bad)?,
        None => DEFAULT_PORT,
    };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_default_port() {
        for (given, expected) in [
            ("localhost", "localhost:9853"),
            ("localhost:1", "localhost:1"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("[::1]", "[::1]:9853"),
            ("[::1]:7", "[::1]:7"),
            ("::1", "[::1]:9853"),
        ] {
            assert_eq!(with_port(given).unwrap(), expected);
        }
        for bad in ["", ":1", "a:", "a:65536", "a:b", "[::1", "[::1]7", "a b", "[]"] {
            assert!(with_port(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_may_have_a_scheme_and_a_token() {
        let read = |text: &str| text.parse::<ServerAddress>().unwrap();
        let address = |place: &str, token: Option<&str>, tls| ServerAddress {
            place: place.to_owned(),
            token: token.map(str::to_owned),
            tls,
        };
        assert_eq!(read("localhost"), address("localhost:9853", None, false));
        assert_eq!(read("psa://localhost"), address("localhost:9853", None, false));
        assert_eq!(read("psa://a@[::1]:7/"), address("[::1]:7", Some("a"), false));
        assert_eq!(read("psa+tls://a%40b%2F@x:1"), address("x:1", Some("a@b/"), true));
        // What is written down without an escape is taken as it stands.
        assert_eq!(read("psa://a@b@x"), address("x:9853", Some("a@b"), false));
        for bad in ["http://x", "psa:/x", "psa://", "psa://t@", "psa://x/topic", "psa://%ff@x"] {
            assert!(bad.parse::<ServerAddress>().is_err(), "{bad}");
        }
    }
}
