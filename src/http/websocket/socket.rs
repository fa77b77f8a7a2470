//! A WebSocket after its handshake.
//!
//! # What ends it
//!
//! | cause | close code and reason |
//! | --- | --- |
//! | the topic is closed or deleted, and everything has been sent | 1000 `closed`, `deleted` |
//! | the server shuts down, and everything has been sent | 1001 `shutting-down` |
//! | the WebSocket has lasted for `lifetime` | 1001 `lifetime` |
//! | the client breaks the protocol | 1002 |
//! | the client sends a message | 1003 `no-messages`; 1009 if it is too large |
//! | the client loses its right | 3000 `unauthorized`, 3003 `forbidden` |
//! | the client answers no ping for `stall_timeout` | 3008 `no-pong` |
//! | it has lost its cursor, or takes longer than `stall_timeout` for one message | 3008 `stalled`, if that can still be sent |

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream as _;
use futures_util::SinkExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout};
use tokio_websockets::{CloseCode, Error, Limits, Message, ServerBuilder, WebSocketStream};

use crate::http::api::Api;
use crate::http::authorized_body::RightWatch;
use crate::http::config::NEVER;
use crate::http::encode::Form;
use crate::http::events::{ControlEvent, Following, Stalled, StreamItem};
use crate::http::problem::Problem;
use crate::listener::{Counted, Stage};

/// The largest payload that is accepted from a client, in bytes: what a control frame may carry.
const MAX_PAYLOAD: usize = 125;
/// How long a client may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Registered with IANA under these names, but not known to `tokio_websockets`.
const UNAUTHORIZED: u16 = 3000;
const FORBIDDEN: u16 = 3003;
const TIMEOUT: u16 = 3008;

/// The most that is read and discarded from a client after its close was sent, in bytes.
const MOST_DISCARDED: u64 = 64 << 10;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A client that follows a topic over a WebSocket.
pub(super) struct Session {
    api: Arc<Api>,
    following: Following,
    rights: RightWatch,
    form: Form,
    /// Whether the last poll tried to receive before it tried to send. It alternates, so that neither direction
    /// starves the other one.
    receives_first: bool,
    /// When the ping was sent that nothing has answered yet.
    pinged: Option<Instant>,
    /// The reason of the `end` event, once it has been sent.
    reason: Option<String>,
    connection: Arc<Counted<Api>>,
}

/// What happens next.
enum Next {
    Send(Option<Result<StreamItem, Stalled>>),
    Receive(Option<Result<Message, Error>>),
    LoseRight(Problem),
}

/// How the WebSocket is closed.
enum Closing {
    /// With a close frame of this code and reason.
    Close(u16, String),
    /// The client has sent a close frame, and the answer is on its way.
    Answered,
    /// Without a close frame: none can be sent any more.
    Cut,
}

impl Session {
    pub(super) fn new(
        api: &Arc<Api>,
        following: Following,
        rights: RightWatch,
        connection: Arc<Counted<Api>>,
        form: Form,
    ) -> Self {
        let api = api.clone();
        Self {
            api,
            following,
            rights,
            form,
            receives_first: false,
            pinged: None,
            reason: None,
            connection,
        }
    }

    /// Serves the WebSocket once the response has been sent.
    pub(super) async fn begin(self, upgrade: OnUpgrade) {
        let api = self.api.clone();
        let served = async {
            match upgrade.await {
                Ok(upgraded) => self.serve(upgraded).await,
                Err(error) => tracing::debug!(%error, "no WebSocket came of a handshake"),
            }
        };
        tokio::select! {
            biased;
            () = api.life.reached(Stage::Aborting) => {}
            () = served => {}
        }
    }

    async fn serve(mut self, upgraded: Upgraded) {
        let limits = Limits::default().max_payload_len(Some(MAX_PAYLOAD));
        let mut socket = ServerBuilder::new().limits(limits).serve(TokioIo::new(upgraded));
        let closing = self.exchange(&mut socket).await;
        // The position in the log is released before the client's close is awaited; the connection still counts.
        let Self { following, connection, .. } = self;
        drop(following);
        let (code, reason) = match closing {
            Closing::Close(code, reason) => (CloseCode::try_from(code).ok(), reason),
            Closing::Answered => (None, String::new()),
            Closing::Cut => return,
        };
        let leaving = async {
            if code.is_some() {
                // If the crate has sent a close already, that one stands.
                let _ = socket.send(Message::close(code, &reason)).await;
            }
            // Sends what is left, and waits for the client's own close.
            let _ = socket.close().await;
            // Read what the client has sent meanwhile: otherwise the system resets the connection, and the client
            // may lose what it was sent last.
            let rest = &mut socket.get_mut().take(MOST_DISCARDED);
            let _ = tokio::io::copy(rest, &mut tokio::io::sink()).await;
        };
        // A client that does not answer is cut off.
        let _ = timeout(CLOSE_TIMEOUT, leaving).await;
        drop(connection);
    }

