//! Many subscriptions over one connection to the real server, also through a line that breaks.
#![cfg(feature = "server")]

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use psa::client::*;
use tokio::time::timeout;

use crate::fake::client_of;
use crate::real::*;

const TOPICS: u64 = 200;

fn topic(index: u64) -> String {
    format!("topic {index}")
}

/// The number in a topic's record at an offset: any other place has another one.
fn number(index: u64, offset: u64) -> u64 {
    index * 100_000 + offset
}

async fn publish(client: &Client, index: u64, offsets: std::ops::Range<u64>) {
    let records: Vec<_> = offsets.map(|offset| numbered(number(index, offset))).collect();
    client.publish_batch(&topic(index), &records).await.unwrap();
}

/// Waits until the server has this many connections and subscriptions.
async fn settles_at(server: &Running, connections: usize, subscriptions: usize) {
    let settled = async {
        while (server.handle.connections(), server.handle.subscriptions())
            != (connections, subscriptions)
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if timeout(Duration::from_secs(10), settled).await.is_err() {
        panic!("{:?} instead of {connections} and {subscriptions}", server.handle);
    }
}

/// What was taken so far: the next number of each topic.
struct Taken {
    topics: BTreeMap<SubscriptionKey, (u64, u64)>,
}

impl Taken {
    fn record(&mut self, key: SubscriptionKey, offset: u64, data: &[u8]) {
        let (index, next) = self.topics.get_mut(&key).expect("a topic of this key");
        assert_eq!(offset, *next, "each record of topic {index} once, in order");
        assert_eq!(number_of(data), number(*index, offset));
        *next += 1;
    }

    fn sum(&self) -> u64 {
        self.topics.values().map(|(_, next)| next).sum()
    }
}

async fn event(set: &mut Subscriptions) -> (SubscriptionKey, Event) {
    let next = timeout(Duration::from_secs(20), set.next()).await;
    let (key, event) = next.expect("an event in time").expect("an event");
    (key, event.expect("no error"))
}

/// Adds all topics and takes `each` of their records, however often the connection breaks and the
/// future that waits is dropped.
async fn take_all(mut set: Subscriptions, each: u64, mut random: fastrand::Rng) -> Subscriptions {
    let mut taken = Taken { topics: BTreeMap::new() };
    for index in 0..TOPICS {
        let key = set.add_later(&topic(index), SubscribeOptions::earliest()).unwrap();
        taken.topics.insert(key, (index, 0));
    }
    while taken.sum() < TOPICS * each {
        let limit = match random.bool() {
            true => Duration::from_micros(random.u64(..400)),
            false => Duration::from_secs(20),
        };
        if random.bool() {
            match timeout(limit, set.next_batch()).await {
                Ok(Some((key, Ok(BatchEvent::Records(batch))))) => {
                    batch.iter().for_each(|(offset, data)| taken.record(key, offset, data));
                    let end = batch.position();
                    assert_eq!(set.position(key), Some(end));
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => assert!(limit.as_millis() < 10, "nothing comes"),
            }
        } else {
            match timeout(limit, set.next()).await {
                Ok(Some((key, Ok(Event::Record(record))))) => {
                    taken.record(key, record.offset(), record.data());
                    assert_eq!(set.position(key), Some(record.position()));
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => assert!(limit.as_millis() < 10, "nothing comes"),
            }
        }
    }
    for (key, (index, next)) in taken.topics {
        assert_eq!((set.topic(key), next), (Some(&*topic(index)), each));
        assert_eq!(set.position(key).unwrap().next, each);
    }
    set
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_topics_need_one_connection() {
    let server = serve(anywhere());
    let client = client_of(server.address).build().unwrap();
    for index in 0..TOPICS {
        client.create_topic(&topic(index), keep_all()).await.unwrap();
        publish(&client, index, 0..20).await;
    }
    let set = take_all(client.subscriptions(), 20, fastrand::Rng::with_seed(seed())).await;
    assert_eq!((set.len() as u64, set.reconnections()), (TOPICS, 0));
    // The client's own, one for publishing and one for everything else, go with it.
    drop(client);
    settles_at(&server, 1, TOPICS as usize).await;
    drop(set);
    settles_at(&server, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_comes_once_over_a_line_that_breaks() {
    const EACH: u64 = 60;
    let seed = seed();
    let server = serve(anywhere());
    let direct = client_of(server.address).build().unwrap();
    for index in 0..TOPICS {
        direct.create_topic(&topic(index), keep_all()).await.unwrap();
    }
    // All SUBSCRIBEs and their answers take some ten thousand bytes.
    let line = fragile_line(server.address, seed, 60_000).await;
    let set = client_of(line).build().unwrap().subscriptions();
    let taking = tokio::spawn(take_all(set, EACH, fastrand::Rng::with_seed(seed)));
    for first in (0..EACH).step_by(6) {
        for index in 0..TOPICS {
            publish(&direct, index, first..first + 6).await;
        }
    }
    let set = taking.await.unwrap();
    println!("{} reconnections", set.reconnections());
    assert!(set.reconnections() > 3);
}

/// On one thread, so that the server answers nothing while the client is polled once: with two, the answer can be there
/// between the write and the read of one and the same poll.
#[tokio::test]
async fn topics_come_and_go_while_the_others_run() {
    let server = serve(anywhere());
    let client = client_of(server.address).build().unwrap();
    for index in 0..4 {
        client.create_topic(&topic(index), keep_all()).await.unwrap();
        publish(&client, index, 0..3).await;
    }
    let mut set = client.subscriptions();
    assert!(set.next().await.is_none(), "nothing was added");
    let zero = set.add(&topic(0), SubscribeOptions::earliest()).await.unwrap();
    // What arrives while another one is added is not lost.
    let one = set.add(&topic(1), SubscribeOptions::next()).await.unwrap();
    assert_eq!(set.position(one).unwrap().next, 3);
    publish(&client, 1, 3..4).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (key, Event::Record(record)) = event(&mut set).await else { panic!() };
        seen.push((key, record.offset()));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(zero, 0), (zero, 1), (zero, 2), (one, 3)]);

    // Removed with records that were not taken, and with some that are half taken.
    let two = set.add(&topic(2), SubscribeOptions::earliest()).await.unwrap();
    let (key, Event::Record(_)) = event(&mut set).await else { panic!() };
    assert_eq!(key, two);
    set.remove(two);
    assert!(!set.contains(two) && set.position(two).is_none());
    assert_eq!(set.keys().collect::<Vec<_>>(), [zero, one]);
    let again = set.add(&topic(2), SubscribeOptions::last(1)).await.unwrap();
    assert_ne!(again, two);
    let (key, Event::Record(record)) = event(&mut set).await else { panic!() };
    assert_eq!((key, record.offset()), (again, 2));

    // Nobody waits for this one any more: it is as if it had never been added.
    let three = topic(3);
    let mut adding = Box::pin(set.add(&three, SubscribeOptions::earliest()));
    let polled = poll_fn(|cx| Poll::Ready(adding.as_mut().poll(cx))).await;
    assert!(polled.is_pending(), "nobody has answered: {polled:?}");
    drop(adding);
    assert_eq!(set.len(), 3);
    publish(&client, 3, 3..4).await;
    publish(&client, 0, 3..4).await;
    let (key, Event::Record(record)) = event(&mut set).await else { panic!() };
    assert_eq!((key, record.offset()), (zero, 3));
    drop(client);
    settles_at(&server, 1, 3).await;

    // The last one takes the connection along.
    for key in [zero, one, again] {
        set.remove(key);
    }
    assert!(set.is_empty() && set.next().await.is_none() && !set.is_connected());
    settles_at(&server, 0, 0).await;
    let zero = set.add(&topic(0), SubscribeOptions::last(1)).await.unwrap();
    let (key, Event::Record(record)) = event(&mut set).await else { panic!() };
    assert_eq!((key, record.offset()), (zero, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_of_one_topic_leaves_the_others() {
    let server = serve(anywhere());
    let client = client_of(server.address).build().unwrap();
    for index in 0..3 {
        client.create_topic(&topic(index), keep_all()).await.unwrap();
        publish(&client, index, 0..1).await;
    }
    let epoch = client.topics("").await.unwrap()[0].epoch;
    let mut set = client.subscriptions();
    let good = set.add(&topic(0), SubscribeOptions::earliest()).await.unwrap();
    let deleted = set.add(&topic(1), SubscribeOptions::next()).await.unwrap();
    // Refused: with the call, or under the key.
    let future = || SubscribeOptions::after(epoch, 7);
    let error = set.add(&topic(0), future()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Future));
    let refused = set.add_later(&topic(0), future()).unwrap();
    let wrong = SubscribeOptions::resume(Position { epoch: 1, next: 0 }).on_gap(OnGap::Error);
    let other_epoch = set.add_later(&topic(2), wrong).unwrap();
    let name = set.add_later("\n", SubscribeOptions::earliest()).unwrap_err();
    assert!(matches!(name, ClientError::Name(_)), "{name:?}");
    let (key, Event::Record(_)) = event(&mut set).await else { panic!() };
    assert_eq!(key, good);
    for (expected, code) in [(refused, Code::Future), (other_epoch, Code::WrongEpoch)] {
        let (key, error) = set.next().await.unwrap();
        assert_eq!((key, error.unwrap_err().code()), (expected, Some(code)));
        assert!(!set.contains(key));
    }
    client.delete_topic(&topic(1)).await.unwrap();
    let (key, Event::Closed { reason, .. }) = event(&mut set).await else { panic!() };
    assert_eq!((key, reason), (deleted, CloseReason::TopicDeleted));
    assert!(!set.contains(deleted));
    publish(&client, 0, 1..2).await;
    let (key, Event::Record(record)) = event(&mut set).await else { panic!() };
    assert_eq!((key, record.offset(), set.reconnections()), (good, 1, 0));
    // Nobody but the good one is left, here and there.
    assert_eq!(set.len(), 1);
    drop(client);
    settles_at(&server, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_another_epoch_for_each() {
    let mut server = serve(anywhere());
    let address = server.address;
    let client = client_of(address).build().unwrap();
    let mut set = client.subscriptions();
    let mut before = BTreeMap::new();
    for index in 0..20 {
        client.create_topic(&topic(index), keep_all()).await.unwrap();
        publish(&client, index, 0..2).await;
        let key = set.add(&topic(index), SubscribeOptions::earliest()).await.unwrap();
        before.insert(key, index);
    }
    for _ in 0..40 {
        event(&mut set).await;
    }
    let impatient = SubscribeOptions::next().give_up_after(Duration::ZERO);
    let impatient = set.add(&topic(0), impatient).await.unwrap();
    server.handle.drain();
    (&mut server.task).await.unwrap();
    // One gives up, the others wait.
    let (key, error) = set.next().await.unwrap();
    assert!(matches!(error, Err(ClientError::GaveUp { .. })), "{error:?}");
    assert_eq!(key, impatient);

    let server = serve(address);
    for index in 0..20 {
        publish(&client, index, 5..6).await;
    }
    let mut gaps = BTreeMap::new();
    for _ in 0..40 {
        match event(&mut set).await {
            (key, Event::Gap(gap)) => {
                assert_eq!((gap.reason, gap.first_missed), (GapReason::OtherEpoch, 2));
                assert_eq!(set.position(key), Some(Position { epoch: gap.epoch, next: gap.next }));
                assert!(gaps.insert(key, gap.epoch).is_none(), "one gap for each");
            }
            (key, Event::Record(record)) => {
                assert_eq!((record.epoch(), record.offset()), (gaps[&key], 0));
                assert_eq!(number_of(record.data()), number(before[&key], 5));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gaps.len(), 20);
    drop(server);
}

/// Commits of many leases on a line that breaks: the server has each where it was committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_many_get_through_a_line_that_breaks() {
    const LEASES: u64 = 10;
    const EACH: u64 = 500;
    let server = serve(anywhere());
    let direct = client_of(server.address).build().unwrap();
    let settings = Settings { retention: Some(Retention::Nothing), ..Settings::default() };
    // What was not committed comes again each time, for all of them: that must fit a connection.
    let line = fragile_line(server.address, seed(), 100_000).await;
    let mut set = client_of(line).build().unwrap().subscriptions();
    let mut taken = Taken { topics: BTreeMap::new() };
    for index in 0..LEASES {
        direct.create_topic(&topic(index), settings).await.unwrap();
        let lease = LeaseOptions::new("desk", Duration::from_secs(60)).take_over();
        let key = set.add_later(&topic(index), SubscribeOptions::earliest().lease(lease)).unwrap();
        assert!(matches!(set.commit_later(key, ..), Err(ClientError::Commit { .. })));
        taken.topics.insert(key, (index, 0));
    }
    let publishing = tokio::spawn(async move {
        // Nothing is kept for a lease that does not exist yet.
        settles_at(&server, 2, LEASES as usize).await;
        for index in 0..LEASES {
            publish(&direct, index, 0..EACH).await;
            direct.close_topic(&topic(index)).await.unwrap();
        }
        (server, direct)
    });
    let mut closed = 0;
    while closed < LEASES {
        match event(&mut set).await {
            (key, Event::Record(record)) => {
                let offset = record.offset();
                taken.record(key, offset, record.data());
                match offset % 20 {
                    9 if offset % 100 == 9 => {
                        set.commit(key, ..=offset).await.unwrap();
                        assert_eq!(set.committed(key), Some(offset + 1));
                    }
                    19 => set.commit_later(key, ..=offset).unwrap(),
                    _ => {}
                }
            }
            (_, Event::Closed { reason: CloseReason::TopicClosed, next: EACH }) => closed += 1,
            other => panic!("{other:?}"),
        }
    }
    // They stay for the last commits, over a new connection if need be.
    while set.next().await.is_some() {}
    let (_server, direct) = publishing.await.unwrap();
    let keys: Vec<_> = set.keys().collect();
    assert_eq!((keys.len() as u64, taken.sum()), (LEASES, LEASES * EACH));
    println!("{} reconnections", set.reconnections());
    assert!(set.reconnections() > 3);
    for (index, key) in keys.iter().enumerate() {
        set.commit(*key, ..).await.unwrap();
        let details = direct.describe(&topic(index as u64)).await.unwrap();
        assert_eq!(details.leases[0].committed, EACH);
        set.release(*key);
    }
    assert!(set.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leaves_with_its_commits_and_its_lease() {
    let server = serve(anywhere());
    let client = client_of(server.address).build().unwrap();
    let mut set = client.subscriptions();
    let mut keys = Vec::new();
    for index in 0..2 {
        client.create_topic(&topic(index), keep_all()).await.unwrap();
        publish(&client, index, 0..2).await;
        let lease = LeaseOptions::new("desk", Duration::from_secs(60));
        let options = SubscribeOptions::earliest().lease(lease);
        keys.push(set.add(&topic(index), options).await.unwrap());
    }
    for _ in 0..4 {
        event(&mut set).await;
    }
    for key in keys {
        set.commit_later(key, ..).unwrap();
        match set.topic(key) == Some(&*topic(0)) {
            true => set.remove(key),
            false => set.release(key),
        }
    }
    assert!(set.next().await.is_none());
    let leases = client.describe(&topic(0)).await.unwrap().leases;
    assert_eq!((leases[0].committed, leases[0].held), (2, false));
    assert!(client.describe(&topic(1)).await.unwrap().leases.is_empty());
}
