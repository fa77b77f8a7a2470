//! Errors as responses: `application/problem+json`, RFC 9457.
//!
//! Every problem has a `code` of its own for programs, and a `type` that is the address of its explanation in the
//! documentation. The facts (epoch, offsets, limits) have members of their own.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::api::Api;
use super::conditions;
use super::start::epoch_text;
use crate::access::Forbidden;
use crate::broker::{BrokerError, PublishError, Topic};
use crate::log::{AppendError, ReadError, SubscribeError};

/// The address of the documentation of a code, without the code at its end.
const TYPES: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/http.md#");

/// How long a client should wait before it tries again, in seconds, where only time helps.
const RETRY_AFTER: u32 = 1;

/// The media type of problems.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// A problem's code, as an extension of the response that reports the problem.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    facts: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { status, code, title, detail: detail.into(), facts: Map::new(), headers: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The code, for programs.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Adds a fact for programs.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.into(), value.into());
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `Retry-After`: the same request may succeed later.
    fn retry_later(self) -> Self {
        self.header(header::RETRY_AFTER, RETRY_AFTER.into())
    }

    pub(super) fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        let detail = format!("{name}: {why}");
        Self::new(StatusCode::BAD_REQUEST, "bad-parameter", "A parameter is wrong", detail)
            .fact("parameter", name)
    }

    pub(super) fn request(why: impl Into<String>) -> Self {
        let title = "The request breaks the rules of HTTP";
        Self::new(StatusCode::BAD_REQUEST, "bad-request", title, why)
    }

    /// The end of the body cannot be known for sure, so nothing more is read from the connection.
    pub(super) fn transfer_coding() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "unknown-transfer-coding",
            "The transfer coding is not understood",
            "chunked alone is; send the body as it is",
        )
        .header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub(super) fn body(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-body", "The body is malformed", why)
    }

    pub(super) fn name(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-name", "The topic's name is refused", why)
    }

    pub(super) fn settings(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-settings", "The settings are refused", why)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "The token is missing or wrong",
            "send the server's token as `Authorization: Bearer TOKEN`",
        )
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"psa\""))
    }

    pub(super) fn foreign_origin(origin: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "foreign-origin",
            "Pages of this origin may not use the server",
            format!(
                "the request comes from a page of {origin}; name it in http.origins to allow it"
            ),
        )
    }

    pub(super) fn foreign_host(host: &str) -> Self {
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "foreign-host",
            "The server does not answer to this name",
            format!(
                "a server without a token answers to IP addresses and localhost, not to {host:?}; name it in http.hosts, or set a token"
            ),
        )
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls_required() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "tls-required",
            "This port speaks TLS",
            "ask for an address that begins with https",
        )
    }

    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is nothing here",
            "docs/http.md lists the addresses; a slash in a topic's name is written %2F",
        )
    }

    pub(super) fn unknown_topic(name: &str) -> Self {
        BrokerError::UnknownTopic { name: name.into() }.into()
    }

    /// The router lists the allowed methods in `Allow`.
    pub(super) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This address does not allow the method",
            "the header Allow lists the methods that it allows",
        )
    }

    pub(super) fn not_acceptable(offered: &[&str]) -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "not-acceptable",
            "None of the requested media types is available",
            format!("available: {}", offered.join(", ")),
        )
    }

    pub(super) fn media_type(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body's media type or coding is not accepted",
            detail,
        )
    }

    pub(super) fn body_too_large(max: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "The body is too large",
            format!("at most {max} bytes in one request; send several"),
        )
        .fact("max", max)
    }

    pub(super) fn batch_too_large(max: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "batch-too-large",
            "Too many records in one body",
            format!("at most {max} records in one request; send several"),
        )
        .fact("max", max)
    }

    /// `size` is the record's size, if it is known: a record that comes without its length is not read to its end.
    pub(super) fn record_too_large(size: Option<usize>, max: usize) -> Self {
        let has = size.map_or(format!("more than {max}"), |size| size.to_string());
        let problem = Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "record-too-large",
            "A record is too large",
            format!("a record has {has} bytes, and the limit is {max}; nothing was appended"),
        );
        let problem = match size {
            Some(size) => problem.fact("size", size),
            None => problem,
        };
        problem.fact("max", max)
    }

    pub(super) fn body_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "body-timeout",
            "The body did not arrive in time",
            "nothing was appended; send it again on a new connection",
        )
        .header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub(super) fn handshake(status: StatusCode, why: impl Into<String>) -> Self {
        Self::new(status, "bad-handshake", "The WebSocket's handshake is malformed", why)
    }

    /// A header that is not what it should be.
    pub(super) fn bad_header(name: &HeaderName, why: impl std::fmt::Display) -> Self {
        let detail = format!("{name}: {why}");
        Self::new(StatusCode::BAD_REQUEST, "bad-header", "A header is wrong", detail)
            .fact("header", name.as_str())
    }

    pub(super) fn busy(detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "The server is busy", detail)
            .retry_later()
    }

    pub(super) fn too_many_streams(max: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-streams",
            "Too many event streams",
            format!("the limit is {max}; try again later"),
        )
        .fact("max", max)
        .retry_later()
    }

    pub(super) fn too_many_connections(max: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-connections",
            "Too many connections",
            format!("the limit is {max}; try again later"),
        )
        .fact("max", max)
        .retry_later()
    }

    pub(super) fn shutting_down() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting-down",
            "The server is shutting down",
            "connect again later",
        )
        .retry_later()
    }

    pub(super) fn internal(detail: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed", detail)
    }

    pub(super) fn topic_exists(name: &str, setting: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "topic-exists",
            "The topic exists with other settings",
            format!("{name:?} has another {setting}; ask for what it has, or for another name"),
        )
    }

    /// Reports that an append to `topic` failed.
    pub(super) fn publish(error: &PublishError, topic: &Topic, api: &Api) -> Self {
        let problem = match error {
            PublishError::Log(error) => return Self::append(error, topic, api),
            PublishError::DiskLimit { limit } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk-limit",
                "The topic is at its limit on the disk",
                error.to_string(),
            )
            .fact("limit", *limit)
            .retry_later(),
            PublishError::ServerDiskLimit { limit } => {
                Self::server_disk_limit(*limit, error.to_string()).retry_later()
            }
            PublishError::Busy => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "disk-busy",
                "The server's disk does not keep up",
                error.to_string(),
            )
            .retry_later(),
            PublishError::DiskFull { .. } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk-full",
                "The server's disk is full",
                error.to_string(),
            )
            .retry_later(),
            PublishError::DiskFailed { .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "disk-failed",
                "The server's disk has failed",
                error.to_string(),
            ),
            PublishError::Refused(refusal) => return conditions::refused(*refusal, None, topic),
        };
        problem.fact("epoch", epoch_text(topic.log().epoch()))
    }

    /// All topics together are at their limit on the disk.
    fn server_disk_limit(limit: u64, detail: String) -> Self {
        let title = "All topics together are at their limit on the disk";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "server-disk-limit", title, detail)
            .fact("limit", limit)
    }

    /// Stored records that cannot be read.
    pub(super) fn unreadable() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unreadable",
            "The stored records cannot be read",
            ReadError::Unreadable.to_string(),
        )
    }

    pub(super) fn append(error: &AppendError, topic: &Topic, api: &Api) -> Self {
        let detail = error.to_string();
        let problem = match *error {
            // Every topic was closed, which is not its end.
            AppendError::Closed if api.broker.is_shut() => return Self::shutting_down(),
            AppendError::Closed => Self::new(
                StatusCode::CONFLICT,
                "topic-closed",
                "The topic is closed",
                "it accepts no more records; publish to another topic",
            ),
            AppendError::Moved { next } => return conditions::moved(topic, next),
            // Unlike a record above the limit for all topics, this may be a batch.
            AppendError::TooLarge { size, max }
            | AppendError::TooManyRecords { records: size, max } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "record-too-large",
                "The append is too large for the topic",
                format!("{detail}; send less at once, or give the topic a larger memory limit"),
            )
            .fact("size", size)
            .fact("max", max),
            AppendError::Full { limit } | AppendError::RecordLimit { limit } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "full",
                "The topic is at its memory limit",
                detail,
            )
            .fact("limit", limit)
            .retry_later(),
            AppendError::BudgetExhausted { limit } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "budget-exhausted",
                "The memory of all topics together is used up",
                detail,
            )
            .fact("limit", limit)
            .retry_later(),
        };
        problem.fact("epoch", epoch_text(topic.log().epoch()))
    }

    /// The bytes of an HTTP/1.1 response, for a connection that is refused before it is served.
    pub(super) fn raw_response(&self) -> Vec<u8> {
        let body = self.json();
        let retry = if self.status == StatusCode::BAD_REQUEST {
            String::new()
        } else {
            format!("retry-after: {RETRY_AFTER}\r\n")
        };
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\n{retry}connection: close\r\n\r\n{body}",
            self.status.as_u16(),
            self.status.canonical_reason().unwrap_or_default(),
            body.len(),
        )
        .into_bytes()
    }

    fn json(&self) -> String {
        let mut object = json!({
            "type": format!("{TYPES}{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        if let Value::Object(object) = &mut object {
            object.extend(self.facts.clone());
        }
        object.to_string() + "\n"
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.json()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.extend(self.headers);
        response.extensions_mut().insert(Code(self.code));
        response
    }
}

impl From<Forbidden> for Problem {
    fn from(missing: Forbidden) -> Self {
        let problem = Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "The token lacks the right",
            missing.to_string(),
        )
        .fact("right", missing.right.word());
        if missing.topic.is_empty() { problem } else { problem.fact("topic", missing.topic) }
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        let detail = error.to_string();
        match error {
            BrokerError::UnknownTopic { .. } => {
                Self::new(StatusCode::NOT_FOUND, "unknown-topic", "There is no such topic", detail)
            }
            // Only a topic that was created between two lookups gets here.
            BrokerError::TopicExists { .. } => {
                Self::new(StatusCode::CONFLICT, "topic-exists", "The topic exists", detail)
            }
            BrokerError::TooManyTopics { max } | BrokerError::TooManyUnpublished { max } => {
                Self::new(
                    StatusCode::INSUFFICIENT_STORAGE,
                    "too-many-topics",
                    "Too many topics",
                    detail,
                )
                .fact("max", max)
            }
            BrokerError::Damaged { .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "topic-damaged",
                "The stored topic is damaged",
                detail,
            ),
            BrokerError::NotRemoved { .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "not-removed",
                "The topic's files cannot be removed",
                detail,
            ),
            BrokerError::BadName { .. } => Self::name(detail),
            BrokerError::BadSettings { .. } => Self::settings(detail),
            BrokerError::BudgetExhausted { limit } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "budget-exhausted",
                "The memory of all topics together is used up",
                detail,
            )
            .fact("limit", limit),
            BrokerError::DiskExhausted { limit } => Self::server_disk_limit(limit, detail),
            BrokerError::Shut => Self::shutting_down(),
        }
    }
}

impl From<SubscribeError> for Problem {
    fn from(error: SubscribeError) -> Self {
        let detail = error.to_string();
        match error {
            SubscribeError::Collected { asked, first, epoch } => {
                Self::new(StatusCode::GONE, "collected", "The record was collected", detail)
                    .fact("epoch", epoch_text(epoch))
                    .fact("asked", asked)
                    .fact("first_offset", first)
            }
            SubscribeError::Future { asked, next, epoch } => Self::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "beyond-end",
                "The offset lies beyond the end",
                detail,
            )
            .fact("epoch", epoch_text(epoch))
            .fact("asked", asked)
            .fact("next_offset", next),
            SubscribeError::WrongEpoch { asked, epoch, first, next } => Self::new(
                StatusCode::CONFLICT,
                "wrong-epoch",
                "The epoch is a different one",
                detail,
            )
            .fact("epoch", epoch_text(epoch))
            .fact("asked", epoch_text(asked))
            .fact("first_offset", first)
            .fact("next_offset", next),
        }
    }
}
