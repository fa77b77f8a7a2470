//! Access checks: the name under which the server is addressed, the page that a browser makes the request for, and
//! the token.
//!
//! # Browsers
//!
//! Every page that a user has open can reach a server on 127.0.0.1. Two checks keep such pages out. A page of
//! another origin is refused because of its `Origin` header or, where the browser sends none (an image, a form),
//! because of `Sec-Fetch-Site`. If the browser itself says `Sec-Fetch-Site: same-origin`, which no page can forge,
//! the page is the server's own, whatever `Host` a proxy in between has set. A page whose own name points to
//! 127.0.0.1 (DNS rebinding) has the right origin but the wrong `Host`: without a token, the server answers only to
//! IP addresses, `localhost` and the configured names. With a token, neither kind of page can do anything, because
//! it does not know the token.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{OriginalUri, Request, State};
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use super::api::Api;
use super::origins::Origins;
use super::problem::Problem;
use super::reading::Requests;
use super::websocket::offered_token;
use crate::words::{HostName, Origin};

/// The query parameter that may carry the token (RFC 6750).
const QUERY_TOKEN: &str = "access_token";

/// Checks the name and the page. Runs before all routes.
pub(super) async fn check_page(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let authority = authority(&request)?;
    if api.gate.is_open()
        && let Some(authority) = &authority
        && !is_known_host(authority.host(), &api.hosts)
    {
        return Err(Problem::foreign_host(authority.host()));
    }
    check_origin(&request, authority.as_ref(), &api.origins)?;
    Ok(next.run(request).await)
}

/// Checks the token. Runs before all routes but the open ones: health checks, the description of the API, the files
/// of the live page.
pub(super) async fn check_token(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let in_query =
        if api.config.token_in_query { take_from_query(request.uri_mut()) } else { None };
    // The router keeps the address as it came, too.
    if api.config.token_in_query
        && let Some(OriginalUri(uri)) = request.extensions_mut().get_mut()
    {
        take_from_query(uri);
    }
    let headers = request.headers();
    // For a page that opens a WebSocket, which cannot set a header.
    let offered = offered_token(headers);
    let presented = bearer(headers).or(in_query.as_deref()).or(offered.as_deref());
    let presented = presented.unwrap_or_default();
    let Some(grant) = api.gate.admit(presented) else {
        if api.unauthorized.should_log() {
            let asked = Asked::of(&request);
            let what = if presented.is_empty() { "no token" } else { "wrong token" };
            tracing::warn!(peer = asked.peer, method = %asked.method, path = asked.path, "{what} over HTTP");
        }
        return Err(Problem::unauthorized());
    };
    // Only for a token that does not allow everything is there something to tell afterwards.
    let asked = grant.is_limited().then(|| (Asked::of(&request), grant.clone()));
    request.extensions_mut().insert(grant);
    let answer = next.run(request).await;
    if answer.status() == StatusCode::FORBIDDEN
        && let Some((Asked { peer, method, path }, grant)) = asked
        && api.forbidden.should_log()
    {
        tracing::warn!(peer, %method, path, token = grant.name(), "forbidden over HTTP");
    }
    Ok(answer)
}

/// What a client asked for, for the log. The path has no token in it any more.
struct Asked {
    peer: Option<String>,
    method: Method,
    path: String,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let requests = request.extensions().get::<Arc<Requests>>();
        let peer = requests.and_then(|requests| requests.peer()).map(|peer| peer.to_string());
        Self { peer, method: request.method().clone(), path: request.uri().path().to_owned() }
    }
}

/// Removes the token from the address: nothing after this sees it there, so nothing can log it. A token that is
/// given twice counts as none.
fn take_from_query(uri: &mut Uri) -> Option<String> {
    let (mut tokens, mut others) = (Vec::new(), Vec::new());
    for part in uri.query()?.split('&') {
        match form_urlencoded::parse(part.as_bytes()).next() {
            Some((name, value)) if name == QUERY_TOKEN => tokens.push(value.into_owned()),
            _ => others.push(part),
        }
    }
    if tokens.is_empty() {
        return None;
    }
    let rest = if others.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), others.join("&"))
    };
    let mut parts = std::mem::take(uri).into_parts();
    // It was part of a valid address, so it is valid. If it were not, the token must still not stay in the address.
    parts.path_and_query = PathAndQuery::try_from(rest).ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
    let token = tokens.pop();
    token.filter(|_| tokens.is_empty())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The host and port that the client addresses: from the address in HTTP/2, from `Host` in HTTP/1. No page can omit
/// them.
fn authority(request: &Request) -> Result<Option<Authority>, Problem> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.clone()));
    }
    let Some(host) = request.headers().get(header::HOST) else { return Ok(None) };
    let read = host.to_str().ok().and_then(|host| host.parse().ok());
    read.map(Some).ok_or_else(|| Problem::foreign_host(&String::from_utf8_lossy(host.as_bytes())))
}

/// Whether the server answers to this name: an IP address, `localhost` or a name under it, or one of `names`.
pub(super) fn is_known_host(host: &str, names: &[HostName]) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    bare.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || host.parse().is_ok_and(|name: HostName| names.contains(&name))
}

