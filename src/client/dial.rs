//! Connecting and subscribing.

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::config::Config;
use super::conn::Conn;
use super::error::ClientError;
use super::options::SubscribeOptions;
use crate::protocol::{LeaseRequest, Reply, Request, Subscribe, TopicName};

/// The only subscription of its connection.
pub(super) const SUB: u32 = 1;

/// A connection with a running subscription.
pub(super) struct Dialed {
    pub(super) conn: Conn,
    pub(super) epoch: u64,
    pub(super) next: u64,
    /// The offset that the topic's next record will get.
    pub(super) tail: u64,
}

/// Connects and subscribes.
pub(super) async fn dial(
    config: &Config,
    topic: &str,
    options: &SubscribeOptions,
) -> Result<Dialed, ClientError> {
    let mut conn = Conn::open(config).await?;
    let lease = match &options.lease {
        Some(lease) => Some(LeaseRequest {
            name: TopicName::new(&lease.name)?,
            ttl_ms: lease.ttl_ms(),
            take_over: lease.take_over,
        }),
        None => None,
    };
    let mut out = Vec::new();
    Request::Subscribe(Subscribe {
        request: 1,
        sub: SUB,
        topic: TopicName::new(topic)?,
        start: options.start,
        on_gap: options.on_gap,
        caught_up: options.caught_up,
        lease,
    })
    .encode(&mut out);
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
    let (epoch, next, tail) = match timeout(after, exchange).await {
        Ok(answer) => answer?,
        Err(_) => return Err(ClientError::Timeout { after }),
    };
    Ok(Dialed { conn, epoch, next, tail })
}

/// The epoch, the first offset that will be delivered, and the topic's end.
fn subscribed(reply: Reply<'_>) -> Result<(u64, u64, u64), ClientError> {
    match reply {
        Reply::Subscribed { request: 1, sub: SUB, epoch, next, tail } => Ok((epoch, next, tail)),
        Reply::Error(error) if error.request == 1 => Err(ClientError::Server(error.into())),
        Reply::Goodbye { code, message } => Err(ClientError::goodbye(code, message)),
        _ => Err(ClientError::Violation { what: "it answered a SUBSCRIBE with something else" }),
    }
}
