//! Sessions without sockets: random requests over a stream that gives and takes random pieces.
//!
//! Every test runs many rounds. Each round has a seed, which is printed when the round fails. `PSA_TEST_SEED`
//! sets the first of these seeds.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::{End, Session};
use super::shutdown::Shared;
use super::tail::Tails;
use super::{Limits, ServerConfig};
use crate::broker::{Broker, BrokerConfig};
use crate::listener::Stage;
use crate::log::{Overflow, Retention};
use crate::protocol::{
    Code, DecodeLimits, Decoded, Hello, LeaseRequest, OnGap, Publish, Records, Reply, Request,
    Start, Subscribe, TopicName, decode_reply,
};

/// A waker that counts how often it is used.
#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `round` with `many` consecutive seeds, from the requested seed or a random one.
fn rounds(many: u64, round: impl Fn(&mut fastrand::Rng)) {
    struct PrintSeed(u64);
    impl Drop for PrintSeed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("replay with PSA_TEST_SEED={}", self.0);
            }
        }
    }
    let asked = std::env::var("PSA_TEST_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let first = asked.unwrap_or_else(|| fastrand::u64(..1 << 48));
    for seed in first..first.saturating_add(many) {
        let _print_seed = PrintSeed(seed);
        round(&mut fastrand::Rng::with_seed(seed));
    }
}

/// A stream that gives and takes random pieces.
struct Wire {
    rng: fastrand::Rng,
    input: VecDeque<u8>,
    closed: bool,
    output: Vec<u8>,
    /// How many more bytes the peer takes.
    takes: usize,
}

impl Wire {
    fn piece(&mut self, of: usize) -> usize {
        let most = *self.rng.choice(&[1, 7, 100, 5_000, usize::MAX]).unwrap();
        self.rng.usize(1..=of.min(most))
    }

