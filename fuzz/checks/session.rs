//! What has to hold for a session of the server, whatever bytes its client sends, in whatever pieces
//! they come and the replies are taken.
//!
//! Four bytes choose the settings and the pieces; the rest is what the client sends. The session is
//! private to the server, so this module stands in the place of `src/server/mod.rs`: it includes the
//! parts of which a session consists.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "a session uses a part of each")]

#[path = "../../src/server/answers.rs"]
mod answers;
#[path = "../../src/server/chunk.rs"]
mod chunk;
#[path = "../../src/server/closing.rs"]
mod closing;
#[path = "../../src/server/config.rs"]
mod config;
#[path = "../../src/server/delivery.rs"]
mod delivery;
#[path = "../../src/server/describe.rs"]
mod describe;
#[path = "../../src/server/flood.rs"]
mod flood;
#[path = "../../src/server/input.rs"]
mod input;
#[path = "../../src/server/limits.rs"]
mod limits;
#[path = "../../src/server/outbox.rs"]
mod outbox;
#[path = "../../src/server/refusal.rs"]
mod refusal;
#[path = "../../src/server/requests.rs"]
mod requests;
#[path = "../../src/server/session.rs"]
mod shipped;
use shipped as session;
#[path = "../../src/server/shutdown.rs"]
mod shutdown;
#[path = "../../src/server/tail.rs"]
mod tail;
#[path = "../../src/server/wakers.rs"]
mod wakers;

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::config::{Limits, ServerConfig};
use self::session::Session;
use self::shutdown::Shared;
use crate::broker::{Broker, BrokerConfig};
use crate::listener::Stage;
use crate::log::{Overflow, Retention};
use crate::protocol::{DecodeLimits, Decoded, GapReason, Reply, decode_reply};

/// The client: sends its bytes and takes what it gets, in pieces.
struct Client<'a> {
    rng: fastrand::Rng,
    sends: &'a [u8],
    /// Whether it has closed its side.
    closed: bool,
    /// Whether it takes anything at all.
    takes: bool,
    received: Vec<u8>,
}

