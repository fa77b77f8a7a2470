//! The exclusive publisher.

use psa::*;

use crate::split;

use crate::{drain, live, small};

// ---- exclusive ----

#[test]
fn an_exclusive_publisher_is_read_like_any_other() {
    let (mut publisher, log) = small::<u64>().build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..10 {
        assert_eq!(publisher.append(n), Ok(n));
    }
    assert_eq!(publisher.append_slice(&[10, 11, 12]), Ok(10..13));
    assert_eq!(publisher.append_batch([13]), Ok(13..14));
    assert_eq!(publisher.next_offset(), 14);
    assert_eq!(drain(&mut cursor), (0..14).collect::<Vec<_>>());
    assert_eq!(live(&log), 1);
    drop(publisher);
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
    assert!(log.is_closed());
}

#[test]
fn an_exclusive_publisher_waits_or_is_refused_at_the_limit() {
    let segment = small::<u64>().build_exclusive().unwrap().1.stats().live_bytes;
    let (mut publisher, log) = small::<u64>().memory_limit(2 * segment).build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    publisher.append_batch(0..8).unwrap_err();
    publisher.append_batch(0..4).unwrap();
    publisher.try_append_batch(4..8).unwrap();
    let refused = publisher.try_append_batch([8, 9]).unwrap_err();
    assert_eq!((refused.value, publisher.next_offset()), (vec![8, 9], 8));
    assert_eq!(publisher.try_append(8).unwrap_err().value, 8);
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let offsets = runtime.block_on(publisher.append_batch_async([8, 9]));
        (offsets.unwrap(), publisher.append(10).unwrap(), publisher)
    });
    while log.stats().publisher_waits < 1 {
        std::thread::yield_now();
    }
    cursor.try_next(|_| ()).unwrap();
    let (offsets, last, _publisher) = waiting.join().unwrap();
    assert_eq!((offsets, last), (8..10, 10));
    assert_eq!(drain(&mut cursor), (4..11).collect::<Vec<_>>());
}

#[test]
fn an_exclusive_byte_log_respects_limits_of_a_look() {
    let (mut publisher, log) = Log::<[u8]>::builder().build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..100u8 {
        publisher.append(&vec![n; n as usize]).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let limit = Limit { records: 7, bytes: 50 };
        let shown = cursor
            .peek(limit, |batch| {
                assert!(batch.len() <= 7);
                assert!(batch.payload().len() <= 50 || batch.len() == 1);
                seen.extend(split(batch));
                batch.len()
            })
            .unwrap()
            .unwrap();
        cursor.advance(shown);
    }
    assert!(seen.iter().enumerate().all(|(n, record)| *record == vec![n as u8; n]));
}
