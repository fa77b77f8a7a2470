//! `psa bench`, each mode at a tiny size, through the real binary: what it says is complete, and nothing
//! was lost or came twice. No figure of speed is looked at here.
#![cfg(feature = "cli")]

use serde_json::Value;
use std::process::{Command, Output, Stdio};

fn psa(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psa"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("PSA_")) {
            command.env_remove(variable);
        }
    }
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs a mode with `--json` and returns its one object, after the checks that hold for all.
fn bench(arguments: &[&str]) -> Value {
    let output = psa(&[&["bench"], arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    for key in [
        "mode",
        "version",
        "config",
        "machine",
        "subscribers",
        "record_bytes",
        "records",
        "deliveries",
        "seconds",
        "deliveries_per_s",
        "ceiling_per_s",
        "ratio",
        "peak_rss_bytes",
        "server_cpu_s",
        "server_cpu_ns_per_delivery",
        "client_cpu_s",
        "lost",
        "duplicated",
        "corrupt",
        "gaps",
        "missed",
    ] {
        assert!(report.get(key).is_some(), "{arguments:?}: no `{key}` in {text}");
    }
    assert_eq!(report["mode"], arguments[0]);
    for key in ["lost", "duplicated", "corrupt"] {
        assert_eq!(report[key], 0, "{arguments:?}: {key} in {text}");
    }
    report
}

fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {report}"))
}

#[test]
fn fanout_delivers_everything_to_everyone_and_knows_the_ceiling() {
    // Sizes above and below those that carry a number, and an empty record.
    for size in ["64", "16", "7", "0"] {
        let report =
            bench(&["fanout", "--subs", "5", "--size", size, "--records", "3000", "--runs", "2"]);
        assert_eq!(number(&report, "records"), 6000.0);
        assert_eq!(number(&report, "deliveries"), 30_000.0);
        assert_eq!(report["record_bytes"].to_string(), size);
        for key in ["deliveries_per_s", "ceiling_per_s", "ratio", "seconds"] {
            assert!(number(&report, key) > 0.0, "{key} in {report}");
        }
        assert_eq!(report["runs"].as_array().unwrap().len(), 2);
        if cfg!(target_os = "linux") {
            assert!(number(&report, "peak_rss_bytes") > 0.0);
        }
    }
}

#[test]
fn fanout_for_a_time() {
    let report =
        bench(&["fanout", "--subs", "3", "--seconds", "0.1", "--runs", "1", "--no-ceiling"]);
    assert_eq!(number(&report, "deliveries"), 3.0 * number(&report, "records"));
    assert!(report["ceiling_per_s"].is_null() && report["ratio"].is_null());
}

#[test]
fn ceiling_carries_the_same_bytes() {
    let report =
        bench(&["ceiling", "--subs", "4", "--records", "10000", "--chunk", "100", "--runs", "2"]);
    assert_eq!(number(&report, "deliveries"), 80_000.0);
    assert!(number(&report, "ceiling_per_s") > 0.0);
}

/// Publishes 16 MiB through a topic of 2 MiB.
fn publish(arguments: &[&str]) -> Value {
    let common = ["publish", "--bytes", "16MiB", "--subs", "3", "--memory-limit", "2MiB"];
    let report = bench(&[&common, arguments].concat());
    assert_eq!(number(&report, "records"), 65_536.0);
    let told = number(&report, "deliveries") + number(&report, "missed");
    assert_eq!(told, 3.0 * 65_536.0, "every record was delivered or told missing: {report}");
    if cfg!(target_os = "linux") {
        assert_eq!(report["memory_within_bound"], true, "{report}");
        assert!(number(&report, "peak_rss_bytes") <= f64::from((64 + 2) << 20));
    }
    report
}

#[test]
fn publish_keeps_to_the_memory_limit() {
    let report = publish(&[]);
    assert_eq!(number(&report, "missed"), 0.0);
}

#[test]
fn a_blocked_publisher_goes_on_when_its_reader_does() {
    // One that does not read holds more back than its socket takes.
    let slow = ["--stalled", "1", "--pause", "300ms", "--serve=--send-buffer=16KiB"];
    let report = publish(&slow);
    assert_eq!(number(&report, "missed"), 0.0);
    assert!(number(&report, "publisher_waits") >= 1.0, "{report}");
}

#[test]
fn a_topic_that_rejects_refuses_and_takes_again() {
    let slow = ["--overflow", "reject", "--stalled", "1", "--pause", "300ms"];
    let report = publish(&[&slow[..], &["--serve=--send-buffer=16KiB"]].concat());
    assert_eq!(number(&report, "missed"), 0.0);
    assert!(number(&report, "refused") >= 1.0, "{report}");
}

#[test]
fn an_evicted_subscriber_is_told_exactly_what_it_missed() {
    let slow = ["--overflow", "evict", "--stalled", "1", "--serve=--send-buffer=16KiB"];
    let report = publish(&slow);
    assert!(number(&report, "evictions") >= 1.0, "{report}");
    assert!(number(&report, "stalled_gaps") >= 1.0, "{report}");
    assert!(number(&report, "stalled_missed") > 0.0, "{report}");
    assert!(number(&report, "gaps") >= number(&report, "stalled_gaps"));
}

#[test]
fn bad_clients_of_one_door_take_nothing_from_the_other() {
    let flags = ["--subs", "3", "--records", "20000", "--runs", "2", "--each", "2"];
    let report = bench(&[&["hostile"], &flags[..]].concat());
    // Two runs beside bad clients, and three alone around them: every record came.
    assert_eq!(number(&report, "records"), 40_000.0);
    assert_eq!(number(&report, "deliveries"), 5.0 * 3.0 * 20_000.0);
    for key in ["deliveries_per_s", "alone_per_s", "ratio"] {
        assert!(number(&report, key) > 0.0, "{key} in {report}");
    }
    for run in report["runs"].as_array().unwrap() {
        let done = run["done"].as_object().unwrap();
        assert_eq!(done.len(), 13, "{report}");
        for (kind, done) in done {
            assert!(done["deeds"].as_u64() > Some(0), "no {kind} in {report}");
        }
    }
    if cfg!(target_os = "linux") {
        let [before, beside, after] = ["before", "beside", "after"]
            .map(|when| number(&report, &format!("server_descriptors_{when}")));
        assert!(beside > before && after <= before, "{report}");
    }
}

#[test]
fn latency_has_its_quantiles_in_order() {
    let flags = ["--rate", "500", "--subs", "3", "--seconds", "0.2", "--runs", "2"];
    let report = bench(&[&["latency"], &flags[..]].concat());
    assert_eq!(number(&report, "records"), 200.0);
    assert_eq!(number(&report, "deliveries"), 600.0);
    assert_eq!(report["latency_us"]["count"], 600);
    let quantiles = ["p50", "p90", "p99", "p99_9", "max"]
        .map(|name| number(&report, &format!("latency_{name}_us")));
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{quantiles:?}");
}

#[test]
fn replay_reads_all_that_is_stored() {
    let report = bench(&["replay", "--records", "20000", "--runs", "3"]);
    assert_eq!(number(&report, "records"), 20_000.0);
    assert_eq!(number(&report, "deliveries"), 60_000.0);
}

#[test]
fn idle_subscribers_are_counted_and_woken() {
    let report = bench(&["idle", "--subs", "100", "--runs", "3"]);
    assert_eq!(number(&report, "deliveries"), 300.0);
    assert!(number(&report, "wake_all_ms") > 0.0);
    if cfg!(target_os = "linux") {
        assert!(report["bytes_per_subscriber"].is_number());
    }
}

/// Every cell of the comparison, tiny: whoever is installed takes part, and all that was published came.
#[test]
fn rivals_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let path = file.to_str().unwrap();
    let output = psa(&["bench", "compare", "--quick", "--seconds", "0.05", "--out", path]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout.is_empty(), "{said}");
    // Which rivals are missing is no fault of ours, but nobody shall think that they were measured.
    said.lines()
        .filter(|line| line.contains("is not installed"))
        .for_each(|line| println!("{line}"));
    let figures: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(figures["errors"].as_array().unwrap().len(), 0, "{figures}");
    let missing = figures["missing"].to_string();
    let cells = figures["cells"].as_array().unwrap();
    let mut kinds = Vec::new();
    for cell in cells {
        let kind = cell["kind"].as_str().unwrap();
        kinds.push(kind);
        let rivals: &[&str] = match kind {
            "fanout" | "burst" => &["psa", "ceiling", "nats", "redis", "streams"],
            "latency" => &["psa", "relay", "nats", "redis", "streams"],
            "stalled" => &["psa", "nats", "redis", "streams", "nats-default", "redis-default"],
            "replay" => &["psa", "streams", "jetstream"],
            _ => &["psa", "nats", "redis", "streams"],
        };
        for rival in rivals {
            let program = match *rival {
                "psa" | "ceiling" | "relay" => "",
                "nats" | "nats-default" | "jetstream" => "nats-server",
                _ => "redis-server",
            };
            if !program.is_empty() && missing.contains(program) {
                continue;
            }
            let all = &cell["contenders"][rival]["figures"];
            let median = |key: &str| number(&all[key], "median");
            assert_eq!(median("faults"), 0.0, "{kind}, {rival}: {cell}");
            assert_eq!(median("missed"), 0.0, "{kind}, {rival}: {cell}");
            let readers = number(cell, "subscribers") - f64::from(u8::from(kind == "stalled"));
            assert_eq!(median("deliveries"), readers * median("records"), "{kind}, {rival}");
            assert!(median(cell["primary"].as_str().unwrap()) >= 0.0);
            if *rival != "psa" {
                assert!(cell["psa_to_others"][rival].is_object(), "{kind}, {rival}: {cell}");
            }
        }
        for run in cell["runs"].as_array().unwrap() {
            assert!(run["drifted"].is_boolean() && number(&run["probe_before"], "line_ns") > 0.0);
        }
    }
    kinds.dedup();
    assert_eq!(kinds, ["fanout", "burst", "latency", "stalled", "replay", "idle"]);
    let report = psa(&["bench", "compare", "--report", path]);
    let tables = String::from_utf8(report.stdout).unwrap();
    for cell in cells {
        let row = format!("| {} | psa | ", cell["name"].as_str().unwrap());
        assert!(tables.contains(&row), "{row} in {tables}");
    }
}

