//! What a request asks for: the topic in its path, the parameters of its query, the media type that its client
//! accepts.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri, header};

use super::api::Api;
use super::problem::Problem;
use crate::access::Grant;

/// The topic's name in the path.
pub(super) struct TopicName(pub(super) String);

impl FromRequestParts<Arc<Api>> for TopicName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, api).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(rejection) => Err(Problem::name(rejection.body_text())),
        }
    }
}

/// What stands before the API's own paths in the address that the client used: nothing, unless the API is nested in
/// another router. `uri` is what is left of that address.
pub(super) fn prefix<'a>(original: &'a Uri, uri: &Uri) -> &'a str {
    original.path().strip_suffix(uri.path()).unwrap_or_default()
}

impl FromRequestParts<Arc<Api>> for Grant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        // A route without the gate in front of it grants nothing to anybody.
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}

/// The parameters of the query. An unknown one is an error: a typo must not be ignored silently.
#[derive(Debug, Default)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut found = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                let known = if known.is_empty() {
                    "there are none here".to_owned()
                } else {
                    format!("known here: {}", known.join(", "))
                };
                return Err(Problem::parameter(&name, format!("no such parameter; {known}")));
            }
            if found.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Problem::parameter(&name, "given twice; give it once"));
            }
        }
        Ok(Self(found))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The parameter, parsed by `read`.
    pub(super) fn get<T, E: std::fmt::Display>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        self.text(name).map(read).transpose().map_err(|why| Problem::parameter(name, why))
    }
}

/// The elements of a header that is a comma-separated list.
pub(super) fn words<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether a header that is a comma-separated list contains a word; case does not matter.
pub(super) fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|listed| listed.eq_ignore_ascii_case(word))
}

/// Which of the `offered` media types the client prefers; of equals, the first. Without a preference, the first.
///
/// Reads the quality values of RFC 9110, and ignores parameters of media types.
pub(super) fn choose<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Result<&'a str, Problem> {
    let mut wishes = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        for wish in value.to_str().unwrap_or_default().split(',') {
            let mut parts = wish.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            if range.is_empty() {
                continue;
            }
            let quality = parts
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
                .map_or(1.0, |(_, q)| q.trim().parse().unwrap_or(0.0f32));
            wishes.push((range, quality));
        }
    }
    if wishes.is_empty() {
        return Ok(offered[0]);
    }
    let quality = |media: &str| {
        // The most specific range that covers the type decides.
        let covers = |range: &str| match range {
            "*/*" => Some(0),
            _ if range == media => Some(2),
            _ => {
                let family = range.strip_suffix('*')?;
                (family.ends_with('/') && media.starts_with(family)).then_some(1)
            }
        };
        let best = wishes
            .iter()
            .filter_map(|(range, quality)| Some((covers(range)?, *quality)))
            .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        best.map_or(0.0, |(_, quality)| quality)
    };
    let mut best = (0.0, None);
    for media in offered {
        let liked = quality(media);
        if liked > best.0 {
            best = (liked, Some(*media));
        }
    }
    best.1.ok_or_else(|| Problem::not_acceptable(offered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_and_given_once() {
        let known = ["after", "limit"];
        let found = Parameters::read(Some("after=0x1%3A2&limit=3"), &known).unwrap();
        assert_eq!((found.text("after"), found.text("limit")), (Some("0x1:2"), Some("3")));
        assert!(Parameters::read(None, &known).unwrap().text("after").is_none());
        for bad in ["aftre=1", "limit=1&limit=2", "x", "limit=1&=2"] {
            assert!(Parameters::read(Some(bad), &known).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_best_form_is_chosen() {
        let offered = ["application/json", "application/x-ndjson", "application/raw"];
        let chosen = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            choose(&headers, &offered).ok()
        };
        assert_eq!(choose(&HeaderMap::new(), &offered).unwrap(), offered[0]);
        for (accept, form) in [
            ("*/*", Some(offered[0])),
            ("application/*", Some(offered[0])),
            ("text/html, application/X-NDJSON;q=0.5", Some(offered[1])),
            ("application/json;q=0.1, application/raw;q=0.9, */*;q=0.5", Some(offered[2])),
            ("application/json;q=0, */*", Some(offered[1])),
            ("text/html", None),
            ("application/json;q=0", None),
            ("text/*, image/png", None),
        ] {
            assert_eq!(chosen(accept), form, "{accept}");
        }
    }
}
