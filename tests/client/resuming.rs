//! Connections that break: at every byte, with every kind of change on the other side.

use std::ops::Range;
use std::time::Duration;

use psa::client::*;
use psa::protocol::Reply;
use tokio::net::TcpListener;

use crate::fake::*;
use crate::following::line;

/// What a topic of records `0..tail` sends to a subscription from `next` on.
fn deliveries(next: u64, tail: u64, step: u64) -> Vec<u8> {
    let mut out = bytes(&subscribed(EPOCH, next, tail));
    for first in (next..tail).step_by(step as usize) {
        out.extend(deliver(EPOCH, first..tail.min(first + step)));
    }
    out
}

fn next_of(start: Start) -> u64 {
    match start {
        Start::Earliest | Start::At(0) => 0,
        Start::After { epoch: EPOCH, offset } => offset + 1,
        other => panic!("{other:?}"),
    }
}

/// Serves one subscription, but no more than `cut` bytes of it.
async fn serve_cut(listener: &TcpListener, tail: u64, step: u64, cut: usize) -> Start {
    let mut peer = Peer::welcome(listener).await;
    let start = peer.subscribed().await;
    let all = deliveries(next_of(start), tail, step);
    let cut = cut.min(all.len());
    peer.send_bytes(&all[..cut]).await;
    if cut == all.len() {
        peer.wait_for_end().await;
    }
    start
}

