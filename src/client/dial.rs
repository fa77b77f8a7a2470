//! Connecting and subscribing.

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::config::Config;
use super::conn::Conn;
use super::error::ClientError;
use super::options::SubscribeOptions;
use crate::log::Position;
use crate::protocol::{LeaseOrigin, LeaseRequest, Reply, Request, Subscribe, TopicName};

/// The only subscription of its connection.
pub(super) const SUB: u32 = 1;

/// A connection with a running subscription.
pub(super) struct Dialed {
    pub(super) conn: Conn,
    pub(super) answer: Subscribed,
}

/// The answer to a SUBSCRIBE.
pub(super) struct Subscribed {
    /// What will be delivered first.
    pub(super) position: Position,
    /// The offset that the topic's next record will get.
    pub(super) tail: u64,
    /// What there was of the lease.
    pub(super) lease: Option<LeaseOrigin>,
}

/// A SUBSCRIBE.
pub(super) fn subscribe_request<'a>(
    request: u32,
    sub: u32,
    topic: &'a str,
    options: &'a SubscribeOptions,
) -> Result<Request<'a>, ClientError> {
    let lease = match &options.lease {
        Some(lease) => Some(LeaseRequest {
            name: TopicName::new(&lease.name)?,
            ttl_ms: lease.ttl_ms(),
            take_over: lease.take_over,
        }),
        None => None,
    };
    Ok(Request::Subscribe(Subscribe {
        request,
        sub,
        topic: TopicName::new(topic)?,
        start: options.start,
        on_gap: options.on_gap,
        caught_up: options.caught_up,
        lease,
    }))
}

/// Connects and subscribes.
pub(super) async fn dial(
    config: &Config,
    topic: &str,
    options: &SubscribeOptions,
) -> Result<Dialed, ClientError> {
    let mut conn = Conn::open(config).await?;
    let mut out = Vec::new();
    subscribe_request(1, SUB, topic, options)?.encode(&mut out);
    let exchange = async {
        conn.io.write_all(&out).await.map_err(ClientError::io)?;
        conn.io.flush().await.map_err(ClientError::io)?;
        loop {
            let found = match conn.decode()? {
                Ok((reply, consumed)) => Ok((subscribed(reply)?, consumed)),
                Err(at_least) => Err(at_least),
            };
            match found {
                Ok((answer, consumed)) => {
                    conn.inbox.consume(consumed);
                    return Ok::<_, ClientError>(answer);
                }
                Err(at_least) => conn.fill(at_least).await?,
            }
        }
    };
    let after = config.request_timeout;
    let answer = match timeout(after, exchange).await {
        Ok(answer) => answer?,
        Err(_) => return Err(ClientError::Timeout { after }),
    };
    Ok(Dialed { conn, answer })
}

fn subscribed(reply: Reply<'_>) -> Result<Subscribed, ClientError> {
    match reply {
        Reply::Subscribed { request: 1, sub: SUB, epoch, next, tail, lease } => {
            Ok(Subscribed { position: Position { epoch, next }, tail, lease })
        }
        Reply::Error(error) if error.request == 1 => Err(ClientError::Server(error.into())),
        Reply::Goodbye { code, message } => Err(ClientError::goodbye(code, message)),
        _ => Err(ClientError::Violation { what: "it answered a SUBSCRIBE with something else" }),
    }
}
