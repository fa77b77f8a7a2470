//! The client for threads, against the real server.
#![cfg(feature = "server")]

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use psa::client::blocking::{self, NothingYet};
use psa::client::*;
use psa::server::{Server, ServerConfig, ServerHandle};

/// A server with a runtime of its own.
struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve() -> Running {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = ServerConfig { listen, ..ServerConfig::default() };
    let server = runtime.block_on(async { Server::bind(config) }).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let thread = thread::spawn(move || runtime.block_on(server.run(std::future::pending())));
    Running { address, handle, thread: Some(thread) }
}

fn connect(server: &Running) -> blocking::Client {
    Client::builder(format!("psa://{}", server.address)).blocking_connect().unwrap()
}

fn keep_all() -> Settings {
    Settings { retention: Some(Retention::Everything), ..Settings::default() }
}

#[test]
fn threads_publish_and_follow() {
    let server = serve();
    let client = connect(&server);
    client.create_topic("news", keep_all()).unwrap();
    client.ensure_topic("news", keep_all()).unwrap();
    let mut news = client.subscribe("news", SubscribeOptions::earliest().caught_up()).unwrap();
    assert!(matches!(news.next(), Some(Ok(Event::CaughtUp { next: 0 }))));
    let nothing: NothingYet = news.next_within(Duration::from_millis(10)).unwrap_err();
    assert_eq!(nothing.to_string(), "no event within the time limit");
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || {
                let news = client.subscribe("news", SubscribeOptions::earliest()).unwrap();
                let mut records = Vec::new();
                for event in news {
                    match event.unwrap() {
                        Event::Record(record) => records.push(record.data().to_vec()),
                        Event::Closed { reason: CloseReason::TopicClosed, .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
                records
            })
        })
        .collect();
    let publisher = client.publisher("news", PublisherOptions::default()).unwrap();
    let all: Vec<Vec<u8>> = (0..100_u64).map(|n| n.to_le_bytes().to_vec()).collect();
    let first = publisher.send(&all[0]).unwrap().wait().unwrap();
    assert_eq!(first.first, 0);
    for record in &all[1..] {
        let _ = publisher.send(record).unwrap();
    }
    publisher.flush().unwrap();
    let batch = loop {
        if let Some(Ok(BatchEvent::Records(batch))) = news.next_batch() {
            break batch.first_offset();
        }
    };
    assert_eq!(batch, 0);
    news.end().unwrap();
    assert_eq!(client.describe("news").unwrap().stats.next, 100);
    client.close_topic("news").unwrap();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), all);
    }
    assert_eq!(client.topics("").unwrap().len(), 1);
    client.delete_topic("news").unwrap();
    assert!(client.topics("").unwrap().is_empty());
}

#[test]
fn threads_commit() {
    let server = serve();
    let client = connect(&server);
    client.publish_batch("orders", &["a", "b", "c"]).unwrap();
    let lease = || {
        let lease = LeaseOptions::new("desk", Duration::from_secs(60));
        SubscribeOptions::earliest().lease(lease)
    };
    client.create_topic("kept", keep_all()).unwrap();
    client.publish_batch("kept", &["a", "b", "c"]).unwrap();
    let mut desk = client.subscribe("kept", lease()).unwrap();
    let Some(Ok(Event::Record(record))) = desk.next() else { panic!() };
    let committer = desk.committer();
    committer.commit_later(record.position()).unwrap();
    desk.next().unwrap().unwrap();
    desk.commit(..=1).unwrap();
    assert_eq!((desk.committed(), committer.committed(), desk.position().next), (2, 2, 2));
    desk.end().unwrap();
    let mut desk = client.subscribe("kept", lease()).unwrap();
    let Some(Ok(Event::Record(record))) = desk.next() else { panic!() };
    assert_eq!(record.data(), b"c");
    desk.release().unwrap();
    assert!(client.describe("kept").unwrap().leases.is_empty());
}

#[test]
fn errors_are_those_of_the_other_client() {
    let nobody = Client::builder("127.0.0.1:1").connect_timeout(Duration::from_secs(5));
    assert!(matches!(nobody.blocking_connect(), Err(ClientError::Connect { .. })));
    let unreadable = Client::builder("http://x").blocking_build();
    assert!(matches!(unreadable, Err(ClientError::Config { .. })));
    let server = serve();
    let client = connect(&server);
    let unknown = client.describe("none").unwrap_err();
    assert_eq!(unknown.code(), Some(Code::UnknownTopic));
    drop(server);
    assert!(client.publish("news", b"x").is_err());
}

/// In a task it would hold up the runtime: it says so instead.
#[tokio::test]
async fn in_a_task_it_panics() {
    let client = Client::builder("127.0.0.1:1").blocking_build().unwrap();
    let wait = std::panic::AssertUnwindSafe(|| client.ping());
    assert!(std::panic::catch_unwind(wait).is_err());
}
