//! The live page at `/`, and the feed that updates it.
//!
//! # The page
//!
//! A handful of files, built into the program: there is no build step, and nothing comes from anywhere else. The
//! page's policy allows scripts, styles and connections of its own origin only, nothing inline, and no frame of
//! another page around it. The page treats everything that it shows of topics as text, never as markup, and
//! makes the browser enforce that (trusted types). The files are the same for every client and disclose nothing,
//! so they need no token; the page requests whatever it shows like any other client.
//!
//! It may be under a prefix, in another program's router or behind a proxy that cuts one off. So it names everything
//! from where it is itself, and is at an address that ends with a slash.
//!
//! # The feed
//!
//! While there are viewers, `GET /live/events` sends four times a second what has changed ([`mod@feed`]), encoded
//! once for all of them. The state of a topic is read from its log with loads alone ([`state`]), so neither
//! publishers nor subscribers wait for it.

mod feed;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use super::api::Api;
use super::problem::Problem;
use super::request::Parameters;

pub(super) use feed::LiveFeed;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, media type, content.
const FILES: [(&str, &str, &str); 10] = [
    ("/", "text/html; charset=utf-8", include_str!("page.html")),
    ("/live/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/live/icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("/live/page.js", SCRIPT, include_str!("page.js")),
    ("/live/events.js", SCRIPT, include_str!("events.js")),
    ("/live/model.js", SCRIPT, include_str!("model.js")),
    ("/live/row.js", SCRIPT, include_str!("row.js")),
    ("/live/draw.js", SCRIPT, include_str!("draw.js")),
    ("/live/history.js", SCRIPT, include_str!("history.js")),
    ("/live/topic.js", SCRIPT, include_str!("topic.js")),
];

/// Allows nothing but the page's own files and its own origin.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// Response headers of all files.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // For browsers that do not know frame-ancestors.
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    // Another version of the server has another page, and the files are small.
    (header::CACHE_CONTROL, "no-store"),
];

/// The page's files, which need no token.
pub(super) fn router() -> Router<Arc<Api>> {
    FILES.iter().fold(Router::new(), |router, (path, media, text)| {
        let answer = async move |OriginalUri(original): OriginalUri, uri: Uri| {
            file(&original, &uri, media, text)
        };
        router.route(path, get(answer))
    })
}

/// The page's feed, which needs one.
pub(super) fn feed() -> Router<Arc<Api>> {
    Router::new().route("/live/events", get(feed::follow))
}

/// `original` is the address that the client used; `uri` is what is left of it without a prefix.
fn file(
    original: &Uri,
    uri: &Uri,
    media: &'static str,
    text: &'static str,
) -> Result<Response, Problem> {
    Parameters::read(uri.query(), &[])?;
    if let (Some((_, last)), "/") = (original.path().rsplit_once('/'), uri.path())
        && !last.is_empty()
    {
        // The page is looked for at the prefix without a slash: from there, its links would lead elsewhere.
        return Ok(Redirect::temporary(&format!("./{last}/")).into_response());
    }
    let mut answer = text.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_refers_to_exists() {
        let (_, _, page) = FILES[0];
        for (path, media, text) in FILES {
            if media == SCRIPT || path == "/" {
                // Modules name one another by `./NAME.js`.
                let imports = text.split("from \"./").skip(1).map(|rest| rest.split('"').next());
                for import in imports.flatten() {
                    let path = format!("/live/{import}");
                    assert!(FILES.iter().any(|(known, ..)| *known == path), "{path}");
                }
            }
            assert!(
                !text.contains("://") || path == "/live/icon.svg",
                "{path} names another place"
            );
            assert!(!text.contains("innerHTML") && !text.contains("insertAdjacent"), "{path}");
        }
        for path in ["/live/page.css", "/live/icon.svg", "/live/page.js"] {
            let relative = path.trim_start_matches('/');
            assert!(page.contains(&format!("\"{relative}\"")), "{path}");
        }
        // The policy would block inline styles, scripts and handlers.
        let handler = |word: &str| word.starts_with("on") && word.contains('=');
        assert!(
            !page.contains("<style") && !page.contains(" style=") && !page.contains("<script>")
        );
        assert!(!page.split_whitespace().any(handler));
    }
}
