//! Publishing: offsets, order, pipelining, and what is refused.

use psa::protocol::{Code, Request, Start};

use crate::support::*;

#[tokio::test]
async fn acknowledgements_tell_epoch_and_offsets_in_order() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    let mut bytes = Vec::new();
    for request in 0..1000_u32 {
        let records: Vec<&[u8]> = vec![b"record"; 1 + request as usize % 3];
        bytes.extend(publish(request, "a", &records, true));
    }
    client.send_bytes(&bytes).await;
    let (mut expected, mut one_epoch) = (0, None);
    for n in 0..1000_u32 {
        match client.next().await {
            Got::Ack { request, epoch, first, count } => {
                assert_eq!((request, first, count), (n, expected, 1 + n % 3));
                assert_eq!(*one_epoch.get_or_insert(epoch), epoch);
                expected += u64::from(count);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn publishing_without_acknowledgement_is_silent_and_in_order() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    for n in 0..100_u32 {
        client.send_publish(n, "a", &[&n.to_le_bytes()], false).await;
    }
    assert_eq!(client.publish("a", &[b"last"]).await, 100);
    client.subscribe(1, "a", Start::Earliest).await;
    let records = client.records(1, 0, 101).await;
    for (n, record) in records[..100].iter().enumerate() {
        assert_eq!(record, &(n as u32).to_le_bytes());
    }
}

#[tokio::test]
async fn records_come_back_byte_for_byte() {
    let server = serve(|c| {
        c.broker.segment_bytes = 16 << 10;
        c.limits.chunk_bytes = 5000;
        c.limits.chunk_records = 100;
    });
    let mut client = Client::new(&server).await;
    // Empty ones, large ones beyond a segment, every byte value.
    let sizes = [0, 1, 0, 0, 17, 300, 4096, 40_000, 3, 0, 100_000, 1, 5001, 0];
    let mut seed = 1_u8;
    let records: Vec<Vec<u8>> = sizes
        .iter()
        .cycle()
        .take(300)
        .map(|&size| {
            (0..size)
                .map(|_| {
                    seed = seed.wrapping_mul(73).wrapping_add(41);
                    seed
                })
                .collect()
        })
        .collect();
    client.subscribe(1, "a", Start::Earliest).await;
    let mut sender = Client::new(&server).await;
    let sending = async {
        for record in &records {
            sender.publish("a", &[record]).await;
        }
    };
    let (got, ()) = tokio::join!(client.records(1, 0, records.len()), sending);
    assert!(got == records);
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_with_its_whole_batch() {
    let server = serve(|c| c.limits.max_record = 100);
    let mut client = Client::new(&server).await;
    client.send_publish(9, "a", &[b"small", &[1; 101]], true).await;
    match client.next().await {
        Got::Error { request: 9, code: Code::RecordTooLarge, message, .. } => {
            assert!(message.contains("101") && message.contains("100"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.publish("a", &[&[1; 100]]).await, 0);
}

#[tokio::test]
async fn a_missing_topic_is_made_or_not_as_configured() {
    let server = serve(|c| {
        c.broker.create_on_publish = false;
        c.broker.create_on_subscribe = false;
    });
    let mut client = Client::new(&server).await;
    client.send_publish(1, "a", &[b"x"], false).await;
    // Failure is told although no acknowledgement was asked for.
    assert_eq!(client.expect_error(1).await, Code::UnknownTopic);
    client.send(&Request::Subscribe(subscribe(1, "a", Start::Next))).await;
    assert_eq!(client.expect_error(1001).await, Code::UnknownTopic);
    let create = Request::Create {
        request: 2,
        topic: name("a"),
        settings: Default::default(),
        exist_ok: false,
    };
    client.send(&create).await;
    client.expect_done(2).await;
    assert_eq!(client.publish("a", &[b"x"]).await, 0);
}

#[tokio::test]
async fn a_name_with_a_control_character_is_refused_and_the_connection_goes_on() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    let mut bytes = publish(4, "a/b", &[b"x"], true);
    let at = bytes.windows(3).position(|w| w == b"a/b").unwrap();
    bytes[at + 1] = b'\n';
    client.send_bytes(&bytes).await;
    assert_eq!(client.expect_error(4).await, Code::BadName);
    assert_eq!(client.publish("a/b", &[b"x"]).await, 0);
}

#[tokio::test]
async fn many_publishers_lose_nothing_and_all_see_one_order() {
    const PUBLISHERS: u32 = 8;
    const EACH: u32 = 400;
    let server = serve(|c| c.broker.segment_bytes = 8 << 10);
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = Client::new(&server).await;
        reader.subscribe(1, "a", Start::Earliest).await;
        readers.push(tokio::spawn(async move {
            reader.records(1, 0, (PUBLISHERS * EACH) as usize).await
        }));
    }
    let mut publishers = Vec::new();
    for p in 0..PUBLISHERS {
        let mut client = Client::new(&server).await;
        publishers.push(tokio::spawn(async move {
            for n in 0..EACH {
                let record = [p.to_le_bytes(), n.to_le_bytes()].concat();
                client.publish("a", &[&record]).await;
            }
        }));
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut seen = Vec::new();
    for reader in readers {
        seen.push(reader.await.unwrap());
    }
    assert!(seen.iter().all(|s| *s == seen[0]));
    let mut next = [0_u32; PUBLISHERS as usize];
    for record in &seen[0] {
        let p = u32::from_le_bytes(record[..4].try_into().unwrap()) as usize;
        let n = u32::from_le_bytes(record[4..].try_into().unwrap());
        assert_eq!(n, next[p]);
        next[p] += 1;
    }
    assert_eq!(next, [EACH; PUBLISHERS as usize]);
}
