//! Sessions that wait, and what ends their wait.

use super::super::limits::{InputPool, InputShare};
use super::*;
use crate::listener::AppendInFlight;

/// Polls a peer's session until it is idle.
fn rest(peer: &mut Peer, count: &Arc<CountingWaker>) {
    let waker = Waker::from(count.clone());
    let session = peer.session.as_mut().expect("it goes on");
    for _ in 0..100 {
        assert!(session.poll(&mut Context::from_waker(&waker), &mut peer.wire).is_pending());
    }
}

/// The holder's peer takes nothing, so only the take-over itself can wake the holder.
#[test]
fn a_take_over_wakes_a_holder_whose_peer_takes_nothing() {
    let mut rng = fastrand::Rng::with_seed(1);
    let config = small_topics(&mut rng, Overflow::Block);
    let shared = shared(&mut rng, config);
    let leased = |take_over| {
        let name = TopicName::new("lease").unwrap();
        let lease = Some(LeaseRequest { name, ttl_ms: 60_000, take_over });
        Request::Subscribe(Subscribe { lease, ..subscribe(1, 0, Start::Earliest) })
    };
    let mut holder = Peer::new(&shared, &mut rng);
    holder.hello();
    holder.say(&leased(false));
    holder.run(100);
    let mut other = Peer::new(&shared, &mut rng);
    other.hello();
    holder.wire.takes = 0;
    publish(&mut other, 0, 0, 3, true);
    other.run(100);
    let count = Arc::new(CountingWaker::default());
    rest(&mut holder, &count);
    count.0.store(0, Ordering::Relaxed);
    other.say(&leased(true));
    other.run(100);
    assert_eq!(shared.subscriptions.used(), 2, "the other one has it");
    assert!(count.0.load(Ordering::Relaxed) > 0, "the old holder sleeps on what it has lost");
    holder.run(100);
    assert_eq!(shared.subscriptions.used(), 1);
}

/// The append was begun before the drain, so its record is delivered, however late the append ends.
#[test]
fn a_drain_waits_for_the_append_in_flight() {
    let mut rng = fastrand::Rng::with_seed(1);
    let config = small_topics(&mut rng, Overflow::Block);
    let shared = shared(&mut rng, config);
    let mut reader = Peer::new(&shared, &mut rng);
    reader.hello();
    reader.say(&Request::Subscribe(subscribe(1, 0, Start::Earliest)));
    reader.run(100);
    let in_flight = AppendInFlight::begin(&*shared).expect("the server serves");
    shared.advance(Stage::Draining);
    assert!(AppendInFlight::begin(&*shared).is_none());
    let count = Arc::new(CountingWaker::default());
    rest(&mut reader, &count);
    assert_eq!(shared.subscriptions.used(), 1);
    let topic = shared.broker.topic(TOPICS[0]).expect("it is there");
    topic.blocking_append(b"late").unwrap();
    count.0.store(0, Ordering::Relaxed);
    drop(in_flight);
    assert!(count.0.load(Ordering::Relaxed) > 0, "it sleeps until the drain's timeout");
    reader.run(100);
    let mut told = Vec::new();
    reader.wire.replies(|reply| match reply {
        Reply::Deliver(chunk) => told.extend(chunk.records.iter().map(<[u8]>::to_vec)),
        Reply::Goodbye { code: Code::ShuttingDown, .. } => told.push(b"goodbye".to_vec()),
        _ => {}
    });
    assert_eq!(told, [b"late".to_vec(), b"goodbye".to_vec()]);
    assert_eq!(shared.subscriptions.used(), 0);
    // Others go on.
    topic.blocking_append(b"later").unwrap();
}

/// Each connection has memory for a frame and wants more for the next frame. The one that must wait gives back
/// what it has; otherwise they would wait for each other.
#[test]
fn who_waits_for_input_memory_holds_none() {
    let pool = InputPool::new(12_000);
    let waker = || Waker::noop().clone();
    let (mut a, mut b) = (InputShare::default(), InputShare::default());
    assert!(a.settle(&pool, 10, 6_000, waker));
    assert!(b.settle(&pool, 10, 6_000, waker));
    assert!(!a.settle(&pool, 10, 9_000, waker));
    assert!(b.settle(&pool, 10, 9_000, waker));
    b.clear(&pool);
    a.woken();
    assert!(a.settle(&pool, 10, 9_000, waker));
    a.clear(&pool);
}
