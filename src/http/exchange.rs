//! One request and its answer: what happens around the routes, whoever owns the connection.

use std::future::Future;
use std::sync::Arc;

use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::api::Api;
use super::problem::Problem;
use super::reading::{RequestBody, Requests};
use super::unread::{Announced, Leftover};
use super::{answer, strict};
use crate::listener::{Counted, Refused};

impl From<Refused> for Problem {
    fn from(why: Refused) -> Self {
        match why {
            Refused::ShuttingDown => Self::shutting_down(),
            Refused::TooMany { limit } | Refused::TooManyOfAddress { limit } => {
                Self::too_many_connections(limit)
            }
        }
    }
}

/// The response to a request that no route sees.
pub(super) async fn refuse(problem: Problem) -> Response {
    answer::add_default_headers(problem.into_response()).await
}

/// Answers a request: checks its form, gives it to `route`, counts the answer, and deals with what is left of the
/// body. `admitted` is what counts its connection, or why it is refused. Also returns whether the connection can go
/// on: false if the rest of the body is still to come.
pub(super) async fn exchange<B, F>(
    api: &Api,
    requests: &Arc<Requests>,
    admitted: Result<&Arc<Counted<Api>>, Problem>,
    mut request: Request<B>,
    route: impl FnOnce(Request) -> F,
) -> (Response, bool)
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
    F: Future<Output = Response>,
{
    let refused = match admitted {
        Ok(counted) => {
            request.extensions_mut().insert(requests.clone());
            if request.headers().contains_key(header::UPGRADE) {
                // Whatever the connection becomes keeps it counted.
                request.extensions_mut().insert(counted.clone());
            }
            strict::check(&request).err()
        }
        Err(problem) => Some(problem),
    };
    let (announced, leftover) = (Announced::of(&request), Leftover::default());
    let body = |body| RequestBody::new(body, requests.clone(), Some(leftover.clone()));
    let request = request.map(body);
    let mut answer = match refused {
        None => route(request.map(Body::new)).await,
        Some(problem) => {
            drop(request);
            refuse(problem).await
        }
    };
    api.count_answer(&answer);
    let limit = api.config.limits.body_timeout;
    let goes_on = announced.settle(&mut answer, &leftover, requests, limit).await;
    (answer, goes_on)
}
