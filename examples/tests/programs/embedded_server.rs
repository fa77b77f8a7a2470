//! The embedded server: both listeners and the program itself use the same topic, and the server drains.

use std::time::Duration;

use psa::client::{Client, ClientError, Event, PublisherOptions, SubscribeOptions};
use tokio::time::timeout;

use crate::http::{Connection, Events};
use crate::program::Program;

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_shares_a_topic_and_gets_all_of_it_at_the_end() {
    let mut program = Program::start("embedded_server", [""; 0]);
    let clients = program.expect("clients: ");
    let browsers = program.expect("browsers: http://");
    let browsers = browsers.trim_end_matches('/');

    let client = Client::builder(&clients).connect().await.expect("a server");
    // The subscription must end with the server, and not wait for another one.
    let options = SubscribeOptions::earliest().give_up_after(Duration::ZERO);
    let mut subscription = client.subscribe("events", options).await.expect("a topic");
    let mut stream = Events::open(browsers, "/topics/events/events?from=earliest", None)
        .await
        .expect("an event stream");
    // The first event of a stream, before the records.
    assert_eq!(stream.next().await.expect("an event").kind, "begin");
    assert_eq!(stream.next().await.expect("an event").data, "the server has started");

    client.publish("events", b"from a client").await.expect("a topic");
    let mut connection = Connection::open(browsers).await;
    connection.post("/topics/events", "from a browser").await;
    program.expect("record 1: from a client");
    program.expect("record 2: from a browser");

    // Everything that is acknowledged before the drain begins reaches every subscriber.
    let publisher = client.publisher("events", PublisherOptions::default()).await.expect("a topic");
    for n in 3..1_000 {
        // The ticket would say where the record is; `flush` is enough here.
        drop(publisher.send(format!("record {n}").as_bytes()).await.expect("room"));
    }
    publisher.flush().await.expect("all of them are acknowledged");
    program.interrupt();

    let mut next = 0;
    let end = loop {
        match timeout(PATIENCE, subscription.next()).await.expect("an event").expect("an end") {
            Ok(Event::Record(record)) => {
                assert_eq!(record.offset(), next);
                next += 1;
            }
            Ok(event) => panic!("{event:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(next, 1_000);
    assert!(matches!(end, ClientError::GaveUp { .. }), "{end}");
    let (mut streamed, mut last) = (1, None);
    while let Some(event) = timeout(PATIENCE, stream.next()).await.expect("an event") {
        streamed += u64::from(event.kind.is_empty());
        last = Some(event);
    }
    assert_eq!(streamed, 1_000);
    let last = last.expect("an end");
    assert!(last.kind == "end" && last.data.contains("shutting-down"), "{last:?}");

    program.succeed();
    assert_eq!(program.said("draining: ").len(), 1, "{:#?}", program.seen);
    assert_eq!(program.said("drained after "), ["1000 records"]);
    assert_eq!(program.said("record ").len(), 1_000);
}