fn check_origin(
    request: &Request,
    authority: Option<&Authority>,
    allowed: &Origins,
) -> Result<(), Problem> {
    let headers = request.headers();
    let says = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("null");
        let own = origin.parse().is_ok_and(|origin: Origin| {
            authority.is_some_and(|authority| origin.is_at(authority.as_str()))
        });
        // Behind a proxy that sets its own Host, only the browser knows.
        let own = own || says("sec-fetch-site") == Some("same-origin");
        return if own || allowed.allows(origin) {
            Ok(())
        } else {
            Err(Problem::foreign_origin(origin))
        };
    }
    // Without an origin, this is no page, or the browser says where the request comes from.
    match says("sec-fetch-site") {
        None | Some("none" | "same-origin") => Ok(()),
        // A user follows a link: the page with the link sees nothing of the response.
        Some(_)
            if request.method() == Method::GET
                && says("sec-fetch-mode") == Some("navigate")
                && says("sec-fetch-dest") == Some("document") =>
        {
            Ok(())
        }
        Some(_) if allowed.allows_all() => Ok(()),
        Some(_) => Err(Problem::foreign_origin("another origin")),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let request =
            headers.iter().fold(Request::builder().uri("/topics"), |request, (name, value)| {
                request.header(*name, *value)
            });
        request.body(Body::empty()).unwrap()
    }

    fn page(headers: &[(&str, &str)], allowed: &[&str]) -> bool {
        let request = request(headers);
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        let allowed = Origins::read(&allowed).unwrap();
        check_origin(&request, authority(&request).unwrap().as_ref(), &allowed).is_ok()
    }

    #[test]
    fn names_that_a_page_cannot_have_are_known() {
        let named = ["psa.example.org".parse().unwrap()];
        for known in [
            "127.0.0.1",
            "[::1]",
            "10.0.0.7",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "PSA.example.org",
        ] {
            assert!(is_known_host(known, &named), "{known}");
        }
        for foreign in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!is_known_host(foreign, &named), "{foreign}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_read_is_no_name_of_ours() {
        for bad in ["", "a b", "evil.example:x:y", "evil.example/"] {
            assert!(authority(&request(&[("host", bad)])).is_err(), "{bad}");
        }
        assert!(authority(&request(&[])).unwrap().is_none());
    }

    #[test]
    fn pages_of_other_origins_are_kept_out() {
        let host = ("host", "127.0.0.1:9854");
        assert!(page(&[host], &[]), "no browser");
        assert!(page(&[host, ("origin", "http://127.0.0.1:9854")], &[]), "its own page");
        for foreign in ["http://127.0.0.1:3000", "https://evil.example", "null"] {
            assert!(!page(&[host, ("origin", foreign)], &["https://good.example"]), "{foreign}");
            assert!(page(&[host, ("origin", foreign)], &["*"]), "{foreign}");
        }
        assert!(page(&[host, ("origin", "https://good.example")], &["https://good.example"]));
        assert!(page(&[host, ("origin", "https://good.example")], &["https://Good.example:443"]));
    }

    #[test]
    fn the_browser_knows_its_own_page_behind_a_proxy() {
        let upstream = [("host", "127.0.0.1:9854"), ("origin", "https://app.example")];
        let from = |site| page(&[upstream[0], upstream[1], ("sec-fetch-site", site)], &[]);
        assert!(from("same-origin"));
        for other in ["same-site", "cross-site", "none", "Same-Origin", ""] {
            assert!(!from(other), "{other}");
        }
    }

    #[test]
    fn what_pages_embed_is_kept_out_and_links_are_followed() {
        let site = |site| ("sec-fetch-site", site);
        let mode = |mode| ("sec-fetch-mode", mode);
        let dest = |dest| ("sec-fetch-dest", dest);
        assert!(page(&[site("none")], &[]));
        assert!(page(&[site("same-origin")], &[]));
        assert!(!page(&[site("cross-site"), mode("no-cors"), dest("image")], &[]));
        assert!(!page(&[site("same-site"), mode("no-cors"), dest("image")], &[]));
        assert!(!page(&[site("cross-site"), mode("navigate"), dest("iframe")], &[]));
        assert!(page(&[site("cross-site"), mode("navigate"), dest("document")], &[]));
    }

    #[test]
    fn the_token_is_taken_out_of_the_address() {
        for (given, token, left) in [
            ("/t?access_token=abc", Some("abc"), "/t"),
            ("/t?from=next&access_token=a%2Bb&x=1", Some("a+b"), "/t?from=next&x=1"),
            ("/t?access%5Ftoken=abc&a=%26", Some("abc"), "/t?a=%26"),
            ("http://h:1/t?access_token=abc", Some("abc"), "http://h:1/t"),
            ("/t?access_token=a&access_token=b", None, "/t"),
            ("/t?access_token", Some(""), "/t"),
            ("/t?token=abc", None, "/t?token=abc"),
            ("/t", None, "/t"),
        ] {
            let mut uri: Uri = given.parse().unwrap();
            assert_eq!(take_from_query(&mut uri).as_deref(), token, "{given}");
            assert_eq!(uri.to_string(), left, "{given}");
        }
    }

    #[test]
    fn the_token_is_found() {
        for value in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(bearer(request(&[("authorization", value)]).headers()), Some("abc"));
        }
        for value in ["abc", "Basic abc", ""] {
            assert_eq!(bearer(request(&[("authorization", value)]).headers()), None);
        }
    }
}
