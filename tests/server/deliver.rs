//! Subscribing: starts, gaps, markers, many at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use psa::protocol::{CloseReason, Code, GapReason, OnGap, Request, Start, Subscribe};

use crate::support::*;

#[tokio::test]
async fn every_start_begins_where_it_says() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    for n in 0..10_u8 {
        client.publish("a", &[&[n]]).await;
    }
    let (epoch, ..) = client.subscribe(1, "a", Start::Next).await;
    for (sub, start, first) in [
        (2, Start::Earliest, 0),
        (3, Start::At(4), 4),
        (4, Start::At(10), 10),
        (5, Start::After { epoch, offset: 6 }, 7),
        (6, Start::Last(3), 7),
        (7, Start::Last(100), 0),
        (8, Start::Since(0), 0),
    ] {
        let (_, next, tail) = client.subscribe(sub, "a", start).await;
        assert_eq!((next, tail), (first, 10), "{start:?}");
        if next < tail {
            let records = client.records(sub, first, (10 - first) as usize).await;
            assert_eq!(records[0], [first as u8]);
        }
    }
}

/// Where records come seldom, people look at their times; and a group of 64 takes days.
#[tokio::test]
async fn records_of_a_quiet_topic_have_times_of_their_own() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    client.publish("a", &[b"0", b"1"]).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let between = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    client.publish("a", &[b"2"]).await;
    client.publish("a", &[b"3"]).await;

    // All at once, and still each with its time.
    client.subscribe(1, "a", Start::Earliest).await;
    let mut times = Vec::new();
    while times.len() < 4 {
        let Got::Records { time, records, .. } = client.next().await else { panic!("no records") };
        times.extend(records.iter().map(|_| time));
    }
    assert!(times[..2].iter().all(|time| *time < between), "{times:?} {between}");
    assert!(times[2..].iter().all(|time| *time >= between), "{times:?} {between}");

    let (_, next, _) = client.subscribe(2, "a", Start::Since(between)).await;
    assert_eq!(next, 2, "neither later nor earlier");
}

#[tokio::test]
async fn a_start_that_cannot_be_is_an_error_with_the_facts() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    client.publish("a", &[b"0", b"1"]).await;
    let (mine, ..) = client.subscribe(1, "a", Start::Next).await;
    client.send(&Request::Subscribe(subscribe(2, "a", Start::At(7)))).await;
    match client.next().await {
        Got::Error { code: Code::Future, epoch, asked: 7, next: 2, .. } => assert_eq!(epoch, mine),
        other => panic!("{other:?}"),
    }
    let foreign = Start::After { epoch: mine ^ 1, offset: 0 };
    client.send(&Request::Subscribe(subscribe(2, "a", foreign))).await;
    match client.next().await {
        Got::Error { code: Code::WrongEpoch, epoch, asked, first: 0, next: 2, .. } => {
            assert_eq!((epoch, asked), (mine, mine ^ 1));
        }
        other => panic!("{other:?}"),
    }
    // The number is still free.
    client.subscribe(2, "a", Start::Earliest).await;
}

#[tokio::test]
async fn a_collected_start_is_an_error_or_a_gap_as_asked() {
    let server = serve(|c| {
        c.broker.retention = psa::Retention::Nothing;
        c.broker.segment_bytes = 4 << 10;
    });
    let mut client = Client::new(&server).await;
    for _ in 0..100 {
        client.publish("a", &[&[1; 1000]]).await;
    }
    let first = client.stats("a").await.first;
    assert!(first > 10, "{first}");
    client.send(&Request::Subscribe(subscribe(1, "a", Start::At(3)))).await;
    match client.next().await {
        Got::Error { code: Code::Collected, asked: 3, first: available, .. } => {
            assert_eq!(available, first);
        }
        other => panic!("{other:?}"),
    }
    let go_on = |start| Subscribe { on_gap: OnGap::Continue, ..subscribe(1, "a", start) };
    client.send(&Request::Subscribe(go_on(Start::At(3)))).await;
    let (epoch, next, _) = client.subscribed(1).await;
    assert_eq!(next, first);
    let gap =
        Got::Gap { sub: 1, reason: GapReason::Collected, epoch, first_missed: 3, next: first };
    assert_eq!(client.next().await, gap);
    client.records(1, first, (100 - first) as usize).await;
}

