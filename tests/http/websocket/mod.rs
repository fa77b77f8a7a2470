//! Following a topic over WebSocket: the same as with events, and what only a socket can do wrong.

mod bad;
mod entry;
pub(crate) mod socket;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use self::socket::*;
use crate::support::*;

const JSON: [(&str, &str); 1] = [("sec-websocket-protocol", "psa.json")];
const BYTES: [(&str, &str); 1] = [("sec-websocket-protocol", "psa.binary")];

#[tokio::test]
async fn everything_is_told_as_with_events() {
    for form in [&[][..], &JSON, &BYTES] {
        let server = serve(|_, _| {});
        server.publish("t", b"a").await;
        let mut socket = Socket::open(server.address, "t/events", form).await;
        let epoch = server.epoch_text("t");
        let at = |next: u64| {
            let last = i64::try_from(next).unwrap() - 1;
            json!({"epoch": epoch, "next_offset": next, "position": format!("{epoch}:{last}")})
        };
        assert_eq!(socket.next().await.event("begin"), at(0));
        assert_eq!(socket.next().await, Told::Record(0, b"a".into()));
        assert_eq!(socket.next().await.event("caught-up"), at(1));
        for (offset, record) in (1..).zip([&b"two\nlines\r\n"[..], b"", b"\xff\0", b"[\"]"]) {
            server.publish("t", record).await;
            assert_eq!(socket.next().await, Told::Record(offset, record.into()));
        }
        server.ask("POST /topics/t/close", &[], b"").await;
        let mut end = at(5);
        end["reason"] = "closed".into();
        assert_eq!(socket.next().await.event("end"), end);
        assert_eq!(socket.next().await, Told::Close(1000, "closed".into()));
        // The connection ends when the client has answered.
        socket.send(LAST | CLOSE, &1000u16.to_be_bytes()).await;
        assert!(socket.client.is_closed().await);
        // Who comes back finds the end again.
        let path = format!("t/events?after={}", socket.position);
        let mut again = Socket::open(server.address, &path, form).await;
        assert_eq!(again.next().await.event("begin"), at(5));
        assert_eq!(again.next().await.event("end"), end);
        until("the streams are gone", || server.handle.streams() == 0).await;
    }
}

#[tokio::test]
async fn a_socket_begins_where_it_is_asked_to() {
    let server = serve(|_, _| {});
    for record in ["a", "b", "c"] {
        server.publish("t", record.as_bytes()).await;
    }
    let epoch = server.epoch_text("t");
    for (place, first) in [
        (String::new(), 0),
        ("?from=2".into(), 2),
        ("?from=last:2".into(), 1),
        (format!("?from={epoch}:1"), 1),
        (format!("?after={epoch}:1"), 2),
    ] {
        let mut socket = Socket::open(server.address, &format!("t/events{place}"), &[]).await;
        assert_eq!(socket.record().await.0, first, "{place}");
    }
    for bad in ["?from=x", "?after=x", "?limit=1", "?on_gap=x"] {
        let (answer, _) = Socket::try_open(server.address, &format!("t/events{bad}"), &[]).await;
        answer.problem(400, "bad-parameter");
    }
    let beyond = format!("t/events?after={epoch}:3");
    Socket::try_open(server.address, &beyond, &[]).await.0.problem(416, "beyond-end");
}

#[tokio::test]
async fn what_is_gone_is_told_over_the_socket() {
    let server = serve(|_, _| {});
    let first = server.collected().await;
    let epoch = server.epoch_text("t");
    let position = format!("{epoch}:{}", first - 1);
    let gone = |reason: &str, missed: u64| {
        json!({"reason": reason, "epoch": epoch, "first_missed": missed, "next_offset": first,
            "position": position})
    };
    // A page learns nothing of a handshake that fails: so it is the other way round than with events.
    let old = format!("t/events?after={epoch}:0");
    let mut socket = Socket::open(server.address, &old, &[]).await;
    assert_eq!(socket.next().await.event("gap"), gone("collected", 1));
    assert_eq!(socket.next().await, Told::Record(first, vec![b'x'; 2000]));
    let said = Socket::try_open(server.address, &format!("{old}&on_gap=error"), &[]).await.0;
    said.problem(410, "collected");
    // Another epoch: the topic was recreated.
    let mut socket = Socket::open(server.address, "t/events?after=0x1:41", &BYTES).await;
    let mut other = gone("other-epoch", 42);
    other["of_epoch"] = "0x0000000000000001".into();
    assert_eq!(socket.next().await.event("gap"), other);
    assert_eq!(socket.record().await.0, first);
}

