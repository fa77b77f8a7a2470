//! Publishing to a stored topic: the queue of appends, their tickets, and the thread that writes them. All of it is the
//! source that ships (`src/tier`), over files in memory. A publisher that is not told, or not woken, shows as a deadlock.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::Range;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use shuttle::future::block_on;
use shuttle::thread;

use crate::explore::explore;
use crate::log::{AppendError, Log, Overflow, Packed, Position, ReadError, Retention, Start};
use crate::support::segment;
use crate::sync::stored::time_passes;
use crate::sync::time::Duration;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::tier::{
    Durability, Opened, PublishError, Settings, StoredTopic, Task, Ticket, Tier, TopicCursor, store,
};

pub(crate) type Topic = Arc<Task<StoredTopic>>;

/// A record of this number. Two of them fill a segment.
pub(crate) fn record(n: u64) -> [u8; 32] {
    let mut record = [n as u8; 32];
    record[..8].copy_from_slice(&n.to_le_bytes());
    record
}

pub(crate) fn number(record: &[u8]) -> u64 {
    let n = u64::from_le_bytes(record[..8].try_into().unwrap());
    assert_eq!(record, self::record(n), "another record's bytes");
    n
}

/// What records take of the queue and on the disk.
pub(crate) const SIZE: u64 = 36;

pub(crate) fn settings() -> Settings {
    Settings {
        segment_bytes: 64,
        // The open segment, and one or two more.
        memory_limit: 3 * segment(),
        disk_limit: 1 << 20,
        retention: Retention::Everything,
        overflow: Overflow::Block,
        durability: Durability::Synced,
    }
}

pub(crate) fn packed(records: Range<u64>) -> (Vec<u8>, Vec<u8>) {
    let (mut ends, mut payload) = (Vec::new(), Vec::new());
    for n in records {
        payload.extend_from_slice(&record(n));
        ends.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    }
    (ends, payload)
}

/// A topic whose files have these frames, each of which has records of these numbers.
pub(crate) fn topic_with(tier: &Tier, settings: Settings, frames: &[Range<u64>]) -> Topic {
    let owned = |range: &Range<u64>| {
        let (ends, payload) = packed(range.clone());
        crate::disk::Owned::new(range.start, Packed::new(&ends, &payload).unwrap())
    };
    store::put_down(settings, frames.iter().map(owned).collect());
    let opened = Opened::open(Path::new("topic"), false, 0, &tier.room).unwrap();
    let log = Log::<[u8]>::builder()
        .begin_at(Position { epoch: opened.epoch, next: opened.next })
        .segment_bytes(settings.segment_bytes as usize)
        .retention(Retention::Bytes(settings.memory_limit / 4))
        .overflow(Overflow::Evict)
        .memory_limit(settings.memory_limit)
        .pool_segments(4)
        .build()
        .unwrap();
    StoredTopic::go_on(opened, tier, &log)
}

pub(crate) fn topic(tier: &Tier, settings: Settings) -> Topic {
    topic_with(tier, settings, &[])
}

fn publish(topic: &Topic, records: Range<u64>) -> Result<Ticket, PublishError> {
    let (ends, payload) = packed(records);
    let packed = Packed::new(&ends, &payload).unwrap();
    block_on(poll_fn(|cx| topic.poll_publish(cx, packed)))
}

/// Publishes as a task does, and waits for the result.
pub(crate) fn append(topic: &Topic, records: Range<u64>) -> Result<Range<u64>, PublishError> {
    block_on(publish(topic, records)?)
}

/// Publishes as a thread does, which writes by itself if it can.
fn append_here(topic: &Topic, records: Range<u64>) -> Result<Range<u64>, PublishError> {
    let (ends, payload) = packed(records);
    let packed = Packed::new(&ends, &payload).unwrap();
    block_on(async { poll_fn(|cx| topic.blocking_publish(cx, packed)).await?.await })
}

