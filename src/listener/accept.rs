//! Accepting connections, and handling the errors of `accept`.
//!
//! # Errors that concern one connection
//!
//! `accept` can fail because of the connection that it would have returned: its client has already gone, or a
//! firewall rule forbids it. Such an error says nothing about the next connection, which is accepted immediately.
//!
//! # No file descriptors left
//!
//! `accept` fails with `EMFILE`, and the kernel keeps the connection in its queue, so a loop that simply retried
//! would spin. This loop waits, longer each time, and logs the shortage once. Existing connections are not
//! affected; the clients in the queue wait until one of those connections ends.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The first and the longest wait after an accept that failed because a resource is exhausted.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Passes each connection that `next` accepts to `welcome`. Never returns. `used` returns the number of
/// connections, for the log.
pub(super) async fn accept<S, F>(
    over: &str,
    next: impl Fn() -> F,
    used: impl Fn() -> usize,
    welcome: impl Fn(S, SocketAddr),
) where
    F: Future<Output = io::Result<(S, SocketAddr)>>,
{
    let mut back_off = BACK_OFF.0;
    let mut short = false;
    loop {
        match next().await {
            Ok((stream, peer)) => {
                if std::mem::take(&mut short) {
                    tracing::info!("accepting connections{over} again");
                    back_off = BACK_OFF.0;
                }
                welcome(stream, peer);
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a client was gone before it was accepted{over}");
            }
            Err(error) => {
                if !std::mem::replace(&mut short, true) {
                    let connections = used();
                    tracing::error!(
                        %error,
                        connections,
                        "cannot accept connections{over}; new ones wait until something is free: raise the limit of open files"
                    );
                }
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// Whether `accept` failed because of the connection that it would have returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use tokio::time::Instant;

    use super::*;

    /// Records the level of each event of this thread, from INFO up.
    #[derive(Clone, Default)]
    struct LogLevels(Arc<Mutex<Vec<tracing::Level>>>);

    impl tracing::Subscriber for LogLevels {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() <= tracing::Level::INFO
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// Accepts the given connections, then nothing more. Returns when each was passed to `welcome`, and the levels
    /// of the log lines.
    async fn accepted(given: Vec<io::Result<u32>>) -> (Vec<(u32, Duration)>, Vec<tracing::Level>) {
        let levels = LogLevels::default();
        let _guard = tracing::subscriber::set_default(levels.clone());
        let (given, got) = (RefCell::new(VecDeque::from(given)), RefCell::new(Vec::new()));
        let began = Instant::now();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let next = || {
            let given = given.borrow_mut().pop_front();
            async move {
                match given {
                    Some(result) => result.map(|stream| (stream, peer)),
                    None => std::future::pending().await,
                }
            }
        };
        let welcome = |stream, _| got.borrow_mut().push((stream, began.elapsed()));
        let accepting = accept("", next, || 0, welcome);
        let over = tokio::time::timeout(Duration::from_secs(3600), accepting).await;
        assert!(over.is_err(), "it never ends");
        let levels = levels.0.lock().unwrap().clone();
        (got.into_inner(), levels)
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_one_connection_neither_stops_it_nor_makes_it_wait() {
        let mut given = Vec::new();
        for kind in [
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::TimedOut,
            io::ErrorKind::NetworkDown,
        ] {
            given.push(Err(kind.into()));
        }
        given.push(Ok(1));
        let (got, lines) = accepted(given).await;
        assert_eq!(got, [(1, Duration::ZERO)]);
        assert!(lines.is_empty(), "clients that leave are nothing to log: {lines:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortage_is_one_line_and_waits_ever_longer() {
        let too_many = || Err(io::Error::other("too many open files"));
        let mut given: Vec<_> = (0..10).map(|_| too_many()).collect();
        given.extend([Ok(1), Ok(2), too_many(), Ok(3)]);
        let (got, lines) = accepted(given).await;
        // 20, 40, 80, 160, 320 and 640 ms, then 1 s each.
        let first = Duration::from_millis(1_260 + 4 * 1_000);
        let again = first + BACK_OFF.0;
        assert_eq!(got, [(1, first), (2, first), (3, again)]);
        let (error, info) = (tracing::Level::ERROR, tracing::Level::INFO);
        assert_eq!(lines, [error, info, error, info]);
    }
}
