//! What a client was told of a topic, and a kill right after it.

use psa::client::{Client, Code, PublisherOptions};

use super::harness::*;
use super::lives::{flags, http_address, own_address};
use super::web::Web;

/// How a client asks for it.
#[derive(Clone, Copy, Debug)]
enum Listener {
    Tcp,
    Http,
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Create,
    Close,
    Delete,
}

async fn ask(request: Request, listener: Listener, client: &Client, web: &mut Web, topic: &str) {
    let path = format!("/topics/{topic}");
    let (method, path, status) = match request {
        Request::Create => ("PUT", path, 201),
        Request::Close => ("POST", format!("{path}/close"), 204),
        Request::Delete => ("DELETE", path, 204),
    };
    match (listener, request) {
        (Listener::Http, _) => {
            let method = method.parse().expect("a method");
            let answer = web.ask(method, &path, &[], Vec::new()).await.expect("it is up");
            assert_eq!(answer.status, status, "{answer:?}");
        }
        (Listener::Tcp, Request::Create) => {
            client.create_topic(topic, Default::default()).await.expect("it is up");
        }
        (Listener::Tcp, Request::Close) => client.close_topic(topic).await.expect("it is up"),
        (Listener::Tcp, Request::Delete) => client.delete_topic(topic).await.expect("it is up"),
    }
}

#[test]
fn what_was_done_to_a_topic_survives_a_kill_right_after_the_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let data = tempfile::tempdir().expect("a temporary folder");
    let (data, listen) = (data.path().to_str().expect("text"), own_address());
    let mut server = Server::start_on(&listen, &flags(data, &listen));
    let http = http_address(&mut server);
    let listeners = [Listener::Tcp, Listener::Http];
    let all = [Request::Create, Request::Close, Request::Delete]
        .map(|request| listeners.map(|listener| (request, listener)));
    for (number, (request, listener)) in all.into_iter().flatten().enumerate() {
        let topic = format!("{request:?}-{number}");
        let new = || Client::builder(server.address.to_string()).build().expect("good settings");
        let client = new();
        let mut web = Web::new(http);
        runtime.block_on(async {
            // The connections of what follows are there already.
            client.ping().await.expect("it is up");
            assert!(web.connect().await);
            if !matches!(request, Request::Create) {
                // Much is being written, and what is asked for has to wait for it.
                let publisher = client.publisher(&topic, PublisherOptions::default()).await;
                let publisher = publisher.expect("it is up");
                let first = publisher.send(b"a record").await.expect("it is up");
                for _ in 0..30 {
                    drop(publisher.send(&[b'x'; 250_000]).await.expect("it is up"));
                }
                first.await.expect("it is up");
            }
            ask(request, listener, &client, &mut web, &topic).await;
        });
        let next = new();
        server.take_process().kill();
        server.start_again(&flags(data, &http.to_string()));
        let found = runtime.block_on(next.describe(&topic));
        match (request, found) {
            (Request::Create, Ok(found)) => {
                assert_eq!((found.stats.next, found.stats.closed), (0, false))
            }
            (Request::Close, Ok(found)) => {
                assert!(
                    found.stats.next > 0 && found.stats.closed,
                    "{listener:?}: {:?}",
                    found.stats
                );
            }
            (Request::Delete, Err(error)) => assert_eq!(error.code(), Some(Code::UnknownTopic)),
            (_, found) => panic!("{request:?} {listener:?}: {found:?}"),
        }
    }
}