#[tokio::test]
async fn another_epoch_is_a_gap_if_asked() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    client.publish("a", &[b"new"]).await;
    let old = Start::After { epoch: 12345, offset: 41 };
    let ask = Subscribe { on_gap: OnGap::Continue, ..subscribe(1, "a", old) };
    client.send(&Request::Subscribe(ask)).await;
    let (epoch, next, _) = client.subscribed(1).await;
    let gap = Got::Gap { sub: 1, reason: GapReason::OtherEpoch, epoch, first_missed: 42, next };
    assert_eq!(client.next().await, gap);
    assert_eq!(client.records(1, 0, 1).await, [b"new"]);
}

#[tokio::test]
async fn caught_up_comes_whenever_records_ran_out_if_asked() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    let ask = Subscribe { caught_up: true, ..subscribe(1, "a", Start::Earliest) };
    client.send(&Request::Subscribe(ask)).await;
    client.subscribed(1).await;
    assert_eq!(client.next().await, Got::CaughtUp { sub: 1, next: 0 });
    let mut publisher = Client::new(&server).await;
    for n in 0..3 {
        publisher.publish("a", &[b"x", b"y"]).await;
        client.records(1, 2 * n, 2).await;
        assert_eq!(client.next().await, Got::CaughtUp { sub: 1, next: 2 * n + 2 });
    }
}

#[tokio::test]
async fn unsubscribing_is_answered_in_order_and_frees_the_number() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    client.subscribe(1, "a", Start::Earliest).await;
    client.send(&Request::Unsubscribe { request: 5, sub: 1, release: false }).await;
    let closed = Got::Closed { sub: 1, reason: CloseReason::Unsubscribed, next: 0 };
    assert_eq!(client.next().await, closed);
    client.expect_done(5).await;
    client.send(&Request::Unsubscribe { request: 6, sub: 1, release: false }).await;
    assert_eq!(client.expect_error(6).await, Code::UnknownSubscription);
    client.publish("a", &[b"x"]).await;
    client.subscribe(1, "a", Start::Earliest).await;
    client.records(1, 0, 1).await;
    assert_eq!(server.handle.subscriptions(), 1);
}

#[tokio::test]
async fn a_number_in_use_is_refused() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    client.subscribe(1, "a", Start::Next).await;
    client.send(&Request::Subscribe(subscribe(1, "b", Start::Next))).await;
    assert_eq!(client.expect_error(1001).await, Code::DuplicateSubscription);
    client.publish("a", &[b"x"]).await;
    client.records(1, 0, 1).await;
}

#[tokio::test]
async fn a_closed_topic_is_drained_and_then_ends() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    client.subscribe(1, "a", Start::Next).await;
    let mut other = Client::new(&server).await;
    other.publish("a", &[b"x", b"y"]).await;
    other.send(&Request::Close { request: 3, topic: name("a") }).await;
    other.expect_done(3).await;
    client.records(1, 0, 2).await;
    let closed = Got::Closed { sub: 1, reason: CloseReason::TopicClosed, next: 2 };
    assert_eq!(client.next().await, closed);
    other.send_publish(4, "a", &[b"z"], true).await;
    assert_eq!(other.expect_error(4).await, Code::TopicClosed);
    // A late subscriber gets what is there and the end.
    other.subscribe(9, "a", Start::Earliest).await;
    other.records(9, 0, 2).await;
    assert!(matches!(other.next().await, Got::Closed { sub: 9, next: 2, .. }));
}

