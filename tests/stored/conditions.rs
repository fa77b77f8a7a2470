//! Appends with conditions, which can be sent again: also after the broker was killed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use psa::broker::{
    Broker, BrokerConfig, Condition, Durability, Producer, PublishError, Refusal, Topic,
    TopicSettings,
};
use psa::{Overflow, Packed, Start};

use crate::killed::killed;
use crate::support::*;

fn by(id: &str, epoch: u64, seq: u64) -> Condition {
    Condition::producer(Producer { id: id.into(), epoch, seq })
}

async fn publish_if(
    topic: &Topic,
    record: &str,
    condition: Condition,
) -> Result<u64, PublishError> {
    let ends = (record.len() as u32).to_le_bytes();
    let ends = if record.is_empty() { &[][..] } else { &ends };
    let records = Packed::new(ends, record.as_bytes()).unwrap();
    topic.try_publish_if(records, condition)?.await.map(|offsets| offsets.start)
}

fn refused(refusal: Refusal) -> Result<u64, PublishError> {
    Err(PublishError::Refused(refusal))
}

fn durabilities() -> [TopicSettings; 3] {
    [Durability::Memory, Durability::Written, Durability::Synced].map(|durability| TopicSettings {
        durability: Some(durability),
        ..TopicSettings::default()
    })
}

#[tokio::test]
async fn an_append_that_is_sent_again_is_appended_once() {
    for settings in durabilities() {
        let folder = folder();
        let broker = open(folder.path());
        let topic = broker.create("t", &settings).unwrap();
        assert_eq!(
            publish_if(&topic, "a", by("p", 0, 1)).await,
            refused(Refusal::Gap { expected: 0 })
        );
        assert_eq!(publish_if(&topic, "a", by("p", 0, 0)).await, Ok(0));
        assert_eq!(
            publish_if(&topic, "a", by("p", 0, 0)).await,
            refused(Refusal::Duplicate { seq: 0 })
        );
        assert_eq!(publish_if(&topic, "b", by("q", 0, 0)).await, Ok(1));
        assert_eq!(publish_if(&topic, "b", by("p", 2, 0)).await, Ok(2));
        assert_eq!(
            publish_if(&topic, "b", by("p", 1, 1)).await,
            refused(Refusal::Stale { epoch: 2 })
        );
        assert_eq!(topic.append("c").await, Ok(3));
        assert_eq!(topic.log().next_offset(), 4);
    }
}

#[tokio::test]
async fn an_offset_that_is_asked_for_goes_to_one() {
    for settings in durabilities() {
        let folder = folder();
        let broker = open(folder.path());
        let topic = broker.create("t", &settings).unwrap();
        let moved = |next| refused(Refusal::Moved { next });
        assert_eq!(publish_if(&topic, "a", Condition::next(1)).await, moved(0));
        // Some of them in one group.
        let record = Packed::new(&[1, 0, 0, 0], b"a").unwrap();
        let begun = [(); 10].map(|()| topic.try_publish_if(record, Condition::next(0)));
        for (n, begun) in begun.into_iter().enumerate() {
            let done = match begun {
                Ok(ticket) => ticket.await.map(|offsets| offsets.start),
                Err(error) => Err(error),
            };
            assert_eq!(done, if n == 0 { Ok(0) } else { moved(1) }, "{n}");
        }
        assert_eq!(topic.append("b").await, Ok(1));
        assert_eq!(publish_if(&topic, "c", Condition::next(1)).await, moved(2));
        assert_eq!(publish_if(&topic, "", Condition::next(2)).await, Ok(2));

        // A repetition is told as one, wherever the topic ends by now.
        let mut both = by("p", 0, 0);
        both.next = Some(2);
        assert_eq!(publish_if(&topic, "c", both.clone()).await, Ok(2));
        let again = publish_if(&topic, "c", both).await;
        assert_eq!(again, refused(Refusal::Duplicate { seq: 0 }));
        // What was refused has left nothing behind.
        let mut other = by("q", 0, 0);
        other.next = Some(0);
        assert_eq!(publish_if(&topic, "x", other).await, moved(3));
        assert_eq!(publish_if(&topic, "d", by("q", 0, 0)).await, Ok(3));
    }
}

#[tokio::test]
async fn a_topic_is_closed_in_one_step_with_its_last_records() {
    for settings in durabilities() {
        let folder = folder();
        let broker = open(folder.path());
        let topic = broker.create("t", &settings).unwrap();
        let mut closing = by("p", 0, 0);
        closing.closes = true;
        let mut after = Condition::default();
        after.sequence = Some("x".into());
        // What comes after it in the same group is refused.
        let (closed, late, plain) = tokio::join!(
            publish_if(&topic, "last", closing.clone()),
            publish_if(&topic, "late", after),
            topic.append("late"),
        );
        assert_eq!(closed, Ok(0), "{settings:?}");
        assert!(late.unwrap_err().is_closed() && plain.unwrap_err().is_closed());
        assert!(topic.is_closed() && topic.log().is_closed());
        assert!(publish_if(&topic, "last", closing).await.unwrap_err().is_closed());
        let mut cursor = topic.subscribe(Start::Earliest).unwrap();
        assert_eq!(read_to_end(&mut cursor).await, [(0, b"last".to_vec())]);
        if settings.durability != Some(Durability::Memory) {
            let killed = killed(folder.path());
            let topic = open(killed.path()).topic("t").unwrap();
            assert!(topic.is_closed());
            let mut cursor = topic.subscribe(Start::Earliest).unwrap();
            assert_eq!(read_to_end(&mut cursor).await, [(0, b"last".to_vec())]);
        }
        // Without records, too.
        let topic = broker.create("other", &settings).unwrap();
        let mut closing = Condition::default();
        closing.closes = true;
        publish_if(&topic, "", closing).await.unwrap();
        assert!(topic.is_closed());
    }
}

