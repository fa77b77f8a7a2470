//! Bodies of responses without an end, which end when their client loses its right.
//!
//! Every request is checked when it arrives. An event stream is one request that may last for an hour, so its body is
//! wrapped in one that wakes up whenever rights change and checks again. When the right is lost, the stream ends; its
//! client asks again, and the response says why it gets no stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::api::Api;
use super::problem::Problem;
use crate::access::{AccessChanges, Grant, Right};

/// A wait for the next change, which returns the receiver so that it can wait again.
type Waiting = Pin<Box<dyn Future<Output = AccessChanges> + Send>>;

/// Watches a right for something long-lived that depends on it.
pub(super) struct RightWatch {
    api: Arc<Api>,
    grant: Grant,
    right: Right,
    topic: String,
    /// `None` if the right cannot be lost.
    changes: Option<Waiting>,
}

impl RightWatch {
    /// Starts to watch the right to the topic that `grant` gives.
    ///
    /// # Errors
    ///
    /// The grant does not give the right any more.
    pub(super) fn new(
        api: &Arc<Api>,
        grant: Grant,
        right: Right,
        topic: &str,
    ) -> Result<Self, Problem> {
        // A client that may do everything may do so until the server ends.
        let changes = if grant.is_limited() { api.gate.changes() } else { None };
        if changes.is_some() {
            // `changes` does not report what changed between the request's own check and here, so check again.
            api.recheck(&grant, right, topic)?;
        }
        let (api, topic, changes) = (api.clone(), topic.to_owned(), changes.map(wait));
        Ok(Self { api, grant, right, topic, changes })
    }

    /// Ready when the right is lost, with the problem that its holder would get now.
    pub(super) fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<Problem> {
        while let Some(waiting) = &mut self.changes {
            let changes = ready!(waiting.as_mut().poll(cx));
            self.changes = Some(wait(changes));
            if let Err(problem) = self.api.recheck(&self.grant, self.right, &self.topic) {
                tracing::info!(token = self.grant.name(), topic = self.topic, "right taken back");
                return Poll::Ready(problem);
            }
        }
        Poll::Pending
    }
}

/// The body of a response that needs a right for as long as it lasts.
struct AuthorizedBody {
    body: Body,
    watch: RightWatch,
}

/// Wraps `body` so that it ends as soon as `grant` does not give the right to the topic any more.
pub(super) fn wrap(api: &Arc<Api>, grant: Grant, right: Right, topic: &str, body: Body) -> Body {
    match RightWatch::new(api, grant, right, topic) {
        Ok(RightWatch { changes: None, .. }) => body,
        Ok(watch) => Body::new(AuthorizedBody { body, watch }),
        // The same as if the right had been lost a moment later.
        Err(_) => Body::empty(),
    }
}

fn wait(mut changes: AccessChanges) -> Waiting {
    Box::pin(async move {
        changes.next().await;
        changes
    })
}

impl HttpBody for AuthorizedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.watch.poll_revoked(cx).is_ready() {
            // The body must not be polled again; if it is, nothing is left in it.
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
    use crate::access::{Access, TokenEntry};
    use crate::broker::{Broker, BrokerConfig};
    use crate::http::HttpConfig;

    #[tokio::test]
    async fn a_right_that_is_lost_before_the_stream_begins_is_lost() {
        let mut entry = TokenEntry::new("a", Access::sha256("a"));
        entry.subscribe = vec!["t".parse().unwrap()];
        let access = Access::new(vec![entry.clone()]).unwrap();
        let config = HttpConfig { access: Some(access.clone()), ..HttpConfig::default() };
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let api = Arc::new(Api::new(config, broker));
        let grant = || api.gate.admit("a").unwrap();
        let wrap = |grant| wrap(&api, grant, Right::Subscribe, "t", Body::from("records"));
        let (before, after) = (wrap(grant()), grant());
        let unchanged = wrap(after.clone()).collect().await.unwrap().to_bytes();
        assert_eq!(unchanged, "records");
        access.replace(Vec::new()).unwrap();
        for body in [before, wrap(after)] {
            assert!(body.collect().await.unwrap().to_bytes().is_empty());
        }
    }
}
