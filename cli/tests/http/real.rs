//! The real binary with both listeners.

use std::net::SocketAddr;

use super::harness::*;
use super::stream::Stream;
use super::support::Client;

/// A `psa serve` with both listeners on free ports.
pub(crate) struct Real {
    pub(crate) server: Server,
    pub(crate) http: SocketAddr,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Real {
    #[track_caller]
    pub(crate) fn start(flags: &[&str]) -> Real {
        Self::over(Server::start(&[&["--http", "127.0.0.1:0"], flags].concat()))
    }

    #[track_caller]
    pub(crate) fn start_with_token(token: &'static str, flags: &[&str]) -> Real {
        let flags = [&["--http", "127.0.0.1:0"], flags].concat();
        Self::over(Server::start_with_token(token, &flags))
    }

    /// A server that was started with `--http` on a free port.
    #[track_caller]
    pub(crate) fn over(mut server: Server) -> Real {
        let http = http_address(&mut server);
        Real { server, http, runtime: tokio::runtime::Runtime::new().expect("a runtime") }
    }
}

/// Where the HTTP API listens, from what the server says at its start.
#[track_caller]
pub(crate) fn http_address(server: &mut Server) -> SocketAddr {
    eventually("the address of the HTTP API", || {
        let said = String::from_utf8(server.process().stdout()).expect("text");
        let address = said.split_once("curl -N http://").and_then(|(_, behind)| {
            behind.split_once('/').and_then(|(address, _)| address.parse().ok())
        });
        address.ok_or(said)
    })
}

#[test]
fn what_one_listener_takes_the_other_one_gives() {
    let mut real = Real::start(&[]);
    let mut stream = real.runtime.block_on(Stream::open(real.http, "t/events", None));
    real.server.publish(&["pub", "t"], b"over the TCP listener\n").expect(exit::DONE);
    let event = real.runtime.block_on(stream.record());
    assert_eq!((event.data.as_str(), event.offset()), ("over the TCP listener", 0));

    let subscriber = real.server.spawn(&["sub", "t", "--count", "3"]);
    real.runtime.block_on(async {
        let mut client = Client::new(real.http).await;
        client.ask("POST /topics/t", &[], b"over HTTP").await.ok();
    });
    // The subscriber may still be on its way when the record is there.
    eventually("its connection in the figures", || {
        let metrics = real
            .runtime
            .block_on(async { Client::new(real.http).await.ask("GET /metrics", &[], b"").await });
        let seen = metrics.text().contains("psa_connections 1\n");
        if seen { Ok(()) } else { Err(metrics.text().to_owned()) }
    });
    real.server.publish(&["pub", "t"], b"the last one\n").expect(exit::DONE);
    let run = subscriber.wait().expect(exit::DONE);
    assert_eq!(run.text(), "over the TCP listener\nover HTTP\nthe last one\n");
    assert_eq!(real.runtime.block_on(stream.record()).data, "over HTTP");
    assert_eq!(real.runtime.block_on(stream.record()).data, "the last one");

    // A signal drains both.
    real.server.process().signal(rustix::process::Signal::TERM);
    let end = real.runtime.block_on(stream.record());
    assert_eq!(end.json("end")["reason"], "shutting-down");
    assert_eq!(real.runtime.block_on(stream.try_next()), None);
    real.server.take_process().wait().expect(exit::DONE);
}

#[test]
fn deliveries_of_the_tcp_listener_are_timed_too() {
    let real = Real::start(&[]);
    let subscriber = real.server.spawn(&["sub", "t", "--count", "65"]);
    let figures = |real: &Real| {
        let asked = async { Client::new(real.http).await.ask("GET /metrics", &[], b"").await };
        real.runtime.block_on(asked).text().to_owned()
    };
    eventually("its subscription in the figures", || {
        let said = figures(&real);
        if said.contains("psa_subscriptions 1\n") { Ok(()) } else { Err(said) }
    });
    let lines: String = (0..65).map(|n| format!("{n}\n")).collect();
    real.server.publish(&["pub", "t"], lines.as_bytes()).expect(exit::DONE);
    subscriber.wait().expect(exit::DONE);
    // The first and the 65th are watched, and may have gone out in one write.
    let said = figures(&real);
    let count = said.lines().find_map(|line| {
        line.strip_prefix("psa_delivery_seconds_count{listener=\"binary\"} ")?.parse::<u64>().ok()
    });
    assert!(matches!(count, Some(1 | 2)), "{count:?} in\n{said}");
    assert!(said.contains("psa_delivery_seconds_count{listener=\"http\"} 0\n"), "{said}");
}

#[test]
fn a_server_that_was_killed_says_that_it_is_another_one() {
    let mut real = Real::start(&[]);
    real.server.publish(&["pub", "t"], b"a\nb\n").expect(exit::DONE);
    let mut stream = real.runtime.block_on(Stream::open(real.http, "t/events", None));
    let last = real.runtime.block_on(async {
        assert_eq!(stream.record().await.data, "a");
        stream.record().await
    });
    let http = real.http.to_string();
    real.server.restart(&["--http", &http]);
    assert_eq!(http_address(&mut real.server), real.http);
    real.runtime.block_on(async {
        assert_eq!(stream.try_next().await.map(|event| event.name), Some("caught-up".into()));
        assert_eq!(stream.try_next().await, None, "cut short");
        // As a browser does: the same address, with the last id.
        let mut again = Stream::open(real.http, "t/events", Some(&last.id)).await;
        let gap = again.record().await.json("gap");
        assert_eq!((&gap["reason"], &gap["first_missed"]), (&"other-epoch".into(), &2.into()));
        assert_eq!(gap["next_offset"], 0);
        let mut client = Client::new(real.http).await;
        client.ask("POST /topics/t", &[], b"new").await.ok();
        assert_eq!(again.record().await.data, "new");
    });
}

#[test]
fn the_http_api_is_off_unless_it_is_asked_for_and_says_what_is_wrong() {
    let mut server = Server::start(&[]);
    assert!(!String::from_utf8(server.process().stdout()).unwrap().contains("curl"));
    let taken = server.address.to_string();
    let refused = |flags: &[&str]| {
        let all = [&["serve", "--listen", "127.0.0.1:0", "--log-level", "off"], flags].concat();
        server.run(&all)
    };
    refused(&["--http", &taken]).expect_line(exit::FAILED, &[&taken, "in use"]);
    refused(&["--http", "0.0.0.0:0"]).expect_line(exit::USAGE, &["--http-listen", "no token"]);
    refused(&["--http", "nonsense"]).expect_line(exit::USAGE, &["--http-listen", "HOST:PORT"]);
    let bad = ["--http", "127.0.0.1:0", "--http-origins", "example.org"];
    refused(&bad).expect_line(exit::USAGE, &["example.org"]);
}