    /// All whole replies so far.
    fn replies(&mut self, mut each: impl FnMut(Reply<'_>)) {
        let limits = DecodeLimits { max_frame: 64 << 20, max_record: 64 << 20 };
        let mut done = 0;
        while let Decoded::Frame { value, consumed } =
            decode_reply(&self.output[done..], &limits).expect("replies are well-formed")
        {
            each(value);
            done += consumed;
        }
        self.output.drain(..done);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return if self.closed { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let most = buffer.remaining().min(self.input.len());
        let piece = self.piece(most);
        let bytes: Vec<u8> = self.input.drain(..piece).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
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
        if self.takes == 0 || self.rng.u8(..4) == 0 {
            return Poll::Pending;
        }
        let all = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
        let piece = self.piece(all.len()).min(self.takes);
        self.takes -= piece;
        self.output.extend_from_slice(&all[..piece]);
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

/// A session and its stream.
struct Peer {
    tails: Arc<Tails>,
    /// Dropped when it has ended, as its task does.
    session: Option<Session>,
    wire: Wire,
    end: Option<End>,
}

impl Peer {
    fn new(shared: &Arc<Shared>, rng: &mut fastrand::Rng) -> Self {
        let wire = Wire {
            rng: rng.fork(),
            input: VecDeque::new(),
            closed: false,
            output: Vec::new(),
            takes: usize::MAX,
        };
        let session = Some(Session::new(shared.clone()));
        Self { tails: shared.tails.clone(), session, wire, end: None }
    }

    fn say(&mut self, request: &Request<'_>) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.wire.input.extend(bytes);
    }

    fn hello(&mut self) {
        let hello = Hello { version_min: 1, version_max: 1, token: "", client: "" };
        self.say(&Request::Hello(hello));
    }

    /// Polls `polls` times. Whether everything that can happen has happened after that is a matter of chance,
    /// so callers call this again.
    fn run(&mut self, polls: usize) {
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..polls {
            // Far fewer subscriptions than are woken in one step, so nothing is kept from step to step.
            let _ = self.tails.poll_serve(cx, &mut Vec::new(), &mut Vec::new());
            if let Some(session) = &mut self.session
                && let Poll::Ready(end) = session.poll(cx, &mut self.wire)
            {
                (self.end, self.session) = (Some(end), None);
            }
        }
    }
}

fn shared(rng: &mut fastrand::Rng, broker: BrokerConfig) -> Arc<Shared> {
    let limits = Limits {
        max_record: 20_000,
        max_frame: 40_000,
        input_bytes: 40_000,
        reply_bytes: *rng.choice(&[100, 5_000, 64 << 10]).unwrap(),
        chunk_bytes: *rng.choice(&[1, 100, 5_000, 20_000]).unwrap(),
        chunk_records: *rng.choice(&[1, 3, 1_000]).unwrap(),
        ..Limits::default()
    };
    assert_eq!(limits.fault(), None);
    let config = ServerConfig { limits, ..ServerConfig::default() };
    let mut shared = Shared::new(config, Broker::new(broker).unwrap());
    // Subscriptions wait on their own, wait together, or change from the one to the other.
    shared.tails = Arc::new(Tails::new(*rng.choice(&[0, 0, 2, usize::MAX]).unwrap()));
    Arc::new(shared)
}

fn small_topics(rng: &mut fastrand::Rng, overflow: Overflow) -> BrokerConfig {
    BrokerConfig {
        segment_bytes: 4 << 10,
        topic_bytes: 64 << 10,
        retention: Retention::Bytes(rng.u64(..16 << 10)),
        overflow,
        ..BrokerConfig::default()
    }
}

/// The payload of record `offset` of a topic: its size and bytes follow from the offset.
fn record(topic: usize, offset: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(offset * 31 + topic as u64);
    let most = *rng.choice(&[0, 1, 10, 300, 300, 6_000]).unwrap();
    let size = rng.usize(..=most);
    std::iter::repeat_with(|| rng.u8(..)).take(size).collect()
}

const TOPICS: [&str; 3] = ["a", "b", "c"];

fn publish(peer: &mut Peer, topic: usize, first: u64, count: u64, ack: bool) {
    let (mut ends, mut payload) = (Vec::new(), Vec::new());
    for offset in first..first + count {
        payload.extend(record(topic, offset));
        ends.extend((payload.len() as u32).to_le_bytes());
    }
    peer.say(&Request::Publish(Publish {
        request: first as u32,
        topic: TopicName::new(TOPICS[topic]).unwrap(),
        ack,
        records: Records::new(0, &ends, &payload).unwrap(),
    }));
}

fn subscribe(sub: u32, topic: usize, start: Start) -> Subscribe<'static> {
    Subscribe {
        request: sub,
        sub,
        topic: TopicName::new(TOPICS[topic]).unwrap(),
        start,
        on_gap: OnGap::Continue,
        caught_up: sub.is_multiple_of(2),
        lease: None,
    }
}

/// What one reader has observed of its subscriptions, from the replies so far.
#[derive(Default)]
struct Observed {
    /// Topic and next offset of each subscription that has not ended.
    subs: HashMap<u32, (usize, u64)>,
    gaps: u64,
    delivered: u64,
    goodbye: Option<Code>,
}

impl Observed {
    /// Takes the replies that have arrived, and checks them: the order, that every gap is reported, and the bytes.
    fn check(&mut self, wire: &mut Wire) {
        wire.replies(|reply| match reply {
            Reply::Subscribed { sub, next, .. } => {
                self.subs.get_mut(&sub).expect("asked for").1 = next;
            }
            Reply::Deliver(chunk) => {
                let (topic, next) = self.subs.get_mut(&chunk.sub).expect("subscribed");
                assert_eq!(chunk.first, *next, "sub {}", chunk.sub);
                for (offset, bytes) in chunk.iter() {
                    assert_eq!(bytes, record(*topic, offset), "offset {offset}");
                    *next = offset + 1;
                    self.delivered += 1;
                }
            }
            Reply::Gap { sub, first_missed, next: to, .. } => {
                let (_, next) = self.subs.get_mut(&sub).expect("subscribed");
                // A gap at the start names the requested offset, which is before `next`.
                assert!(first_missed <= *next && to >= *next && to > first_missed);
                *next = to;
                self.gaps += 1;
            }
            Reply::CaughtUp { sub, next } => {
                assert!(sub.is_multiple_of(2));
                assert_eq!(self.subs[&sub].1, next);
            }
            Reply::Closed { sub, next, .. } => {
                assert_eq!(self.subs.remove(&sub).expect("subscribed").1, next);
            }
            Reply::Goodbye { code, .. } => self.goodbye = Some(code),
            Reply::Welcome(_) | Reply::Done { .. } | Reply::Pong { .. } => {}
            Reply::Error(error) => panic!("{error:?}"),
            other => panic!("{other:?}"),
        });
    }
}

#[test]
fn everything_comes_whole_and_in_order_whatever_the_pieces() {
    rounds(150, |rng| {
        let broker = small_topics(rng, Overflow::Block);
        let shared = shared(rng, broker);
        let mut publisher = Peer::new(&shared, rng);
        let mut reader = Peer::new(&shared, rng);
        publisher.hello();
        reader.hello();
        let mut observed = Observed::default();
        // All subscriptions begin before the first record, so that none of them may miss a record.
        for sub in 0..rng.u32(1..8) {
            let topic = rng.usize(..TOPICS.len());
            observed.subs.insert(sub, (topic, 0));
            reader.say(&Request::Subscribe(subscribe(sub, topic, Start::Earliest)));
        }
        reader.run(300);
        observed.check(&mut reader.wire);
        let mut next = [0; TOPICS.len()];
        let mut acknowledged = [0; TOPICS.len()];
        let mut asked = VecDeque::new();
        let mut acks = 0;
        let batches = rng.usize(1..60);
        for step in 0.. {
            if step < batches {
                let topic = rng.usize(..TOPICS.len());
                let count = rng.u64(1..5);
                let ack = rng.bool();
                publish(&mut publisher, topic, next[topic], count, ack);
                if ack {
                    asked.push_back((topic, next[topic], count));
                }
                next[topic] += count;
            }
            publisher.run(rng.usize(..6));
            reader.run(rng.usize(..6));
            observed.check(&mut reader.wire);
            publisher.wire.replies(|reply| match reply {
                Reply::Ack { first, count, .. } => {
                    let (topic, expected, records) = asked.pop_front().expect("asked for");
                    assert_eq!((first, u64::from(count)), (expected, records));
                    acknowledged[topic] = first + u64::from(count);
                    acks += 1;
                }
                Reply::Welcome(_) => {}
                other => panic!("{other:?}"),
            });
            let all = observed.subs.values().all(|&(topic, at)| at == next[topic]);
            if step >= batches && all && asked.is_empty() {
                break;
            }
            assert!(step < 100_000, "{:?} of {next:?}, {acks} acks", observed.subs);
        }
        assert_eq!(observed.gaps, 0);
        assert!(publisher.end.is_none() && reader.end.is_none());
        // An idle session keeps no memory.
        publisher.run(20);
        assert_eq!(publisher.session.as_ref().unwrap().input.bytes.capacity(), 0);
        assert!(!shared.input.is_tight());
        drop((publisher, reader));
        assert_eq!(shared.subscriptions.used(), 0);
    });
}

#[test]
fn an_evicted_reader_learns_exactly_what_it_missed_or_is_cut() {
    let (gaps_in_band, cut) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    rounds(300, |rng| {
        let broker = small_topics(rng, Overflow::Evict);
        let shared = shared(rng, broker);
        let mut publisher = Peer::new(&shared, rng);
        let mut reader = Peer::new(&shared, rng);
        publisher.hello();
        reader.hello();
        let mut observed = Observed::default();
        observed.subs.insert(1, (0, 0));
        reader.say(&Request::Subscribe(subscribe(1, 0, Start::Earliest)));
        reader.run(100);
        let mut next = 0;
        for _ in 0..rng.u32(100..400) {
            // Now and then the peer takes a little.
            reader.wire.takes = if rng.u8(..8) == 0 { rng.usize(..3_000) } else { 0 };
            let count = rng.u64(1..5);
            publish(&mut publisher, 0, next, count, false);
            next += count;
            publisher.run(10);
            reader.run(3);
            observed.check(&mut reader.wire);
        }
        reader.wire.takes = usize::MAX;
        for _ in 0..100_000 {
            publisher.run(1);
            reader.run(1);
            observed.check(&mut reader.wire);
            if reader.end.is_some() || observed.subs[&1].1 == next {
                break;
            }
        }
        match reader.end {
            // Every whole chunk was checked by `observed`; a new connection resumes after it.
            Some(End::Evicted) => cut.set(cut.get() + 1),
            None => assert_eq!(observed.subs[&1].1, next),
            other => panic!("{other:?}"),
        }
        gaps_in_band.set(gaps_in_band.get() + observed.gaps);
    });
    assert!(gaps_in_band.get() > 0 && cut.get() > 0, "{gaps_in_band:?} {cut:?}");
}

#[test]
fn requests_at_random_leave_nothing_behind() {
    rounds(200, |rng| {
        let broker = small_topics(rng, Overflow::Reject);
        let shared = shared(rng, broker);
        let mut peers: Vec<Peer> = (0..3).map(|_| Peer::new(&shared, rng)).collect();
        peers.iter_mut().for_each(Peer::hello);
        for step in 0..rng.u32(10..300) {
            let at = rng.usize(..peers.len());
            let topic_at = rng.usize(..TOPICS.len());
            let topic = TopicName::new(TOPICS[topic_at]).unwrap();
            let (request, sub) = (step, rng.u32(..4));
            let peer = &mut peers[at];
            match rng.u8(..12) {
                0..3 => publish(peer, topic_at, rng.u64(..100), rng.u64(1..20), rng.bool()),
                3 | 4 => {
                    let start = *rng
                        .choice(&[Start::Earliest, Start::Next, Start::At(9), Start::Last(3)])
                        .unwrap();
                    let name = TopicName::new("lease").unwrap();
                    let lease = LeaseRequest { name, ttl_ms: 10_000, take_over: rng.bool() };
                    let lease = rng.bool().then_some(lease);
                    let ask = Subscribe { lease, ..subscribe(sub, topic_at, start) };
                    peer.say(&Request::Subscribe(ask));
                }
                5 => peer.say(&Request::Unsubscribe { request, sub, release: rng.bool() }),
                6 => {
                    let (offset, ack) = (rng.u64(..50), rng.bool());
                    peer.say(&Request::Commit { request, sub, offset, ack });
                }
                7 => peer.say(&Request::Delete { request, topic }),
                8 => peer.say(&Request::Close { request, topic }),
                9 => peer.say(&Request::List { request, prefix: None }),
                10 => peer.say(&Request::Describe { request, topic }),
                _ => peer.wire.takes = if rng.bool() { usize::MAX } else { rng.usize(..500) },
            }
            for peer in &mut peers {
                peer.run(rng.usize(..4));
                peer.wire.replies(|_| {});
            }
        }
        if rng.bool() {
            shared.advance(Stage::Draining);
        }
        for peer in &mut peers {
            peer.wire.takes = usize::MAX;
            peer.wire.closed = true;
        }
        // All in turn: one may wait for memory that another one's input holds.
        for _ in 0..20_000 {
            peers.iter_mut().for_each(|peer| peer.run(1));
        }
        for peer in &mut peers {
            peer.wire.replies(|_| {});
            match &peer.end {
                Some(
                    End::PeerLeft | End::Said(Code::ShuttingDown) | End::Evicted | End::TakenOver,
                ) => {}
                other => panic!("{other:?}"),
            }
        }
        drop(peers);
        assert_eq!(shared.subscriptions.used(), 0);
        for name in TOPICS {
            shared.broker.delete(name).ok();
        }
        assert_eq!(shared.broker.budget().used(), 0);
    });
}

#[test]
fn no_bytes_make_a_session_fail_otherwise_than_by_goodbye() {
    rounds(2_000, |rng| {
        let broker = small_topics(rng, Overflow::Reject);
        let shared = shared(rng, broker);
        let mut peer = Peer::new(&shared, rng);
        if rng.u8(..8) > 0 {
            peer.hello();
        }
        for _ in 0..rng.u8(..6) {
            let topic = rng.usize(..TOPICS.len());
            match rng.u8(..4) {
                0 => publish(&mut peer, topic, 0, rng.u64(1..5), true),
                1 => peer.say(&Request::Subscribe(subscribe(1, topic, Start::Earliest))),
                2 => peer.say(&Request::Ping { token: rng.u64(..) }),
                _ => {
                    let noise = std::iter::repeat_with(|| rng.u8(..)).take(20).collect::<Vec<_>>();
                    peer.wire.input.extend(noise);
                }
            }
        }
        // Flips some bits, or cuts off the end.
        for _ in 0..rng.u8(..4) {
            if !peer.wire.input.is_empty() {
                let at = rng.usize(..peer.wire.input.len());
                peer.wire.input[at] ^= 1 << rng.u8(..8);
            }
        }
        let keep = rng.usize(..=peer.wire.input.len());
        if rng.bool() {
            peer.wire.input.truncate(keep);
        }
        peer.run(500);
        peer.wire.replies(|_| {});
        peer.wire.closed = true;
        for _ in 0..10_000 {
            peer.run(1);
        }
        peer.wire.replies(|_| {});
        assert!(matches!(peer.end, Some(End::PeerLeft | End::Said(_))), "{:?}", peer.end);
        drop(peer);
        assert_eq!(shared.subscriptions.used(), 0);
    });
}

mod waiting;
mod wakers;
