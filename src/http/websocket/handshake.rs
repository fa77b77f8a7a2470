//! The request that asks for a WebSocket, and its response.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::upgrade::OnUpgrade;

use super::socket::Session;
use crate::access::{Grant, Right};
use crate::http::api::Api;
use crate::http::authorized_body::RightWatch;
use crate::http::encode::Form;
use crate::http::events::Following;
use crate::http::problem::Problem;
use crate::http::request::{lists, words};
use crate::listener::Counted;

/// The only version of the protocol.
const VERSION: HeaderValue = HeaderValue::from_static("13");
/// What the standard appends to the key before it is hashed.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Subprotocols, and the form that each of them stands for.
const PROTOCOLS: [(&str, Form); 2] = [("psa.json", Form::Json), ("psa.binary", Form::Binary)];
/// A subprotocol with this prefix carries a token, in base64url without padding.
const TOKEN: &str = "psa.bearer.";

/// A valid handshake request.
pub(in crate::http) struct Handshake {
    upgrade: OnUpgrade,
    /// Counts the connection until the WebSocket ends.
    connection: Arc<Counted<Api>>,
    key: HeaderValue,
    protocol: Option<&'static str>,
    form: Form,
}

impl Handshake {
    /// Reads the request; `None` if it asks for something else.
    pub(in crate::http) fn read(mut request: Request) -> Result<Option<Self>, Problem> {
        let headers = request.headers();
        if !is_asked(headers) || request.method() != Method::GET {
            return Ok(None);
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
            return Err(bad(StatusCode::UPGRADE_REQUIRED, "the version of the protocol is 13"));
        }
        if !lists(headers, &header::CONNECTION, "upgrade") {
            return Err(bad(StatusCode::BAD_REQUEST, "Connection has to say: Upgrade"));
        }
        let key = key(headers)
            .ok_or_else(|| bad(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is no key"))?;
        let (protocol, form) = choose(headers)?;
        let extensions = request.extensions_mut();
        let (upgrade, connection) = (extensions.remove(), extensions.remove());
        let (Some(upgrade), Some(connection)) = (upgrade, connection) else {
            return Err(bad(StatusCode::BAD_REQUEST, "a WebSocket begins in HTTP/1.1"));
        };
        Ok(Some(Self { upgrade, connection, key, protocol, form }))
    }

    /// The form in which the client wants its records.
    pub(in crate::http) fn form(&self) -> Form {
        self.form
    }

    /// Returns the response, and starts the task that serves the WebSocket after it.
    pub(in crate::http) fn begin(
        self,
        api: &Arc<Api>,
        following: Following,
        grant: Grant,
        topic: &str,
    ) -> Result<Response, Problem> {
        let Self { upgrade, connection, key, protocol, form } = self;
        let rights = RightWatch::new(api, grant, Right::Subscribe, topic)?;
        let session = Session::new(api, following, rights, connection, form);
        tokio::spawn(session.begin(upgrade));
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let said = answer.headers_mut();
        said.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        said.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        said.insert(header::SEC_WEBSOCKET_ACCEPT, accept(&key));
        if let Some(protocol) = protocol {
            said.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        Ok(answer)
    }
}

/// The token that a handshake carries; none if it offers two.
pub(in crate::http) fn offered_token(headers: &HeaderMap) -> Option<String> {
    if !is_asked(headers) {
        return None;
    }
    let mut tokens = offered(headers).filter_map(|offer| offer.strip_prefix(TOKEN));
    let token = tokens.next().filter(|_| tokens.next().is_none())?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

fn is_asked(headers: &HeaderMap) -> bool {
    lists(headers, &header::UPGRADE, "websocket")
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    words(headers, &header::SEC_WEBSOCKET_PROTOCOL)
}

/// The key, if it is valid: sixteen bytes in base64, given once.
fn key(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).into_iter();
    let key = keys.next().filter(|_| keys.next().is_none())?;
    let decoded = STANDARD.decode(key.as_bytes()).ok()?;
    (decoded.len() == 16).then(|| key.clone())
}

/// The first offered subprotocol that the server knows, and its form.
fn choose(headers: &HeaderMap) -> Result<(Option<&'static str>, Form), Problem> {
    let mut offered = offered(headers).peekable();
    if offered.peek().is_none() {
        return Ok((None, Form::Json));
    }
    let ours = |offer| PROTOCOLS.into_iter().find(|(name, _)| *name == offer);
    match offered.find_map(ours) {
        Some((name, form)) => Ok((Some(name), form)),
        // If a browser offers subprotocols and the response chooses none, it fails without saying why.
        None => Err(bad(
            StatusCode::BAD_REQUEST,
            "who offers subprotocols offers psa.json or psa.binary, also beside a token",
        )),
    }
}

/// The value of `Sec-WebSocket-Accept`, which proves that the server has read the handshake.
fn accept(key: &HeaderValue) -> HeaderValue {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    let accept = STANDARD.encode(hash.digest().bytes());
    HeaderValue::try_from(accept).expect("base64 fits a header")
}

fn bad(status: StatusCode, why: &'static str) -> Problem {
    Problem::handshake(status, why).header(header::SEC_WEBSOCKET_VERSION, VERSION)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let read = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        given.iter().map(read).collect()
    }

    const PROTOCOL: &str = "sec-websocket-protocol";

    #[test]
    fn the_answer_is_the_standards_own_example() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_bytes_and_given_once() {
        let name = "sec-websocket-key";
        let good = (name, "dGhlIHNhbXBsZSBub25jZQ==");
        assert!(key(&headers(&[good])).is_some());
        for bad in ["", "x", "dGhlIHNhbXBsZQ==", "dGhlIHNhbXBsZSBub25jZSEhIQ=="] {
            assert!(key(&headers(&[(name, bad)])).is_none(), "{bad}");
        }
        assert!(key(&headers(&[])).is_none());
        let mut twice = headers(&[good]);
        twice.append(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static(good.1));
        assert!(key(&twice).is_none());
    }

    #[test]
    fn the_first_subprotocol_that_is_known_is_chosen() {
        let chosen = |offers: &str| choose(&headers(&[(PROTOCOL, offers)])).ok();
        assert_eq!(choose(&headers(&[])).unwrap(), (None, Form::Json));
        assert_eq!(chosen("psa.json"), Some((Some("psa.json"), Form::Json)));
        assert_eq!(
            chosen("x, psa.binary,psa.json"),
            Some((Some("psa.binary"), Form::Binary)),
            "in the client's order"
        );
        for none in ["graphql-ws", "psa.bearer.YQ", "PSA.JSON", ""] {
            assert_eq!(chosen(none), None, "{none}");
        }
    }

    #[test]
    fn a_token_is_found_among_the_subprotocols_of_a_handshake() {
        let upgrade = ("upgrade", "WebSocket");
        let token = |offers: &str| offered_token(&headers(&[upgrade, (PROTOCOL, offers)]));
        assert_eq!(token("psa.json, psa.bearer.czNjL3JldA").as_deref(), Some("s3c/ret"));
        assert_eq!(token("psa.bearer.").as_deref(), Some(""));
        for none in
            ["psa.json", "psa.bearer.czNjL3JldA==", "psa.bearer._w", "psa.bearer.YQ, psa.bearer.YQ"]
        {
            assert_eq!(token(none), None, "{none}");
        }
        assert_eq!(offered_token(&headers(&[(PROTOCOL, "psa.bearer.YQ")])), None, "no handshake");
    }
}