/// A server that was not started by the benchmark.
struct Server(std::process::Child, String);

impl Server {
    fn start() -> Server {
        use std::io::BufRead;
        let mut command = Command::new(env!("CARGO_BIN_EXE_psa"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--token", "s3cret"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut hello = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        std::io::BufReader::new(stdout).read_line(&mut hello).unwrap();
        let address = hello.trim().rsplit_once(' ').unwrap().1.to_owned();
        Server(child, address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_named_server_is_measured_and_left_as_it_was() {
    let server = Server::start();
    let named = ["--server", &server.1, "--token", "s3cret"];
    let tiny = ["fanout", "--subs", "2", "--records", "500", "--runs", "1"];
    let report = bench(&[&tiny[..], &named].concat());
    assert_eq!(number(&report, "deliveries"), 1000.0);
    // Its memory and processor time are not ours to know.
    assert!(report["peak_rss_bytes"].is_null() && report["server_cpu_s"].is_null());
    let topics = psa(&[&["topics", "--json"], &named[..]].concat());
    assert!(topics.status.success() && topics.stdout.is_empty(), "{topics:?}");
}

#[test]
fn people_get_a_short_table() {
    let output = psa(&["bench", "ceiling", "--subs", "2", "--records", "1000", "--runs", "1"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("lost, duplicated, corrupt  0, 0, 0\n"), "{text}");
    assert!(output.stderr.is_empty());
}

#[test]
fn wrong_use_is_said_in_one_line() {
    for (arguments, part) in [
        (&["bench", "fanout", "--subs", "0"][..], "from 1 to"),
        (&["bench", "fanout", "--size", "2MiB"], "at most 1MiB"),
        (&["bench", "latency", "--size", "8"], "16 bytes"),
        (&["bench", "latency", "--rate", "0"], "records a second"),
        (&["bench", "compare", "--cells", "fan"], "no cell `fan`"),
        (&["bench", "compare", "--report", "no.json"], "no.json"),
        (&["bench", "fanout", "--subs", "1", "--server", "127.0.0.1:1"], "cannot connect"),
    ] {
        let output = psa(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(error.contains(part) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}

/// The soak in short: everything comes and goes, each record is checked, and in the end nothing is left.
/// `PSA_TEST_SOAK_MINUTES=60` makes it a long one, which also judges whether memory grows.
#[test]
fn soak_checks_everything_and_leaves_nothing_behind() {
    let minutes = std::env::var("PSA_TEST_SOAK_MINUTES").unwrap_or_else(|_| "0.15".to_owned());
    let report = bench(&["soak", "--minutes", &minutes]);
    for key in ["deliveries", "topics", "lives", "cut", "resumed", "passers"] {
        assert!(number(&report, key) > 0.0, "{key} in {report}");
    }
    assert_eq!((number(&report, "wrong"), number(&report, "over_limit")), (0.0, 0.0), "{report}");
    let samples = &report["samples"];
    let last = |key: &str| samples[key].as_array().and_then(|all| all.last()?.as_u64());
    let first = |key: &str| samples[key].as_array().and_then(|all| all.first()?.as_u64());
    let taken = samples["seconds"].as_array().map_or(0, Vec::len);
    assert!(taken > 10, "{report}");
    for key in ["topics", "live_segments", "pooled_segments", "unlinked_segments", "leases"] {
        assert_eq!((first(key), last(key)), (Some(0), Some(0)), "{key} in {report}");
        assert_eq!(samples[key].as_array().map_or(0, Vec::len), taken);
    }
    assert!(last("descriptors") <= first("descriptors"), "{report}");
    assert_eq!(last("delivered"), report["deliveries"].as_u64());
}
