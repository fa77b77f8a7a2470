//! Unit tests of the broker.

use std::time::{Duration, SystemTime};

use super::*;
use crate::log::{LeaseError, LeaseOptions, Limit, Overflow, Packed, ReadError, Retention, Start};

fn broker(change: impl FnOnce(&mut BrokerConfig)) -> Broker {
    let mut config = BrokerConfig::default();
    change(&mut config);
    Broker::new(config).unwrap()
}

fn lease(ttl: Duration) -> LeaseOptions {
    LeaseOptions { ttl, start: Start::Earliest, take_over: false }
}

/// Waits for something that housekeeping does at its own time; fails if it does not happen within 20 s.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn a_name_is_made_once_and_found_again() {
    let broker = broker(|_| {});
    let made = broker.create("a", &TopicSettings::default()).unwrap();
    let found = broker.open("a", Purpose::Publish).unwrap();
    assert_eq!(made.log().epoch(), found.log().epoch());
    assert_eq!(
        broker.create("a", &TopicSettings::default()).unwrap_err(),
        BrokerError::TopicExists { name: "a".into() }
    );
    let (_, made) = broker.create_or_get("a", &TopicSettings::default()).unwrap();
    assert!(!made);
}

#[test]
fn a_missing_topic_is_made_only_where_that_is_allowed() {
    let broker = broker(|c| c.create_on_subscribe = false);
    let error = broker.open("a", Purpose::Subscribe).unwrap_err();
    assert_eq!(error, BrokerError::UnknownTopic { name: "a".into() });
    broker.open("a", Purpose::Publish).unwrap();
    broker.open("a", Purpose::Subscribe).unwrap();
}

#[test]
fn bad_names_are_refused_for_topics_and_leases() {
    let broker = broker(|_| {});
    let long = "x".repeat(256);
    for name in ["", "a\nb", "a\u{7f}", long.as_str()] {
        let error = broker.open(name, Purpose::Publish).unwrap_err();
        assert!(matches!(error, BrokerError::BadName { .. }), "{name:?}");
    }
    let topic = broker.open(&long[1..], Purpose::Publish).unwrap();
    let refused = topic.lease("a\tb", LeaseOptions::default()).unwrap_err();
    assert!(matches!(refused, LeaseOpenError::Name(BrokerError::BadName { .. })));
}

#[test]
fn patterns_are_not_names_of_topics() {
    // Both with and without permission to create topics.
    for makes in [true, false] {
        let broker = broker(|c| (c.create_on_publish, c.create_on_subscribe) = (makes, makes));
        for name in ["*", "news.*", "news*", "*.eu", ">", "news.>", "news/>", "news:>"] {
            for refused in [
                broker.create(name, &TopicSettings::default()).unwrap_err(),
                broker.open(name, Purpose::Publish).unwrap_err(),
                broker.open(name, Purpose::Subscribe).unwrap_err(),
            ] {
                assert!(matches!(refused, BrokerError::BadName { .. }), "{name}: {refused}");
                assert!(refused.to_string().contains("patterns, which do not exist yet"));
            }
        }
        for name in ["a>b", "<b>", "->", "news.>.eu"] {
            broker.create(name, &TopicSettings::default()).unwrap();
        }
        let topic = broker.topic("a>b").unwrap();
        topic.lease("*", LeaseOptions::default()).unwrap();
    }
}

#[test]
fn the_number_of_topics_is_limited_and_a_deleted_one_makes_room() {
    let broker = broker(|c| c.max_topics = 2);
    broker.open("a", Purpose::Publish).unwrap();
    broker.open("b", Purpose::Publish).unwrap();
    let error = broker.open("c", Purpose::Publish).unwrap_err();
    assert_eq!(error, BrokerError::TooManyTopics { max: 2 });
    broker.delete("a").unwrap();
    broker.open("c", Purpose::Publish).unwrap();
    assert_eq!(broker.delete("a").unwrap_err(), BrokerError::UnknownTopic { name: "a".into() });
}