#[tokio::test]
async fn who_begins_in_the_middle_of_a_run_shares_the_rest() {
    for form in [JSON, BYTES] {
        let server = serve(|_, _| {});
        let lines: String = (0..100).map(|n| format!("{n}\n")).collect();
        let ndjson = [("content-type", "application/x-ndjson")];
        server.ask("POST /topics/t", &ndjson, lines.as_bytes()).await.ok();
        // They stay: runs go with the last stream that has them.
        let mut sockets = Vec::new();
        for at in [0, 0, 57, 99, 57] {
            let path = format!("t/events?from={at}");
            let mut socket = Socket::open(server.address, &path, &form).await;
            for n in at..100 {
                assert_eq!(socket.record().await, (n, n.to_string().into_bytes()));
            }
            sockets.push(socket);
        }
        let metrics = server.get("/metrics").await;
        assert!(metrics.text().contains("psa_http_runs_encoded_total 1\n"), "{}", metrics.text());
        assert!(metrics.text().contains("psa_http_runs_shared_total 4\n"));
    }
}

#[tokio::test]
async fn an_idle_socket_beats_and_an_old_one_ends() {
    let server = serve(|config, _| {
        config.limits.heartbeat = Duration::from_millis(20);
        config.limits.lifetime = Duration::from_millis(400);
    });
    let mut socket = Socket::open(server.address, "t/events", &[]).await;
    socket.next().await.event("begin");
    socket.next().await.event("caught-up");
    assert_eq!(socket.next().await, Told::Close(1001, "lifetime".into()));
    assert!(socket.pings > 1, "{} pings", socket.pings);
}

#[tokio::test]
async fn who_answers_no_ping_is_sent_away() {
    let server = serve(|config, _| {
        config.limits.heartbeat = Duration::from_millis(20);
        config.limits.stall_timeout = Duration::from_millis(300);
    });
    let mut silent = Socket::open(server.address, "t/events", &[]).await;
    silent.answers = false;
    let mut well = Socket::open(server.address, "t/events", &[]).await;
    // Who answers stays for many times as long.
    let answering = async {
        while well.pings < 100 {
            let (kind, payload) = well.frame().await.expect("it goes on");
            if kind == PING {
                well.pings += 1;
                well.send(LAST | PONG, &payload).await;
            }
        }
    };
    let (end, ()) = tokio::join!(silent.end(), answering);
    assert_eq!(end, (3008, "no-pong".into()));
}

#[tokio::test]
async fn a_ping_and_a_close_are_answered() {
    let server = serve(|_, _| {});
    let mut socket = Socket::open(server.address, "t/events", &[]).await;
    for _ in 0..2 {
        assert_eq!(socket.frame().await.unwrap().0, TEXT);
    }
    socket.send(LAST | PING, b"well?").await;
    assert_eq!(socket.frame().await, Some((PONG, b"well?".into())));
    let close = [&1000u16.to_be_bytes()[..], b"enough"].concat();
    socket.send(LAST | CLOSE, &close).await;
    assert_eq!(socket.frame().await, Some((CLOSE, 1000u16.to_be_bytes().into())));
    assert!(socket.client.is_closed().await);
    drop(socket);
    until("the stream is gone", || server.handle.streams() == 0).await;
    until("the connection is gone", || server.handle.connections() == 0).await;
}

#[tokio::test]
async fn a_socket_is_a_connection_and_a_stream_as_long_as_it_lives() {
    let server = serve(|config, _| {
        config.limits.max_connections = 2;
        config.limits.max_streams = 1;
    });
    let socket = Socket::open(server.address, "t/events", &[]).await;
    let (refused, other) = Socket::try_open(server.address, "t/events", &[]).await;
    refused.problem(503, "too-many-streams");
    assert_eq!(server.handle.connections(), 2);
    server.get("/topics").await.problem(503, "too-many-connections");
    drop((socket, other));
    until("they are gone", || server.handle.connections() == 0).await;
    assert_eq!(server.handle.streams(), 0);
    Socket::open(server.address, "t/events", &[]).await;
}