async fn take_all(subscription: &mut Subscription, offsets: Range<u64>, batches: bool) {
    let mut expected = offsets.start;
    while expected < offsets.end {
        if !batches {
            assert_eq!(line(subscription).await, format!("record {expected}"));
            expected += 1;
            continue;
        }
        match subscription.next_batch().await {
            Some(Ok(BatchEvent::Records(batch))) => {
                for (offset, data) in batch.iter() {
                    assert_eq!(offset, expected);
                    assert_eq!(data, record(EPOCH, offset));
                    expected += 1;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Promise 6: a cut at any byte costs nothing and doubles nothing.
#[tokio::test]
async fn a_cut_at_every_byte_is_resumed_exactly() {
    const TAIL: u64 = 12;
    let whole = deliveries(0, TAIL, 5).len();
    let handshake = bytes(&subscribed(EPOCH, 0, TAIL)).len();
    for batches in [false, true] {
        for cut in handshake..=whole {
            let (listener, builder) = listen().await;
            let server = play(async move {
                let start = serve_cut(&listener, TAIL, 5, cut).await;
                assert_eq!(start, Start::Earliest);
                if cut < whole {
                    let start = serve_cut(&listener, TAIL, 5, usize::MAX).await;
                    // It asks for what comes after the last chunk that was whole.
                    let received =
                        (0..TAIL).rev().step_by(1).map(|last| last + 1).chain([0]).find(|next| {
                            let ends_chunk = *next == TAIL || next % 5 == 0;
                            ends_chunk && deliveries(0, *next, 5).len() <= cut
                        });
                    assert_eq!(Some(next_of(start)), received, "cut at {cut}");
                }
            });
            let client = builder.build().unwrap();
            let mut subscription =
                client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
            take_all(&mut subscription, 0..TAIL, batches).await;
            assert_eq!(subscription.reconnections(), u64::from(cut < whole));
            drop(subscription);
            finish(server).await;
        }
    }
}

/// Before SUBSCRIBED is whole: the first time it is an error, later it is tried again.
#[tokio::test]
async fn a_cut_in_the_handshake_is_an_error_first_and_tried_again_later() {
    let (listener, builder) = listen().await;
    let handshake = bytes(&subscribed(EPOCH, 0, 4)).len();
    let server = play(async move {
        serve_cut(&listener, 4, 4, 10).await;
        serve_cut(&listener, 4, 2, handshake + 60).await;
        for cut in 0..handshake {
            serve_cut(&listener, 4, 2, cut).await;
        }
        // Not even that: no WELCOME.
        drop(Peer::accept(&listener).await);
        serve_cut(&listener, 4, 2, usize::MAX).await;
    });
    let client = builder.build().unwrap();
    let options = SubscribeOptions::earliest();
    let error = client.subscribe("topic", options.clone()).await.unwrap_err();
    assert!(matches!(error, ClientError::Io { .. }), "{error:?}");
    let mut subscription = client.subscribe("topic", options).await.unwrap();
    take_all(&mut subscription, 0..4, false).await;
    drop(subscription);
    finish(server).await;
}

/// Many random cuts, chunk sizes and ways of reading. The seed is printed when it fails.
#[tokio::test]
async fn random_cuts_are_resumed_exactly() {
    let seed =
        std::env::var("PSA_TEST_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    println!("PSA_TEST_SEED={seed}");
    const TAIL: u64 = 3000;
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut random = fastrand::Rng::with_seed(seed);
        loop {
            let whole = random.u8(..20) == 0;
            let cut = if whole { usize::MAX } else { random.usize(..6000) };
            let step = random.u64(1..60);
            let mut peer = Peer::welcome(&listener).await;
            let next = next_of(peer.subscribed().await);
            let all = deliveries(next, TAIL, step);
            let cut = cut.min(all.len());
            peer.send_bytes(&all[..cut]).await;
            if cut == all.len() {
                peer.wait_for_end().await;
                return;
            }
        }
    });
    let client = builder.build().unwrap();
    // The first connection may be cut in the handshake, which is an error.
    let mut subscription = loop {
        match client.subscribe("topic", SubscribeOptions::earliest()).await {
            Ok(subscription) => break subscription,
            Err(error) => assert!(matches!(error, ClientError::Io { .. }), "{error:?}"),
        }
    };
    let mut random = fastrand::Rng::with_seed(!seed);
    let mut expected = 0;
    while expected < TAIL {
        if random.bool() {
            assert_eq!(line(&mut subscription).await, format!("record {expected}"));
            expected += 1;
        } else {
            let Some(Ok(BatchEvent::Records(batch))) = subscription.next_batch().await else {
                panic!()
            };
            assert_eq!(batch.first_offset(), expected);
            expected = batch.next_offset();
        }
        assert_eq!(subscription.position().next, expected);
    }
    drop(subscription);
    finish(server).await;
}

/// The server was restarted: the topic is unknown at first, then another one.
#[tokio::test]
async fn another_epoch_is_a_gap_and_goes_on_from_its_earliest() {
    // With the server's own GAP and without it, and with a first place of 0.
    for (taken, told) in [(3, true), (3, false), (0, false)] {
        let (listener, builder) = listen().await;
        let server = play(async move {
            let mut peer = Peer::welcome(&listener).await;
            peer.subscribed().await;
            peer.send(&subscribed(EPOCH, 0, taken)).await;
            if taken > 0 {
                peer.send_bytes(&deliver(EPOCH, 0..taken)).await;
            }
            drop(peer);
            let mut peer = Peer::welcome(&listener).await;
            peer.subscribed().await;
            peer.fail(1, Code::UnknownTopic).await;
            drop(peer);
            let mut peer = Peer::welcome(&listener).await;
            let start = peer.subscribed().await;
            match taken {
                0 => assert_eq!(start, Start::At(0)),
                taken => assert_eq!(start, Start::After { epoch: EPOCH, offset: taken - 1 }),
            }
            peer.send(&subscribed(0xf0, 2, 9)).await;
            if told {
                peer.send(&gap(GapReason::OtherEpoch, 0xf0, taken, 2)).await;
            }
            peer.send_bytes(&deliver(0xf0, 2..4)).await;
            drop(peer);
            // And on in the new epoch.
            let mut peer = Peer::welcome(&listener).await;
            let (epoch, offset) = (0xf0, 3);
            assert_eq!(peer.subscribed().await, Start::After { epoch, offset });
            peer.send(&subscribed(0xf0, 4, 9)).await;
            peer.send_bytes(&deliver(0xf0, 4..5)).await;
            peer.wait_for_end().await;
        });
        let client = builder.build().unwrap();
        let mut subscription =
            client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
        take_all(&mut subscription, 0..taken, false).await;
        let gap = line(&mut subscription).await;
        assert_eq!(gap, format!("OtherEpoch f0 {taken}..2"));
        for offset in 2..5 {
            assert_eq!(line(&mut subscription).await, format!("record {offset}"));
        }
        let (epoch, next) = (0xf0, 5);
        assert_eq!(subscription.position(), Position { epoch, next });
        drop(subscription);
        finish(server).await;
    }
}

#[tokio::test]
async fn records_that_were_collected_meanwhile_are_a_gap() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        serve_cut(&listener, 4, 4, deliveries(0, 4, 4).len() - 1).await;
        let mut peer = Peer::welcome(&listener).await;
        assert_eq!(peer.subscribed().await, Start::At(0));
        peer.send(&subscribed(EPOCH, 30, 40)).await;
        peer.send(&gap(GapReason::Collected, EPOCH, 0, 30)).await;
        peer.send_bytes(&deliver(EPOCH, 30..31)).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
    assert_eq!(line(&mut subscription).await, "Collected e0 0..30");
    assert_eq!(line(&mut subscription).await, "record 30");
    drop(subscription);
    finish(server).await;
}

/// Somebody who has received nothing yet misses as much as anybody when what comes first is collected.
#[tokio::test]
async fn a_place_in_front_of_all_records_is_resumed_with_the_gap() {
    let place = Position { epoch: EPOCH, next: 0 };
    // The epoch that is found, what the server says of a gap, and what is told.
    for (found, told, line_told) in [
        (EPOCH, Some(5), "Collected e0 0..5"),
        (EPOCH, None, "record 0"),
        (0xf0, Some(5), "OtherEpoch f0 0..5"),
        (0xf0, None, "OtherEpoch f0 0..0"),
    ] {
        let (listener, builder) = listen().await;
        let next = told.unwrap_or(0);
        let server = play(async move {
            let mut peer = Peer::welcome(&listener).await;
            assert_eq!(peer.subscribed().await, Start::At(0));
            peer.send(&subscribed(found, next, 9)).await;
            if told.is_some() {
                peer.send(&gap(GapReason::Collected, found, 0, next)).await;
            }
            peer.send_bytes(&deliver(found, next..next + 2)).await;
            peer.wait_for_end().await;
        });
        let client = builder.build().unwrap();
        let mut subscription =
            client.subscribe("topic", SubscribeOptions::resume(place)).await.unwrap();
        assert_eq!(line(&mut subscription).await, line_told);
        let behind = next + u64::from(line_told == "record 0");
        assert_eq!(subscription.position(), Position { epoch: found, next: behind });
        assert_eq!(line(&mut subscription).await, format!("record {behind}"));
        drop(subscription);
        finish(server).await;
    }
}

#[tokio::test]
async fn another_epoch_is_refused_in_front_of_all_records_too() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        assert_eq!(peer.subscribed().await, Start::At(0));
        peer.send(&subscribed(0xf0, 0, 9)).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let options = SubscribeOptions::resume(Position { epoch: EPOCH, next: 0 }).on_gap(OnGap::Error);
    let refused = client.subscribe("topic", options).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::WrongEpoch), "{refused}");
    finish(server).await;
}

