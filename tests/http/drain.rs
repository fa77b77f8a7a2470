//! How the API ends beside others who go on: the program itself and another listener.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use psa::broker::Topic;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bus::{Bus, fill, small_topic};
use crate::stream::Stream;
use crate::support::*;
use crate::websocket::socket::{CLOSE, LAST, Socket, Told};

/// An API whose drain would take for ever if it ended by its timeout alone.
fn serve_long() -> Running {
    serve(|http, _| {
        http.limits.drain_timeout = PATIENCE * 10;
        http.limits.append_wait = PATIENCE * 10;
    })
}

/// A client that publishes over HTTP until it is refused.
struct Publisher {
    told: watch::Receiver<u64>,
    task: JoinHandle<u64>,
}

impl Publisher {
    fn start(server: &Running, topic: &str) -> Self {
        let (address, line) = (server.address, format!("POST /topics/{topic}"));
        let (tell, told) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut client = Client::new(address).await;
            let mut count = 0;
            loop {
                let record = format!("acknowledged {count}\n");
                let request = request(&line, &[], record.as_bytes());
                // The connection may be gone.
                let _ = client.stream.write_all(&request).await;
                match client.answer().await {
                    Some(answer) if answer.status == 200 => count += 1,
                    Some(answer) => {
                        answer.problem(503, "shutting-down");
                        return count;
                    }
                    None => return count,
                }
                let _ = tell.send(count);
            }
        });
        Self { told, task }
    }

    /// Waits until some records were acknowledged.
    async fn some(&mut self) {
        let some = self.told.wait_for(|count| *count >= 20);
        tokio::time::timeout(PATIENCE, some).await.expect("in time").unwrap();
    }

    /// How many were acknowledged.
    async fn acknowledged(self) -> usize {
        usize::try_from(self.task.await.unwrap()).unwrap()
    }
}

/// Checks that a subscriber has got what the listener acknowledged, once and in order, among the program's records.
fn check(received: &str, acknowledged: usize) {
    assert!(received.contains("bus\n"), "the program publishes to the same topic");
    let own: Vec<_> = received.lines().filter(|line| *line != "bus").collect();
    assert!(own.len() >= acknowledged, "{} of {acknowledged}", own.len());
    for (count, record) in own.iter().enumerate() {
        assert_eq!(*record, format!("acknowledged {count}"));
    }
}

async fn ended(server: &Running) {
    until("the API is closed", || server.task.is_finished()).await;
}

