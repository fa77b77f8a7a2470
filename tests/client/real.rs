//! The client against the real server, through a line that breaks.
#![cfg(feature = "server")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use psa::client::*;
use psa::server::{Server, ServerConfig, ServerHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::fake::client_of;

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: ServerHandle,
    pub(crate) task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

pub(crate) fn serve(address: SocketAddr) -> Running {
    let mut config = ServerConfig { listen: address, ..ServerConfig::default() };
    // A chunk that is cut comes again as a whole: on a line that breaks it must be smaller than
    // what a connection lives to carry.
    config.limits.chunk_bytes = 4 << 10;
    let server = Server::bind(config).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    Running { address, handle, task: tokio::spawn(server.run(std::future::pending())) }
}

pub(crate) fn keep_all() -> Settings {
    let (overflow, retention) = (Some(Overflow::Reject), Some(Retention::Everything));
    Settings { overflow, retention, ..Settings::default() }
}

pub(crate) fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn seed() -> u64 {
    let seed =
        std::env::var("PSA_TEST_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    println!("PSA_TEST_SEED={seed}");
    seed
}

/// A line to `server` on which every connection breaks after a random number of bytes, below
/// `most`, in either direction.
pub(crate) async fn fragile_line(server: SocketAddr, seed: u64, most: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (up, down) = (random.u64(100..most), random.u64(100..most));
            tokio::spawn(async move {
                let Ok(far) = TcpStream::connect(server).await else { return };
                // Small pieces must not wait for one another's acknowledgement.
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                // The first direction that ends takes the other with it.
                tokio::select! {
                    () = carry(near_in, far_out, up) => {}
                    () = carry(far_in, near_out, down) => {}
                }
            });
        }
    });
    address
}

/// A line to a server that breaks when it is told to.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    cuts: tokio::sync::watch::Sender<()>,
}

