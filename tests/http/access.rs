//! Tokens with rights over HTTP, and tokens in the address.

use psa::http::{Access, HttpConfig, Token, TokenEntry};

use super::stream::Stream;
use super::support::*;

pub(crate) fn entry(token: &str, rights: [&str; 3]) -> TokenEntry {
    let mut entry = TokenEntry::new(token, Access::sha256(token));
    let patterns = |text: &str| text.split_whitespace().map(|one| one.parse().unwrap()).collect();
    [entry.publish, entry.subscribe, entry.manage] = rights.map(patterns);
    entry
}

fn with(access: &Access) -> Running {
    serve(|config: &mut HttpConfig, _| config.access = Some(access.clone()))
}

async fn ask(server: &Running, token: &str, line: &str, body: &[u8]) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    server.ask(line, &headers, body).await
}

/// What each token may, as every route sees it: by the first character of the right.
const ROUTES: [(&str, &str); 15] = [
    ("GET /topics/a", "sm"),
    ("PUT /topics/a", "m"),
    ("POST /topics/a", "p"),
    ("POST /topics/a/close", "m"),
    ("GET /topics/a/records", "s"),
    ("GET /topics/a/events?from=7", "s"),
    ("DELETE /topics/a", "m"),
    ("GET /v1/stream/a", "s"),
    ("GET /v1/stream/a?offset=-1&live=long-poll", "s"),
    ("GET /v1/stream/a?offset=bad&live=sse", "s"),
    ("HEAD /v1/stream/a", "sm"),
    ("PUT /v1/stream/a", "m"),
    ("POST /v1/stream/a", "p"),
    ("DELETE /v1/stream/a", "m"),
    ("GET /metrics", ""),
];