/// Drains the API while a client publishes to `t` over it, and the program to the same topic. Checks what the
/// subscribers have received when they have ended, and that the program goes on.
async fn drain_beside(server: &Running, bus: Bus, subscribers: Vec<JoinHandle<String>>) {
    let mut publisher = Publisher::start(server, "t");
    publisher.some().await;
    server.handle.drain();
    ended(server).await;
    let acknowledged = publisher.acknowledged().await;
    for subscriber in subscribers {
        check(&subscriber.await.unwrap(), acknowledged);
    }
    bus.goes_on(&server.broker, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_streams_end_although_the_program_goes_on_publishing() {
    let server = serve_long();
    let topic = small_topic(&server.broker, "t");
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = Stream::open(server.address, "t/events?from=next", None).await;
        streams.push(tokio::spawn(async move {
            let (mut received, mut next) = (String::new(), 0);
            loop {
                let event = stream.record().await;
                if event.name == "end" {
                    assert_eq!(event.json("end")["reason"], "shutting-down");
                    assert_eq!(event.json("end")["next_offset"], next);
                    assert_eq!(stream.try_next().await, None);
                    return received;
                }
                assert_eq!((event.name.as_str(), event.offset()), ("message", next));
                next += 1;
                received += &event.data;
            }
        }));
    }
    let bus = Bus::start(&topic);
    drain_beside(&server, bus, streams).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_end_although_the_program_goes_on_publishing() {
    let server = serve_long();
    let topic = small_topic(&server.broker, "t");
    let mut sockets = Vec::new();
    for form in ["psa.json", "psa.binary"] {
        let form = [("sec-websocket-protocol", form)];
        let mut socket = Socket::open(server.address, "t/events?from=next", &form).await;
        sockets.push(tokio::spawn(async move {
            let (mut received, mut next) = (Vec::new(), 0);
            loop {
                match socket.next().await {
                    Told::Record(offset, data) => {
                        assert_eq!(offset, next);
                        next += 1;
                        received.extend(data);
                    }
                    Told::Event(name, facts) if name == "end" => {
                        assert_eq!(facts["reason"], "shutting-down");
                        break;
                    }
                    Told::Event(name, _) => assert!(name == "begin" || name == "caught-up"),
                    other @ Told::Close(..) => panic!("{other:?} without an end"),
                }
            }
            assert_eq!(socket.end().await, (1001, "shutting-down".into()));
            socket.send(LAST | CLOSE, &1001_u16.to_be_bytes()).await;
            assert!(socket.client.is_closed().await);
            String::from_utf8(received).unwrap()
        }));
    }
    let bus = Bus::start(&topic);
    drain_beside(&server, bus, sockets).await;
}

/// Follows a stream of the Durable Streams protocol to the end of its connection.
async fn follow(mut client: Client) -> String {
    let mut text = String::new();
    while let Some(piece) = client.chunk().await
        && !piece.is_empty()
    {
        text += std::str::from_utf8(&piece).unwrap();
    }
    assert!(!text.contains("streamClosed"), "the stream has not ended");
    let events = text.split("\n\n").filter_map(|event| event.strip_prefix("event: data\ndata:"));
    let bytes = events.flat_map(|event| STANDARD.decode(event).unwrap()).collect();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_streams_end_although_the_program_goes_on_publishing() {
    let server = serve_long();
    let topic = server.broker.open("t", psa::broker::Purpose::Publish).unwrap();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut client = Client::new(server.address).await;
        client.send(&request("GET /v1/stream/t?offset=now&live=sse", &[], b"")).await;
        assert_eq!(client.head().await.unwrap().status, 200);
        streams.push(tokio::spawn(follow(client)));
    }
    // Such a stream holds nothing back while it sends.
    let bus = Bus::paced(&topic, Duration::from_millis(1));
    drain_beside(&server, bus, streams).await;
}

/// Starts a request that waits for records, and waits until it does.
async fn poll(server: &Running, topic: &Topic, path: &str) -> Client {
    let cursors = topic.log().stats().cursors;
    let mut client = Client::new(server.address).await;
    client.send(&request(&format!("GET {path}"), &[], b"")).await;
    until("it waits", || topic.log().stats().cursors > cursors).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_polls_are_answered_when_the_api_drains() {
    for path in ["/topics/q/records?from=next&wait=1h", "/v1/stream/q?offset=now&live=long-poll"] {
        for publishes in [false, true] {
            let server = serve_long();
            let bus = Bus::start(&small_topic(&server.broker, "t"));
            let quiet = server.broker.open("q", psa::broker::Purpose::Publish).unwrap();
            let mut waiting = poll(&server, &quiet, path).await;
            if publishes {
                server.publish("q", b"acknowledged").await;
            }
            server.handle.drain();
            let answer = waiting.answer().await.expect("an answer");
            if publishes {
                assert_eq!(answer.status, 200);
                assert!(answer.text().contains("acknowledged"), "{answer:?}");
            } else {
                answer.problem(503, "shutting-down");
            }
            assert!(waiting.is_closed().await);
            ended(&server).await;
            bus.goes_on(&server.broker, PATIENCE).await;
        }
    }
}

/// The program's own cursor holds the room, so that it comes only after the drain.
#[tokio::test]
async fn a_drain_does_not_wait_for_room_and_makes_nothing() {
    let server = serve_long();
    let topic = small_topic(&server.broker, "t");
    let held = topic.log().subscribe(psa::Start::Earliest).unwrap();
    fill(&topic, &[0; 1000]);
    let full = topic.log().next_offset();
    let mut publisher = Client::new(server.address).await;
    publisher.send(&request("POST /topics/t", &[], &[1; 1000])).await;
    until("it waits", || topic.log().stats().publisher_waits > 0).await;
    let mut late = Vec::new();
    for line in ["POST /topics/new", "PUT /topics/new", "PUT /v1/stream/new"] {
        late.push(begin(&server, line).await);
    }
    server.handle.drain();
    publisher.answer().await.expect("an answer").problem(503, "shutting-down");
    for mut late in late {
        late.send(b"{}").await;
        late.answer().await.expect("an answer").problem(503, "shutting-down");
    }
    ended(&server).await;
    drop(held);
    assert_eq!(topic.blocking_append(b"x"), Ok(full), "nothing was appended");
    assert!(server.broker.topic("new").is_none(), "nothing was made");
}

#[tokio::test]
async fn a_topic_that_is_closed_has_ended_in_a_drain_too() {
    let server = serve_long();
    server.publish("t", b"x").await;
    let mut stream = Stream::open(server.address, "t/events", None).await;
    let mut durable = Client::new(server.address).await;
    durable.send(&request("GET /v1/stream/t?offset=-1&live=sse", &[], b"")).await;
    assert_eq!(durable.head().await.unwrap().status, 200);
    server.broker.close("t").unwrap();
    server.handle.drain();
    assert_eq!(stream.record().await.data, "x");
    assert_eq!(stream.record().await.json("end")["reason"], "closed");
    let mut text = String::new();
    while let Some(piece) = durable.chunk().await
        && !piece.is_empty()
    {
        text += std::str::from_utf8(&piece).unwrap();
    }
    assert!(text.contains("streamClosed"), "{text}");
    ended(&server).await;
}

#[cfg(all(feature = "client", feature = "server"))]
mod beside_a_server {
    use psa::client::{Client, Event, SubscribeOptions, Subscription};
    use psa::server::{Server, ServerConfig, ServerHandle};

    use super::*;

    fn beside(broker: &psa::broker::Broker) -> (Client, ServerHandle, JoinHandle<()>) {
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut config = ServerConfig { listen, ..ServerConfig::default() };
        config.limits.drain_timeout = PATIENCE * 10;
        let server = Server::bind_with(config, broker.clone()).unwrap();
        let client = Client::builder(server.local_addr().to_string()).build().unwrap();
        let handle = server.handle();
        (client, handle, tokio::spawn(server.run(std::future::pending())))
    }

    async fn next(subscription: &mut Subscription) -> Vec<u8> {
        loop {
            let event = tokio::time::timeout(PATIENCE, subscription.next()).await;
            let event = event.expect("in time").expect("it goes on").expect("no error");
            if let Event::Record(record) = event {
                return record.data().to_vec();
            }
        }
    }

    #[tokio::test]
    async fn the_server_goes_on_when_the_api_drains() {
        let api = serve_long();
        let (client, handle, server) = beside(&api.broker);
        let mut subscription = client.subscribe("t", SubscribeOptions::earliest()).await.unwrap();
        let mut stream = Stream::open(api.address, "t/events", None).await;
        client.publish("t", b"before").await.unwrap();
        assert_eq!(next(&mut subscription).await, b"before");
        api.handle.drain();
        assert_eq!(stream.record().await.data, "before");
        assert_eq!(stream.record().await.json("end")["reason"], "shutting-down");
        ended(&api).await;
        client.publish("t", b"after").await.unwrap();
        assert_eq!(next(&mut subscription).await, b"after");
        client.publish("new", b"after").await.unwrap();
        assert!(!server.is_finished() && handle.connections() > 0);
        handle.abort();
    }

    #[tokio::test]
    async fn both_drain_by_themselves_when_the_broker_is_shut() {
        let api = serve_long();
        let (client, _, server) = beside(&api.broker);
        let mut subscription = client.subscribe("t", SubscribeOptions::earliest()).await.unwrap();
        let mut stream = Stream::open(api.address, "t/events", None).await;
        api.publish("t", b"over HTTP").await;
        client.publish("t", b"over TCP").await.unwrap();
        let mut inside = api.broker.topic("t").unwrap().log().subscribe(psa::Start::Next).unwrap();
        api.broker.shut();
        for record in ["over HTTP", "over TCP"] {
            assert_eq!(next(&mut subscription).await, record.as_bytes());
            assert_eq!(stream.record().await.data, record);
        }
        assert_eq!(stream.record().await.json("end")["reason"], "shutting-down");
        assert_eq!(inside.try_next(|_| ()), Err(psa::ReadError::Closed));
        ended(&api).await;
        until("the server is closed", || server.is_finished()).await;
    }
}
