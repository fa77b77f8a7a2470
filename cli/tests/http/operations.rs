//! The files in `docs/operations`, held against the real binary.

use std::collections::BTreeSet;

use serde_json::Value;

use super::harness::*;
use super::real::Real;
use super::support::Client;

/// All members of this name, wherever they stand.
fn gather<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get(name).and_then(Value::as_str));
            members.values().for_each(|member| gather(member, name, found));
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, name, found)),
        _ => {}
    }
}

/// The names of ours in a query, such as `psa_http_answers_total`.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("psa_"))
}

#[test]
fn the_dashboard_asks_for_figures_that_there_are() {
    let real = Real::start(&[]);
    // Figures of topics need one.
    real.server.publish(&["pub", "t"], b"a record\n").expect(exit::DONE);
    let metrics = real
        .runtime
        .block_on(async { Client::new(real.http).await.ask("GET /metrics", &[], b"").await });
    let said: BTreeSet<&str> = metrics
        .text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();

    let dashboard = include_str!("../../../docs/operations/grafana.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let mut queries = Vec::new();
    gather(&dashboard, "expr", &mut queries);
    gather(&dashboard, "definition", &mut queries);
    assert!(queries.len() > 20, "{queries:?}");
    for query in queries {
        let asked: Vec<_> = names(query).collect();
        assert!(!asked.is_empty(), "{query} asks for nothing of ours");
        for name in asked {
            assert!(said.contains(name), "{query}: no {name} in\n{}", metrics.text());
        }
    }
}
