//! What a client was told of a topic, and a kill right after it.

use psa::client::{Client, Code, PublisherOptions};

use super::harness::*;
use super::lives::{flags, http_address, own_address};
use super::web::Web;

/// How a client asks for it.
#[derive(Clone, Copy, Debug)]
enum Door {
    Tcp,
    Http,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Create,
    Close,
    Delete,
}

async fn ask(deed: Deed, door: Door, client: &Client, web: &mut Web, topic: &str) {
    let path = format!("/topics/{topic}");
    let (method, path, status) = match deed {
        Deed::Create => ("PUT", path, 201),
        Deed::Close => ("POST", format!("{path}/close"), 204),
        Deed::Delete => ("DELETE", path, 204),
    };
    match (door, deed) {
        (Door::Http, _) => {
            let method = method.parse().expect("a method");
            let answer = web.ask(method, &path, &[], Vec::new()).await.expect("it is up");
            assert_eq!(answer.status, status, "{answer:?}");
        }
        (Door::Tcp, Deed::Create) => {
            client.create_topic(topic, Default::default()).await.expect("it is up");
        }
        (Door::Tcp, Deed::Close) => client.close_topic(topic).await.expect("it is up"),
        (Door::Tcp, Deed::Delete) => client.delete_topic(topic).await.expect("it is up"),
    }
}

#[test]
fn what_was_done_to_a_topic_survives_a_kill_right_after_the_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let data = tempfile::tempdir().expect("a temporary folder");
    let (data, listen) = (data.path().to_str().expect("text"), own_address());
    let mut server = Server::start_on(&listen, &flags(data, &listen));
    let http = http_address(&mut server);
    let doors = [Door::Tcp, Door::Http];
    let all = [Deed::Create, Deed::Close, Deed::Delete].map(|deed| doors.map(|door| (deed, door)));
    for (number, (deed, door)) in all.into_iter().flatten().enumerate() {
        let topic = format!("{deed:?}-{number}");
        let new = || Client::builder(server.address.to_string()).build().expect("good settings");
        let client = new();
        let mut web = Web::new(http);
        runtime.block_on(async {
            // The connections of what follows are there already.
            client.ping().await.expect("it is up");
            assert!(web.connect().await);
            if !matches!(deed, Deed::Create) {
                // Much is being written, and what is asked for has to wait for it.
                let publisher = client.publisher(&topic, PublisherOptions::default()).await;
                let publisher = publisher.expect("it is up");
                let first = publisher.send(b"a record").await.expect("it is up");
                for _ in 0..30 {
                    drop(publisher.send(&[b'x'; 250_000]).await.expect("it is up"));
                }
                first.await.expect("it is up");
            }
            ask(deed, door, &client, &mut web, &topic).await;
        });
        let next = new();
        server.take_process().kill();
        server.start_again(&flags(data, &http.to_string()));
        let found = runtime.block_on(next.describe(&topic));
        match (deed, found) {
            (Deed::Create, Ok(found)) => {
                assert_eq!((found.stats.next, found.stats.closed), (0, false))
            }
            (Deed::Close, Ok(found)) => {
                assert!(found.stats.next > 0 && found.stats.closed, "{door:?}: {:?}", found.stats);
            }
            (Deed::Delete, Err(error)) => assert_eq!(error.code(), Some(Code::UnknownTopic)),
            (_, found) => panic!("{deed:?} {door:?}: {found:?}"),
        }
    }
}
