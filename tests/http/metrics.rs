//! What an operator's machines see.

use psa::Start;
use psa::http::Token;

use super::stream::*;
use super::support::*;

/// The value of the line that begins with this.
#[track_caller]
fn value(text: &str, line: &str) -> f64 {
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().expect("a number")
}

#[tokio::test]
async fn the_figures_are_those_of_the_topics() {
    let server = serve(|_, _| {});
    for record in ["a", "bc", "def"] {
        server.publish("t \"1\"".replace(' ', "%20").as_str(), record.as_bytes()).await;
    }
    server.publish("u", b"x").await;
    let topic = server.broker.topic("u").unwrap();
    let _cursors = [topic.log().subscribe(Start::Next), topic.log().subscribe(Start::Next)];
    let mut stream = Stream::open(server.address, "u/events", None).await;
    assert_eq!(stream.next().await.data, "x");
    server.get("/nothing").await;

    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let media = answer.header("content-type").unwrap();
    assert!(media.starts_with("application/openmetrics-text"), "{media}");
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for (line, expected) in [
        ("psa_topics", 2.0),
        ("psa_topic_appended_records_total{topic=\"t \\\"1\\\"\"}", 3.0),
        ("psa_topic_appended_bytes_total{topic=\"t \\\"1\\\"\"}", 6.0),
        ("psa_topic_appended_records_total{topic=\"u\"}", 1.0),
        ("psa_topic_cursors{topic=\"u\"}", 3.0),
        ("psa_cursors", 3.0),
        ("psa_segments_live", 2.0),
        ("psa_http_streams", 1.0),
        ("psa_http_events_total", 1.0),
        ("psa_http_append_seconds_count", 4.0),
        ("psa_http_answers_total{class=\"4xx\"}", 1.0),
        ("psa_memory_limit_bytes", (1u64 << 30) as f64),
        ("psa_topic_durability{topic=\"u\",durability=\"memory\"}", 1.0),
        ("psa_stored_topics", 0.0),
        ("psa_stored_topics_damaged", 0.0),
        ("psa_stored_recovered_records", 0.0),
        ("psa_stored_recovered_cut_bytes", 0.0),
        ("psa_stored_recovery_seconds", 0.0),
        ("psa_stored_sync_seconds_total", 0.0),
    ] {
        assert_eq!(value(text, line), expected, "{line}");
    }
    assert!(value(text, "psa_http_connections") >= 2.0);
    assert_eq!(value(text, "psa_memory_used_bytes"), server.broker.budget().used() as f64);
}

#[tokio::test]
async fn deliveries_are_timed_if_their_subscriber_was_there() {
    let server = serve(|_, _| {});
    let mut live = Stream::open(server.address, "t/events", None).await;
    assert_eq!(live.next().await.name, "caught-up");
    // One record in 64 is watched: the first, the 65th and the 129th here, each in a write of its own.
    for n in 0..130 {
        server.publish("t", n.to_string().as_bytes()).await;
        assert_eq!(live.record().await.data, n.to_string());
    }
    // For who comes later they are nothing new.
    let mut later = Stream::open(server.address, "t/events", None).await;
    for n in 0..130 {
        assert_eq!(later.record().await.data, n.to_string());
    }
    let answer = server.get("/metrics").await;
    let text = answer.text();
    let name = "psa_delivery_seconds";
    assert_eq!(value(text, &format!("{name}_count{{listener=\"http\"}}")), 3.0);
    let buckets: Vec<f64> = text
        .lines()
        .filter(|line| {
            line.starts_with(&format!("{name}_bucket")) && line.contains("listener=\"http\"")
        })
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!((buckets.len(), buckets.last()), (21, Some(&3.0)), "{buckets:?}");
    assert!(buckets.is_sorted(), "{buckets:?}");
    assert_eq!(value(text, &format!("{name}_count{{listener=\"binary\"}}")), 0.0);
    let sum = value(text, &format!("{name}_sum{{listener=\"http\"}}"));
    assert!(sum > 0.0 && sum < PATIENCE.as_secs_f64() * 130.0, "{sum}");
}

#[tokio::test]
async fn there_is_a_bound_to_labels() {
    let server = serve(|_, topics| topics.segment_bytes = 4096);
    for n in 0..300 {
        server.broker.create(&format!("{n:03}"), &Default::default()).unwrap();
    }
    let answer = server.get("/metrics").await;
    let text = answer.text();
    assert_eq!(value(text, "psa_topics"), 300.0);
    assert_eq!(value(text, "psa_topics_labelled"), 200.0);
    let labelled = text.lines().filter(|line| line.starts_with("psa_topic_cursors{"));
    assert_eq!(labelled.count(), 200);
}

