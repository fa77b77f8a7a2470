//! What `psa-lab compare` and `psa-lab sse` write is drawn.

use psa_suite::figures::Figure;
use psa_suite::network::figures::all;
use psa_suite::network::results::Results;

/// The very bytes that `psa-lab sse --quick --rivals psa,psa-topics --out FILE` wrote.
const EVENTS: &str = include_str!("data/http-quick.json");

fn drawn(text: &str) -> Vec<Figure> {
    all(&Results::read(text).unwrap())
}

fn names(figures: &[Figure]) -> Vec<&str> {
    figures.iter().map(|figure| figure.file.as_str()).collect()
}

/// What stands in a figure, in the order in which it was drawn.
fn texts(figure: &Figure) -> Vec<&str> {
    let texts = figure.svg.lines().filter_map(|line| line.strip_suffix("</text>"));
    texts.filter_map(|line| Some(line.rsplit_once('>')?.1)).collect()
}

/// A file with one cell.
fn file(suite: &str, cell: &str) -> String {
    format!(
        r#"{{"suite": "{suite}", "date": "2026-01-02T03:04:05Z", "profile": "release",
            "machine": {{"cpu": "A CPU", "cores": 2, "kernel": "6.1-here", "load": 0.5}},
            "versions": {{"a": "Redis server v=7 sha=0", "b": "Redis server v=7 sha=0", "psa": "psa 1", "c": null}},
            "config": {{"quick": false, "runs": 3}}, "cells": [{cell}]}}"#
    )
}

/// A contender with one figure, half of it at the least and twice at the most.
fn contender(name: &str, key: &str, median: f64, faults: u32) -> String {
    let figure = |m: f64| format!(r#"{{"median": {m}, "min": {}, "max": {}}}"#, m / 2.0, m * 2.0);
    let (value, faults) = (figure(median), figure(f64::from(faults)));
    format!(
        r#""{name}": {{"runs": 3, "drifted": 1, "figures": {{"{key}": {value}, "faults": {faults}}}}}"#
    )
}

#[test]
fn a_quick_run_of_event_streams_is_drawn_and_named_as_such() {
    let figures = drawn(EVENTS);
    assert_eq!(names(&figures), ["http-latency-20.svg", "http-rate.svg", "http-processor.svg"]);
    for figure in &figures {
        let texts = texts(figure);
        for wanted in ["psa", "psa, its own topics", "A quick run: these figures say nothing."] {
            assert!(texts.contains(&wanted), "{}: {texts:?}", figure.file);
        }
        assert!(!figure.svg.contains("NaN") && !figure.svg.contains("inf"), "{}", figure.file);
    }
    let rate = texts(&figures[1]).join("\n");
    assert!(rate.contains("1,024 bytes, 16 in an append, 20 clients"), "{rate}");
}

#[test]
fn the_best_stands_on_top_and_the_caption_says_whence_it_is() {
    let key = "bytes_per_subscriber";
    let who = [("nats", 19e3, 0), ("psa", 1663.0, 0), ("streams", 5e3, 2)];
    let who = who.map(|(name, median, faults)| contender(name, key, median, faults)).join(",");
    let cell = format!(
        r#"{{"name": "idle-500", "kind": "idle", "subscribers": 500, "record_bytes": 16, "contenders": {{{who}}}}}"#
    );
    let figures = drawn(&file("network", &cell));
    assert_eq!(names(&figures), ["network-idle-500.svg"]);
    let texts = texts(&figures[0]);
    let place = |wanted: &str| {
        texts
            .iter()
            .position(|text| *text == wanted)
            .unwrap_or_else(|| panic!("{wanted}: {texts:?}"))
    };
    assert!(place("psa") < place("Redis streams †") && place("Redis streams †") < place("NATS"));
    for wanted in [
        "1,663",
        "bytes in the server for each of 500; less is better",
        "† Records were lost, repeated or corrupt.",
        "psa 1, Redis server v=7",
    ] {
        place(wanted);
    }
    let all = texts.join(" ");
    assert!(all.contains("Median of 3 runs with least and most; all took turns"), "{all}");
    assert!(all.contains("3 of 9 runs drifted."), "{all}");
    assert!(all.contains("A CPU, 2 cores, Linux 6.1, 2026-01-02; a release build"), "{all}");
}

#[test]
fn deliveries_are_drawn_over_the_number_of_subscribers() {
    let cell = |subscribers: u32| {
        let key = "deliveries_per_s";
        let both = [contender("psa", key, 8e6, 0), contender("redis", key, 2e6, 0)].join(",");
        format!(
            r#"{{"name": "fanout-{subscribers}x64", "kind": "fanout", "subscribers": {subscribers},
                "record_bytes": 64, "contenders": {{{both}}}}}"#
        )
    };
    let figures = drawn(&file("network", &format!("{},{}", cell(10), cell(1000))));
    let of = |name: &str| figures.iter().find(|figure| figure.file == name).unwrap();
    let texts = texts(of("network-fanout.svg"));
    assert!(
        ["10", "1,000", "psa", "Redis pub/sub"].iter().all(|text| texts.contains(text)),
        "{texts:?}"
    );
    assert!(!texts.contains(&"NATS"), "who has no figures has no curve: {texts:?}");
    // psa's curve and dots, in its colour; more is higher.
    let dot = |class: &str| -> f64 {
        let line = of("network-fanout.svg").svg.lines().find(|line| {
            line.starts_with("<circle") && line.contains(&format!("class=\"{class} f\""))
        });
        let y = line.unwrap().split("cy=\"").nth(1).unwrap();
        y.split('"').next().unwrap().parse().unwrap()
    };
    assert!(dot("l0") < dot("l2"));
}

