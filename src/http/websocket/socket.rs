//! The socket after the handshake.
//!
//! # What ends it
//!
//! | what | close code, reason |
//! | --- | --- |
//! | the topic is closed or deleted, and all was told | 1000 `closed`, `deleted` |
//! | the server ends, and all was told | 1001 `shutting-down` |
//! | it has lived for `lifetime` | 1001 `lifetime` |
//! | the client breaks the protocol | 1002 |
//! | it sends a message | 1003 `no-messages`; one that is too large 1009 |
//! | its right is lost | 3000 `unauthorized`, 3003 `forbidden` |
//! | it answers no ping for `stall_timeout` | 3008 `no-pong` |
//! | it has lost its place, or takes one message for longer than `stall_timeout` | 3008 `stalled`, if that can still be said |

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream as _;
use futures_util::SinkExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, timeout},
};
use tokio_websockets::{CloseCode, Error, Limits, Message, ServerBuilder, WebSocketStream};

use crate::{
    http::{
        api::Api,
        config::NEVER,
        encode::Form,
        events::{Following, Said, Stalled, Told},
        guarded::Watch,
        problem::Problem,
    },
    listener::{Counted, Stage},
};

/// The most that is taken of what a client sends: as much as a control frame may carry.
const MAX_HEARD: usize = 125;
/// How long a client may take to answer a close.
const CLOSING: Duration = Duration::from_secs(5);
/// Registered by name with IANA, but unknown to the crate.
const UNAUTHORIZED: u16 = 3000;
const FORBIDDEN: u16 = 3003;
const TIMEOUT: u16 = 3008;

/// The most that is read and thrown away of a client that was sent away, in bytes.
const MOST_DISCARDED: u64 = 64 << 10;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Somebody who follows a topic over a WebSocket.
pub(super) struct Session {
    api: Arc<Api>,
    following: Following,
    rights: Watch,
    form: Form,
    /// Whether to listen first, the next time: neither side's haste keeps the other one waiting.
    listens: bool,
    /// When a ping went out that nothing has answered yet.
    asked: Option<Instant>,
    /// What the last event said, if that was the end.
    reason: Option<String>,
    connection: Arc<Counted<Api>>,
}

/// What comes next.
enum Next {
    Says(Option<Result<Said, Stalled>>),
    Hears(Option<Result<Message, Error>>),
    Loses(Problem),
}

/// How it ends.
enum End {
    /// The client is told.
    Close(u16, String),
    /// The client has said so itself, or what to say to it is on its way.
    Answered,
    /// It cannot be told any more.
    Cut,
}

impl Session {
    pub(super) fn new(
        api: &Arc<Api>,
        following: Following,
        rights: Watch,
        connection: Arc<Counted<Api>>,
        form: Form,
    ) -> Self {
        let api = api.clone();
        Self { api, following, rights, form, listens: false, asked: None, reason: None, connection }
    }

