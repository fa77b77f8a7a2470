//! Readers that do not read: what each policy does, to whom, and to whom not.

use std::time::Duration;

use psa::protocol::{Code, GapReason, Request, Start};
use psa::{Overflow, Retention};

use crate::support::*;

const RECORD: &[u8] = &[3; 1000];

/// A server with topics of 256 KiB in segments of 16 KiB and small socket buffers, so that a reader
/// that stops shows soon.
fn small(overflow: Overflow) -> Running {
    serve(|c| {
        c.broker.overflow = overflow;
        c.broker.retention = Retention::Nothing;
        c.broker.segment_bytes = 16 << 10;
        c.broker.topic_bytes = 256 << 10;
        c.limits.chunk_bytes = 8 << 10;
        c.send_buffer = Some(4 << 10);
    })
}

#[tokio::test]
async fn block_waits_for_the_reader_and_goes_on_with_it() {
    const RECORDS: u64 = 2000;
    let server = small(Overflow::Block);
    let mut reader = Client::narrow(&server).await;
    reader.subscribe(1, "a", Start::Earliest).await;
    let mut publisher = Client::new(&server).await;
    let mut bytes = Vec::new();
    for request in 0..RECORDS as u32 {
        bytes.extend(publish(request, "a", &[RECORD], true));
    }
    let (mut read_half, mut write_half) = tokio::io::split(publisher.stream);
    let writing = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut write_half, &bytes).await.unwrap();
        write_half
    });
    // It waits: the memory stays in its bound and the offsets stop.
    let mut watcher = Client::new(&server).await;
    let full = watcher.stats_until("a", "the publisher waits", |s| s.publisher_waits > 0).await;
    assert!(full.live_bytes + full.unlinked_bytes + full.pooled_bytes <= 256 << 10, "{full:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let later = watcher.stats("a").await;
    assert_eq!(later.next, full.next);
    assert!(later.next < RECORDS);
    // Others are not held up.
    assert_eq!(watcher.publish("b", &[b"x"]).await, 0);
    // The reader reads: everything comes, nothing was lost.
    reader.records(1, 0, RECORDS as usize).await;
    let write_half = writing.await.unwrap();
    let mut acks = vec![0; RECORDS as usize * 32];
    tokio::io::AsyncReadExt::read_exact(&mut read_half, &mut acks).await.unwrap();
    publisher.stream = read_half.unsplit(write_half);
    for (n, ack) in acks.chunks(32).enumerate() {
        let first = u64::from_le_bytes(ack[20..28].try_into().unwrap());
        assert_eq!((ack[4], first), (0x82, n as u64));
    }
    assert_eq!(publisher.publish("a", &[b"end"]).await, RECORDS);
}

#[tokio::test]
async fn a_waiting_publish_holds_back_its_connections_requests_but_not_its_deliveries() {
    let server = small(Overflow::Block);
    let mut stuck = Client::narrow(&server).await;
    stuck.subscribe(1, "a", Start::Earliest).await;
    let mut both = Client::new(&server).await;
    both.subscribe(5, "b", Start::Earliest).await;
    let mut watcher = Client::new(&server).await;
    // Filled until a publish waits.
    let mut sent = 0;
    while watcher.stats("a").await.publisher_waits == 0 {
        both.send_publish(sent, "a", &[RECORD; 4], false).await;
        sent += 1;
    }
    both.send(&Request::Ping { token: 1 }).await;
    assert!(both.is_silent(Duration::from_millis(100)).await);
    watcher.publish("b", &[b"comes anyway"]).await;
    assert_eq!(both.records(5, 0, 1).await, [b"comes anyway"]);
    stuck.records(1, 0, 4 * sent as usize).await;
    assert_eq!(both.next().await, Got::Pong { token: 1 });
}

#[tokio::test]
async fn a_publisher_that_waits_goes_on_when_the_stuck_reader_is_cut_off() {
    let server = serve(|c| {
        c.broker.retention = Retention::Nothing;
        c.broker.segment_bytes = 16 << 10;
        c.broker.topic_bytes = 128 << 10;
        c.limits.stall_timeout = Duration::from_millis(300);
        c.send_buffer = Some(4 << 10);
    });
    let mut stuck = Client::narrow(&server).await;
    stuck.subscribe(1, "a", Start::Earliest).await;
    let mut publisher = Client::new(&server).await;
    for n in 0..600 {
        assert_eq!(publisher.publish("a", &[RECORD]).await, n);
    }
    assert_eq!(server.handle.subscriptions(), 0);
    until("only the publisher is left", || server.handle.connections() == 1).await;
}