#[tokio::test]
async fn each_route_needs_its_right() {
    let access = Access::new(vec![
        entry("p", ["a", "", ""]),
        entry("s", ["", "a", ""]),
        entry("m", ["", "", "a"]),
    ]);
    let server = with(&access.unwrap());
    for there in [false, true] {
        for (line, rights) in ROUTES {
            for token in ["p", "s", "m"] {
                if there {
                    let _ = server.broker.open("a", psa::broker::Purpose::Publish).unwrap();
                }
                let body: &[u8] =
                    if line.starts_with("POST /topics/a/close") || line.starts_with("PUT") {
                        b""
                    } else {
                        b"x"
                    };
                let answer = if line.starts_with("HEAD") {
                    let mut client = Client::new(server.address).await;
                    let bearer = format!("Bearer {token}");
                    client.send(&request(line, &[("authorization", &bearer)], b"")).await;
                    client.head().await.unwrap()
                } else if !rights.contains(token) {
                    ask(&server, token, line, body).await
                } else if line.contains("long-poll") && there {
                    continue;
                } else {
                    ask(&server, token, line, body).await
                };
                let allowed = rights.contains(token);
                assert_eq!(
                    answer.status != 403,
                    allowed,
                    "{line} {token} {there} {}",
                    answer.status
                );
                assert_ne!(answer.status, 401);
                if !allowed && !line.starts_with("HEAD") {
                    let said = answer.problem(403, "forbidden");
                    assert!(said["right"].is_string(), "{said}");
                    assert_eq!(
                        said["topic"].as_str(),
                        if line == "GET /metrics" { None } else { Some("a") }
                    );
                }
                let _ = server.broker.delete("a");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_closed_forked_or_begun_with_a_body_needs_more() {
    let access = Access::new(vec![
        entry("m", ["", "", "a b"]),
        entry("pm", ["a b", "", "a b"]),
        entry("psm", ["a b", "a", "a b"]),
    ]);
    let server = with(&access.unwrap());
    ask(&server, "m", "PUT /v1/stream/a", b"x").await.problem(403, "forbidden");
    assert_eq!(server.broker.topics(), 0);
    assert_eq!(ask(&server, "pm", "PUT /v1/stream/a", b"x").await.status, 201);
    let fork = |token: &'static str| {
        let server = &server;
        async move {
            let bearer = format!("Bearer {token}");
            let headers = [
                ("authorization", bearer.as_str()),
                ("content-type", "text/plain"),
                ("stream-forked-from", "/v1/stream/a"),
            ];
            server.ask("PUT /v1/stream/b", &headers, b"").await
        }
    };
    let said = fork("pm").await.problem(403, "forbidden");
    assert_eq!((&said["right"], &said["topic"]), (&"subscribe".into(), &"a".into()));
    assert_eq!(fork("psm").await.status, 201);
    let close = |token: &'static str, body: &'static [u8]| {
        let server = &server;
        async move {
            let bearer = format!("Bearer {token}");
            let headers = [
                ("authorization", bearer.as_str()),
                ("content-type", "text/plain"),
                ("stream-closed", "true"),
            ];
            server.ask("POST /v1/stream/a", &headers, body).await
        }
    };
    close("m", b"last words").await.problem(403, "forbidden");
    assert_eq!(close("m", b"").await.status, 204);
}

#[tokio::test]
async fn a_list_has_what_may_be_seen() {
    let access = Access::new(vec![entry("some", ["*", "b*", "c"]), entry("none", ["*", "", ""])]);
    let server = with(&access.unwrap());
    for name in ["a", "b1", "b2", "c", "d"] {
        server.broker.open(name, psa::broker::Purpose::Publish).unwrap();
    }
    let names = |said: serde_json::Value| -> Vec<String> {
        let topics = said["topics"].as_array().unwrap();
        topics.iter().map(|topic| topic["topic"].as_str().unwrap().to_owned()).collect()
    };
    let some = ask(&server, "some", "GET /topics?limit=2", b"").await.ok();
    assert_eq!(some["more"], true);
    assert_eq!(names(some), ["b1", "b2"]);
    let rest = ask(&server, "some", "GET /topics?after=b2", b"").await.ok();
    assert_eq!(rest["more"], false);
    assert_eq!(names(rest), ["c"]);
    assert!(names(ask(&server, "none", "GET /topics", b"").await.ok()).is_empty());
}

#[tokio::test]
async fn the_figures_have_a_right_of_their_own() {
    let mut metrics = entry("metrics", ["", "", ""]);
    metrics.metrics = true;
    let access = Access::new(vec![metrics, entry("manager", ["*", "*", "*"])]).unwrap();
    let server = with(&access);
    assert_eq!(ask(&server, "metrics", "GET /metrics", b"").await.status, 200);
    ask(&server, "manager", "GET /metrics", b"").await.problem(403, "forbidden");
    ask(&server, "metrics", "GET /topics/a", b"").await.problem(403, "forbidden");
    assert_eq!(server.get("/healthz").await.status, 200);
    server.get("/metrics").await.problem(401, "unauthorized");
    // What the live page shows names topics and leases, too; the page itself says nothing.
    ask(&server, "manager", "GET /live/events", b"").await.problem(403, "forbidden");
    server.get("/live/events").await.problem(401, "unauthorized");
    assert_eq!(server.get("/").await.status, 200);
    begin(&server, "metrics", "/live/events").await;
}

/// Opens a stream and reads its head.
async fn begin(server: &Running, token: &str, path: &str) -> Client {
    let mut client = Client::new(server.address).await;
    let bearer = format!("Bearer {token}");
    client.send(&request(&format!("GET {path}"), &[("authorization", &bearer)], b"")).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    client
}

async fn ends(client: &mut Client) {
    while let Some(piece) = client.chunk().await {
        if piece.is_empty() {
            return;
        }
    }
    panic!("it is cut short rather than ended");
}

#[tokio::test]
async fn streams_end_when_their_right_does() {
    let access = Access::new(vec![
        entry("gone", ["", "a", ""]),
        entry("less", ["", "a", ""]),
        entry("stays", ["a", "a", ""]),
    ]);
    let access = access.unwrap();
    // No heartbeat and no end may be what ends them.
    let server = serve(|config, _| {
        config.access = Some(access.clone());
        config.limits.heartbeat = std::time::Duration::from_secs(3600);
    });
    ask(&server, "stays", "POST /topics/a", b"one").await.ok();
    let paths = ["/topics/a/events", "/v1/stream/a?offset=-1&live=sse"];
    let mut ending = Vec::new();
    let mut staying = Vec::new();
    for path in paths {
        for token in ["gone", "less"] {
            ending.push(begin(&server, token, path).await);
        }
        staying.push(begin(&server, "stays", path).await);
    }
    access.replace(vec![entry("less", ["a", "", "a"]), entry("stays", ["a", "a", ""])]).unwrap();
    for client in &mut ending {
        ends(client).await;
    }
    ask(&server, "gone", "GET /topics/a/events", b"").await.problem(401, "unauthorized");
    ask(&server, "less", "GET /topics/a/events", b"").await.problem(403, "forbidden");
    ask(&server, "stays", "POST /topics/a", b"two").await.ok();
    // The second one tells bytes in base64.
    for (client, record) in staying.iter_mut().zip([&b"two"[..], b"dHdv"]) {
        assert!(client.until(record).await.is_some(), "it goes on");
    }
}

#[tokio::test]
async fn a_wait_for_records_tells_nothing_to_who_lost_the_right() {
    let access = Access::new(vec![entry("gone", ["", "a", ""]), entry("all", ["a", "a", "a"])]);
    let access = access.unwrap();
    let server = with(&access);
    ask(&server, "all", "POST /topics/a", b"one").await.ok();
    for path in ["/topics/a/records?from=1&wait=60s", "/v1/stream/a?offset=now&live=long-poll"] {
        let mut waiting = Client::new(server.address).await;
        let headers = [("authorization", "Bearer gone")];
        waiting.send(&request(&format!("GET {path}"), &headers, b"")).await;
        let topic = server.broker.topic("a").unwrap();
        let waits = topic.log().stats().cursors;
        until("it waits", || waits > 0 || topic.log().stats().cursors > 0).await;
        access.replace(vec![entry("all", ["a", "a", "a"])]).unwrap();
        ask(&server, "all", "POST /topics/a", b"secret").await.ok();
        waiting.answer().await.unwrap().problem(401, "unauthorized");
        access.replace(vec![entry("gone", ["", "a", ""]), entry("all", ["a", "a", "a"])]).unwrap();
    }
}

/// Who says where it was is asked for its right like everybody else.
#[tokio::test]
async fn who_comes_back_needs_the_right_anew() {
    let access = Access::new(vec![entry("t", ["a", "a", ""])]).unwrap();
    let server = with(&access);
    ask(&server, "t", "POST /topics/a", b"one").await.ok();
    let said = ask(&server, "t", "GET /topics/a/records", b"").await.ok();
    let position = said["position"].as_str().unwrap();
    ask(&server, "t", "POST /topics/a", b"two").await.ok();
    let come_back = async |path: &str, last: Option<&str>| {
        let mut headers = vec![("authorization", "Bearer t")];
        headers.extend(last.map(|last| ("last-event-id", last)));
        let mut client = Client::new(server.address).await;
        client.send(&request(&format!("GET {path}"), &headers, b"")).await;
        client
    };
    let events = ("/topics/a/events".to_owned(), Some(position));
    let after = |route: &str| (format!("/topics/a/{route}?after={position}"), None);
    let ways = [events, after("events"), after("records")];
    for (path, last) in &ways {
        let mut client = come_back(path, *last).await;
        assert_eq!(client.head().await.unwrap().status, 200, "{path}");
    }
    access.replace(vec![entry("t", ["a", "", ""])]).unwrap();
    for (path, last) in &ways {
        let mut client = come_back(path, *last).await;
        client.answer().await.unwrap().problem(403, "forbidden");
    }
}

#[tokio::test]
async fn a_token_in_the_address_is_taken_only_where_it_is_allowed() {
    let allowed = serve(|config, _| {
        (config.token, config.token_in_query) = (Some(Token::new("s3c/ret")), true);
    });
    let refused = serve(|config, _| config.token = Some(Token::new("s3c/ret")));
    let path = "GET /topics?access_token=s3c%2Fret&limit=1";
    allowed.ask(path, &[], b"").await.ok();
    refused.ask(path, &[], b"").await.problem(401, "unauthorized");
    for wrong in
        ["?access_token=", "?access_token=x", "?access_token=s3c%2Fret&access_token=s3c%2Fret", ""]
    {
        let line = format!("GET /topics{wrong}");
        allowed.ask(&line, &[], b"").await.problem(401, "unauthorized");
    }
    // A header goes before it; either way no route sees the parameter.
    let bad = [("authorization", "Bearer x")];
    allowed.ask(path, &bad, b"").await.problem(401, "unauthorized");
    let good = [("authorization", "Bearer s3c/ret")];
    allowed.ask("GET /topics?access_token=x", &good, b"").await.ok();
    // What a browser's EventSource asks for.
    let mut stream = Stream::open(allowed.address, "t/events?access_token=s3c%2Fret", None).await;
    let publish = "POST /topics/t?access_token=s3c%2Fret";
    allowed.ask(publish, &[], b"hello").await.ok();
    assert_eq!(stream.record().await.data, "hello");
}