#[test]
fn stored_topics_are_drawn_by_what_they_promise() {
    let cell = |name: &str, kind: &str| {
        let contender = |name: &str, times: f64| {
            let figure = |key: &str, median: f64| {
                format!(r#""{key}": {{"median": {median}, "min": {median}, "max": {median}}}"#)
            };
            let figures = [
                figure("records_per_s", 1e4 * times),
                figure("p50_us", 100.0 / times),
                figure("p99_us", 200.0 / times),
            ];
            format!(
                r#""{name}": {{"runs": 1, "drifted": 0, "figures": {{{}}}}}"#,
                figures.join(",")
            )
        };
        let who = [contender("psa", 2.0), contender("jetstream-batch", 1.0), contender("raw", 3.0)];
        format!(
            r#"{{"name": "{name}", "kind": "{kind}", "subscribers": 64, "record_bytes": 256,
                "contenders": {{{}}}}}"#,
            who.join(",")
        )
    };
    let cells = [
        cell("synced-batches", "stored"),
        cell("synced-paced", "stored-paced"),
        cell("written-many", "stored"),
    ];
    let figures = drawn(&file("rivals-stored", &cells.join(",")));
    let wanted = ["synced", "synced-latency", "written", "written-latency"];
    assert_eq!(names(&figures), wanted.map(|name| format!("rivals-stored-{name}.svg")));
    let rate = texts(&figures[0]).join("\n");
    for part in [
        "Publishing to topics that survive: synced",
        "64 publishers, each one batch of 64 after another",
        "JetStream, atomic batch",
        "the disk, by hand",
    ] {
        assert!(rate.contains(part), "{part} in {rate}");
    }
    let latency = texts(&figures[1]).join("\n");
    assert!(latency.contains("one publisher, 1,000 records a second: p99"), "{latency}");
    assert!(figures.iter().all(|figure| !figure.svg.contains("NaN")));
}

#[test]
fn anything_else_is_refused() {
    let error = Results::read(r#"{"suite": "network"}"#).unwrap_err();
    assert!(error.contains("psa-lab compare"), "{error}");
}
