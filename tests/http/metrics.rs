//! What an operator's machines see.

use psa::{Start, http::Token};

use super::{stream::*, support::*};

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
    assert_eq!(value(text, &format!("{name}_count{{door=\"http\"}}")), 3.0);
    let buckets: Vec<f64> = text
        .lines()
        .filter(|line| {
            line.starts_with(&format!("{name}_bucket")) && line.contains("door=\"http\"")
        })
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!((buckets.len(), buckets.last()), (21, Some(&3.0)), "{buckets:?}");
    assert!(buckets.is_sorted(), "{buckets:?}");
    assert_eq!(value(text, &format!("{name}_count{{door=\"binary\"}}")), 0.0);
    let sum = value(text, &format!("{name}_sum{{door=\"http\"}}"));
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