#[test]
fn settings_are_checked_against_the_limits_and_one_another() {
    let broker = broker(|c| {
        c.topic_bytes = 1 << 20;
        c.max_topic_bytes = 2 << 20;
    });
    let refused = |settings: TopicSettings| match broker.create("a", &settings).unwrap_err() {
        BrokerError::BadSettings { what } => what,
        other => panic!("{other}"),
    };
    let none = TopicSettings::default();
    assert!(
        refused(TopicSettings { memory_limit: Some(3 << 20), ..none }).contains("max_topic_bytes")
    );
    assert!(refused(TopicSettings { segment_bytes: Some(1), ..none }).contains("segment"));
    let keep = Some(Retention::Bytes(2 << 20));
    assert!(refused(TopicSettings { retention: keep, ..none }).contains("retention"));
    assert_eq!(broker.topics(), 0);
    // This combination is allowed: at its limit, a topic that blocks frees what only retention keeps.
    let all = TopicSettings {
        retention: Some(Retention::Everything),
        overflow: Some(Overflow::Block),
        ..none
    };
    broker.create("everything", &all).unwrap();
    // A small limit alone is no contradiction, because the defaults adapt to it.
    let small = TopicSettings { memory_limit: Some(64 << 10), ..none };
    let topic = broker.create("a", &small).unwrap();
    assert!(topic.settings().segment_bytes <= 16 << 10);
    assert_eq!(topic.log().stats().memory_limit, Some(64 << 10));
}

