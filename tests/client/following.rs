//! Subscriptions on one connection: events, gaps, ends, faults of the server.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use futures_core::Stream;
use psa::client::*;
use psa::protocol::Reply;
use tokio::time::timeout;

use crate::fake::*;

/// Takes one event as a line of text.
pub(crate) async fn line(subscription: &mut Subscription) -> String {
    let next = timeout(Duration::from_secs(10), subscription.next()).await;
    match next.expect("an event in time") {
        None => "end".into(),
        Some(Err(error)) => match error.code() {
            Some(code) => format!("error {code}"),
            None => format!("error {error}"),
        },
        Some(Ok(Event::Record(record))) => {
            let text = String::from_utf8_lossy(record.data()).into_owned();
            assert_eq!(record.data(), fake_record(record.epoch(), record.offset()), "{text}");
            format!("record {}", record.offset())
        }
        Some(Ok(Event::Gap(gap))) => {
            let (reason, epoch) = (gap.reason, gap.epoch);
            format!("{reason:?} {epoch:x} {}..{}", gap.first_missed, gap.next)
        }
        Some(Ok(Event::CaughtUp { next })) => format!("caught up {next}"),
        Some(Ok(Event::Closed { reason, next })) => format!("{reason:?} {next}"),
        Some(Ok(other)) => panic!("{other:?}"),
    }
}

fn fake_record(epoch: u64, offset: u64) -> Vec<u8> {
    crate::fake::record(epoch, offset)
}

#[tokio::test]
async fn every_kind_of_event_comes_in_order() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        assert_eq!(peer.subscribed().await, Start::At(2));
        peer.send(&subscribed(EPOCH, 5, 9)).await;
        peer.send(&gap(GapReason::Collected, EPOCH, 2, 5)).await;
        peer.send_bytes(&deliver(EPOCH, 5..7)).await;
        peer.send(&Reply::CaughtUp { sub: 1, next: 7 }).await;
        peer.send_bytes(&deliver(EPOCH, 7..8)).await;
        peer.send(&gap(GapReason::Evicted, EPOCH, 8, 20)).await;
        peer.send_bytes(&deliver(EPOCH, 20..21)).await;
        let (reason, next) = (CloseReason::TopicClosed, 21);
        peer.send(&Reply::Closed { sub: 1, reason, next }).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let options = SubscribeOptions::new(Start::At(2)).caught_up();
    let mut subscription = client.subscribe("topic", options).await.unwrap();
    for expected in [
        "Collected e0 2..5",
        "record 5",
        "record 6",
        "caught up 7",
        "record 7",
        "Evicted e0 8..20",
        "record 20",
        "TopicClosed 21",
        "end",
        "end",
    ] {
        assert_eq!(line(&mut subscription).await, expected);
    }
    let place = Position { epoch: EPOCH, next: 21 };
    assert_eq!(subscription.position(), place);
    finish(server).await;
}

#[tokio::test]
async fn records_and_batches_can_be_mixed() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 30)).await;
        for offsets in [0..10, 10..20, 20..30] {
            peer.send_bytes(&deliver(EPOCH, offsets)).await;
        }
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
    for offset in 0..3 {
        assert_eq!(line(&mut subscription).await, format!("record {offset}"));
    }
    assert_eq!(subscription.position().next, 3);
    // The rest of the chunk, then the next whole one.
    for expected in [3..10, 10..20] {
        let Some(Ok(BatchEvent::Records(batch))) = subscription.next_batch().await else {
            panic!()
        };
        assert_eq!(batch.first_offset()..batch.next_offset(), expected);
        assert_eq!(batch.records().count() as u64, expected.end - expected.start);
        for (offset, data) in batch.iter() {
            assert_eq!(data, crate::fake::record(EPOCH, offset));
        }
        let seconds = 1 + expected.start / 10 * 10;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(batch.time(), time);
        assert_eq!(subscription.position().next, expected.end);
    }
    // As a stream.
    for offset in 20..30 {
        let event = poll_fn(|cx| Pin::new(&mut subscription).poll_next(cx)).await;
        let Some(Ok(Event::Record(record))) = event else { panic!() };
        assert_eq!(record.offset(), offset);
    }
    drop(subscription);
    finish(server).await;
}