#[tokio::test]
async fn a_deleted_topic_ends_its_subscriptions_and_frees_its_memory() {
    let server = serve(|_| {});
    let mut reader = Client::new(&server).await;
    let mut other = Client::new(&server).await;
    other.publish("a", &[b"x"]).await;
    let (old, ..) = reader.subscribe(1, "a", Start::Next).await;
    assert!(server.handle.broker().budget().used() > 0);
    other.send(&Request::Delete { request: 3, topic: name("a") }).await;
    other.expect_done(3).await;
    let closed = Got::Closed { sub: 1, reason: CloseReason::TopicDeleted, next: 1 };
    assert_eq!(reader.next().await, closed);
    until("the memory is free", || server.handle.broker().budget().used() == 0).await;
    assert_eq!(server.handle.subscriptions(), 0);
    // The name is free, for another topic.
    assert_eq!(other.publish("a", &[b"y"]).await, 0);
    let (new, ..) = reader.subscribe(1, "a", Start::Earliest).await;
    assert_ne!(old, new);
    assert_eq!(reader.records(1, 0, 1).await, [b"y"]);
}

#[tokio::test]
async fn a_reader_that_is_stuck_does_not_keep_a_deleted_topics_memory() {
    let server = serve(|c| {
        c.broker.topic_bytes = 64 << 20;
        c.send_buffer = Some(4 << 10);
    });
    let mut stuck = Client::narrow(&server).await;
    stuck.subscribe(1, "a", Start::Earliest).await;
    let mut other = Client::new(&server).await;
    for _ in 0..200 {
        other.publish("a", &[&[7; 50_000]]).await;
    }
    other.send(&Request::Delete { request: 3, topic: name("a") }).await;
    other.expect_done(3).await;
    until("the memory is free", || server.handle.broker().budget().used() == 0).await;
    // What was begun is ended whole, and then it is told.
    let mut next = 0;
    loop {
        match stuck.next().await {
            Got::Records { first, records, .. } => {
                assert_eq!(first, next);
                assert!(records.iter().all(|record| *record == [7; 50_000]));
                next += records.len() as u64;
            }
            Got::Closed { reason, next: told, .. } => {
                assert_eq!((reason, told), (CloseReason::TopicDeleted, next));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(next < 200);
}

#[tokio::test]
async fn one_connection_follows_many_topics_fairly() {
    const TOPICS: u32 = 200;
    let server = serve(|c| {
        c.broker.segment_bytes = 4 << 10;
        c.limits.chunk_bytes = 1000;
    });
    let mut reader = Client::new(&server).await;
    let mut publisher = Client::new(&server).await;
    for t in 0..TOPICS {
        let topic = format!("t{t}");
        reader.subscribe(t, &topic, Start::Earliest).await;
    }
    // One topic has far more to tell than all others; they must not wait for it.
    for _ in 0..200 {
        publisher.publish("t0", &[&[0; 5000]]).await;
    }
    for t in 1..TOPICS {
        publisher.publish(&format!("t{t}"), &[&t.to_le_bytes()]).await;
    }
    let (mut rest, mut of_first) = (TOPICS - 1, 0);
    while rest > 0 || of_first < 200 {
        match reader.next().await {
            Got::Records { sub: 0, first, records, .. } => {
                assert_eq!(first, of_first);
                of_first += records.len() as u64;
            }
            Got::Records { sub, first: 0, records, .. } => {
                assert_eq!(*records, [sub.to_le_bytes()]);
                rest -= 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_all_get_everything() {
    const READERS: usize = 300;
    const RECORDS: u64 = 2000;
    let server = serve(|_| {});
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Client::new(&server).await;
        reader.subscribe(1, "a", Start::Next).await;
        readers.push(tokio::spawn(async move { reader.records(1, 0, RECORDS as usize).await }));
    }
    let mut publisher = Client::new(&server).await;
    let mut n = 0;
    while n < RECORDS {
        let records: Vec<_> = (n..n + 10).map(u64::to_le_bytes).collect();
        let records: Vec<&[u8]> = records.iter().map(|r| &r[..]).collect();
        assert_eq!(publisher.publish("a", &records).await, n);
        n += 10;
    }
    for reader in readers {
        let records = reader.await.unwrap();
        for (n, record) in records.iter().enumerate() {
            assert_eq!(record, &(n as u64).to_le_bytes());
        }
    }
}
