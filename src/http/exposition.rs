//! The metrics as a response: in one of two text formats, and with a bound on their memory.
//!
//! # Two formats
//!
//! The library writes OpenMetrics. The older plain format of Prometheus is derived from it: there a counter is named
//! with its `_total` in its description, too, and there is no end marker. A client that states no preference gets
//! OpenMetrics, as it did before there was a second format.
//!
//! # Bounded memory
//!
//! A response can be half a megabyte, and a client that takes none of it holds it for `stall_timeout`. So only one
//! rendering of each format is made at a time; a rendering that some client is still taking is given to others for
//! up to [`SHARED_FOR`]; and each rendering is charged to the memory that all responses share. A client that is
//! alone and takes its responses as they come always gets fresh values.

use std::fmt::Write as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::api::Api;
use super::problem::Problem;
use super::request::choose;
use axum::http::HeaderMap;

/// How old a rendering may be that is given to another client while one is still taking it.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// A text format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextFormat {
    OpenMetrics,
    Plain,
}

impl TextFormat {
    /// The format that the client prefers. A client that accepts neither gets OpenMetrics: a scraper that names a
    /// format of its own can read it all the same, and one that cannot reports that better than we could.
    pub(super) fn preferred(headers: &HeaderMap) -> Self {
        let offered = ["application/openmetrics-text", "text/plain"];
        match choose(headers, &offered) {
            Ok("text/plain") => Self::Plain,
            _ => Self::OpenMetrics,
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The newest rendering of each format.
#[derive(Default)]
pub(super) struct Renderings([Mutex<Option<Newest>>; 2]);

/// The newest rendering of a format, for as long as some client is taking it.
struct Newest {
    made: Instant,
    rendering: Weak<Rendering>,
}

/// Rendered metrics, charged to the pool for as long as some client is taking them.
struct Rendering {
    text: String,
    _held: OwnedSemaphorePermit,
}

/// One client's share in a rendering.
struct Share(Arc<Rendering>);

impl AsRef<[u8]> for Share {
    fn as_ref(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

impl Renderings {
    /// The metrics in this format. `render` writes them in OpenMetrics; it is called only if no rendering can be
    /// shared.
    pub(super) async fn take(
        &self,
        api: &Api,
        format: TextFormat,
        render: impl AsyncFnOnce() -> Result<String, Problem>,
    ) -> Result<Bytes, Problem> {
        // Other requests wait here meanwhile, instead of rendering the same.
        let mut newest = self.0[format as usize].lock().await;
        let shared = newest.as_ref().filter(|newest| newest.made.elapsed() < SHARED_FOR);
        if let Some(rendering) = shared.and_then(|newest| newest.rendering.upgrade()) {
            return Ok(Bytes::from_owner(Share(rendering)));
        }
        let made = Instant::now();
        let text = render().await?;
        let text = if format == TextFormat::Plain { plain(&text) } else { text };
        let held = api.take_output(text.len())?;
        let rendering = Arc::new(Rendering { text, _held: held });
        *newest = Some(Newest { made, rendering: Arc::downgrade(&rendering) });
        Ok(Bytes::from_owner(Share(rendering)))
    }
}

/// Converts OpenMetrics to the plain format, version 0.0.4.
fn plain(open: &str) -> String {
    let mut out = String::with_capacity(open.len() + 1024);
    // The description precedes the type, which decides the name, so it is kept until then.
    let mut help = None;
    for line in open.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take_if(|(described, _)| *described == name) {
                // Writing into memory does not fail.
                let _ = writeln!(out, "# HELP {name}{suffix} {text}");
            }
            let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;
    use crate::broker::{Broker, BrokerConfig};
    use crate::http::HttpConfig;

    #[test]
    fn the_plain_form_names_counters_where_it_describes_them() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# y\"} 1\n# HELP b More.\n# TYPE b gauge\n\
            b 2\n# TYPE c_seconds histogram\nc_seconds_sum 0.5\nc_seconds_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# y\"} 1\n# HELP b More.\n\
            # TYPE b gauge\nb 2\n# TYPE c_seconds histogram\nc_seconds_sum 0.5\nc_seconds_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(plain(open), expected);
    }

    #[test]
    fn a_form_is_chosen_by_what_is_asked_for() {
        let format = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            TextFormat::preferred(&headers)
        };
        assert_eq!(TextFormat::preferred(&HeaderMap::new()), TextFormat::OpenMetrics);
        for plain in [
            "text/plain",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0.5,text/plain;version=0.0.4;q=0.8",
            "text/*",
        ] {
            assert_eq!(format(plain), TextFormat::Plain, "{plain}");
        }
        for open in [
            "*/*",
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/vnd.google.protobuf",
            "text/html,*/*;q=0.8",
        ] {
            assert_eq!(format(open), TextFormat::OpenMetrics, "{open}");
        }
    }

    #[tokio::test]
    async fn what_nobody_takes_is_rendered_once_and_bounded() {
        let mut config = HttpConfig::default();
        config.limits.output_bytes = 100;
        let api = Api::new(config, Broker::new(BrokerConfig::default()).unwrap());
        let renderings = Renderings::default();
        let take = async |text: &str| {
            let render = async || Ok(text.to_owned());
            renderings.take(&api, TextFormat::OpenMetrics, render).await
        };
        let first = take(&"1".repeat(60)).await.unwrap();
        // It has not been taken completely: the next client gets the same memory.
        let second = take(&"2".repeat(60)).await.unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        drop((first, second));
        // Both have taken it: the next client gets fresh values.
        let third = take(&"3".repeat(60)).await.unwrap();
        assert!(third.starts_with(b"3"));
        // Too old to share, and not taken yet: another one is made if there is memory.
        *renderings.0[0].lock().await = None;
        assert!(take(&"4".repeat(60)).await.is_err(), "120 of 100 bytes");
        drop(third);
        assert!(take(&"4".repeat(60)).await.unwrap().starts_with(b"4"));
    }
}