#[tokio::test]
async fn passing_goodbyes_are_survived_and_others_end_it() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        for (i, code) in [
            Code::ShuttingDown,
            Code::Evicted,
            Code::WriteStalled,
            Code::Internal,
            Code::Unauthorized,
        ]
        .into_iter()
        .enumerate()
        {
            let mut peer = Peer::welcome(&listener).await;
            let next = next_of(peer.subscribed().await);
            assert_eq!(next, i as u64);
            peer.send(&subscribed(EPOCH, next, 9)).await;
            peer.send_bytes(&deliver(EPOCH, next..next + 1)).await;
            peer.goodbye(code).await;
        }
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
    take_all(&mut subscription, 0..5, false).await;
    assert_eq!(line(&mut subscription).await, "error unauthorized");
    assert_eq!(line(&mut subscription).await, "end");
    finish(server).await;
}

#[tokio::test]
async fn a_silent_server_is_asked_for_a_sign_of_life_and_left() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        // It answers the first PING and no other.
        let mut silent = Peer::welcome(&listener).await;
        silent.subscribed().await;
        silent.send(&subscribed(EPOCH, 0, 0)).await;
        for answered in [true, false] {
            let token = silent
                .take(|request| match request {
                    psa::protocol::Request::Ping { token } => token,
                    other => panic!("{other:?}"),
                })
                .await;
            if answered {
                silent.send(&Reply::Pong { token }).await;
            }
        }
        let start = serve_cut(&listener, 1, 1, usize::MAX).await;
        assert_eq!(start, Start::At(0));
    });
    let client = builder.keepalive(Duration::from_millis(30)).build().unwrap();
    let mut subscription = client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
    assert_eq!(line(&mut subscription).await, "record 0");
    assert_eq!(subscription.reconnections(), 1);
    drop(subscription);
    finish(server).await;
}

#[tokio::test]
async fn it_gives_up_when_it_was_told_to() {
    for limit in [Duration::ZERO, Duration::from_millis(100)] {
        let (listener, builder) = listen().await;
        let server = play(async move {
            serve_cut(&listener, 2, 1, deliveries(0, 2, 1).len() - 1).await;
            // From here on nobody listens.
        });
        let client = builder.build().unwrap();
        let options = SubscribeOptions::earliest().give_up_after(limit);
        let mut subscription = client.subscribe("topic", options).await.unwrap();
        assert_eq!(line(&mut subscription).await, "record 0");
        let told = line(&mut subscription).await;
        assert!(told.contains("gave up"), "{told}");
        assert_eq!(line(&mut subscription).await, "end");
        finish(server).await;
    }
}

#[tokio::test]
async fn a_cut_before_the_first_gap_loses_nothing_of_it() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let start = Start::After { epoch: EPOCH, offset: 4 };
        assert_eq!(peer.subscribed().await, start);
        peer.send(&subscribed(EPOCH, 10, 12)).await;
        drop(peer);
        let mut peer = Peer::welcome(&listener).await;
        assert_eq!(peer.subscribed().await, start);
        peer.send(&subscribed(EPOCH, 11, 12)).await;
        peer.send(&gap(GapReason::Collected, EPOCH, 5, 11)).await;
        peer.send_bytes(&deliver(EPOCH, 11..12)).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut news = client.subscribe("news", SubscribeOptions::after(EPOCH, 4)).await.unwrap();
    assert_eq!(line(&mut news).await, format!("Collected {EPOCH:x} 5..11"));
    assert_eq!(line(&mut news).await, "record 11");
    drop(news);
    finish(server).await;
}
