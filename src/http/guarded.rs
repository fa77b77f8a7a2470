//! Answers without an end, which end when their right does.
//!
//! Every request is checked when it comes. An event stream is one request that may last for an hour, so its body
//! stands behind this one, which wakes when rights change and looks again. Its client finds the stream ended,
//! asks again, and is told why it gets none.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::{api::Api, problem::Problem};
use crate::access::{Grant, News, Right};

/// A wait for the next news, which comes back with it.
type Waiting = Pin<Box<dyn Future<Output = News> + Send>>;

/// Looks after a right for as long as something lasts that needs it.
pub(super) struct Watch {
    api: Arc<Api>,
    grant: Grant,
    right: Right,
    topic: String,
    /// `None` if there is nothing to look after.
    news: Option<Waiting>,
}

impl Watch {
    /// Begins to look after the right to the topic that `grant` gives.
    ///
    /// # Errors
    ///
    /// It gives it no more.
    pub(super) fn new(
        api: &Arc<Api>,
        grant: Grant,
        right: Right,
        topic: &str,
    ) -> Result<Self, Problem> {
        // Who may do everything may do so until the server ends.
        let news = if grant.is_limited() { api.gate.news() } else { None };
        if news.is_some() {
            // What changed between the request's own check and here is no news any more.
            api.still(&grant, right, topic)?;
        }
        let (api, topic, news) = (api.clone(), topic.to_owned(), news.map(wait));
        Ok(Self { api, grant, right, topic, news })
    }

    /// Ready when the right is lost, with what its holder would be told now.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Problem> {
        while let Some(waiting) = &mut self.news {
            let news = ready!(waiting.as_mut().poll(cx));
            self.news = Some(wait(news));
            if let Err(problem) = self.api.still(&self.grant, self.right, &self.topic) {
                tracing::info!(token = self.grant.name(), topic = self.topic, "right taken back");
                return Poll::Ready(problem);
            }
        }
        Poll::Pending
    }
}

/// The body of an answer that needs a right as long as it lasts.
struct Guarded {
    body: Body,
    watch: Watch,
}

/// The body, as long as `grant` gives its holder the right to the topic.
pub(super) fn guard(api: &Arc<Api>, grant: Grant, right: Right, topic: &str, body: Body) -> Body {
    match Watch::new(api, grant, right, topic) {
        Ok(Watch { news: None, .. }) => body,
        Ok(watch) => Body::new(Guarded { body, watch }),
        // As if it had lost the right a moment later.
        Err(_) => Body::empty(),
    }
}

fn wait(mut news: News) -> Waiting {
    Box::pin(async move {
        news.next().await;
        news
    })
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.watch.poll_lost(cx).is_ready() {
            // Not to be polled again, but whoever does finds nothing.
            this.body = Body::empty();
            return Poll::Ready(None);
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::{
        access::{Access, TokenEntry},
        broker::{Broker, BrokerConfig},
        http::HttpConfig,
    };

    #[tokio::test]
    async fn a_right_that_is_lost_before_the_stream_begins_is_lost() {
        let mut entry = TokenEntry::new("a", Access::sha256("a"));
        entry.subscribe = vec!["t".parse().unwrap()];
        let access = Access::new(vec![entry.clone()]).unwrap();
        let config = HttpConfig { access: Some(access.clone()), ..HttpConfig::default() };
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let api = Arc::new(Api::new(config, broker));
        let grant = || api.gate.admit("a").unwrap();
        let guard = |grant| guard(&api, grant, Right::Subscribe, "t", Body::from("records"));
        let (before, after) = (guard(grant()), grant());
        let unchanged = guard(after.clone()).collect().await.unwrap().to_bytes();
        assert_eq!(unchanged, "records");
        access.replace(Vec::new()).unwrap();
        for body in [before, guard(after)] {
            assert!(body.collect().await.unwrap().to_bytes().is_empty());
        }
    }
}