impl Line {
    /// Breaks every connection that there is, and returns when they are gone: what is sent afterwards does not get
    /// through by chance. Nobody may connect meanwhile.
    pub(crate) async fn cut(&self) {
        self.cuts.send_replace(());
        // Each connection has a receiver, and so has the listener.
        while self.cuts.receiver_count() > 1 {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) async fn breakable_line(server: SocketAddr) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cuts = tokio::sync::watch::Sender::new(());
    let cut = cuts.subscribe();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut cut = cut.clone();
            cut.mark_unchanged();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(server).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cut.changed() => {}
                }
                drop((near, far));
                drop(cut);
            });
        }
    });
    Line { address, cuts }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut left: u64,
) {
    // A little at a time and not too fast, so that the other direction gets a word in.
    let mut buffer = vec![0; 4 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let now = (count as u64).min(left) as usize;
        if to.write_all(&buffer[..now]).await.is_err() {
            return;
        }
        left -= now as u64;
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// A record of any length that names itself.
pub(crate) fn numbered(number: u64) -> Vec<u8> {
    let mut record = number.to_le_bytes().to_vec();
    record.resize(8 + (number * 37 % 200) as usize, number as u8);
    record
}

pub(crate) fn number_of(record: &[u8]) -> u64 {
    let number = u64::from_le_bytes(record[..8].try_into().unwrap());
    assert_eq!(record, numbered(number), "a record came changed");
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_end_to_end() {
    let server = serve(anywhere());
    let client = client_of(server.address).connect().await.unwrap();
    let settings = keep_all();
    client.create_topic("news", settings).await.unwrap();
    let exists = client.create_topic("news", settings).await.unwrap_err();
    assert_eq!(exists.code(), Some(Code::TopicExists));
    client.ensure_topic("news", settings).await.unwrap();

    let began = SystemTime::now() - Duration::from_secs(1);
    let one = client.publish("news", &numbered(0)).await.unwrap();
    assert_eq!(one.offsets(), 0..1);
    let more = client.publish_batch("news", &[numbered(1), numbered(2)]).await.unwrap();
    assert_eq!((more.epoch, more.offsets()), (one.epoch, 1..3));
    let publisher = client.publisher("news", PublisherOptions::default()).await.unwrap();
    for number in 3..20_000 {
        drop(publisher.send(&numbered(number)).await.unwrap());
    }
    publisher.flush().await.unwrap();

    let topics = client.topics("").await.unwrap();
    assert_eq!(topics.len(), 1);
    assert_eq!((topics[0].name.as_str(), topics[0].next), ("news", 20_000));
    assert_eq!(topics[0].epoch, one.epoch);
    let details = client.describe("news").await.unwrap();
    assert_eq!(details.settings.retention, Some(Retention::Everything));
    assert_eq!(details.stats.appended_records, 20_000);

    let options = SubscribeOptions::earliest().caught_up();
    let mut news = client.subscribe("news", options).await.unwrap();
    let mut expected = 0;
    loop {
        match news.next().await.unwrap().unwrap() {
            Event::Record(record) => {
                assert_eq!((record.offset(), number_of(record.data())), (expected, expected));
                assert_eq!(record.epoch(), one.epoch);
                assert!(record.time() > began && record.time() <= SystemTime::now());
                expected += 1;
            }
            Event::CaughtUp { next } => {
                assert_eq!(next, expected);
                if expected == 20_000 {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    client.close_topic("news").await.unwrap();
    let end = news.next().await.unwrap().unwrap();
    assert!(
        matches!(end, Event::Closed { reason: CloseReason::TopicClosed, next: 20_000 }),
        "{end:?}"
    );
    let closed = client.publish("news", b"late").await.unwrap_err();
    assert_eq!(closed.code(), Some(Code::TopicClosed));
    // Another one goes on where that one stood: there is nothing but the end.
    let mut again =
        client.subscribe("news", SubscribeOptions::resume(news.position())).await.unwrap();
    let end = again.next().await.unwrap().unwrap();
    assert!(matches!(end, Event::Closed { next: 20_000, .. }), "{end:?}");
    client.delete_topic("news").await.unwrap();
    assert!(client.topics("").await.unwrap().is_empty());
}

/// Subscribers and a publisher on lines that break all the time. What each publish was said to
/// have come to must be the truth, and every subscriber sees the topic exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_true_and_resuming_is_exact_on_a_line_that_breaks() {
    const PUBLISHES: u64 = 3_000;
    let seed = seed();
    let server = serve(anywhere());
    let direct = client_of(server.address).build().unwrap();
    let settings = keep_all();
    direct.create_topic("news", settings).await.unwrap();
    let line = fragile_line(server.address, seed, 40_000).await;
    let client = client_of(line).build().unwrap();

    let mut followers = Vec::new();
    for batches in [false, true] {
        // Subscribing itself may meet a break.
        let mut news = loop {
            match client.subscribe("news", SubscribeOptions::earliest()).await {
                Ok(news) => break news,
                Err(error) => assert!(matches!(error, ClientError::Io { .. }), "{error:?}"),
            }
        };
        followers.push(tokio::spawn(async move {
            let mut numbers = Vec::new();
            let mut take = |offset: u64, data: &[u8]| {
                assert_eq!(offset, numbers.len() as u64, "each offset once, in order");
                numbers.push(number_of(data));
            };
            loop {
                if batches {
                    match news.next_batch().await.unwrap().unwrap() {
                        BatchEvent::Records(batch) => batch.iter().for_each(|(o, d)| take(o, d)),
                        BatchEvent::Closed { .. } => break,
                        other => panic!("{other:?}"),
                    }
                } else {
                    match news.next().await.unwrap().unwrap() {
                        Event::Record(record) => take(record.offset(), record.data()),
                        Event::Closed { .. } => break,
                        other => panic!("{other:?}"),
                    }
                }
            }
            (numbers, news.reconnections())
        }));
    }

    let mut publisher = loop {
        let options = PublisherOptions { max_in_flight: 32, ..PublisherOptions::default() };
        match client.publisher("news", options).await {
            Ok(publisher) => break publisher,
            Err(error) => assert!(matches!(error, ClientError::Io { .. }), "{error:?}"),
        }
    };
    let mut tickets = Vec::new();
    let (mut breaks, mut number) = (0, 0);
    // Which connection each publish went over.
    let mut sent_over: HashMap<u64, u32> = HashMap::new();
    // What each publish came to: its offset, or whether it may have been carried out.
    let mut said: HashMap<u64, Result<u64, Outcome>> = HashMap::new();
    while number < PUBLISHES {
        match publisher.send(&numbered(number)).await {
            Ok(ticket) => {
                tickets.push((number, ticket));
                sent_over.insert(number, breaks);
            }
            Err(error) => {
                assert!(error.not_carried_out(), "{error:?}");
                said.insert(number, Err(Outcome::NotCarriedOut));
                breaks += 1;
                while publisher.reconnect().await.is_err() {}
            }
        }
        number += 1;
        if number % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // It may break or not: the tickets tell.
    let _ = publisher.flush().await;
    for (number, ticket) in tickets {
        let outcome = match ticket.await {
            Ok(published) => Ok(published.first),
            Err(ClientError::Lost { outcome, .. }) => Err(outcome),
            Err(other) => panic!("{other:?}"),
        };
        said.insert(number, outcome);
    }
    for lost in publisher.take_unacknowledged() {
        let number = number_of(lost.records().get(0).unwrap());
        assert_eq!(said[&number], Err(lost.outcome()), "what it gives back is what it said");
    }
    drop(publisher);
    direct.close_topic("news").await.unwrap();

    // The truth, over a line that does not break.
    let mut truth: Vec<u64> = Vec::new();
    let mut news = direct.subscribe("news", SubscribeOptions::earliest()).await.unwrap();
    while let Some(Ok(Event::Record(record))) = news.next().await {
        assert_eq!(record.offset(), truth.len() as u64);
        truth.push(number_of(record.data()));
    }
    let mut unknown_there = 0;
    for (number, said) in &said {
        let places: Vec<usize> = (0..truth.len()).filter(|at| truth[*at] == *number).collect();
        match said {
            Ok(offset) => assert_eq!(places, [*offset as usize], "{number} was acknowledged"),
            Err(Outcome::NotCarriedOut) => {
                assert!(places.is_empty(), "{number} was said not to be carried out");
            }
            Err(Outcome::Unknown) => {
                assert!(places.len() <= 1, "{number} is there twice");
                unknown_there += places.len();
            }
        }
    }
    for connection in 0..=breaks {
        let its_own = truth.iter().filter(|number| sent_over[*number] == connection);
        assert!(its_own.is_sorted(), "publishes over one connection keep their order");
    }
    // What was under way when a connection broke may be carried out after what went over the next one.
    let acknowledged = truth.iter().filter(|number| said[*number].is_ok());
    assert!(acknowledged.is_sorted(), "what is acknowledged keeps its order");
    let count = |wanted| said.values().filter(|said| **said == wanted).count();
    let (unknown, not) = (count(Err(Outcome::Unknown)), count(Err(Outcome::NotCarriedOut)));
    println!("{breaks} breaks, {unknown} unknown ({unknown_there} there), {not} not carried out");
    assert!(breaks > 3, "the line has broken only {breaks} times");

    for follower in followers {
        let (numbers, reconnections) = follower.await.unwrap();
        assert_eq!(numbers, truth);
        assert!(reconnections > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_another_epoch() {
    let server = serve(anywhere());
    let address = server.address;
    let client = client_of(address).build().unwrap();
    client.publish("news", &numbered(0)).await.unwrap();
    client.publish("news", &numbered(1)).await.unwrap();
    let mut news = client.subscribe("news", SubscribeOptions::earliest()).await.unwrap();
    for number in 0..2 {
        let Some(Ok(Event::Record(record))) = news.next().await else { panic!() };
        assert_eq!(number_of(record.data()), number);
    }
    let before = news.position();
    server.handle.drain();
    // The subscription waits for what comes, through the GOODBYE and the time without a server.
    let waiting = tokio::spawn(async move {
        let gap = news.next().await.unwrap().unwrap();
        let Event::Gap(gap) = gap else { panic!("{gap:?}") };
        assert_eq!((gap.reason, gap.first_missed), (GapReason::OtherEpoch, before.next));
        assert_eq!((gap.next, gap.missed()), (0, None));
        assert_ne!(gap.epoch, before.epoch);
        let Some(Ok(Event::Record(record))) = news.next().await else { panic!() };
        assert_eq!((record.epoch(), record.offset()), (gap.epoch, 0));
        number_of(record.data())
    });
    let mut server = server;
    (&mut server.task).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    let error = client.publish("news", b"nobody").await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");

    let server = serve(address);
    // The same client finds it again.
    client.publish("news", &numbered(7)).await.unwrap();
    let limit = Duration::from_secs(20);
    assert_eq!(tokio::time::timeout(limit, waiting).await.unwrap().unwrap(), 7);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_keeps_what_was_not_committed() {
    let server = serve(anywhere());
    let client = client_of(server.address).build().unwrap();
    let settings = Settings { retention: Some(Retention::Nothing), ..Settings::default() };
    client.create_topic("news", settings).await.unwrap();
    let leased = || {
        let lease = LeaseOptions::new("desk", Duration::from_secs(60));
        SubscribeOptions::earliest().lease(lease)
    };
    let mut desk = client.subscribe("news", leased()).await.unwrap();
    let all: Vec<Vec<u8>> = (0..10).map(numbered).collect();
    client.publish_batch("news", &all).await.unwrap();
    for number in 0..6 {
        let Some(Ok(Event::Record(record))) = desk.next().await else { panic!() };
        assert_eq!(number_of(record.data()), number);
    }
    desk.commit(..=2).await.unwrap();
    assert_eq!(desk.committed(), 3);
    let held = client.subscribe("news", leased()).await.unwrap_err();
    assert_eq!(held.code(), Some(Code::LeaseHeld));
    // It dies. Who comes next gets what was not committed.
    drop(desk);
    let mut desk = loop {
        match client.subscribe("news", leased()).await {
            Ok(desk) => break desk,
            Err(error) => assert_eq!(error.code(), Some(Code::LeaseHeld)),
        }
    };
    assert_eq!(desk.position().next, 3);
    for number in 3..10 {
        let Some(Ok(Event::Record(record))) = desk.next().await else { panic!() };
        assert_eq!(number_of(record.data()), number);
        desk.commit_later(..=record.offset()).unwrap();
    }
    // Taken over: the former holder learns of it.
    let lease = LeaseOptions::new("desk", Duration::from_secs(60)).take_over();
    let options = SubscribeOptions::earliest().lease(lease);
    desk.commit(..=9).await.unwrap();
    let thief = client.subscribe("news", options).await.unwrap();
    assert_eq!(thief.position().next, 10);
    let end = desk.next().await.unwrap().unwrap();
    assert!(matches!(end, Event::Closed { reason: CloseReason::LeaseTakenOver, .. }), "{end:?}");
    // Released: it is gone at once.
    assert_eq!(client.describe("news").await.unwrap().leases.len(), 1);
    thief.release().await.unwrap();
    assert!(client.describe("news").await.unwrap().leases.is_empty());
}

/// Commits on a line that breaks: nothing that was committed comes to the next holder, everything
/// else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_get_through_a_line_that_breaks() {
    let server = serve(anywhere());
    let direct = client_of(server.address).build().unwrap();
    let settings = Settings { retention: Some(Retention::Nothing), ..Settings::default() };
    direct.create_topic("news", settings).await.unwrap();
    let line = fragile_line(server.address, seed(), 20_000).await;
    let client = client_of(line).build().unwrap();
    let lease = LeaseOptions::new("desk", Duration::from_secs(60)).take_over();
    let options = SubscribeOptions::earliest().lease(lease);
    let mut desk = loop {
        match client.subscribe("news", options.clone()).await {
            Ok(desk) => break desk,
            Err(error) => assert!(matches!(error, ClientError::Io { .. }), "{error:?}"),
        }
    };
    let publisher = direct.publisher("news", PublisherOptions::default()).await.unwrap();
    for number in 0..2_000 {
        drop(publisher.send(&numbered(number)).await.unwrap());
    }
    publisher.flush().await.unwrap();
    for expected in 0..2_000 {
        match desk.next().await.unwrap().unwrap() {
            Event::Record(record) => {
                assert_eq!((record.offset(), number_of(record.data())), (expected, expected));
            }
            other => panic!("{other:?}"),
        }
        match expected % 100 {
            50 => {
                desk.commit(..=expected).await.unwrap();
                assert_eq!(desk.committed(), expected + 1);
            }
            99 => desk.commit_later(..=expected).unwrap(),
            _ => {}
        }
    }
    desk.commit(..=1_989).await.unwrap();
    println!("{} reconnections", desk.reconnections());
    assert!(desk.reconnections() > 3);
    drop(desk);
    let mut heir = direct.subscribe("news", options).await.unwrap();
    let committed = heir.position().next;
    assert!((1_990..=2_000).contains(&committed), "{committed}");
    if committed < 2_000 {
        let Some(Ok(Event::Record(record))) = heir.next().await else { panic!() };
        assert_eq!(number_of(record.data()), committed);
    }
}

/// The soak lost records to this: a subscriber that is cut off before its first record, and comes back
/// when that one is collected.
#[tokio::test]
async fn who_was_cut_off_before_the_first_record_learns_what_was_missed() {
    let server = serve(anywhere());
    let client = client_of(server.address).build().unwrap();
    let settings = Settings {
        segment_bytes: 4 << 10,
        retention: Some(Retention::Nothing),
        ..Settings::default()
    };
    client.create_topic("news", settings).await.unwrap();
    let early = client.subscribe("news", SubscribeOptions::earliest()).await.unwrap();
    let place = early.position();
    drop(early);
    let publisher = client.publisher("news", PublisherOptions::default()).await.unwrap();
    // The server notices that the first one is gone, and then nobody holds anything back.
    let mut sent = 0;
    while client.describe("news").await.unwrap().stats.first == 0 {
        publisher.send(&[7; 1024]).await.unwrap().await.unwrap();
        sent += 1;
        assert!(sent < 100_000, "nothing is collected");
    }
    let mut late = client.subscribe("news", SubscribeOptions::resume(place)).await.unwrap();
    let Some(Ok(Event::Gap(gap))) = late.next().await else { panic!("no gap") };
    assert_eq!((gap.reason, gap.epoch, gap.first_missed), (GapReason::Collected, place.epoch, 0));
    assert!(gap.next > 0);
    let Some(Ok(Event::Record(record))) = late.next().await else { panic!("no record") };
    assert_eq!(record.offset(), gap.next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_subscriber_learns_exactly_what_it_missed() {
    let server = serve(anywhere());
    let client = client_of(server.address).build().unwrap();
    let settings = Settings {
        segment_bytes: 64 << 10,
        overflow: Some(Overflow::Evict),
        retention: Some(Retention::Nothing),
        memory_limit: 1 << 20,
        ..Settings::default()
    };
    client.create_topic("news", settings).await.unwrap();
    let mut slow = client.subscribe("news", SubscribeOptions::earliest()).await.unwrap();
    let publisher = client.publisher("news", PublisherOptions::default()).await.unwrap();
    // Far more than the topic and the sockets hold, while nobody reads.
    const RECORDS: u64 = 20_000;
    for number in 0..RECORDS {
        let mut record = numbered(number);
        record.resize(4096, 0);
        drop(publisher.send(&record).await.unwrap());
    }
    publisher.flush().await.unwrap();
    let (mut expected, mut missed) = (0, 0);
    while expected < RECORDS {
        match slow.next_batch().await.unwrap().unwrap() {
            BatchEvent::Records(batch) => {
                for (offset, record) in batch.iter() {
                    assert_eq!(offset, expected);
                    assert_eq!(record[..8], offset.to_le_bytes());
                    expected += 1;
                }
            }
            BatchEvent::Gap(gap) => {
                assert_eq!(gap.first_missed, expected);
                missed += gap.missed().unwrap();
                expected = gap.next;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(missed > 0, "it was never too slow");
    assert!(client.describe("news").await.unwrap().stats.evictions > 0);
}

/// The last records of a topic come with its end right after them. Over a line that breaks as well: then the lease is taken
/// up again for the commit, and nothing is told twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_records_of_a_closed_topic_can_be_committed() {
    let server = serve(anywhere());
    let direct = client_of(server.address).build().unwrap();
    direct.create_topic("news", keep_all()).await.unwrap();
    for number in 0..3 {
        direct.publish("news", &numbered(number)).await.unwrap();
    }
    direct.close_topic("news").await.unwrap();
    let line = breakable_line(server.address).await;
    let client = client_of(line.address).build().unwrap();
    let desk = || LeaseOptions::new("desk", Duration::from_secs(60)).take_over();
    let mut news =
        client.subscribe("news", SubscribeOptions::earliest().lease(desk())).await.unwrap();
    for number in 0..3 {
        let Some(Ok(Event::Record(record))) = news.next().await else { panic!() };
        assert_eq!(number_of(record.data()), number);
    }
    let end = news.next().await;
    assert!(matches!(end, Some(Ok(Event::Closed { reason: CloseReason::TopicClosed, next: 3 }))));
    assert!(news.next().await.is_none());

    news.commit(..=0).await.unwrap();
    let stands = |details: TopicDetails| details.leases[0].committed;
    assert_eq!(stands(direct.describe("news").await.unwrap()), 1);
    line.cut().await;
    news.commit(..=1).await.unwrap();
    assert!(news.reconnections() > 0);
    assert_eq!(stands(direct.describe("news").await.unwrap()), 2);
    // What does not wait goes with the next call, and nothing comes again.
    news.commit_later(..=2).unwrap();
    assert!(news.next().await.is_none());
    assert_eq!(news.committed(), 3);
    assert_eq!(stands(direct.describe("news").await.unwrap()), 3);
    news.release().await.unwrap();
    assert!(direct.describe("news").await.unwrap().leases.is_empty());
}

/// A handle that commits from elsewhere: what it wants is sent while the subscription waits for events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committer_commits_from_elsewhere() {
    let server = serve(anywhere());
    let client = client_of(server.address).build().unwrap();
    client.create_topic("news", keep_all()).await.unwrap();
    let leased = || {
        let lease = LeaseOptions::new("desk", Duration::from_secs(60));
        SubscribeOptions::earliest().lease(lease)
    };
    let mut desk = client.subscribe("news", leased()).await.unwrap();
    let committer = desk.committer();
    let early = committer.commit(Position { epoch: desk.position().epoch, next: 1 }).await;
    assert!(matches!(early, Err(ClientError::Commit { .. })), "{early:?}");
    client.publish_batch("news", &[numbered(0), numbered(1), numbered(2)]).await.unwrap();
    let mut records = Vec::new();
    for _ in 0..3 {
        let Some(Ok(Event::Record(record))) = desk.next().await else { panic!() };
        records.push(record);
    }
    let foreign = Position { epoch: records[0].epoch() ^ 1, next: 1 };
    assert!(matches!(committer.commit_later(foreign), Err(ClientError::Commit { .. })));

    // It waits for the next event meanwhile, which never comes.
    let waiting = tokio::spawn(async move {
        let event = desk.next().await;
        (desk, event)
    });
    committer.commit(records[1].position()).await.unwrap();
    assert_eq!(committer.committed(), 2);
    let leases = client.describe("news").await.unwrap().leases;
    assert_eq!(leases[0].committed, 2);
    // What is wanted by several is merged.
    let (one, other) = (committer.clone(), committer.clone());
    let (one, other) =
        tokio::join!(one.commit(records[2].position()), other.commit(records[0].position()));
    one.unwrap();
    other.unwrap();
    client.publish("news", &numbered(3)).await.unwrap();
    let (desk, event) = waiting.await.unwrap();
    let Some(Ok(Event::Record(last))) = event else { panic!("{event:?}") };

    drop(desk);
    let ended = committer.commit(last.position()).await;
    assert!(matches!(ended, Err(ClientError::Ended)), "{ended:?}");
    // What was confirmed stays so.
    committer.commit(records[2].position()).await.unwrap();
}

/// Nobody takes the events, so nothing is sent, and the committer says so.
#[tokio::test]
async fn a_committer_does_not_wait_for_ever() {
    let server = serve(anywhere());
    let client = client_of(server.address).request_timeout(Duration::from_millis(300));
    let client = client.build().unwrap();
    client.publish("news", &numbered(0)).await.unwrap();
    let lease = LeaseOptions::new("desk", Duration::from_secs(60));
    let options = SubscribeOptions::earliest().lease(lease);
    let mut desk = client.subscribe("news", options).await.unwrap();
    let committer = desk.committer();
    client.publish("news", &numbered(0)).await.unwrap();
    let Some(Ok(Event::Record(record))) = desk.next().await else { panic!() };
    let late = committer.commit(record.position()).await;
    assert!(matches!(late, Err(ClientError::Timeout { .. })), "{late:?}");
    // It stays wanted.
    client.publish("news", &numbered(1)).await.unwrap();
    desk.next().await.unwrap().unwrap();
    desk.commit(..=record.offset()).await.unwrap();
    let mut bare = client.subscribe("news", SubscribeOptions::next()).await.unwrap();
    let refused = bare.committer().commit_later(record.position());
    assert!(matches!(refused, Err(ClientError::Commit { .. })), "{refused:?}");
}
