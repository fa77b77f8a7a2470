//! Checks the form of every request, before any route sees it.
//!
//! A proxy in front and this server must read a request alike: if one takes the first of two fields and the
//! other one takes the second, the proxy checks something else than the server does. So a field that the
//! standard allows once is refused twice, and nothing that cannot be read is guessed.

use axum::http::{HeaderName, HeaderValue, Request, Uri, Version, header};
use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// Fields that the server reads and that may appear in a request once. Lists are not among them. hyper checks
/// `Content-Length`, and `durable` the headers of the Durable Streams protocol.
const SINGLE: [HeaderName; 10] = [
    header::HOST,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::ORIGIN,
    header::SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-dest"),
    HeaderName::from_static("stream-closed"),
];

/// Checks the form of a request.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Problem> {
    let headers = request.headers();
    for name in &SINGLE {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Problem::request(format!("{name} is given twice; give it once")));
        }
    }
    let host = headers.get(header::HOST);
    // HTTP/1.0 may omit it. HTTP/1.1 requires it even where the request line has the whole URI.
    if request.version() == Version::HTTP_11 && host.is_none() {
        return Err(Problem::request("Host is missing; HTTP/1.1 wants it (RFC 9112, 3.2)"));
    }
    if request.version() > Version::HTTP_11
        && let (Some(host), Some(authority)) = (host, request.uri().authority())
        && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(Problem::request("Host is another one than :authority; leave it out"));
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter().peekable();
    if codings.peek().is_some() && !only_chunked(codings) {
        return Err(Problem::transfer_coding());
    }
    check_escapes(request.uri())
}

fn only_chunked<'a>(mut codings: impl Iterator<Item = &'a HeaderValue>) -> bool {
    let only = codings.next().filter(|_| codings.next().is_none());
    only.is_some_and(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Checks that every percent sign begins an escape of two hexadecimal digits, and that the query is UTF-8.
fn check_escapes(uri: &Uri) -> Result<(), Problem> {
    let why = "a percent sign has two hexadecimal digits behind it; for itself write %25";
    if !are_escapes(uri.path()) {
        return Err(Problem::name(why));
    }
    for part in uri.query().unwrap_or_default().split('&') {
        let name = part.split('=').next().unwrap_or_default();
        if !are_escapes(part) {
            return Err(Problem::parameter(name, why));
        }
        if percent_decode_str(part).decode_utf8().is_err() {
            return Err(Problem::parameter(name, "it is no UTF-8"));
        }
    }
    Ok(())
}

fn are_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, uri: &str, headers: &[(&str, &str)]) -> Result<(), u16> {
        let request = Request::builder().version(version).uri(uri);
        let all =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        check(&all.body(()).unwrap()).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn a_host_is_there_once() {
        let one = ("host", "a");
        assert_eq!(checked(Version::HTTP_11, "/", &[one]), Ok(()));
        assert_eq!(checked(Version::HTTP_11, "/", &[]), Err(400));
        assert_eq!(checked(Version::HTTP_11, "http://a/", &[]), Err(400));
        assert_eq!(checked(Version::HTTP_10, "/", &[]), Ok(()));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(checked(version, "/", &[one, ("host", "b")]), Err(400), "{version:?}");
            assert_eq!(checked(version, "/", &[one, one]), Err(400), "{version:?}");
        }
        assert_eq!(checked(Version::HTTP_2, "http://a/", &[]), Ok(()));
        assert_eq!(checked(Version::HTTP_2, "http://a/", &[("host", "A")]), Ok(()));
        assert_eq!(checked(Version::HTTP_2, "http://a/", &[("host", "b")]), Err(400));
    }

    #[test]
    fn what_is_read_once_is_not_given_twice() {
        for name in &SINGLE {
            let fields = [("host", "a"), (name.as_str(), "x"), (name.as_str(), "x")];
            assert_eq!(checked(Version::HTTP_11, "/", &fields), Err(400), "{name}");
        }
        // Lists may be given twice.
        for name in ["accept", "if-none-match", "connection", "upgrade", "sec-websocket-protocol"] {
            let fields = [("host", "a"), (name, "x"), (name, "y")];
            assert_eq!(checked(Version::HTTP_11, "/", &fields), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_transfer_coding_is_chunked_or_refused() {
        let coding = |codings: &[&str]| {
            let codings = codings.iter().map(|coding| ("transfer-encoding", *coding));
            let fields: Vec<_> = [("host", "a")].into_iter().chain(codings).collect();
            checked(Version::HTTP_11, "/", &fields)
        };
        assert_eq!(
            (coding(&[]), coding(&["chunked"]), coding(&["Chunked "])),
            (Ok(()), Ok(()), Ok(()))
        );
        for bad in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["chunked, chunked"],
            &["identity"],
            &["xchunked"],
            &[""],
        ] {
            assert_eq!(coding(bad), Err(501), "{bad:?}");
        }
    }

    #[test]
    fn a_percent_sign_begins_an_escape() {
        for good in ["/", "/topics/a%2Fb%25", "/t?a=%C3%A9&b=%25", "/t?a+b", "/t?%61=1", "/%FF"] {
            assert_eq!(checked(Version::HTTP_11, good, &[("host", "a")]), Ok(()), "{good}");
        }
        for bad in
            ["/%zz", "/a%", "/a%2", "/%%41", "/t?a=%", "/t?a=%4", "/t?%zz", "/t?a=%FF", "/t?%FF=1"]
        {
            assert_eq!(checked(Version::HTTP_11, bad, &[("host", "a")]), Err(400), "{bad}");
        }
    }
}
