//! Subscribers that memory has left behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use psa::Start;
use psa::broker::{Purpose, TopicSettings};

use crate::support::*;

#[test]
fn a_subscriber_that_does_not_read_loses_nothing_and_holds_no_memory() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &small()).unwrap();
    let mut slow = subscribe(&topic, Start::Earliest);
    publish(&topic, 0..20_000);
    let stats = topic.stats();
    assert!(stats.live_bytes <= 64 << 10, "{} bytes of memory", stats.live_bytes);
    assert!(topic.log().first_offset() > 10_000, "memory has the newest alone");
    assert_eq!(topic.first_offset(), 0);
    block_on(async {
        check(&read(&mut slow, 5_000).await[..5_000], 0..5_000);
    });
    let from = slow.offset();
    drop(slow);
    let mut slow = subscribe(&topic, Start::At(from));
    block_on(async {
        check(&read(&mut slow, (20_000 - from) as usize).await, from..20_000);
        publish(&topic, 20_000..20_001);
        check(&read(&mut slow, 1).await, 20_000..20_001);
    });
    assert!(!slow.is_catching_up());
    assert_eq!(topic.stored().unwrap().readers, 0);
}

/// They are read again into another log, much later.
#[test]
fn stored_records_keep_the_times_of_their_publication() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &small()).unwrap();
    let mut moments = vec![SystemTime::now()];
    for records in [0..1, 1..2, 2..3_000] {
        publish(&topic, records);
        std::thread::sleep(Duration::from_millis(20));
        moments.push(SystemTime::now());
    }
    assert!(topic.log().first_offset() > 2, "they are in files alone");
    let mut cursor = subscribe(&topic, Start::Earliest);
    let mut times = Vec::new();
    block_on(async {
        while times.len() < 3 {
            let read = cursor.next(|batch| {
                let nanos = (0..batch.len()).map(|i| batch.append_nanos_of(i));
                nanos.map(|n| SystemTime::UNIX_EPOCH + Duration::from_nanos(n)).collect::<Vec<_>>()
            });
            times.extend(read.await.unwrap());
        }
    });
    for (time, moments) in times.iter().zip(moments.windows(2)) {
        assert!((moments[0]..=moments[1]).contains(time), "{time:?} {moments:?}");
    }
}

#[test]
fn many_catch_up_while_publishers_go_on() {
    const ALL: u64 = 30_000;
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &small()).unwrap();
    publish(&topic, 0..10_000);
    std::thread::scope(|scope| {
        let publisher = topic.clone();
        scope.spawn(move || publish(&publisher, 10_000..ALL));
        for from in [0, 1, 4_000, 9_999] {
            let topic = topic.clone();
            scope.spawn(move || {
                let mut cursor = subscribe(&topic, Start::At(from));
                block_on(async {
                    check(&read(&mut cursor, (ALL - from) as usize).await, from..ALL);
                });
            });
        }
    });
}

/// More than may catch up at a time: the others wait for their turn, and get it.
#[test]
fn those_without_a_turn_wait() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &small()).unwrap();
    publish(&topic, 0..3_000);
    block_on(async {
        let mut cursors: Vec<_> = (0..200).map(|_| subscribe(&topic, Start::Earliest)).collect();
        // The first ones keep their turn until they go on; some never read.
        drop(cursors.split_off(190));
        let mut tasks = tokio::task::JoinSet::new();
        for mut cursor in cursors {
            tasks.spawn(async move { check(&read(&mut cursor, 3_000).await, 0..3_000) });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn large_records_are_caught_up_with() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.open("t", Purpose::Publish).unwrap();
    let large: Vec<Vec<u8>> = [0, 3 << 20, 10, 700 << 10, 5 << 20, 1]
        .iter()
        .map(|size| (0..*size).map(|n| n as u8).collect())
        .collect();
    for record in &large {
        topic.blocking_append(record).unwrap();
    }
    drop((topic, broker));
    let broker = open(folder.path());
    let topic = broker.topic("t").unwrap();
    block_on(async {
        let read = read(&mut subscribe(&topic, Start::Earliest), large.len()).await;
        assert!(read.iter().map(|(_, record)| record).eq(&large));
    });
}

#[test]
fn a_point_in_time_reaches_back_into_the_files() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &TopicSettings::default()).unwrap();
    publish(&topic, 0..100);
    std::thread::sleep(Duration::from_millis(30));
    let time = SystemTime::now();
    std::thread::sleep(Duration::from_millis(30));
    publish(&topic, 100..200);
    drop((topic, broker));
    let broker = open(folder.path());
    let topic = broker.topic("t").unwrap();
    assert_eq!(subscribe(&topic, Start::Since(time)).offset(), 100);
    assert_eq!(subscribe(&topic, Start::Since(SystemTime::UNIX_EPOCH)).offset(), 0);
    let future = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(subscribe(&topic, Start::Since(future)).offset(), 200);
}

/// A cursor can be dropped at any moment, and others go on.
#[test]
fn cursors_come_and_go() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &small()).unwrap();
    publish(&topic, 0..5_000);
    block_on(async {
        for n in 0..300u64 {
            let mut cursor = subscribe(&topic, Start::At(n * 7 % 5_000));
            if n % 3 > 0 {
                let _ = tokio::time::timeout(Duration::from_micros(n * 5), read(&mut cursor, 100))
                    .await;
            }
        }
    });
    // Whatever they held is given back by the threads.
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while topic.stored().unwrap().readers > 0 && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(topic.stored().unwrap().readers, 0);
    block_on(async {
        check(&read(&mut subscribe(&topic, Start::Earliest), 5_000).await, 0..5_000)
    });
}

/// Subscribers that read nothing, as many as may catch up at a time, keep nobody else from it; and lose nothing.
#[test]
fn those_that_read_nothing_lose_their_turn() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &small()).unwrap();
    publish(&topic, 0..30_000);
    block_on(async {
        let mut idle: Vec<_> = (0..64).map(|_| subscribe(&topic, Start::Earliest)).collect();
        for cursor in &mut idle {
            check(&read(cursor, 1).await[..1], 0..1);
        }
        check(&read(&mut subscribe(&topic, Start::Earliest), 30_000).await, 0..30_000);
        for cursor in idle.iter_mut().take(3) {
            let from = cursor.offset();
            check(&read(cursor, (30_000 - from) as usize).await, from..30_000);
        }
    });
}

/// A panic in the code that looks at records: they are shown again, and the subscriber loses its turn as any other does.
#[test]
fn those_that_panic_lose_their_turn_and_no_record() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &small()).unwrap();
    publish(&topic, 0..30_000);
    let mut broken: Vec<_> = (0..64).map(|_| subscribe(&topic, Start::Earliest)).collect();
    for cursor in &mut broken {
        // There may be nothing to look at yet.
        let mut look = || cursor.try_next(|_| std::panic::resume_unwind(Box::new("in the test")));
        while let Ok(seen) = catch_unwind(AssertUnwindSafe(&mut look)) {
            let seen: Option<()> = seen.unwrap();
            assert!(seen.is_none());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    block_on(async {
        check(&read(&mut subscribe(&topic, Start::Earliest), 30_000).await, 0..30_000);
        for cursor in broken.iter_mut().take(3) {
            assert_eq!(cursor.offset(), 0);
            check(&read(cursor, 30_000).await, 0..30_000);
        }
    });
}
