//! The task that moves the bytes of a [`Link`](super::link::Link).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::conn::Conn;
use super::error::{ClientError, ServerError};
use super::inbox::Inbox;
use super::link::{Answer, LinkShared};
use super::stream::Stream;
use super::topics::{TopicDetails, TopicInfo};
use crate::protocol::{DecodeLimits, Decoded, Reply, decode_reply};

/// How long to wait for the server's GOODBYE after a write has failed.
const GOODBYE_WAIT: Duration = Duration::from_millis(500);

/// The shortest pause between two checks for an overdue answer, unless the timeout is shorter.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// Runs the connection until it ends.
pub(super) async fn run(shared: Arc<LinkShared>, conn: Conn, linger: Duration) {
    let Conn { io, inbox, limits, .. } = conn;
    let cause = match io {
        Stream::Plain(io) => {
            let (read_half, write_half) = io.into_split();
            carry(&shared, read_half, write_half, inbox, limits, linger).await
        }
        #[cfg(feature = "tls")]
        Stream::Secure(io) => {
            let (read_half, write_half) = tokio::io::split(io);
            carry(&shared, read_half, write_half, inbox, limits, linger).await
        }
    };
    tracing::debug!(%cause, "request connection ended");
    shared.lose(cause);
}

async fn carry(
    shared: &LinkShared,
    read_half: impl AsyncRead + Unpin,
    write_half: impl AsyncWrite + Unpin,
    inbox: Inbox,
    limits: DecodeLimits,
    linger: Duration,
) -> ClientError {
    let reading = read(shared, read_half, inbox, limits);
    tokio::pin!(reading);
    // Once the handle is dropped, nothing else can end a connection that hangs.
    let lingering = async {
        shared.gone.notified().await;
        sleep(linger).await;
    };
    tokio::pin!(lingering);
    // Always in this order, so that a repeated simulation runs identically.
    let written = tokio::select! {
        biased;
        cause = &mut reading => return cause,
        cause = watch(shared) => return cause,
        () = &mut lingering => return ClientError::Timeout { after: linger },
        written = write(shared, write_half) => written,
    };
    match written {
        // The handle was dropped and everything was written. The last answers may still arrive; the
        // server ends the connection when it has seen the end of our stream.
        Ok(_open) => tokio::select! {
            biased;
            cause = reading => cause,
            () = lingering => ClientError::Timeout { after: linger },
        },
        // The server may have sent the reason before it closed.
        Err(error) => match timeout(GOODBYE_WAIT, reading).await {
            Ok(cause @ ClientError::Goodbye { .. }) => cause,
            _ => ClientError::io(error),
        },
    }
}

/// Writes whatever callers append, until the handle is dropped. Returns the write half, so that
/// dropping it does not close the connection before the last answers have arrived.
async fn write<W: AsyncWrite + Unpin>(shared: &LinkShared, mut half: W) -> io::Result<W> {
    loop {
        let taken = match shared.take_out() {
            Ok(taken) => taken,
            Err(true) => {
                half.shutdown().await?;
                return Ok(half);
            }
            Err(false) => {
                // TLS may hold bytes until it is flushed; a plain socket has nothing to flush.
                half.flush().await?;
                shared.work.notified().await;
                continue;
            }
        };
        let mut rest = taken.as_slice();
        while !rest.is_empty() {
            let count = half.write(rest).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            shared.handed(count);
            rest = &rest[count..];
        }
        shared.give_back(taken);
    }
}

/// Ends when an answer is due and nothing was received for too long.
async fn watch(shared: &LinkShared) -> ClientError {
    let Some(limit) = shared.options.answer_timeout else {
        return std::future::pending().await;
    };
    loop {
        let pause = match shared.patience() {
            Some(Duration::ZERO) => return ClientError::Timeout { after: limit },
            Some(left) => left,
            // Nothing is due now, but a request may be appended at any moment.
            None => limit,
        };
        sleep(pause.min(limit).max(MIN_PAUSE.min(limit))).await;
    }
}

/// Matches answers with requests, until the connection ends.
async fn read(
    shared: &LinkShared,
    mut half: impl AsyncRead + Unpin,
    mut inbox: Inbox,
    limits: DecodeLimits,
) -> ClientError {
    loop {
        let next = match decode_reply(inbox.received(), &limits) {
            Ok(Decoded::Frame { value, consumed }) => match take(shared, &value) {
                Ok(()) => Ok(consumed),
                Err(cause) => return cause,
            },
            Ok(Decoded::NeedMore { at_least }) => Err(at_least),
            Err(error) => return error.into(),
        };
        match next {
            Ok(consumed) => inbox.consume(consumed),
            Err(at_least) => {
                let filled = std::future::poll_fn(|cx| inbox.poll_fill(cx, &mut half, at_least));
                match filled.await {
                    Ok(0) => return ClientError::cut(),
                    Ok(_) => shared.heard(),
                    Err(error) => return ClientError::io(error),
                }
            }
        }
    }
}

fn take(shared: &LinkShared, reply: &Reply<'_>) -> Result<(), ClientError> {
    let known = match reply {
        Reply::Ack { request, epoch, first, count } => shared.answer(
            *request,
            Ok(Answer::Published { epoch: *epoch, first: *first, count: *count }),
        ),
        Reply::Done { request } => shared.answer(*request, Ok(Answer::Done)),
        Reply::Pong { token } => shared.answer(*token as u32, Ok(Answer::Pong)),
        Reply::Topics { request, more, topics } => {
            shared.answer_of_topics(*request, *more, topics.iter().map(TopicInfo::from).collect())
        }
        Reply::Description(description) => shared.answer(
            description.request,
            Ok(Answer::Details(Box::new(TopicDetails::from(&**description)))),
        ),
        Reply::Error(error) => {
            let failed = ClientError::Server(ServerError::from(*error));
            shared.answer(error.request, Err(failed))
        }
        Reply::Goodbye { code, message } => return Err(ClientError::goodbye(*code, message)),
        _ => {
            let what = "it delivered on a connection without subscriptions";
            return Err(ClientError::Violation { what });
        }
    };
    if known {
        Ok(())
    } else {
        let what = "it answered a request that nobody made";
        Err(ClientError::Violation { what })
    }
}
