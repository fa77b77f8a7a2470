//! How a server ends.

use std::time::Duration;

use psa::Retention;
use psa::broker::{Broker, BrokerConfig, Purpose};
use psa::protocol::{Code, Request, Start};
use psa::server::{Server, ServerConfig};

use crate::bus::{Bus, fill, small_topic};
use crate::support::*;

#[tokio::test]
async fn a_drain_delivers_all_that_was_acknowledged_and_says_goodbye() {
    const READERS: usize = 10;
    let server = serve(|c| c.send_buffer = Some(8 << 10));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Client::narrow(&server).await;
        reader.subscribe(1, "a", Start::Earliest).await;
        readers.push(reader);
    }
    // A publisher that does not stop by itself.
    let mut publisher = Client::new(&server).await;
    let publishing = tokio::spawn(async move {
        let mut acknowledged = 0_u64;
        loop {
            publisher.send_publish(1, "a", &[[5_u8; 1000].as_slice(); 10], true).await;
            match publisher.try_next().await {
                Some(Got::Ack { first, .. }) => {
                    assert_eq!(first, acknowledged);
                    acknowledged += 10;
                }
                Some(Got::Error { code: Code::ShuttingDown, .. } | Got::Goodbye { .. }) | None => {
                    return acknowledged;
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let mut watcher = Client::new(&server).await;
    watcher.stats_until("a", "some are published", |s| s.next > 500).await;
    server.handle.drain();
    server.handle.drain();
    let acknowledged = publishing.await.unwrap();
    assert!(acknowledged > 500);
    for mut reader in readers {
        let mut next = 0;
        loop {
            match reader.next().await {
                Got::Records { first, records, .. } => {
                    assert_eq!(first, next);
                    next += records.len() as u64;
                }
                Got::Goodbye { code, .. } => {
                    assert_eq!(code, Code::ShuttingDown);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(next, acknowledged);
        assert_eq!(reader.try_next().await, None);
    }
    watcher.expect_goodbye(Code::ShuttingDown).await;
    drop(watcher);
    let mut server = server;
    tokio::time::timeout(PATIENCE, &mut server.task).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_publish_that_waits_is_told_that_the_server_goes() {
    let server = serve(|c| {
        c.broker.retention = Retention::Nothing;
        c.broker.segment_bytes = 16 << 10;
        c.broker.topic_bytes = 128 << 10;
        c.send_buffer = Some(4 << 10);
    });
    let mut stuck = Client::narrow(&server).await;
    stuck.subscribe(1, "a", Start::Earliest).await;
    let mut publisher = Client::new(&server).await;
    let mut watcher = Client::new(&server).await;
    let mut sent = 0;
    while watcher.stats("a").await.publisher_waits == 0 {
        publisher.send_publish(sent, "a", &[&[5; 1000]], true).await;
        sent += 1;
    }
    server.handle.drain();
    let (mut acknowledged, mut refused) = (0, 0);
    loop {
        match publisher.next().await {
            Got::Ack { .. } => acknowledged += 1,
            Got::Error { code: Code::ShuttingDown, .. } => refused += 1,
            Got::Goodbye { code: Code::ShuttingDown, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused >= 1);
    stuck.records(1, 0, acknowledged).await;
    stuck.expect_goodbye(Code::ShuttingDown).await;
}

#[tokio::test]
async fn a_drain_ends_although_a_reader_never_reads() {
    let server = serve(|c| {
        c.limits.drain_timeout = Duration::from_millis(200);
        c.send_buffer = Some(4 << 10);
    });
    let mut stuck = Client::narrow(&server).await;
    stuck.subscribe(1, "a", Start::Earliest).await;
    let mut publisher = Client::new(&server).await;
    for _ in 0..100 {
        publisher.publish("a", &[&[5; 10_000]]).await;
    }
    let began = std::time::Instant::now();
    server.handle.drain();
    publisher.expect_goodbye(Code::ShuttingDown).await;
    let mut server = server;
    tokio::time::timeout(PATIENCE, &mut server.task).await.unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(server.handle.connections(), 0);
}

#[tokio::test]
async fn an_abort_ends_at_once() {
    let server = serve(|c| c.send_buffer = Some(4 << 10));
    let mut stuck = Client::narrow(&server).await;
    stuck.subscribe(1, "a", Start::Earliest).await;
    let mut publisher = Client::new(&server).await;
    for _ in 0..100 {
        publisher.publish("a", &[&[5; 10_000]]).await;
    }
    server.handle.drain();
    server.handle.abort();
    let mut server = server;
    // Far less than the drain's time.
    let ended = tokio::time::timeout(Duration::from_secs(5), &mut server.task).await;
    ended.expect("at once").unwrap();
}

#[tokio::test]
async fn requests_during_a_drain_are_refused_but_commits_are_served() {
    let server = serve(|c| c.send_buffer = Some(4 << 10));
    let mut stuck = Client::narrow(&server).await;
    let lease = psa::protocol::LeaseRequest { name: name("w"), ttl_ms: 1000, take_over: false };
    let ask = psa::protocol::Subscribe { lease: Some(lease), ..subscribe(1, "a", Start::Earliest) };
    stuck.send(&Request::Subscribe(ask)).await;
    stuck.subscribed(1).await;
    let mut publisher = Client::new(&server).await;
    for _ in 0..100 {
        publisher.publish("a", &[&[5; 10_000]]).await;
    }
    let read = stuck.records(1, 0, 1).await;
    assert_eq!(read[0].len(), 10_000);
    server.handle.drain();
    stuck.send_publish(5, "a", &[b"x"], true).await;
    stuck.send(&Request::Subscribe(subscribe(2, "b", Start::Next))).await;
    stuck.send(&Request::Commit { request: 6, sub: 1, offset: 0, ack: true }).await;
    let mut answers = Vec::new();
    let mut next = 1;
    loop {
        match stuck.next().await {
            Got::Records { first, records, .. } => {
                assert_eq!(first, next);
                next += records.len() as u64;
            }
            Got::Goodbye { .. } => break,
            Got::Error { request, code, .. } => answers.push((request, Some(code))),
            Got::Done { request } => answers.push((request, None)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next, 100);
    let refused = Some(Code::ShuttingDown);
    assert_eq!(answers, [(5, refused), (1002, refused), (6, None)]);
}

/// Waits until a server has ended, which is long before its `drain_timeout`.
async fn ended(server: &mut Running) {
    tokio::time::timeout(PATIENCE, &mut server.task).await.expect("it ends").unwrap();
}

/// Reads the records of a subscription from `next` on, up to the GOODBYE, and returns where it ended.
async fn read_to_goodbye(mut reader: Client, mut next: u64) -> u64 {
    loop {
        match reader.next().await {
            Got::Records { first, records, .. } => {
                assert_eq!(first, next);
                next += records.len() as u64;
            }
            Got::Goodbye { code: Code::ShuttingDown, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reader.try_next().await, None);
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_although_the_program_goes_on_publishing() {
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let topic = small_topic(&broker, "a");
    let mut server = serve_over(broker.clone(), |c| c.limits.drain_timeout = PATIENCE * 10);
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = Client::new(&server).await;
        let (_, next, _) = reader.subscribe(1, "a", Start::Next).await;
        readers.push(tokio::spawn(read_to_goodbye(reader, next)));
    }
    let bus = Bus::start(&topic);
    let mut publisher = Client::new(&server).await;
    let (tell, mut told) = tokio::sync::watch::channel(0);
    let publishing = tokio::spawn(async move {
        let mut last = None;
        for count in 1.. {
            // The connection may be gone.
            let frame = publish(1, "a", &[b"acknowledged"], true);
            let _ = tokio::io::AsyncWriteExt::write_all(&mut publisher.stream, &frame).await;
            match publisher.try_next().await {
                Some(Got::Ack { first, .. }) => last = Some(first),
                Some(Got::Error { code: Code::ShuttingDown, .. } | Got::Goodbye { .. }) | None => {
                    break;
                }
                other => panic!("{other:?}"),
            }
            let _ = tell.send(count);
        }
        last.expect("some were acknowledged")
    });
    let some = told.wait_for(|count| *count >= 50);
    tokio::time::timeout(PATIENCE, some).await.expect("in time").unwrap();
    server.handle.drain();
    ended(&mut server).await;
    let last = publishing.await.unwrap();
    for reader in readers {
        assert!(reader.await.unwrap() > last, "everything that was acknowledged");
    }
    bus.goes_on(&broker, PATIENCE).await;
}

/// The program's own cursor holds the room, so that it comes only after the drain.
#[tokio::test]
async fn a_drain_does_not_wait_for_room() {
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let topic = small_topic(&broker, "a");
    let mut server = serve_over(broker.clone(), |c| c.limits.drain_timeout = PATIENCE * 10);
    let held = topic.log().subscribe(psa::Start::Earliest).unwrap();
    fill(&topic, &[0; 1000]);
    let full = topic.log().next_offset();
    let mut publisher = Client::new(&server).await;
    // The second one has not been looked at when the first one is refused.
    let both = [publish(1, "a", &[&[1; 1000]], true), publish(2, "b", &[b"new"], true)];
    publisher.send_bytes(&both.concat()).await;
    until("it waits", || topic.log().stats().publisher_waits > 0).await;
    server.handle.drain();
    for request in [1, 2] {
        assert_eq!(publisher.expect_error(request).await, Code::ShuttingDown);
    }
    publisher.expect_goodbye(Code::ShuttingDown).await;
    ended(&mut server).await;
    drop(held);
    assert_eq!(topic.blocking_append(b"x"), Ok(full), "nothing was appended");
    assert!(broker.topic("b").is_none(), "nothing was made");
}

#[tokio::test]
async fn a_topic_that_is_closed_has_ended_in_a_drain_too() {
    let server = serve(|c| c.send_buffer = Some(4 << 10));
    let mut reader = Client::narrow(&server).await;
    reader.subscribe(1, "a", Start::Earliest).await;
    let mut publisher = Client::new(&server).await;
    for _ in 0..100 {
        publisher.publish("a", &[&[5; 10_000]]).await;
    }
    server.handle.broker().close("a").unwrap();
    server.handle.drain();
    reader.records(1, 0, 100).await;
    let closed = Got::Closed { sub: 1, reason: psa::protocol::CloseReason::TopicClosed, next: 100 };
    assert_eq!(reader.next().await, closed);
    reader.expect_goodbye(Code::ShuttingDown).await;
}

#[tokio::test]
async fn an_abort_and_a_server_that_is_dropped_leave_the_broker_alone() {
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let mut aborted = serve_over(broker.clone(), |_| {});
    let dropped = serve_over(broker.clone(), |_| {});
    let mut publisher = Client::new(&dropped).await;
    publisher.publish("a", &[b"x"]).await;
    aborted.handle.abort();
    ended(&mut aborted).await;
    publisher.publish("a", &[b"y"]).await;
    drop(publisher);
    dropped.task.abort();
    until("it is gone", || dropped.task.is_finished()).await;
    let topic = broker.open("a", Purpose::Publish).unwrap();
    assert_eq!(topic.blocking_append(b"z"), Ok(2));
}

#[tokio::test]
async fn a_broker_that_is_shut_lets_its_servers_drain() {
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let mut before = serve_over(broker.clone(), |_| {});
    let mut client = Client::new(&before).await;
    client.publish("a", &[b"x"]).await;
    broker.shut();
    client.expect_goodbye(Code::ShuttingDown).await;
    ended(&mut before).await;
    let mut after = serve_over(broker, |_| {});
    ended(&mut after).await;
}

/// The program shuts the topics: their subscribers get all records and are told that the server stops, not that the
/// topic has come to its end. Otherwise their client would never come back.
#[tokio::test]
async fn topics_that_others_shut_have_not_come_to_their_end() {
    let server = serve(|_| {});
    let mut reads = Client::new(&server).await;
    reads.subscribe(1, "a", Start::Earliest).await;
    let mut publisher = Client::new(&server).await;
    publisher.publish("a", &[b"x"]).await;
    reads.records(1, 0, 1).await;
    server.handle.broker().shut();
    reads.expect_goodbye(Code::ShuttingDown).await;
    publisher.send_publish(1, "a", &[b"y"], true).await;
    match publisher.next().await {
        Got::Error { code: Code::ShuttingDown, .. } => {
            publisher.expect_goodbye(Code::ShuttingDown).await;
        }
        Got::Goodbye { code: Code::ShuttingDown, .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_shutdown_future_drains_too_and_nothing_outlives_a_dropped_server() {
    let config = || ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..Default::default() };
    let server = Server::bind(config()).unwrap();
    tokio::time::timeout(PATIENCE, server.run(async {})).await.unwrap();

    let server = Server::bind(config()).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let task = tokio::spawn(server.run(std::future::pending()));
    let running = Running { address, handle, task };
    let mut client = Client::new(&running).await;
    running.task.abort();
    assert_eq!(client.try_next().await, None);
    until("no connection is left", || running.handle.connections() == 0).await;
}
