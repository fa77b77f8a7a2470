//! Pipelining, limits, and what is known when a connection breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use psa::client::*;
use psa::protocol::{Reply, Request};
use tokio::time::timeout;

use crate::fake::*;

#[tokio::test]
async fn many_publishes_are_in_flight_and_answers_find_their_tickets() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        // Not one answer before all have come.
        let mut all = Vec::new();
        for _ in 0..100 {
            all.push(peer.published().await);
        }
        let mut first = 40;
        for (i, (request, records)) in all.into_iter().enumerate() {
            assert_eq!(records[0], format!("record {i}").into_bytes());
            if i == 50 {
                peer.fail(request, Code::Full).await;
                continue;
            }
            peer.ack(request, first, records.len() as u32).await;
            first += records.len() as u64;
        }
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let options = PublisherOptions::default();
    let publisher = client.publisher("topic", options).await.unwrap();
    let mut tickets = Vec::new();
    for i in 0..100 {
        let text = format!("record {i}");
        let ticket = match i % 2 {
            0 => publisher.send(text.as_bytes()).await,
            _ => publisher.send_batch(&[text.as_str(), "", "more"]).await,
        };
        tickets.push(ticket.unwrap());
    }
    let mut next = 40;
    for (i, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(ticket.number(), i as u64 + 1);
        let answer = ticket.await;
        if i == 50 {
            assert_eq!(answer.unwrap_err().code(), Some(Code::Full));
            continue;
        }
        let published = answer.unwrap();
        let count = if i % 2 == 0 { 1 } else { 3 };
        assert_eq!((published.epoch, published.first), (EPOCH, next));
        assert_eq!(published.offsets(), next..next + count);
        next += count;
    }
    drop(publisher);
    finish(server).await;
}

#[tokio::test]
async fn no_more_than_the_limit_is_in_flight() {
    let (listener, builder) = listen().await;
    let (go, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let mut requests = Vec::new();
        for _ in 0..4 {
            requests.push(peer.published().await.0);
        }
        // The fifth does not come while the four are unanswered.
        let early = timeout(Duration::from_millis(50), peer.published()).await;
        assert!(early.is_err());
        gone.recv().await;
        peer.ack(requests[0], 0, 1).await;
        requests.push(peer.published().await.0);
        for (i, request) in requests.into_iter().enumerate().skip(1) {
            peer.ack(request, i as u64, 1).await;
        }
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let options = PublisherOptions { max_in_flight: 4, ..PublisherOptions::default() };
    let publisher = client.publisher("topic", options).await.unwrap();
    let mut tickets = Vec::new();
    for _ in 0..4 {
        tickets.push(publisher.send(b"x").await.unwrap());
    }
    // Dropped while it waits: it publishes nothing.
    let waiting = timeout(Duration::from_millis(80), publisher.send(b"never")).await;
    assert!(waiting.is_err());
    assert_eq!(publisher.in_flight(), 4);
    go.send(()).await.unwrap();
    tickets.push(publisher.send(b"x").await.unwrap());
    for (i, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(ticket.await.unwrap().first, i as u64);
    }
    drop(publisher);
    finish(server).await;
}

#[tokio::test]
async fn what_is_too_large_never_leaves() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let (request, records) = peer.published().await;
        assert_eq!(records, [b"fits".to_vec()]);
        peer.ack(request, 0, 1).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let publisher = client.publisher("topic", PublisherOptions::default()).await.unwrap();
    assert_eq!(publisher.max_record(), 1 << 16);
    let large = vec![0; (1 << 16) + 1];
    let error = publisher.send(&large).await.unwrap_err();
    assert!(matches!(error, ClientError::RecordTooLarge { .. }), "{error:?}");
    let records = vec![&large[..1 << 16]; 16];
    let error = publisher.send_batch(&records).await.unwrap_err();
    assert!(matches!(error, ClientError::BatchTooLarge { .. }), "{error:?}");
    let none: [&[u8]; 0] = [];
    let error = publisher.send_batch(&none).await.unwrap_err();
    assert!(matches!(error, ClientError::EmptyBatch), "{error:?}");
    publisher.send(b"fits").await.unwrap().await.unwrap();
    drop(publisher);
    finish(server).await;
}

#[tokio::test]
async fn the_largest_batch_that_is_promised_fits() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let (request, records) = peer.published().await;
        peer.ack(request, 0, records.len() as u32).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let publisher = client.publisher("topic", PublisherOptions::default()).await.unwrap();
    let mut left = publisher.max_batch();
    let mut records = Vec::new();
    while left > 4 {
        let size = (left - 4).min(1 << 16);
        records.push(vec![7; size]);
        left -= size + 4;
    }
    let count = records.len() as u32;
    let published = publisher.send_batch(&records).await.unwrap().await.unwrap();
    assert_eq!(published.count, count);
    records.last_mut().unwrap().push(7);
    let over = publisher.send_batch(&records).await.unwrap_err();
    assert!(matches!(over, ClientError::BatchTooLarge { .. } | ClientError::RecordTooLarge { .. }));
    drop(publisher);
    finish(server).await;
}

