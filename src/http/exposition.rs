//! The figures as an answer: in which of two text forms, and how many of them there may be at a time.
//!
//! # Two forms
//!
//! OpenMetrics is written by the library. The older plain form of Prometheus is made out of it: it names a
//! counter with its `_total` also where it describes it, and has no end mark. Who asks for nothing in
//! particular gets OpenMetrics, as before there was another form.
//!
//! # Bounded
//!
//! An answer can have half a megabyte, and a client that takes none of it keeps it for `stall_timeout`. So one
//! rendering at a time is made, a rendering that somebody still takes is given to others for up to
//! [`SHARED_FOR`], and each one holds its size of the memory that all answers share. Who takes its answers as
//! they come, alone, always gets new figures.

use std::{
    fmt::Write as _,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::{api::Api, problem::Problem, request::choose};
use axum::http::HeaderMap;

/// How old an answer may be that is given to one more client while another one still takes it.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// A text form of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    OpenMetrics,
    Plain,
}

impl Form {
    /// The form that the client likes best. Somebody who likes neither gets the first one: a scraper that
    /// names a form of its own reads it all the same, and one that does not says so better than we could.
    pub(super) fn wished(headers: &HeaderMap) -> Self {
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

/// The newest answers, of each form one.
#[derive(Default)]
pub(super) struct Renderings([Mutex<Option<Newest>>; 2]);

/// The newest answer of a form, as long as anybody takes it.
struct Newest {
    made: Instant,
    rendering: Weak<Rendering>,
}

/// An answer that holds its memory as long as anybody takes it.
struct Rendering {
    text: String,
    _held: OwnedSemaphorePermit,
}

/// One who takes it.
struct Share(Arc<Rendering>);

impl AsRef<[u8]> for Share {
    fn as_ref(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

impl Renderings {
    /// The figures in this form. `render` writes them in OpenMetrics, if that is needed.
    pub(super) async fn take(
        &self,
        api: &Api,
        form: Form,
        render: impl AsyncFnOnce() -> Result<String, Problem>,
    ) -> Result<Bytes, Problem> {
        // Others wait here meanwhile, instead of doing the same.
        let mut newest = self.0[form as usize].lock().await;
        let shared = newest.as_ref().filter(|newest| newest.made.elapsed() < SHARED_FOR);
        if let Some(rendering) = shared.and_then(|newest| newest.rendering.upgrade()) {
            return Ok(Bytes::from_owner(Share(rendering)));
        }
        let made = Instant::now();
        let text = render().await?;
        let text = if form == Form::Plain { plain(&text) } else { text };
        let held = api.take_output(text.len())?;
        let rendering = Arc::new(Rendering { text, _held: held });
        *newest = Some(Newest { made, rendering: Arc::downgrade(&rendering) });
        Ok(Bytes::from_owner(Share(rendering)))
    }
}

/// OpenMetrics as the plain form, version 0.0.4.
fn plain(open: &str) -> String {
    let mut out = String::with_capacity(open.len() + 1024);
    // The description comes before the type, which decides how it is named.
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
    use crate::{
        broker::{Broker, BrokerConfig},
        http::HttpConfig,
    };

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
        let form = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Form::wished(&headers)
        };
        assert_eq!(Form::wished(&HeaderMap::new()), Form::OpenMetrics);
        for plain in [
            "text/plain",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0.5,text/plain;version=0.0.4;q=0.8",
            "text/*",
        ] {
            assert_eq!(form(plain), Form::Plain, "{plain}");
        }
        for open in [
            "*/*",
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/vnd.google.protobuf",
            "text/html,*/*;q=0.8",
        ] {
            assert_eq!(form(open), Form::OpenMetrics, "{open}");
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
            renderings.take(&api, Form::OpenMetrics, render).await
        };
        let first = take(&"1".repeat(60)).await.unwrap();
        // Nobody has taken it to the end: the next one gets the same memory.
        let second = take(&"2".repeat(60)).await.unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        drop((first, second));
        // Taken: the next one gets new figures.
        let third = take(&"3".repeat(60)).await.unwrap();
        assert!(third.starts_with(b"3"));
        // Old and not taken: another one is made, if there is memory.
        *renderings.0[0].lock().await = None;
        assert!(take(&"4".repeat(60)).await.is_err(), "120 of 100 bytes");
        drop(third);
        assert!(take(&"4".repeat(60)).await.unwrap().starts_with(b"4"));
    }
}