#[tokio::test]
async fn reject_tells_the_publisher_and_loses_nothing_that_was_acknowledged() {
    let server = small(Overflow::Reject);
    let mut stuck = Client::narrow(&server).await;
    stuck.subscribe(1, "a", Start::Earliest).await;
    let mut publisher = Client::new(&server).await;
    let mut acknowledged = 0;
    let refused = loop {
        publisher.send_publish(1, "a", &[RECORD], true).await;
        match publisher.next().await {
            Got::Ack { first, .. } => {
                assert_eq!(first, acknowledged);
                acknowledged += 1;
            }
            Got::Error { code: Code::Full, next: limit, .. } => break limit,
            other => panic!("{other:?}"),
        }
        assert!(acknowledged < 5000);
    };
    assert_eq!(refused, 256 << 10);
    let records = stuck.records(1, 0, acknowledged as usize).await;
    assert!(records.iter().all(|record| record == RECORD));
    // With the reader there is room again.
    let mut watcher = Client::new(&server).await;
    watcher.stats_until("a", "there is room", |s| s.live_segments <= 2).await;
    assert_eq!(publisher.publish("a", &[RECORD]).await, acknowledged);
}

#[tokio::test]
async fn evict_takes_the_reader_that_does_not_read_and_no_other() {
    const RECORDS: u64 = 3000;
    let server = small(Overflow::Evict);
    let mut stuck = Client::narrow(&server).await;
    let (epoch, ..) = stuck.subscribe(1, "a", Start::Earliest).await;
    let mut good = Vec::new();
    for _ in 0..5 {
        let mut reader = Client::new(&server).await;
        reader.subscribe(1, "a", Start::Earliest).await;
        good.push(reader);
    }
    let mut publisher = Client::new(&server).await;
    for n in 0..RECORDS / 10 {
        assert_eq!(publisher.publish("a", &[RECORD; 10]).await, 10 * n);
        // In step, so that none of them can be too slow.
        for reader in &mut good {
            reader.records(1, 10 * n, 10).await;
        }
    }
    let stats = publisher.stats("a").await;
    assert!(stats.evictions >= 1, "{stats:?}");
    assert!(stats.live_bytes + stats.unlinked_bytes + stats.pooled_bytes <= 256 << 10);
    assert!(read_through(&server, stuck, epoch, 0, RECORDS).await >= 1);
}

/// Reads with a reader that was slow, from `next` on up to `end`. It gets whole chunks without a gap, then a gap that names
/// exactly what is missing; or it is cut in the middle of a chunk, and resumes to learn the same. Returns how many gaps
/// there were.
async fn read_through(
    server: &Running,
    mut reader: Client,
    epoch: u64,
    mut next: u64,
    end: u64,
) -> u64 {
    let mut gaps = 0;
    while next < end {
        match reader.try_next().await {
            Some(Got::Records { first, records, .. }) => {
                assert_eq!(first, next);
                next += records.len() as u64;
            }
            Some(Got::Gap { reason, first_missed, next: to, .. }) => {
                assert_eq!(first_missed, next);
                assert!(to > next && matches!(reason, GapReason::Evicted | GapReason::Collected));
                (next, gaps) = (to, gaps + 1);
            }
            Some(other) => panic!("{other:?}"),
            None => {
                reader = Client::new(server).await;
                let start = match next.checked_sub(1) {
                    Some(offset) => Start::After { epoch, offset },
                    None => Start::At(0),
                };
                let on_gap = psa::protocol::OnGap::Continue;
                let ask = psa::protocol::Subscribe { on_gap, ..subscribe(1, "a", start) };
                reader.send(&Request::Subscribe(ask)).await;
                reader.subscribed(1).await;
            }
        }
    }
    assert_eq!(next, end);
    gaps
}

#[tokio::test]
async fn an_idle_reader_that_is_evicted_between_chunks_is_told_in_band() {
    let server = small(Overflow::Evict);
    // Subscribed, but its input is stopped by replies that it does not take: no chunk is in flight.
    let mut publisher = Client::new(&server).await;
    for _ in 0..50 {
        publisher.publish("a", &[RECORD]).await;
    }
    let mut reader = Client::narrow(&server).await;
    let ask = psa::protocol::Subscribe {
        on_gap: psa::protocol::OnGap::Continue,
        ..subscribe(1, "a", Start::Earliest)
    };
    reader.send(&Request::Subscribe(ask)).await;
    let (epoch, next, _) = reader.subscribed(1).await;
    for _ in 0..300 {
        publisher.publish("a", &[RECORD; 10]).await;
    }
    let end = publisher.stats("a").await.next;
    // Told in band, or when it resumes after it was cut in the middle of a chunk, or both; never silently at the end.
    assert!(read_through(&server, reader, epoch, next, end).await >= 1);
}

#[tokio::test]
async fn the_budget_of_all_topics_is_told_apart_from_a_topics_own_limit() {
    let server = serve(|c| {
        c.broker.overflow = Overflow::Reject;
        c.broker.retention = Retention::Everything;
        c.broker.segment_bytes = 16 << 10;
        c.broker.topic_bytes = 256 << 10;
        c.broker.max_bytes = 384 << 10;
    });
    let mut client = Client::new(&server).await;
    let mut fill = async |topic: &str| {
        for _ in 0..1000 {
            client.send_publish(1, topic, &[RECORD], true).await;
            match client.next().await {
                Got::Ack { .. } => {}
                Got::Error { code, .. } => return code,
                other => panic!("{other:?}"),
            }
        }
        panic!("no limit");
    };
    assert_eq!(fill("a").await, Code::Full);
    assert_eq!(fill("b").await, Code::BudgetExhausted);
    assert!(server.handle.broker().budget().used() <= 384 << 10);
}