#[tokio::test]
async fn health_needs_no_token_and_figures_do() {
    let server = serve(|config, _| config.token = Some(Token::new("s3cret")));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path).await.status, 200);
    }
    server.get("/metrics").await.problem(401, "unauthorized");
    let mut client = Client::new(server.address).await;
    client.ask("GET /readyz", &[], b"").await;
    let token = [("authorization", "Bearer s3cret")];
    assert_eq!(client.ask("GET /metrics", &token, b"").await.status, 200);
}

/// What a program reads that knows nothing of us: each sample belongs to a family whose type and
/// description come before it, and a histogram has a bucket for everything.
#[tokio::test]
async fn both_forms_describe_everything_that_they_have() {
    let server = serve(|_, _| {});
    let mut live = Stream::open(server.address, "t/events", None).await;
    server.publish("t", b"x").await;
    live.record().await;
    let topic = server.broker.topic("t").unwrap();
    let _lease = topic.lease("billing", Default::default()).unwrap();
    server.get("/nothing").await;
    for (accept, media, total) in [
        (
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "",
        ),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8", "_total"),
    ] {
        let answer = server.ask("GET /metrics", &[("accept", accept)], b"").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(media)));
        assert_eq!(answer.header("vary"), Some("accept"));
        let text = answer.text();
        assert_eq!(text.ends_with("# EOF\n"), total.is_empty());
        let (mut described, mut kinds) = (String::new(), std::collections::BTreeMap::new());
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(help) = line.strip_prefix("# HELP ") {
                described = help.split(' ').next().unwrap().to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, described, "{line}");
                assert!(kinds.insert(name, kind).is_none(), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                let known = kinds.iter().any(|(family, kind)| match *kind {
                    "counter" if total.is_empty() => name.strip_suffix("_total") == Some(family),
                    "histogram" => ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|suffix| name.strip_suffix(suffix) == Some(family)),
                    _ => name == *family,
                });
                assert!(known, "{line} in\n{text}");
            }
        }
        for name in ["psa_delivery_seconds", "psa_http_append_seconds"] {
            assert_eq!(kinds.get(name), Some(&"histogram"));
            for labels in ["{listener=\"http\"", "{listener=\"binary\""]
                .iter()
                .filter(|_| name.contains("delivery"))
            {
                let count = value(text, &format!("{name}_count{labels}}}"));
                let all = text.lines().find(|line| {
                    line.starts_with(&format!("{name}_bucket{{"))
                        && line.contains("le=\"+Inf\"")
                        && line.contains(&labels[1..])
                });
                let all = all.unwrap_or_else(|| panic!("no +Inf of {name} in\n{text}"));
                assert_eq!(all.rsplit(' ').next().unwrap().parse(), Ok(count), "{all}");
            }
        }
        for (line, expected) in [
            ("psa_topic_delivered_records_total{topic=\"t\"}", 1.0),
            ("psa_delivered_records_total", 1.0),
            ("psa_lease_lag_records{topic=\"t\",lease=\"billing\"}", 0.0),
            ("psa_http_problems_total{code=\"not-found\"}", 1.0),
            ("psa_build_info{version=\"0.1.0\"}", 1.0),
        ] {
            assert_eq!(value(text, line), expected, "{line}");
        }
        #[cfg(target_os = "linux")]
        assert!(value(text, "process_resident_memory_bytes") > 1e6);
    }
}

/// Ten thousand clients that ask for figures and take none of them.
#[tokio::test]
async fn answers_that_nobody_takes_are_bounded() {
    let server = serve(|config, topics| {
        topics.segment_bytes = 4096;
        config.send_buffer = Some(4 << 10);
        config.limits.output_bytes = 1 << 20;
    });
    for n in 0..200 {
        let name = format!("{n:0>200}");
        server.broker.create(&name, &Default::default()).unwrap();
    }
    let mut clients = Vec::new();
    for path in ["/metrics", "/topics?limit=1000"] {
        let mut answered = 0;
        for _ in 0..60 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4 << 10).unwrap();
            let mut client = Client::of(socket.connect(server.address).await.unwrap());
            client.send(&request(&format!("GET {path}"), &[], b"")).await;
            let head = client.head().await.unwrap();
            assert!([200, 503].contains(&head.status), "{}", head.status);
            answered += usize::from(head.status == 200);
            clients.push(client);
        }
        // Figures are shared, so that many have them; lists are each one's own, until there is no room.
        assert!(answered > 0 && (answered < 60 || path == "/metrics"), "{path}: {answered}");
    }
    drop(clients);
    until("the answers are gone", || server.handle.connections() == 0).await;
    assert_eq!(server.get("/topics?limit=1000").await.status, 200);
    assert_eq!(server.get("/metrics").await.status, 200);
}
