//! The Durable Streams protocol over the same topics, under `/v1/stream/`.
//!
//! A stream is a topic. Each append is a record (in a JSON stream, each element of an array), and each read returns
//! records put together. What the protocol adds to the log (the content type, the lifetime, the producers' numbers,
//! the forks) is kept with the topic, as safely as its records are: see `docs/durable-streams.md`.
//!
//! | module | what it does |
//! | --- | --- |
//! | `registry` | all streams by name; creating, deleting, expiring |
//! | `stream` | one stream, and its positions as clients see them |
//! | `about` | what a stream is, as it is written down with its topic |
//! | `headers`, `json`, `problems` | reading requests, and reporting what is wrong with them |
//! | `create`, `append`, `read`, `live` | the routes |
//! | `reader`, `latest` | reading a stream's records, including inherited ones; the latest event, which followers share |

mod about;
mod append;
mod create;
mod headers;
mod json;
mod latest;
mod live;
mod problems;
mod read;
mod reader;
mod registry;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::answer::DURABILITY;
use super::api::Api;
use super::conditions;
use super::problem::Problem;
use crate::access::{Grant, Right};

pub(super) use registry::Streams;

/// The prefix of every stream's path.
const PREFIX: &str = "/v1/stream/";
/// Names below this one are reserved by the protocol.
const RESERVED: &str = "__ds";

/// Request headers that pages of allowed origins may send.
pub(super) const REQUEST_HEADERS: [HeaderName; 12] = [
    header::IF_NONE_MATCH,
    headers::TTL,
    headers::EXPIRES_AT,
    headers::CLOSED,
    headers::SEQ,
    headers::FORKED_FROM,
    headers::FORK_OFFSET,
    headers::FORK_SUB_OFFSET,
    conditions::PRODUCER_ID,
    conditions::PRODUCER_EPOCH,
    conditions::PRODUCER_SEQ,
    DURABILITY,
];

/// Response headers that those pages may read.
pub(super) const RESPONSE_HEADERS: [HeaderName; 13] = [
    header::ETAG,
    headers::NEXT_OFFSET,
    headers::CURSOR,
    headers::UP_TO_DATE,
    headers::CLOSED,
    headers::TTL,
    headers::EXPIRES_AT,
    headers::DATA_ENCODING,
    conditions::PRODUCER_EPOCH,
    conditions::PRODUCER_SEQ,
    conditions::EXPECTED_SEQ,
    conditions::RECEIVED_SEQ,
    DURABILITY,
];

/// The routes.
pub(super) fn router() -> Router<Arc<Api>> {
    let stream =
        get(read::read).head(read::head).put(create::create).post(append::append).delete(delete);
    Router::new().route(&format!("{PREFIX}{{*name}}"), stream).layer(from_fn(guard_browsers))
}

/// Keeps other origins from embedding a response. Every response of the API already tells browsers not to run it.
async fn guard_browsers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("same-origin"));
    response
}

/// The stream's name in the path.
struct StreamName(String);

impl FromRequestParts<Arc<Api>> for StreamName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, api).await {
            Ok(Path(name)) if is_reserved(&name) => Err(problems::not_offered()),
            Ok(Path(name)) => Ok(Self(name)),
            Err(rejection) => Err(Problem::name(rejection.body_text())),
        }
    }
}

fn is_reserved(name: &str) -> bool {
    name.split('/').next() == Some(RESERVED)
}

async fn delete(
    State(api): State<Arc<Api>>,
    StreamName(name): StreamName,
    grant: Grant,
) -> Result<Response, Problem> {
    grant.check(Right::Manage, &name)?;
    api.durable.delete(&api.broker, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
