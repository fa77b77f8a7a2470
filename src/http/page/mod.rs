//! The live page at `/`, and the feed that moves it.
//!
//! # The page
//!
//! A handful of files, built into the program: no build step, and nothing from anywhere else. Its
//! policy allows scripts, styles and connections of its own origin alone, nothing inline, and no other
//! page's frame around it. Everything that it shows of topics is text to it, never markup; the browser
//! is told to enforce that, too (trusted types). The files are the same for everybody and tell nothing,
//! so they need no token; whatever the page shows it asks for like any other client.
//!
//! # The feed
//!
//! `GET /live/events` tells four times a second what has changed ([`mod@feed`]), as long as somebody looks,
//! in one encoding for all who look. What a topic looks like is read from its log by loads alone
//! ([`state`]): neither publishers nor subscribers wait for it.

mod feed;
mod state;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{api::Api, problem::Problem, request::Parameters};

pub(super) use feed::Live;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Address, type, content.
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

/// Nothing but what the page brings itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// What each of the files says beside itself.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // For browsers that do not know frame-ancestors.
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    // A server of another version has another page, and they are small.
    (header::CACHE_CONTROL, "no-store"),
];

/// The page's files, which are for everybody.
pub(super) fn router() -> Router<Arc<Api>> {
    FILES.iter().fold(Router::new(), |router, (path, media, text)| {
        router.route(path, get(async move |uri: Uri| file(&uri, media, text)))
    })
}

/// What the page asks for, which is not.
pub(super) fn feed() -> Router<Arc<Api>> {
    Router::new().route("/live/events", get(feed::look))
}

fn file(uri: &Uri, media: &'static str, text: &'static str) -> Result<Response, Problem> {
    Parameters::read(uri.query(), &[])?;
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
    fn what_the_page_asks_for_is_there() {
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
            assert!(page.contains(&format!("\"{path}\"")), "{path}");
        }
        // The policy would refuse them.
        let handler = |word: &str| word.starts_with("on") && word.contains('=');
        assert!(
            !page.contains("<style") && !page.contains(" style=") && !page.contains("<script>")
        );
        assert!(!page.split_whitespace().any(handler));
    }
}