#[tokio::test]
async fn a_drain_delivers_all_that_was_acknowledged_and_the_end() {
    for form in [JSON, BYTES] {
        let server = serve(|_, _| {});
        let mut socket = Socket::open(server.address, "t/events", &form).await;
        for n in 0..1000 {
            server.broker.topic("t").unwrap().blocking_append(format!("{n}").as_bytes()).unwrap();
        }
        server.handle.drain();
        for n in 0..1000 {
            assert_eq!(socket.record().await, (n, n.to_string().into_bytes()));
        }
        assert_eq!(socket.end().await, (1001, "shutting-down".into()));
        assert!(!server.task.is_finished(), "it waits for the client's answer");
        socket.send(LAST | CLOSE, &1001u16.to_be_bytes()).await;
        assert!(socket.client.is_closed().await);
        drop(socket);
        until("the API is closed", || server.task.is_finished()).await;
    }
}

#[tokio::test]
async fn an_abort_cuts_sockets_off() {
    let server = serve(|_, _| {});
    let mut socket = Socket::open(server.address, "t/events", &[]).await;
    socket.next().await.event("begin");
    socket.next().await.event("caught-up");
    server.handle.abort();
    assert_eq!(socket.try_next().await, None);
    until("the API is closed", || server.task.is_finished()).await;
}

#[tokio::test]
async fn deletion_ends_a_socket() {
    let server = serve(|_, _| {});
    let mut socket = Socket::open(server.address, "t/events", &[]).await;
    server.ask("DELETE /topics/t", &[], b"").await;
    assert_eq!(socket.end().await, (1000, "deleted".into()));
}

/// Follows to the end through connections that are cut, and says which records came and which are
/// missing by what was told.
async fn follow_through_cuts(server: &Running, form: &[(&str, &str)]) -> (Vec<u64>, Vec<u64>) {
    let (mut received, mut missing) = (Vec::new(), Vec::new());
    let mut path = "t/events?from=0".to_owned();
    loop {
        let mut socket = Socket::open(server.address, &path, form).await;
        let mut left = fastrand::usize(0..200);
        while left > 0
            && let Some(told) = socket.try_next().await
        {
            left -= 1;
            match told {
                Told::Record(offset, data) => {
                    assert!(data.starts_with(offset.to_string().as_bytes()));
                    received.push(offset);
                }
                Told::Event(name, facts) if name == "gap" => {
                    let [from, to] = ["first_missed", "next_offset"].map(|at| facts[at].as_u64());
                    missing.extend(from.unwrap()..to.unwrap());
                }
                Told::Close(code, reason) => {
                    assert_eq!((code, reason.as_str()), (1000, "closed"));
                    return (received, missing);
                }
                Told::Event(..) => {}
            }
        }
        if !socket.position.is_empty() {
            path = format!("t/events?after={}", socket.position);
        }
    }
}

#[tokio::test]
async fn through_cuts_every_record_comes_once_or_is_told_missing() {
    for (form, kept, gaps) in [(&JSON, "everything", false), (&BYTES, "nothing", true)] {
        let server = serve(|_, _| {});
        let settings = json!({
            "segment_bytes": 4096, "retention": kept, "overflow": "evict", "memory_limit": 1 << 22,
        });
        let made = server.ask("PUT /topics/t", &[], settings.to_string().as_bytes()).await;
        assert_eq!(made.status, 201);
        const RECORDS: u64 = 5_000;
        let log = server.broker.topic("t").unwrap();
        let publishing = tokio::spawn(async move {
            for n in 0..RECORDS {
                log.blocking_append(format!("{n} {}", "x".repeat(100)).as_bytes()).unwrap();
                if n % 10 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            drop(log.close());
        });
        let (received, missing) = follow_through_cuts(&server, &form[..]).await;
        publishing.await.unwrap();
        assert!(received.is_sorted_by(|a, b| a < b), "once, and in order");
        if !gaps {
            assert!(missing.is_empty(), "{missing:?}");
        }
        let mut all = [&received[..], &missing].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..RECORDS), "{} came", received.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever is published, that is what comes.
    #[test]
    fn any_record_arrives_as_it_is(
        records in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[\\[\\],\"\\\\ :\\n\\r\u{feff}aé\u{2028}]{0,20}".prop_map(String::into_bytes),
        ], 1..20),
        from in 0..20usize,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let server = serve(|config, _| config.limits.run_bytes = 64);
            let topic = server.broker.open("t", psa::broker::Purpose::Publish).unwrap();
            for record in &records {
                topic.blocking_append(record).unwrap();
            }
            for form in [JSON, BYTES] {
                for from in [0, from.min(records.len() - 1)] {
                    let path = format!("t/events?from={from}");
                    let mut socket = Socket::open(server.address, &path, &form).await;
                    for (offset, record) in records.iter().enumerate().skip(from) {
                        assert_eq!(socket.record().await, (offset as u64, record.clone()));
                    }
                }
            }
        });
    }
}