#[test]
fn a_bad_configuration_is_refused() {
    for (change, word) in [
        ((|c| c.max_topics = 0) as fn(&mut BrokerConfig), "max_topics"),
        (|c| c.max_bytes = 0, "max_bytes"),
        (|c| c.topic_bytes = c.max_topic_bytes + 1, "topic_bytes"),
        (|c| c.segment_bytes = 1, "segment"),
    ] {
        let mut config = BrokerConfig::default();
        change(&mut config);
        let error = Broker::new(config).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn topics_share_one_budget_and_give_it_back() {
    let broker = broker(|c| {
        c.max_bytes = 1 << 20;
        c.topic_bytes = 1 << 20;
        c.segment_bytes = 64 << 10;
        c.retention = Retention::Everything;
        c.overflow = Overflow::Reject;
    });
    let a = broker.open("a", Purpose::Publish).unwrap();
    let record = [7; 1 << 10];
    let mut appended = 0;
    while a.memory().unwrap().try_append(record).is_ok() {
        appended += 1;
    }
    assert!(appended > 500, "{appended}");
    assert!(broker.budget().used() <= 1 << 20);
    // The other topic has room within its own limit, but not in the budget.
    match broker.open("b", Purpose::Publish) {
        Ok(b) => while b.memory().unwrap().try_append(record).is_ok() {},
        Err(error) => assert_eq!(error, BrokerError::BudgetExhausted { limit: 1 << 20 }),
    }
    assert!(broker.budget().used() <= 1 << 20);
    let _ = broker.delete("b");
    broker.delete("a").unwrap();
    drop(a);
    assert_eq!(broker.budget().used(), 0);
}

#[test]
fn a_deleted_topic_wakes_and_ends_who_follows_it() {
    let broker = broker(|_| {});
    let topic = broker.open("a", Purpose::Publish).unwrap();
    let mut cursor = topic.log().subscribe(Start::Next).unwrap();
    let waiting = std::thread::spawn(move || cursor.blocking_next(|_| ()).unwrap_err());
    broker.delete("a").unwrap();
    assert_eq!(waiting.join().unwrap(), ReadError::Closed);
    assert!(topic.is_deleted());
    let again = broker.open("a", Purpose::Publish).unwrap();
    assert_ne!(again.log().epoch(), topic.log().epoch());
}

#[test]
fn a_closed_topic_keeps_its_name_and_drains() {
    let broker = broker(|_| {});
    let topic = broker.open("a", Purpose::Publish).unwrap();
    topic.blocking_append(b"x").unwrap();
    broker.close("a").unwrap();
    broker.close("a").unwrap();
    let found = broker.open("a", Purpose::Publish).unwrap();
    assert!(found.blocking_append(b"y").is_err());
    let mut cursor = found.log().subscribe(Start::Earliest).unwrap();
    assert_eq!(cursor.try_next(|batch| batch.payload().to_vec()), Ok(Some(b"x".to_vec())));
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
}

#[test]
fn a_shut_broker_makes_nothing_and_takes_nothing() {
    let broker = broker(|_| {});
    let topic = broker.open("a", Purpose::Publish).unwrap();
    broker.shut();
    broker.shut();
    assert!(topic.blocking_append(b"x").is_err());
    assert_eq!(broker.open("b", Purpose::Publish).unwrap_err(), BrokerError::Shut);
}

#[test]
fn a_list_goes_on_where_it_stopped() {
    let broker = broker(|_| {});
    for name in ["b/1", "a/2", "a/1", "a/3", "c"] {
        broker.open(name, Purpose::Publish).unwrap();
    }
    let names = |prefix: &str, after: Option<&str>, max| {
        let found = broker.list(prefix, after, max);
        found.iter().map(|t| t.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names("", None, 10), ["a/1", "a/2", "a/3", "b/1", "c"]);
    assert_eq!(names("a/", None, 2), ["a/1", "a/2"]);
    assert_eq!(names("a/", Some("a/2"), 2), ["a/3"]);
    assert_eq!(names("b", Some("a/2"), 2), ["b/1"]);
    assert_eq!(names("d", None, 2), [""; 0]);
}

#[test]
fn leases_are_limited_by_topic_and_in_total() {
    let broker = broker(|c| {
        c.max_leases_per_topic = 2;
        c.max_leases = 3;
    });
    let ttl = Duration::from_secs(600);
    let a = broker.open("a", Purpose::Publish).unwrap();
    let b = broker.open("b", Purpose::Publish).unwrap();
    let one = a.lease("1", lease(ttl)).unwrap();
    let _two = a.lease("2", lease(ttl)).unwrap();
    let setting = |error| match error {
        LeaseOpenError::TooMany { setting, .. } => setting,
        other => panic!("{other}"),
    };
    assert_eq!(setting(a.lease("3", lease(ttl)).unwrap_err()), "max_leases_per_topic");
    let _three = b.lease("1", lease(ttl)).unwrap();
    assert_eq!(setting(b.lease("2", lease(ttl)).unwrap_err()), "max_leases");
    // A detached lease still counts, and can be opened again at the limit.
    drop(one);
    assert_eq!(broker.leases(), 3);
    let one = a.lease("1", lease(ttl)).unwrap();
    let held = a.lease("1", lease(ttl)).unwrap_err();
    assert!(matches!(held, LeaseOpenError::Log(LeaseError::Held { .. })));
    one.release();
    assert_eq!(broker.leases(), 2);
    b.lease("2", lease(ttl)).unwrap();
    broker.delete("a").unwrap();
    assert_eq!(broker.leases(), 2);
}

#[test]
fn a_lease_lives_no_longer_than_the_broker_allows() {
    let broker = broker(|c| c.max_lease_ttl = Duration::from_secs(1));
    let topic = broker.open("a", Purpose::Publish).unwrap();
    drop(topic.lease("1", lease(Duration::from_secs(3600))).unwrap());
    let left = topic.describe().1[0].expires_in.unwrap();
    assert!(left <= Duration::from_secs(1), "{left:?}");
}

#[tokio::test]
async fn a_detached_lease_expires_at_its_time_and_frees_what_it_held() {
    let broker = broker(|c| {
        c.segment_bytes = 4 << 10;
        c.retention = Retention::Nothing;
    });
    let keeping = broker.clone();
    let keeping = tokio::spawn(async move { keeping.housekeeping().await });
    let topic = broker.open("a", Purpose::Publish).unwrap();
    let mut held = topic.lease("1", lease(Duration::from_millis(80))).unwrap();
    for _ in 0..100 {
        topic.blocking_append([1; 1 << 10]).unwrap();
    }
    // The records are read but not committed, so they are still kept.
    while held
        .peek(Limit { records: usize::MAX, bytes: usize::MAX }, |batch| batch.len())
        .unwrap()
        .map(|seen| held.advance(seen))
        .is_some()
    {}
    let before = topic.log().stats();
    assert!(before.live_segments > 20, "{before:?}");
    let detached = std::time::Instant::now();
    drop(held);
    until("the lease expires", || topic.log().stats().leases == 0).await;
    assert!(detached.elapsed() >= Duration::from_millis(80));
    until("its memory is free", || topic.log().stats().live_segments == 1).await;
    assert_eq!(broker.leases(), 0);
    keeping.abort();
}

#[tokio::test]
async fn records_pass_their_age_without_any_traffic() {
    let age = Duration::from_millis(60);
    let broker = broker(|c| {
        c.segment_bytes = 4 << 10;
        c.retention = Retention::Age(age);
    });
    let keeping = broker.clone();
    let keeping = tokio::spawn(async move { keeping.housekeeping().await });
    let topic = broker.open("a", Purpose::Publish).unwrap();
    // The topic is idle at first, for longer than the age; housekeeping must not forget it.
    tokio::time::sleep(3 * age).await;
    for _ in 0..100 {
        topic.blocking_append([1; 1 << 10]).unwrap();
    }
    assert!(topic.log().stats().live_segments > 20);
    until("the records pass their age", || topic.log().stats().live_segments <= 2).await;
    keeping.abort();
}

/// However many topics subscribers create, publishers keep the topics and memory that they need.
#[test]
fn topics_of_subscribers_alone_take_a_part_of_topics_and_memory() {
    let broker = broker(|c| {
        c.max_bytes = 64 << 20;
        c.segment_bytes = 256 << 10;
    });
    let mut made = 0;
    let refused = loop {
        match broker.open(&format!("nobody-{made}"), Purpose::Subscribe) {
            Ok(_) => made += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, BrokerError::TooManyUnpublished { max: made });
    assert!(refused.to_string().contains("limit.memory"), "{refused}");
    assert!(broker.budget().used() <= broker.budget().limit() / 3, "{:?}", broker.budget());
    // Publishers are not affected, over many segments.
    let healthy = broker.open("healthy", Purpose::Publish).unwrap();
    for _ in 0..4_000 {
        healthy.memory().unwrap().try_append([0; 1_000]).unwrap();
    }
    assert!(healthy.log().stats().live_segments > 1);
    // A topic that somebody publishes to no longer counts.
    let waiting = broker.topic("nobody-0").unwrap();
    waiting.blocking_append(b"at last").unwrap();
    broker.open("one-more", Purpose::Subscribe).unwrap();
    assert!(broker.open("two-more", Purpose::Subscribe).is_err());
    // A topic that is created explicitly does not count at all.
    broker.create("two-more", &TopicSettings::default()).unwrap();
    broker.open("two-more", Purpose::Subscribe).unwrap();
}

#[test]
fn the_part_of_subscribers_is_also_one_of_the_number() {
    let broker = broker(|c| c.max_topics = 100);
    let made = (0..100).filter(|n| broker.open(&n.to_string(), Purpose::Subscribe).is_ok()).count();
    assert_eq!(made, 25);
    // On a small server, the share does not apply.
    let broker = super::tests::broker(|c| c.max_topics = 16);
    let made = (0..100).filter(|n| broker.open(&n.to_string(), Purpose::Subscribe).is_ok()).count();
    assert_eq!(made, 16);
}

#[test]
fn a_topic_that_only_subscribers_wanted_goes_with_them() {
    let broker = broker(|_| {});
    let abandoned = |topic: &Arc<Topic>| topic.check_abandoned();
    let topic = broker.open("a", Purpose::Subscribe).unwrap();
    let cursor = topic.log().subscribe(Start::Next).unwrap();
    assert!(!abandoned(&topic) && !abandoned(&topic), "it is used");
    drop(cursor);
    assert!(!abandoned(&topic), "somebody may come back");
    let cursor = topic.log().subscribe(Start::Next).unwrap();
    assert!(!abandoned(&topic));
    drop(cursor);
    assert!(!abandoned(&topic) && abandoned(&topic));
    let handle = topic.clone();
    assert!(!broker.delete_if_unused(&topic), "somebody has it");
    drop(handle);
    assert!(broker.delete_if_unused(&topic) && broker.topic("a").is_none());

    // Each of these keeps the topic.
    let wanted: [fn(&Broker, &Arc<Topic>); 5] = [
        |_, topic| {
            topic.blocking_append(b"x").unwrap();
        },
        |broker, _| drop(broker.open("b", Purpose::Publish).unwrap()),
        |broker, _| drop(broker.create_or_get("b", &TopicSettings::default()).unwrap()),
        |broker, _| broker.close("b").unwrap(),
        |_, topic| drop(topic.lease("l", lease(Duration::from_secs(600))).unwrap()),
    ];
    for want in wanted {
        let topic = broker.open("b", Purpose::Subscribe).unwrap();
        want(&broker, &topic);
        assert!(!abandoned(&topic) && !abandoned(&topic));
        broker.delete("b").unwrap();
    }
    let made = broker.open("b", Purpose::Publish).unwrap();
    assert!(!abandoned(&made) && !abandoned(&made), "a publisher made it");
}

/// A request that fails takes back the topic that it created, but not from those that have used it meanwhile.
#[test]
fn a_topic_with_a_record_a_claim_or_a_cursor_is_not_taken_back() {
    let broker = broker(|_| {});
    let used: [fn(&Broker); 3] = [
        |broker| {
            let topic = broker.open("a", Purpose::Publish).unwrap();
            topic.blocking_append(b"acknowledged").unwrap();
        },
        |broker| {
            let topic = broker.topic("a").unwrap();
            topic.blocking_append(b"acknowledged").unwrap();
        },
        |broker| drop(broker.create_or_get("a", &TopicSettings::default()).unwrap()),
    ];
    for used in used {
        let topic = broker.open("a", Purpose::Subscribe).unwrap();
        used(&broker);
        assert!(!broker.delete_if_unused(&topic) && broker.topic("a").is_some());
        broker.delete("a").unwrap();
    }
    let topic = broker.open("a", Purpose::Subscribe).unwrap();
    let cursor = broker.topic("a").unwrap().log().subscribe(Start::Next).unwrap();
    assert!(!broker.delete_if_unused(&topic));
    drop(cursor);
    assert!(broker.delete_if_unused(&topic) && broker.topic("a").is_none());
}

/// Of two that do the housekeeping, either one may end: the other one is there.
#[tokio::test]
async fn housekeeping_outlives_another_one() {
    for ends in 0..2 {
        let broker = broker(|_| {});
        let keep = |broker: &Broker| {
            let broker = broker.clone();
            tokio::spawn(async move { broker.housekeeping().await })
        };
        let keepers = [keep(&broker), keep(&broker)];
        tokio::time::sleep(Duration::from_millis(20)).await;
        let topic = broker.open("a", Purpose::Publish).unwrap();
        drop(topic.lease("l", lease(Duration::from_millis(200))).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
        keepers[ends].abort();
        let expired = async {
            while topic.log().stats().leases > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), expired).await.expect("the lease expires");
        keepers[1 - ends].abort();
    }
}

#[test]
fn an_age_of_nothing_costs_no_processor() {
    let broker = broker(|c| {
        c.retention = Retention::Age(Duration::from_millis(1));
        c.segment_bytes = 4 << 10;
    });
    let topic = broker.open("a", Purpose::Publish).unwrap();
    let wait = || broker.maintain().unwrap();
    assert!(wait() > Duration::from_millis(500), "nothing is there: {:?}", wait());
    for _ in 0..100 {
        topic.blocking_append([0; 1 << 10]).unwrap();
    }
    // Records expire all the time, but the topic is checked only a few times a second.
    topic.due().take();
    broker.inner.schedule.at(&topic, Duration::ZERO);
    eventually_due(&broker);
    assert!(wait() > Duration::from_millis(100), "{:?}", wait());
}

/// Runs maintenance until nothing is due now.
fn eventually_due(broker: &Broker) {
    while broker.maintain().is_some_and(|after| after <= Duration::from_millis(5)) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_and_its_topics_go_by_the_clock_that_a_test_pauses() {
    const HOUR: Duration = Duration::from_secs(3600);
    let broker = broker(|c| {
        c.retention = Retention::Age(HOUR);
        c.segment_bytes = 4 << 10;
        c.max_lease_ttl = 3 * HOUR;
    });
    let topic = broker.open("a", Purpose::Publish).unwrap();
    let keeper = broker.clone();
    let housekeeping = tokio::spawn(async move { keeper.housekeeping().await });
    let began = topic.log().clock_nanos();
    for _ in 0..10 {
        topic.blocking_append([0; 1 << 10]).unwrap();
    }
    let options = LeaseOptions { start: Start::Next, ..lease(2 * HOUR) };
    drop(topic.lease("l", options).unwrap());

    tokio::time::sleep(HOUR - Duration::from_secs(1)).await;
    assert_eq!((topic.log().first_offset(), topic.log().stats().leases), (0, 1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((topic.log().first_offset(), topic.log().stats().leases), (8, 1));
    tokio::time::sleep(HOUR).await;
    assert_eq!(topic.log().stats().leases, 0);

    topic.blocking_append([0; 1 << 10]).unwrap();
    let mut cursor = topic.log().subscribe(Start::Next).unwrap();
    topic.blocking_append([1; 8 << 10]).unwrap();
    let appended = cursor.next(|batch| batch.append_nanos()).await.unwrap();
    let passed = Duration::from_nanos(appended - began).as_secs_f64() / HOUR.as_secs_f64();
    assert!((1.99..2.01).contains(&passed), "{passed} hours");
    housekeeping.abort();
}

/// By the system's clock, where records may share the time of one before them.
#[test]
fn a_start_by_time_is_never_too_late_and_a_second_early_at_most() {
    const SECOND: Duration = Duration::from_secs(1);
    let broker = broker(|c| c.retention = Retention::Everything);
    let topic = broker.open("a", Purpose::Publish).unwrap();
    let mut moments = Vec::new();
    for n in 0..500_u64 {
        // Now and then a pause: shorter than records share a time for, and longer.
        match n % 100 {
            30 => std::thread::sleep(Duration::from_millis(20)),
            70 => std::thread::sleep(Duration::from_millis(150)),
            _ => {}
        }
        let before = SystemTime::now();
        topic.blocking_append(n.to_le_bytes()).unwrap();
        moments.push((before, SystemTime::now()));
    }
    let mut cursor = topic.log().subscribe(Start::Earliest).unwrap();
    let mut times = Vec::new();
    while times.len() < moments.len() {
        let taken = cursor.try_next(|batch| {
            let nanos = (0..batch.len()).map(|i| batch.append_nanos_of(i));
            times.extend(nanos.map(|n| SystemTime::UNIX_EPOCH + Duration::from_nanos(n)));
        });
        taken.unwrap();
    }
    for (n, (time, (before, after))) in times.iter().zip(&moments).enumerate() {
        assert!(time <= after && *time + SECOND >= *before, "{n}: {time:?} {before:?}");
        let since = topic.log().subscribe(Start::Since(*before)).unwrap().offset() as usize;
        assert!(since <= n, "record {n} is left out: it begins with {since}");
        assert!(moments[since].1 + SECOND >= *before, "{n}: it begins with {since}");
    }
    // At least one in 64 has its own.
    assert!(times.windows(65).all(|times| times[0] < times[64]), "{times:?}");
}

#[cfg(feature = "http")]
#[tokio::test]
async fn a_topic_that_was_not_completed_is_none_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Broker::with_folder(BrokerConfig::default(), folder.path()).unwrap();
    for completes in [false, true] {
        let broker = open();
        let creation = Creation { about: b"about".to_vec(), complete: false };
        let settings = TopicSettings::default();
        let (topic, created) = broker.create_or_get_with("t", &settings, creation).unwrap();
        assert!(created);
        if completes {
            let record = Packed::new(&[1, 0, 0, 0], b"x").unwrap();
            let begun = topic.try_publish_if(record, Condition::completes(false));
            assert_eq!(begun.unwrap().await, Ok(0..1));
            topic.created().await.unwrap();
        } else {
            // Nobody is told that it exists.
            let told = tokio::time::timeout(Duration::from_millis(100), topic.created()).await;
            assert!(told.is_err());
        }
        drop((topic, broker));
        let topic = open().topic("t");
        assert_eq!(topic.is_some(), completes);
        assert!(topic.is_none_or(|topic| topic.about() == b"about"));
    }
}