/// Several producers, each of which sends every append twice at least, from several tasks, while the broker is killed
/// again and again: each append is there once, in its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_append_is_there_once_whatever_happens() {
    const APPENDS: u64 = 60;
    let mut folder = folder();
    let settings = TopicSettings { durability: Some(Durability::Written), ..small() };
    drop(open(folder.path()).create("t", &settings).unwrap().created().await);
    for life in 0..4_u64 {
        let broker = open(folder.path());
        let topic = broker.topic("t").unwrap();
        let tasks = (0..6).map(|task| tokio::spawn(produce(topic.clone(), task % 3, life)));
        let next = match life {
            3 => None,
            _ => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some(killed(folder.path()))
            }
        };
        for task in tasks {
            task.await.unwrap();
        }
        drop((topic, broker));
        folder = next.unwrap_or(folder);
    }
    let topic = open(folder.path()).topic("t").unwrap();
    let mut cursor = topic.subscribe(Start::Earliest).unwrap();
    let all = read(&mut cursor, topic.log().next_offset() as usize).await;
    for producer in 0..3 {
        let of = |record: &[u8]| {
            let (id, seq) = std::str::from_utf8(record).unwrap().split_once(' ').unwrap();
            (id == producer.to_string()).then(|| seq.parse::<u64>().unwrap())
        };
        let seqs: Vec<_> = all.iter().filter_map(|(_, record)| of(record)).collect();
        assert_eq!(seqs, (0..APPENDS).collect::<Vec<_>>(), "producer {producer}");
    }

    async fn produce(topic: Arc<Topic>, producer: u64, life: u64) {
        let until = if life == 3 { APPENDS } else { APPENDS / 4 * (life + 1) };
        for seq in 0..until {
            loop {
                let record = format!("{producer} {seq}");
                match publish_if(&topic, &record, by(&producer.to_string(), 0, seq)).await {
                    Ok(_) => break,
                    Err(PublishError::Refused(Refusal::Duplicate { seq: last })) => {
                        assert!(last >= seq);
                        break;
                    }
                    // The other task of this producer sends the one before.
                    Err(PublishError::Refused(Refusal::Gap { .. })) => {
                        tokio::task::yield_now().await
                    }
                    Err(error) if error.is_full() => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn an_append_without_room_leaves_its_producer_where_it_was() {
    for overflow in [Overflow::Block, Overflow::Reject] {
        let folder = folder();
        let broker = open(folder.path());
        let settings = TopicSettings {
            overflow: Some(overflow),
            disk_limit: Some(4 << 20),
            durability: Some(Durability::Written),
            ..small()
        };
        let topic = broker.create("t", &settings).unwrap();
        let _holds = topic.subscribe(Start::Earliest).unwrap();
        let record = "x".repeat(3_000);
        let mut seq = 0;
        let error = loop {
            match publish_if(&topic, &record, by("p", 0, seq)).await {
                Ok(_) => seq += 1,
                Err(error) => break error,
            }
            assert!(seq < 4_000, "never full");
        };
        assert_eq!(
            error,
            PublishError::DiskLimit { limit: 4 << 20 },
            "{overflow}: it does not wait"
        );
        let skipped = publish_if(&topic, "x", by("p", 0, seq + 1)).await;
        let is_next = skipped == refused(Refusal::Gap { expected: seq })
            || skipped == Err(PublishError::DiskLimit { limit: 4 << 20 });
        assert!(is_next, "{skipped:?}");
        assert_eq!(topic.log().next_offset(), seq);
    }
}

/// Somebody publishes all the time, so the topic is never idle.
#[tokio::test]
async fn what_was_written_is_forced_within_a_second_although_more_comes_all_the_time() {
    let folder = folder();
    let broker = open(folder.path());
    let settings =
        TopicSettings { durability: Some(Durability::Written), ..TopicSettings::default() };
    let topic = broker.create("t", &settings).unwrap();
    let began = Instant::now();
    while topic.stored().unwrap().durable_offset == 0 {
        topic.append("record").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(30), "never forced");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn more_producers_than_there_is_room_for_are_refused() {
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let topic = broker.create("t", &TopicSettings::default()).unwrap();
    let record = Packed::new(&[1, 0, 0, 0], b"x").unwrap();
    for n in 0..1_024 {
        drop(topic.try_publish_if(record, by(&n.to_string(), 0, 0)).unwrap());
    }
    let error = topic.try_publish_if(record, by("one more", 0, 0)).unwrap_err();
    let too_many = Refusal::TooManyProducers { max: 1_024, scope: "in one topic" };
    assert_eq!(error, PublishError::Refused(too_many));
    drop(topic.try_publish_if(record, by("7", 0, 1)).unwrap());
    let long = "x".repeat(257);
    let error = topic.try_publish_if(record, by(&long, 0, 0)).unwrap_err();
    assert_eq!(error, PublishError::Refused(Refusal::TooLong));
}