#[tokio::test]
async fn a_silent_hole_ends_the_subscription() {
    let holes: [Vec<u8>; 3] = [
        deliver(EPOCH, 11..12),
        bytes(&gap(GapReason::Evicted, EPOCH, 11, 15)),
        bytes(&Reply::CaughtUp { sub: 1, next: 11 }),
    ];
    for hole in holes {
        let (listener, builder) = listen().await;
        let server = play(async move {
            let mut peer = Peer::welcome(&listener).await;
            peer.subscribed().await;
            peer.send(&subscribed(EPOCH, 9, 12)).await;
            peer.send_bytes(&deliver(EPOCH, 9..10)).await;
            peer.send_bytes(&hole).await;
            peer.wait_for_end().await;
        });
        let client = builder.build().unwrap();
        let mut subscription =
            client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
        assert_eq!(line(&mut subscription).await, "record 9");
        let told = line(&mut subscription).await;
        assert!(told.contains("left records out"), "{told}");
        assert_eq!(line(&mut subscription).await, "end");
        finish(server).await;
    }
}

#[tokio::test]
async fn refusals_come_with_their_facts() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&Reply::Error(psa::protocol::ErrorReply {
            request: 1,
            code: Code::Collected,
            epoch: EPOCH,
            asked: 3,
            first: 10,
            next: 20,
            message: "offset 3 was collected; 10 is the first that is left",
        }))
        .await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let options = SubscribeOptions::new(Start::At(3)).on_gap(OnGap::Error);
    let error = client.subscribe("topic", options).await.unwrap_err();
    let ClientError::Server(facts) = &error else { panic!("{error:?}") };
    assert_eq!((facts.code, facts.asked), (Code::Collected, 3));
    assert_eq!((facts.epoch, facts.first, facts.next), (EPOCH, 10, 20));
    assert!(error.to_string().starts_with("offset 3 was collected"));
    finish(server).await;
}

#[tokio::test]
async fn dropping_next_at_any_moment_loses_nothing() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 40)).await;
        for first in (0..40).step_by(4) {
            // A few bytes at a time, so that frames come in pieces.
            for piece in deliver(EPOCH, first..first + 4).chunks(7) {
                peer.send_bytes(piece).await;
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        }
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
    let (mut expected, mut dropped) = (0, 0);
    while expected < 40 {
        let short = Duration::from_micros(100);
        match timeout(short, subscription.next_batch()).await {
            Err(_) => dropped += 1,
            Ok(Some(Ok(BatchEvent::Records(batch)))) => {
                for (offset, data) in batch.iter() {
                    assert_eq!(offset, expected);
                    assert_eq!(data, crate::fake::record(EPOCH, offset));
                    expected += 1;
                }
            }
            Ok(other) => panic!("{other:?}"),
        }
    }
    assert!(dropped > 10, "the test has dropped only {dropped} times");
    drop(subscription);
    finish(server).await;
}

#[tokio::test]
async fn unsubscribing_waits_for_the_confirmation() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 4)).await;
        peer.send_bytes(&deliver(EPOCH, 0..4)).await;
        let request = peer
            .take(|request| match request {
                psa::protocol::Request::Unsubscribe { request, sub: 1, release: true } => request,
                other => panic!("{other:?}"),
            })
            .await;
        // Deliveries may still be on their way.
        peer.send_bytes(&deliver(EPOCH, 4..8)).await;
        let (reason, next) = (CloseReason::Unsubscribed, 8);
        peer.send(&Reply::Closed { sub: 1, reason, next }).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        peer.send(&Reply::Done { request }).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let subscription = client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
    subscription.release().await.unwrap();
    finish(server).await;
}