#[tokio::test]
async fn flush_waits_for_all_and_tells_of_failures() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        // A post has no answer, unless it fails.
        let (first, _) = peer.published().await;
        let (second, _) = peer.published().await;
        let (third, _) = peer.published().await;
        assert_eq!((first, second, third), (1, 2, 3));
        let token = pinged(&mut peer).await;
        peer.fail(second, Code::TopicClosed).await;
        peer.ack(third, 1, 1).await;
        peer.send(&Reply::Pong { token }).await;
        // Nothing new has failed.
        let token = pinged(&mut peer).await;
        peer.send(&Reply::Pong { token }).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let publisher = client.publisher("topic", PublisherOptions::default()).await.unwrap();
    assert_eq!(publisher.post_batch(&["a"]).await.unwrap(), 1);
    assert_eq!(publisher.post_batch(&["b"]).await.unwrap(), 2);
    drop(publisher.send(b"c").await.unwrap());
    let error = publisher.flush().await.unwrap_err();
    let ClientError::Failed { failed, first, ref cause } = error else { panic!("{error:?}") };
    assert_eq!((failed, first), (1, 2));
    assert_eq!(cause.code(), Some(Code::TopicClosed));
    publisher.flush().await.unwrap();
    drop(publisher);
    finish(server).await;
}

/// A failure that nobody has heard of yet is not forgotten with its connection.
#[tokio::test]
async fn flush_tells_of_failures_on_the_connection_before() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let (request, _) = peer.published().await;
        peer.fail(request, Code::Full).await;
        drop(peer);
        let mut peer = Peer::welcome(&listener).await;
        let token = pinged(&mut peer).await;
        peer.send(&Reply::Pong { token }).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut publisher = client.publisher("topic", PublisherOptions::default()).await.unwrap();
    publisher.post_batch(&["a"]).await.unwrap();
    while !publisher.is_lost() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    publisher.reconnect().await.unwrap();
    let error = publisher.flush().await.unwrap_err();
    assert!(matches!(error, ClientError::Failed { failed: 1, first: 1, .. }), "{error:?}");
    drop(publisher);
    finish(server).await;
}

/// A record's `as_ref` is the caller's code. It panics, and answers differently each time: what goes out is whole.
#[tokio::test]
async fn a_record_that_misbehaves_harms_no_other_publish() {
    struct Odd(AtomicUsize, usize);
    impl AsRef<[u8]> for Odd {
        fn as_ref(&self) -> &[u8] {
            let asked = self.0.fetch_add(1, Ordering::Relaxed);
            assert!(asked < self.1, "the record's own fault");
            &b"twelve bytes"[..12 - asked]
        }
    }
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        for expected in [b"twelve bytes".to_vec(), b"after".to_vec()] {
            let (request, records) = peer.published().await;
            assert_eq!(records, [expected]);
            peer.ack(request, 0, 1).await;
        }
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let publisher = client.publisher("topic", PublisherOptions::default()).await.unwrap();
    let publisher = Arc::new(publisher);
    for asked in 0..4 {
        let publisher = publisher.clone();
        let sending = tokio::spawn(async move {
            let odd = [Odd(AtomicUsize::new(0), asked)];
            publisher.send_batch(&odd).await.unwrap().await.unwrap();
        });
        match sending.await {
            Ok(()) => break,
            Err(_) => assert_eq!(asked, 0, "it is asked once"),
        }
    }
    publisher.send(b"after").await.unwrap().await.unwrap();
    drop(publisher);
    finish(server).await;
}

async fn pinged(peer: &mut Peer) -> u64 {
    peer.take(|request| match request {
        Request::Ping { token } => token,
        other => panic!("{other:?}"),
    })
    .await
}

#[tokio::test]
async fn a_broken_connection_says_what_is_unknown_and_sends_nothing_again() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let (first, _) = peer.published().await;
        for _ in 0..2 {
            peer.published().await;
        }
        peer.ack(first, 7, 1).await;
        drop(peer);
        // The next connection sees what the caller chose to send again, and nothing else.
        let mut peer = Peer::welcome(&listener).await;
        let (request, records) = peer.published().await;
        assert_eq!(records, [b"three".to_vec(), b"3".to_vec()]);
        peer.ack(request, 20, 2).await;
        let (request, records) = peer.published().await;
        assert_eq!(records, [b"four".to_vec()]);
        peer.ack(request, 22, 1).await;
        assert!(peer.try_take(|_| ()).await.is_none());
    });
    let client = builder.build().unwrap();
    let mut publisher = client.publisher("topic", PublisherOptions::default()).await.unwrap();
    let one = publisher.send(b"one").await.unwrap();
    let two = publisher.send(b"two").await.unwrap();
    let three = publisher.send_batch(&["three", "3"]).await.unwrap();
    assert_eq!(one.await.unwrap().first, 7);
    for ticket in [two, three] {
        let error = ticket.await.unwrap_err();
        assert!(matches!(error, ClientError::Lost { outcome: Outcome::Unknown, .. }), "{error:?}");
    }
    assert!(publisher.is_lost());
    let error = publisher.send(b"not now").await.unwrap_err();
    assert!(error.not_carried_out(), "{error:?}");

    publisher.reconnect().await.unwrap();
    let lost = publisher.take_unacknowledged();
    let numbers: Vec<u64> = lost.iter().map(Unacknowledged::number).collect();
    assert_eq!(numbers, [2, 3]);
    assert!(lost.iter().all(|lost| lost.outcome() == Outcome::Unknown));
    assert!(publisher.take_unacknowledged().is_empty(), "each is told once");
    let again = publisher.resend(&lost[1]).await.unwrap();
    assert_eq!(again.await.unwrap().offsets(), 20..22);
    publisher.send(b"four").await.unwrap().await.unwrap();
    drop(publisher);
    finish(server).await;
}