    /// Sends and receives until one side ends it.
    async fn exchange(&mut self, socket: &mut Socket) -> Closing {
        loop {
            let message = match poll_fn(|cx| self.poll_next(socket, cx)).await {
                Next::Send(Some(Ok(StreamItem::Heartbeat))) if self.is_unanswered() => {
                    return Closing::Close(TIMEOUT, "no-pong".into());
                }
                Next::Send(Some(Ok(item))) => Some(self.message(item)),
                Next::Send(Some(Err(Stalled))) => return Closing::Close(TIMEOUT, "stalled".into()),
                Next::Send(None) => return self.finished(),
                Next::Receive(Some(Ok(received))) => {
                    self.pinged = None;
                    if received.is_close() {
                        return Closing::Answered;
                    }
                    if received.is_text() || received.is_binary() {
                        return close(CloseCode::UNSUPPORTED_DATA, "no-messages");
                    }
                    // There may be a pong to send.
                    None
                }
                Next::Receive(Some(Err(Error::PayloadTooLong { .. }))) => {
                    return close(CloseCode::MESSAGE_TOO_BIG, "no-messages");
                }
                Next::Receive(Some(Err(Error::Io(_))) | None) => return Closing::Cut,
                Next::Receive(Some(Err(error))) => {
                    tracing::debug!(%error, "a WebSocket's client breaks the protocol");
                    return close(CloseCode::PROTOCOL_ERROR, "malformed");
                }
                Next::LoseRight(problem) => {
                    let code = match problem.code() {
                        "forbidden" => FORBIDDEN,
                        _ => UNAUTHORIZED,
                    };
                    return Closing::Close(code, problem.code().into());
                }
            };
            if !self.send(socket, message).await {
                return Closing::Cut;
            }
        }
    }

    fn poll_next(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Next> {
        if let Poll::Ready(problem) = self.rights.poll_revoked(cx) {
            return Poll::Ready(Next::LoseRight(problem));
        }
        self.receives_first = !self.receives_first;
        for receives in [self.receives_first, !self.receives_first] {
            let next = if receives {
                Pin::new(&mut *socket).poll_next(cx).map(Next::Receive)
            } else {
                self.following.poll_item(cx).map(Next::Send)
            };
            if next.is_ready() {
                return next;
            }
        }
        Poll::Pending
    }

    /// Sends a message, and any frame that is due, and waits until the connection has taken them. False if it does
    /// not in time, or the client loses its right: what is half sent cannot be closed in order.
    async fn send(&mut self, socket: &mut Socket, message: Option<Message>) -> bool {
        let limit = self.stall_timeout();
        let sending = async {
            match message {
                Some(message) => socket.send(message).await,
                None => socket.flush().await,
            }
        };
        tokio::select! {
            biased;
            sent = timeout(limit, sending) => matches!(sent, Ok(Ok(()))),
            _ = poll_fn(|cx| self.rights.poll_revoked(cx)) => false,
        }
    }

    /// Whether a ping has gone unanswered for too long.
    fn is_unanswered(&self) -> bool {
        self.pinged.is_some_and(|pinged| pinged.elapsed() >= self.stall_timeout())
    }

    fn stall_timeout(&self) -> Duration {
        let limit = self.api.config.limits.stall_timeout;
        if limit.is_zero() { NEVER } else { limit }
    }

    fn message(&mut self, item: StreamItem) -> Message {
        match item {
            StreamItem::Records(run) if self.form == Form::Binary => Message::binary(run),
            StreamItem::Records(run) => Message::text(run),
            StreamItem::Control(control) => {
                if control.name == "end" {
                    self.reason = control.data["reason"].as_str().map(str::to_owned);
                }
                Message::text(event(control))
            }
            StreamItem::Heartbeat => {
                self.pinged.get_or_insert_with(Instant::now);
                Message::ping(Bytes::new())
            }
        }
    }

    /// How to close when there is nothing more to send.
    fn finished(&mut self) -> Closing {
        match self.reason.take() {
            Some(reason) if reason == "shutting-down" => close(CloseCode::GOING_AWAY, &reason),
            Some(reason) => close(CloseCode::NORMAL_CLOSURE, &reason),
            None => close(CloseCode::GOING_AWAY, "lifetime"),
        }
    }
}

fn close(code: CloseCode, reason: &str) -> Closing {
    Closing::Close(code.into(), reason.to_owned())
}

/// An event as a message of its own.
fn event(control: ControlEvent) -> String {
    let position = control.position();
    let ControlEvent { name, mut data, .. } = control;
    data["event"] = name.into();
    data["position"] = position.into();
    json!([data]).to_string()
}
