//! Who may follow over a WebSocket: handshakes, origins, tokens, rights that are lost.

use psa::http::{Access, Token};

use super::*;
use crate::access::entry;

/// A handshake with one header changed, or left out.
async fn handshake(server: &Running, name: &str, value: Option<&str>) -> Answer {
    let mut headers: Vec<_> = GOOD.into_iter().filter(|(known, _)| *known != name).collect();
    headers.extend(value.map(|value| (name, value)));
    server.ask("GET /topics/t/events", &headers, b"").await
}

#[tokio::test]
async fn a_bad_handshake_is_told_what_is_wrong() {
    let server = serve(|_, _| {});
    for (name, value, status) in [
        ("sec-websocket-version", Some("8"), 426),
        ("sec-websocket-version", None, 426),
        ("sec-websocket-key", Some("short"), 400),
        ("sec-websocket-key", None, 400),
        ("connection", Some("keep-alive"), 400),
        ("connection", None, 400),
        ("sec-websocket-protocol", Some("mqtt"), 400),
        ("sec-websocket-protocol", Some("psa.bearer.YQ"), 400),
    ] {
        let answer = handshake(&server, name, value).await;
        answer.problem(status, "bad-handshake");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{name}");
    }
    let twice = [&GOOD[..], &[KEY]].concat();
    server.ask("GET /topics/t/events", &twice, b"").await.problem(400, "bad-handshake");
    // In HTTP/1.0 there is no such thing.
    let mut client = Client::new(server.address).await;
    let old = request("GET /topics/t/events", &GOOD, b"");
    client.send(String::from_utf8(old).unwrap().replace("HTTP/1.1", "HTTP/1.0").as_bytes()).await;
    client.answer().await.unwrap().problem(400, "bad-handshake");
    // No other route is one.
    let answer = server.ask("GET /topics", &GOOD, b"").await;
    assert_eq!(answer.status, 200);
    server.ask("POST /topics/t/events", &GOOD, b"").await.problem(405, "method-not-allowed");
    assert_eq!(server.handle.streams(), 0);
    // What asks for another protocol gets the events, as if it had not.
    let mut client = Client::new(server.address).await;
    client.send(&request("GET /topics/t/events", &[("upgrade", "h2c")], b"")).await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
}

#[tokio::test]
async fn the_subprotocol_that_is_chosen_is_said() {
    let server = serve(|_, _| {});
    for (offer, chosen) in [
        (None, None),
        (Some("psa.json"), Some("psa.json")),
        (Some("psa.bearer.YQ, psa.binary, psa.json"), Some("psa.binary")),
    ] {
        let answer = handshake(&server, "sec-websocket-protocol", offer).await;
        assert_eq!(answer.status, 101);
        assert_eq!(answer.header("sec-websocket-protocol"), chosen, "never the token");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_socket_unless_it_is_named() {
    let server = serve(|config, _| config.origins = vec!["https://good.example".into()]);
    for foreign in ["https://evil.example", "http://good.example", "null"] {
        let (answer, _) =
            Socket::try_open(server.address, "t/events", &[("origin", foreign)]).await;
        answer.problem(403, "foreign-origin");
    }
    assert!(server.broker.topic("t").is_none(), "it has made nothing");
    let own = [("origin", "http://localhost")];
    let named = [("origin", "https://good.example")];
    for allowed in [own, named] {
        Socket::open(server.address, "t/events", &allowed).await;
    }
    // A name that was pointed here is none of the server's own.
    let rebound = [("origin", "http://evil.example"), ("host", "evil.example")];
    let answer = Socket::try_open(server.address, "t/events", &rebound).await.0;
    answer.problem(421, "foreign-host");
}

#[tokio::test]
async fn a_page_offers_its_token_as_a_subprotocol() {
    let server = serve(|config, _| config.token = Some(Token::new("s3c/ret")));
    let offer = |token: &str| format!("psa.json, psa.bearer.{token}");
    let offered = |offer: &str| {
        let (address, offer) = (server.address, offer.to_owned());
        async move {
            let headers = [("sec-websocket-protocol", offer.as_str())];
            Socket::try_open(address, "t/events", &headers).await.0
        }
    };
    assert_eq!(offered(&offer("czNjL3JldA")).await.status, 101);
    for bad in [
        "psa.json".to_owned(),
        offer(""),
        offer("eA"),
        offer("s3cret"),
        offer("czNjL3JldA=="),
        format!("{}, psa.bearer.czNjL3JldA", offer("czNjL3JldA")),
    ] {
        offered(&bad).await.problem(401, "unauthorized");
    }
    Socket::open(server.address, "t/events", &[("authorization", "Bearer s3c/ret")]).await;
    // A header goes before it; and elsewhere than in a handshake it is none.
    let both = [
        ("authorization", "Bearer x"),
        ("sec-websocket-protocol", "psa.json, psa.bearer.czNjL3JldA"),
    ];
    let (answer, _) = Socket::try_open(server.address, "t/events", &both).await;
    answer.problem(401, "unauthorized");
    server.ask("GET /topics", &both[1..], b"").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn a_socket_ends_when_its_right_does() {
    let access = Access::new(vec![
        entry("gone", ["", "a", ""]),
        entry("less", ["", "a", ""]),
        entry("stays", ["a", "a", ""]),
        entry("none", ["a", "b", "a"]),
    ]);
    let access = access.unwrap();
    let server = serve(|config, _| {
        config.access = Some(access.clone());
        config.limits.heartbeat = Duration::from_secs(3600);
    });
    let bearer = |token: &str| format!("Bearer {token}");
    let none = bearer("none");
    let (answer, _) =
        Socket::try_open(server.address, "a/events", &[("authorization", &none)]).await;
    answer.problem(403, "forbidden");
    let mut sockets = Vec::new();
    for token in ["gone", "less", "stays"] {
        let token = bearer(token);
        let headers = [("authorization", token.as_str())];
        sockets.push(Socket::open(server.address, "a/events", &headers).await);
    }
    access.replace(vec![entry("less", ["a", "", "a"]), entry("stays", ["a", "a", ""])]).unwrap();
    assert_eq!(sockets[0].end().await, (3000, "unauthorized".into()));
    assert_eq!(sockets[1].end().await, (3003, "forbidden".into()));
    server.broker.topic("a").unwrap().blocking_append(b"secret").unwrap();
    assert_eq!(sockets[2].record().await, (0, b"secret".to_vec()));
    assert_eq!(sockets[0].try_next().await, None);
}

#[tokio::test]
async fn a_socket_that_takes_nothing_loses_its_right_all_the_same() {
    let access = Access::new(vec![entry("gone", ["", "t", ""])]).unwrap();
    let server = serve(|config, topics| {
        config.access = Some(access.clone());
        config.send_buffer = Some(8 << 10);
        topics.segment_bytes = 1 << 16;
    });
    let headers = [("authorization", "Bearer gone")];
    let socket = Socket::open(server.address, "t/events", &headers).await;
    let log = server.broker.topic("t").unwrap();
    let appended = tokio::spawn({
        let log = log.clone();
        async move {
            for _ in 0..20_000 {
                log.append(&[b'x'; 1000]).await.unwrap();
            }
        }
    });
    until("it is behind", || log.stats().live_segments > 3).await;
    access.replace(Vec::new()).unwrap();
    until("its place is let go", || log.stats().cursors == 0).await;
    until("it is cut off", || server.handle.connections() == 0).await;
    appended.await.unwrap();
    drop(socket);
}
