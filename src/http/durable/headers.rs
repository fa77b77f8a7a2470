//! Reading the headers of requests, and the names of all headers of the protocol.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

pub(super) use crate::http::header_values::{number, short, text};
use crate::http::problem::Problem;
use crate::words::Time;

/// Where the next read begins, and where the next append goes.
pub(in crate::http) const NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
/// Lets caches distinguish requests made at different times.
pub(in crate::http) const CURSOR: HeaderName = HeaderName::from_static("stream-cursor");
/// The response reaches the current end of the stream.
pub(in crate::http) const UP_TO_DATE: HeaderName = HeaderName::from_static("stream-up-to-date");
/// In a response: the stream is closed. In a request: close it.
pub(in crate::http) const CLOSED: HeaderName = HeaderName::from_static("stream-closed");
/// How long the stream is kept without being used, in seconds.
pub(in crate::http) const TTL: HeaderName = HeaderName::from_static("stream-ttl");
/// When the stream expires, as a time of RFC 3339.
pub(in crate::http) const EXPIRES_AT: HeaderName = HeaderName::from_static("stream-expires-at");
/// A writer's own sequence of an append: a byte string that must grow from append to append.
pub(in crate::http) const SEQ: HeaderName = HeaderName::from_static("stream-seq");
/// The source of a fork: the fork begins with its records.
pub(in crate::http) const FORKED_FROM: HeaderName = HeaderName::from_static("stream-forked-from");
/// The position at which a fork leaves its source.
pub(in crate::http) const FORK_OFFSET: HeaderName = HeaderName::from_static("stream-fork-offset");
/// How much further than that the fork takes its source: in bytes, or in elements of a JSON stream.
pub(in crate::http) const FORK_SUB_OFFSET: HeaderName =
    HeaderName::from_static("stream-fork-sub-offset");
/// How events carry bytes that are not text.
pub(in crate::http) const DATA_ENCODING: HeaderName =
    HeaderName::from_static("stream-sse-data-encoding");

/// The value of headers that are flags.
pub(super) const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The media type of JSON streams.
const JSON: &str = "application/json";

/// Whether the request closes the stream. Any value but `true` is ignored.
pub(super) fn closes(headers: &HeaderMap) -> bool {
    headers.get(CLOSED).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// The content type of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Media {
    /// As the client gave it, for responses.
    pub(super) given: String,
    /// Without parameters, in lower case, for comparisons.
    plain: String,
}

impl Media {
    /// The content type of a request, if it has one.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let name = header::CONTENT_TYPE;
        let given = short(headers, &name)?.map(str::trim).filter(|given| !given.is_empty());
        let read = |given: &str| {
            let media = Self::new(given);
            let parts = media.plain.split_once('/');
            let good = parts.is_some_and(|(kind, form)| !kind.is_empty() && !form.is_empty());
            let why = "expected a media type such as application/json";
            if good { Ok(media) } else { Err(Problem::bad_header(&name, why)) }
        };
        given.map(read).transpose()
    }

    pub(super) fn new(given: &str) -> Self {
        let plain = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Self { given: given.to_owned(), plain }
    }

    /// Plain bytes: the type of a stream if none is given.
    pub(super) fn bytes() -> Self {
        Self::new("application/octet-stream")
    }

    /// Whether both are the same, apart from their parameters.
    pub(super) fn matches(&self, other: &Self) -> bool {
        self.plain == other.plain
    }

    pub(super) fn is_json(&self) -> bool {
        self.plain == JSON
    }

    /// Whether events carry it as text, rather than in base64.
    pub(super) fn is_text(&self) -> bool {
        self.is_json() || self.plain.starts_with("text/")
    }
}

/// How long a stream is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// Until it is deleted.
    #[default]
    Unlimited,
    /// Until it has not been used for this long.
    Idle(Duration),
    /// Until this time; the text is as the client gave it.
    Until(SystemTime, String),
}

impl Lifetime {
    /// What the request asks for.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let ttl = text(headers, &TTL)?;
        match (ttl, short(headers, &EXPIRES_AT)?) {
            (None, None) => Ok(Self::Unlimited),
            (Some(_), Some(_)) => Err(Problem::bad_header(
                &TTL,
                "given beside stream-expires-at; give one of the two",
            )),
            (Some(ttl), None) => Ok(Self::idle(number(&TTL, ttl)?)),
            (None, Some(given)) => {
                Self::until(given).map_err(|why| Problem::bad_header(&EXPIRES_AT, why))
            }
        }
    }

    pub(super) fn idle(seconds: u64) -> Self {
        Self::Idle(Duration::from_secs(seconds))
    }

    /// `given` is a time of RFC 3339.
    pub(super) fn until(
        given: &str,
    ) -> Result<Self, impl std::fmt::Display + std::fmt::Debug + use<>> {
        given.parse().map(|Time(at)| Self::Until(at, given.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append((*name).clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_lifetime_is_one_of_two() {
        let of = |given: &[(&HeaderName, &'static str)]| Lifetime::of(&headers(given));
        assert_eq!(of(&[]).unwrap(), Lifetime::Unlimited);
        assert_eq!(of(&[(&TTL, "60")]).unwrap(), Lifetime::Idle(Duration::from_secs(60)));
        let until = of(&[(&EXPIRES_AT, "2001-09-09T03:46:40+02:00")]).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(until, Lifetime::Until(at, "2001-09-09T03:46:40+02:00".into()));
        assert!(of(&[(&TTL, "60"), (&EXPIRES_AT, "2001-09-09T01:46:40Z")]).is_err());
        assert!(of(&[(&TTL, "60"), (&TTL, "60")]).is_err());
        assert!(of(&[(&EXPIRES_AT, "tomorrow")]).is_err());
    }

    #[test]
    fn media_types_are_compared_without_their_parameters() {
        let of = |given| Media::of(&headers(&[(&header::CONTENT_TYPE, given)]));
        let json = of("Application/JSON; charset=utf-8").unwrap().unwrap();
        assert!(json.is_json() && json.matches(&of("application/json").unwrap().unwrap()));
        assert!(of("text/plain").unwrap().unwrap().is_text() && !Media::bytes().is_text());
        assert_eq!(of(" ").unwrap(), None);
        assert!(of("nonsense").is_err() && of("/x").is_err());
    }
}