/// All records of a topic that is closed, from its first one on.
fn read_all(topic: &Topic) -> Vec<u64> {
    let mut cursor = TopicCursor::of_stored(topic, Start::Earliest).unwrap();
    let mut all = Vec::new();
    loop {
        let read = block_on(cursor.next(|batch| {
            for (offset, record) in batch.iter() {
                assert_eq!(offset, all.len() as u64);
                all.push(number(record));
            }
        }));
        match read {
            Ok(()) => {}
            Err(ReadError::Closed) => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

fn close(topic: &Topic) {
    block_on(topic.close()).unwrap();
}

/// Each has the offsets that it was told, and those of one publisher are in its order.
#[test]
fn appends_are_where_their_publishers_were_told() {
    explore(|| {
        let tier = Tier::start(1);
        let topic = topic(&tier, settings());
        let acknowledged = Arc::new(AtomicU64::new(0));
        let publishers = [0, 10].map(|base| {
            let (topic, acknowledged) = (topic.clone(), acknowledged.clone());
            thread::spawn(move || {
                // Both are on their way at the same time.
                let before = acknowledged.load(Ordering::SeqCst);
                let (first, second) =
                    (publish(&topic, base..base + 1).unwrap(), publish(&topic, base + 1..base + 2));
                let (first, second) =
                    (block_on(first).unwrap(), block_on(second.unwrap()).unwrap());
                assert!(first.end <= second.start, "not in order");
                assert!(first.start >= before, "before what was acknowledged before it was sent");
                acknowledged.fetch_max(second.end, Ordering::SeqCst);
                [(base, first), (base + 1, second)]
            })
        });
        let before = acknowledged.load(Ordering::SeqCst);
        let here = append_here(&topic, 20..22).unwrap();
        assert!(here.start >= before);
        let told = publishers.map(|publisher| publisher.join().unwrap());
        close(&topic);
        let all = read_all(&topic);
        assert_eq!(all.len(), 6);
        assert_eq!(all[here.start as usize..here.end as usize], [20, 21]);
        for (n, offsets) in told.into_iter().flatten() {
            assert_eq!(all[offsets.start as usize..offsets.end as usize], [n]);
        }
        tier.leave([topic]);
    });
}

/// What was taken back is not there, and what could not be taken back is.
#[test]
fn an_append_is_taken_back_or_written() {
    explore(|| {
        let tier = Tier::start(1);
        let topic = topic(&tier, settings());
        let others = thread::spawn({
            let topic = topic.clone();
            move || {
                append(&topic, 10..11).unwrap();
                append(&topic, 11..12).unwrap();
            }
        });
        let mut tickets = [0, 1].map(|n| publish(&topic, n..n + 1).unwrap());
        let is_taken_back = tickets[0].cancel();
        let [first, second] = tickets;
        let second = block_on(second).unwrap();
        if !is_taken_back {
            let first = block_on(first).unwrap();
            assert!(first.end <= second.start);
        }
        others.join().unwrap();
        close(&topic);
        let all = read_all(&topic);
        assert_eq!(all[second.start as usize], 1);
        assert_eq!(all.contains(&0), !is_taken_back);
        assert_eq!(all.len(), if is_taken_back { 3 } else { 4 });
        tier.leave([topic]);
    });
}

/// A task that waits for its result moves to another one, and is woken there.
#[test]
fn who_waits_for_a_result_last_is_woken() {
    explore(|| {
        let tier = Tier::start(1);
        let topic = topic(&tier, settings());
        let mut ticket = publish(&topic, 0..1).unwrap();
        {
            let ticket = pin!(&mut ticket);
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(told) = ticket.poll(&mut cx) {
                assert_eq!(told, Ok(0..1));
                tier.leave([topic]);
                return;
            }
        }
        let told = thread::spawn(move || block_on(ticket)).join().unwrap();
        assert_eq!(told, Ok(0..1));
        tier.leave([topic]);
    });
}

/// Two appends fit into the queue, and four want to.
#[test]
fn who_waits_for_room_in_the_queue_is_woken() {
    explore(|| {
        let tier = Tier::start(1);
        let topic = topic(&tier, settings());
        let publishers = [0, 1, 2].map(|n| {
            let topic = topic.clone();
            thread::spawn(move || append(&topic, 2 * n..2 * n + 2).unwrap())
        });
        append(&topic, 6..8).unwrap();
        let mut told: Vec<_> = publishers.into_iter().map(|p| p.join().unwrap().start).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 3);
        close(&topic);
        assert_eq!(read_all(&topic).len(), 8);
        tier.leave([topic]);
    });
}

/// Three records of all topics may wait, and each of these topics has two, and two again.
#[test]
fn who_waits_for_what_other_topics_give_back_is_woken() {
    explore(|| {
        let tier = Tier::start(2);
        let topics = [(); 2].map(|()| topic(&tier, settings()));
        let publishers = topics.clone().map(|topic| {
            thread::spawn(move || {
                for n in [0, 2] {
                    assert_eq!(append(&topic, n..n + 2), Ok(n..n + 2));
                }
            })
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        // All of it was given back.
        for topic in &topics {
            assert_eq!(append(topic, 4..7), Ok(4..7));
        }
        tier.leave(topics);
    });
}

/// A topic at its limit on the disk, whose subscriber makes room by reading.
#[test]
fn who_waits_for_room_on_the_disk_is_woken() {
    explore(|| {
        // How often such a topic looks.
        time_passes(Duration::from_millis(20));
        let tier = Tier::start(1);
        // Three frames of one record; an append may take three eighths.
        let limit = Settings { disk_limit: 3 * SIZE, ..settings() };
        let topic = topic(&tier, limit);
        let mut cursor = TopicCursor::of_stored(&topic, Start::Earliest).unwrap();
        let publishers = [0, 2].map(|base| {
            let topic = topic.clone();
            thread::spawn(move || {
                for n in base..base + 2 {
                    append(&topic, n..n + 1).unwrap();
                }
            })
        });
        let mut seen = BTreeMap::new();
        while seen.len() < 4 {
            let read = block_on(cursor.next(|batch| {
                seen.extend(batch.iter().map(|(offset, record)| (offset, number(record))));
            }));
            read.unwrap();
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        assert!(seen.keys().copied().eq(0..4));
        drop(cursor);
        tier.leave([topic]);
    });
}

/// Closing: who was acknowledged is there, in front of the end, and nobody waits for ever.
#[test]
fn the_end_of_a_topic_reaches_its_publishers() {
    explore(|| {
        let tier = Tier::start(1);
        let topic = topic(&tier, settings());
        let publishers = [0, 10, 20].map(|base| {
            let topic = topic.clone();
            thread::spawn(move || append(&topic, base..base + 2))
        });
        let reader = thread::spawn({
            let topic = topic.clone();
            move || read_all(&topic)
        });
        close(&topic);
        let all = reader.join().unwrap();
        for (base, publisher) in [0, 10, 20].into_iter().zip(publishers) {
            match publisher.join().unwrap() {
                Ok(told) => {
                    assert_eq!(all[told.start as usize..told.end as usize], [base, base + 1]);
                }
                Err(error) => {
                    assert_eq!(error, AppendError::Closed.into());
                    assert!(!all.contains(&base));
                }
            }
        }
        tier.leave([topic]);
    });
}

/// The broker ends while publishers publish: each of them is told, and what it is told is so.
#[test]
fn the_end_of_the_threads_reaches_publishers() {
    explore(|| {
        let tier = Tier::start(1);
        let topic = topic(&tier, settings());
        let publishers = [true, false].map(|here| {
            let topic = topic.clone();
            thread::spawn(move || {
                let base = if here { 0 } else { 10 };
                let append = if here { append_here } else { append };
                [base, base + 1].map(|n| append(&topic, n..n + 1))
            })
        });
        topic.stop();
        tier.leave([topic.clone()]);
        let mut acknowledged = 0;
        for publisher in publishers {
            for told in publisher.join().unwrap() {
                match told {
                    Ok(_) => acknowledged += 1,
                    Err(error) => assert_eq!(error, AppendError::Closed.into()),
                }
            }
        }
        let reader = topic.job().reader();
        let stored = reader.map_or(0, |mut reader| match reader.read(u64::MAX, 0) {
            Err(crate::disk::ReadError::Beyond { next }) => next,
            _ => unreachable!("the end is asked for"),
        });
        assert_eq!(stored, acknowledged);
    });
}