    /// Goes on when the answer has gone out.
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
        let limits = Limits::default().max_payload_len(Some(MAX_HEARD));
        let mut socket = ServerBuilder::new().limits(limits).serve(TokioIo::new(upgraded));
        let end = self.talk(&mut socket).await;
        // Its place in the log is let go before anybody is waited for; the connection is still one.
        let Self { following, connection, .. } = self;
        drop(following);
        let (code, reason) = match end {
            End::Close(code, reason) => (CloseCode::try_from(code).ok(), reason),
            End::Answered => (None, String::new()),
            End::Cut => return,
        };
        let leaving = async {
            if code.is_some() {
                // If the crate has closed it already, that stands.
                let _ = socket.send(Message::close(code, &reason)).await;
            }
            // Sends what is left, and waits for the client's own close.
            let _ = socket.close().await;
            // What it has sent meanwhile is taken off its hands: otherwise the system resets the
            // connection, and the client may lose what it was told last.
            let rest = &mut socket.get_mut().take(MOST_DISCARDED);
            let _ = tokio::io::copy(rest, &mut tokio::io::sink()).await;
        };
        // One that does not answer is cut off.
        let _ = timeout(CLOSING, leaving).await;
        drop(connection);
    }

    /// Says and hears until one side ends it.
    async fn talk(&mut self, socket: &mut Socket) -> End {
        loop {
            let message = match poll_fn(|cx| self.poll_next(socket, cx)).await {
                Next::Says(Some(Ok(Said::Beat))) if self.is_unanswered() => {
                    return End::Close(TIMEOUT, "no-pong".into());
                }
                Next::Says(Some(Ok(said))) => Some(self.message(said)),
                Next::Says(Some(Err(Stalled))) => return End::Close(TIMEOUT, "stalled".into()),
                Next::Says(None) => return self.finished(),
                Next::Hears(Some(Ok(heard))) => {
                    self.asked = None;
                    if heard.is_close() {
                        return End::Answered;
                    }
                    if heard.is_text() || heard.is_binary() {
                        return close(CloseCode::UNSUPPORTED_DATA, "no-messages");
                    }
                    // A pong may be due.
                    None
                }
                Next::Hears(Some(Err(Error::PayloadTooLong { .. }))) => {
                    return close(CloseCode::MESSAGE_TOO_BIG, "no-messages");
                }
                Next::Hears(Some(Err(Error::Io(_))) | None) => return End::Cut,
                Next::Hears(Some(Err(error))) => {
                    tracing::debug!(%error, "a WebSocket's client breaks the protocol");
                    return close(CloseCode::PROTOCOL_ERROR, "malformed");
                }
                Next::Loses(problem) => {
                    let code = match problem.code() {
                        "forbidden" => FORBIDDEN,
                        _ => UNAUTHORIZED,
                    };
                    return End::Close(code, problem.code().into());
                }
            };
            if !self.send(socket, message).await {
                return End::Cut;
            }
        }
    }

    fn poll_next(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Next> {
        if let Poll::Ready(problem) = self.rights.poll_lost(cx) {
            return Poll::Ready(Next::Loses(problem));
        }
        self.listens = !self.listens;
        for listens in [self.listens, !self.listens] {
            let next = if listens {
                Pin::new(&mut *socket).poll_next(cx).map(Next::Hears)
            } else {
                self.following.poll_said(cx).map(Next::Says)
            };
            if next.is_ready() {
                return next;
            }
        }
        Poll::Pending
    }

    /// Sends a message, and whatever else is due, and waits until the connection has taken it. False if
    /// it does not, or its client may not have it any more: what is half sent cannot be ended in order.
    async fn send(&mut self, socket: &mut Socket, message: Option<Message>) -> bool {
        let patience = self.patience();
        let sending = async {
            match message {
                Some(message) => socket.send(message).await,
                None => socket.flush().await,
            }
        };
        tokio::select! {
            biased;
            sent = timeout(patience, sending) => matches!(sent, Ok(Ok(()))),
            _ = poll_fn(|cx| self.rights.poll_lost(cx)) => false,
        }
    }

    /// Whether the client has been silent for too long.
    fn is_unanswered(&self) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() >= self.patience())
    }

    fn patience(&self) -> Duration {
        let limit = self.api.config.limits.stall_timeout;
        if limit.is_zero() { NEVER } else { limit }
    }

    fn message(&mut self, said: Said) -> Message {
        match said {
            Said::Records(run) if self.form == Form::Binary => Message::binary(run),
            Said::Records(run) => Message::text(run),
            Said::Event(told) => {
                if told.name == "end" {
                    self.reason = told.data["reason"].as_str().map(str::to_owned);
                }
                Message::text(event(told))
            }
            Said::Beat => {
                self.asked.get_or_insert_with(Instant::now);
                Message::ping(Bytes::new())
            }
        }
    }

    /// Nothing more is said.
    fn finished(&mut self) -> End {
        match self.reason.take() {
            Some(reason) if reason == "shutting-down" => close(CloseCode::GOING_AWAY, &reason),
            Some(reason) => close(CloseCode::NORMAL_CLOSURE, &reason),
            None => close(CloseCode::GOING_AWAY, "lifetime"),
        }
    }
}

fn close(code: CloseCode, reason: &str) -> End {
    End::Close(code.into(), reason.to_owned())
}

/// An event, as a message of its own.
fn event(told: Told) -> String {
    let position = told.position();
    let Told { name, mut data, .. } = told;
    data["event"] = name.into();
    data["position"] = position.into();
    json!([data]).to_string()
}