#[tokio::test]
async fn what_the_server_never_took_was_certainly_not_carried_out() {
    // So much that the system's buffers cannot hold it all: the server does not read.
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let (_, records) = peer.published().await;
        assert_eq!(records[0][..8], 0_u64.to_le_bytes());
        tokio::time::sleep(Duration::from_millis(100)).await;
    });
    let client = builder.build().unwrap();
    let options = PublisherOptions { max_in_flight_bytes: 64 << 20, ..PublisherOptions::default() };
    let publisher = client.publisher("topic", options).await.unwrap();
    let mut tickets = Vec::new();
    for i in 0..1000_u64 {
        let mut record = vec![0; 1 << 15];
        record[..8].copy_from_slice(&i.to_le_bytes());
        tickets.push(publisher.send(&record).await.unwrap());
    }
    finish(server).await;
    let mut outcomes = Vec::new();
    for ticket in tickets {
        match ticket.await.unwrap_err() {
            ClientError::Lost { outcome, .. } => outcomes.push(outcome),
            other => panic!("{other:?}"),
        }
    }
    // First those that may have arrived, then those that did not leave: never mixed.
    let unknown = outcomes.iter().take_while(|o| **o == Outcome::Unknown).count();
    assert!((1..1000).contains(&unknown), "{unknown}");
    assert!(outcomes[unknown..].iter().all(|o| *o == Outcome::NotCarriedOut));
    // Whichever they are, the very bytes are given back, in order.
    let lost = publisher.take_unacknowledged();
    assert_eq!(lost.len(), 1000);
    for (i, lost) in lost.iter().enumerate() {
        let record = lost.records().get(0).unwrap();
        assert_eq!((record.len(), &record[..8]), (1 << 15, &(i as u64).to_le_bytes()[..]));
        assert_eq!((lost.number(), lost.outcome()), (i as u64 + 1, outcomes[i]));
    }
}

#[tokio::test]
async fn a_server_that_shuts_down_says_that_it_did_not_carry_out() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.published().await;
        peer.goodbye(Code::ShuttingDown).await;
    });
    let client = builder.build().unwrap();
    let publisher = client.publisher("topic", PublisherOptions::default()).await.unwrap();
    let error = publisher.send(b"x").await.unwrap().await.unwrap_err();
    assert!(error.not_carried_out());
    assert_eq!(error.code(), Some(Code::ShuttingDown));
    finish(server).await;
}

#[tokio::test]
async fn a_request_on_a_connection_that_was_idle_is_made_again_only_if_it_was_not_carried_out() {
    for (code, attempts) in [(Some(Code::IdleTimeout), 2), (None, 1)] {
        let (listener, builder) = listen().await;
        let server = play(async move {
            let mut peer = Peer::welcome(&listener).await;
            let (request, _) = peer.published().await;
            peer.ack(request, 0, 1).await;
            // The second request and the end of the connection meet.
            peer.published().await;
            if let Some(code) = code {
                peer.goodbye(code).await;
            }
            drop(peer);
            if attempts == 2 {
                let mut peer = Peer::welcome(&listener).await;
                let (request, records) = peer.published().await;
                assert_eq!(records, [b"two".to_vec()]);
                peer.ack(request, 1, 1).await;
                peer.wait_for_end().await;
            }
        });
        let client = builder.build().unwrap();
        client.publish("topic", b"one").await.unwrap();
        let second = client.publish("topic", b"two").await;
        if attempts == 2 {
            assert_eq!(second.unwrap().first, 1);
        } else {
            assert!(!second.unwrap_err().not_carried_out());
        }
        drop(client);
        finish(server).await;
    }
}

#[tokio::test]
async fn a_dropped_publisher_still_delivers_what_was_sent() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        for i in 0..500_u32 {
            let (request, records) = peer.published().await;
            assert_eq!(records, [i.to_le_bytes().to_vec()]);
            peer.ack(request, i.into(), 1).await;
        }
        assert!(peer.try_take(|_| ()).await.is_none(), "then it closes");
    });
    let client = builder.build().unwrap();
    let publisher = client.publisher("topic", PublisherOptions::default()).await.unwrap();
    let mut tickets = Vec::new();
    for i in 0..500_u32 {
        tickets.push(publisher.send(&i.to_le_bytes()).await.unwrap());
    }
    drop(publisher);
    for (i, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(ticket.await.unwrap().first, i as u64);
    }
    finish(server).await;
}