impl Client<'_> {
    fn piece(&mut self, of: usize) -> usize {
        let most = [1, 7, 100, 5_000, usize::MAX][self.rng.usize(..5)];
        self.rng.usize(1..=of.min(most))
    }
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.sends.is_empty() {
            return if self.closed { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let most = buffer.remaining().min(self.sends.len());
        let piece = self.piece(most);
        let (now, later) = self.sends.split_at(piece);
        buffer.put_slice(now);
        self.sends = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.takes || self.rng.u8(..8) == 0 {
            return Poll::Pending;
        }
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        if all.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let piece = self.piece(all.len());
        self.received.extend_from_slice(&all[..piece]);
        Poll::Ready(Ok(piece))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What the client was told.
#[derive(Default)]
struct Told {
    /// The next offset of each subscription that is open.
    subs: HashMap<u32, u64>,
    /// The last word was said.
    goodbye: bool,
    frames: usize,
    /// The version that the welcome named.
    version: u16,
}

impl Told {
    /// Takes in what came whole: well-formed frames, deliveries without a hole that is not told.
    fn listen(&mut self, received: &mut Vec<u8>) {
        let limits = DecodeLimits { max_frame: 64 << 20, max_record: 64 << 20 };
        let mut done = 0;
        while let Decoded::Frame { value, consumed } =
            decode_reply(&received[done..], &limits).expect("replies are well-formed")
        {
            assert!(!self.goodbye, "a frame after the goodbye: {value:?}");
            self.reply(&value);
            self.frames += 1;
            done += consumed;
        }
        received.drain(..done);
    }

    fn reply(&mut self, reply: &Reply<'_>) {
        match reply {
            Reply::Welcome(welcome) => {
                assert_eq!(self.frames, 0, "a second welcome");
                self.version = welcome.version;
            }
            Reply::Subscribed { sub, next, .. } => {
                assert_eq!(self.subs.insert(*sub, *next), None, "sub {sub} is open twice");
            }
            Reply::Deliver(chunk) => {
                let next = self.subs.get_mut(&chunk.sub).expect("delivered to no subscription");
                assert_eq!(chunk.first, *next, "sub {}", chunk.sub);
                for (offset, _) in chunk.iter() {
                    assert_eq!(offset, *next);
                    *next += 1;
                }
                assert!(*next > chunk.first, "an empty chunk");
            }
            Reply::Gap { sub, reason, first_missed, next: to, .. } => {
                let next = self.subs.get_mut(sub).expect("a gap of no subscription");
                if *reason == GapReason::OtherEpoch {
                    // What is missing is counted otherwise.
                    assert_eq!(to, next);
                } else {
                    // One at the start names what was asked for, which lies before.
                    assert!(first_missed <= next && to >= next && to > first_missed);
                }
                *next = *to;
            }
            Reply::CaughtUp { sub, next } => assert_eq!(self.subs.get(sub), Some(next)),
            Reply::Closed { sub, .. } => {
                self.subs.remove(sub).expect("closed what was not open");
            }
            Reply::Goodbye { .. } => self.goodbye = true,
            // Each connection gets what its version can say, and all of it.
            Reply::Topics { topics, .. } => {
                for topic in topics {
                    assert_eq!(topic.durability.is_some(), self.version >= 2);
                }
            }
            Reply::Description(description) => {
                assert_eq!(description.settings.durability.is_some(), self.version >= 2);
                assert!(self.version >= 2 || description.stored.is_none());
            }
            _ => {}
        }
    }
}

fn shared(choices: [u8; 4]) -> Arc<Shared> {
    let pick = |of: [usize; 4], by: u8| of[usize::from(by % 4)];
    let limits = Limits {
        max_record: 2_000,
        max_frame: 8_000,
        input_bytes: 8_000,
        reply_bytes: pick([100, 5_000, 64 << 10, 64 << 10], choices[0]),
        chunk_bytes: pick([1, 100, 2_000, 2_000], choices[0] / 4),
        chunk_records: pick([1, 3, 1_000, 1_000], choices[0] / 16),
        ..Limits::default()
    };
    assert_eq!(limits.fault(), None);
    let broker = BrokerConfig {
        segment_bytes: 4 << 10,
        topic_bytes: 64 << 10,
        retention: [Retention::Nothing, Retention::Bytes(16 << 10), Retention::Everything]
            [usize::from(choices[1] % 3)],
        overflow: [Overflow::Block, Overflow::Reject, Overflow::Evict]
            [usize::from(choices[1] / 4 % 3)],
        ..BrokerConfig::default()
    };
    let config = ServerConfig { limits, ..ServerConfig::default() };
    Arc::new(Shared::new(config, Broker::new(broker).expect("valid settings")))
}

/// Polls at most so often; whether the session ended.
fn run(
    session: &mut Option<Session>,
    client: &mut Client<'_>,
    told: &mut Told,
    polls: usize,
) -> bool {
    let cx = &mut Context::from_waker(Waker::noop());
    for _ in 0..polls {
        let Some(open) = session else { break };
        if open.poll(cx, client).is_ready() {
            *session = None;
        }
        told.listen(&mut client.received);
    }
    session.is_none()
}

/// No panic; replies are well-formed; what is delivered has no hole that is not told, and nothing
/// follows a goodbye; a session whose peer has left ends, and leaves nothing behind.
pub(crate) fn check(data: &[u8]) {
    let Some((choices, sends)) = data.split_first_chunk::<4>() else { return };
    // Epochs are drawn at random: the same ones on every run.
    fastrand::seed(7);
    let shared = shared(*choices);
    let mut session = Some(Session::new(shared.clone()));
    let mut client = Client {
        rng: fastrand::Rng::with_seed(u64::from(choices[2])),
        sends,
        closed: false,
        takes: choices[3] % 8 != 0,
        received: Vec::new(),
    };
    let mut told = Told::default();
    run(&mut session, &mut client, &mut told, 100);
    match choices[3] / 8 % 4 {
        0 => shared.advance(Stage::Draining),
        1 => {
            // Long enough for every deadline.
            for _ in 0..100 {
                let now = shared.clock.tick();
                shared.registry.wake_due(now);
                run(&mut session, &mut client, &mut told, 1);
            }
        }
        _ => {}
    }
    run(&mut session, &mut client, &mut told, 100);
    // The client goes, and whoever writes to it is not kept waiting.
    (client.closed, client.takes) = (true, true);
    client.sends = &[];
    let mut ended = run(&mut session, &mut client, &mut told, 2_000);
    for _ in 0..2_000 {
        if ended {
            break;
        }
        // What is left may wait for a deadline.
        let now = shared.clock.tick();
        shared.registry.wake_due(now);
        ended = run(&mut session, &mut client, &mut told, 2);
    }
    assert!(ended, "the session outlives its peer");
    assert_eq!(shared.subscriptions.used(), 0);
}
