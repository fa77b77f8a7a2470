//! `psa bench`, each mode at a tiny size, through the real binary: what it says is complete, and nothing
//! was lost or came twice. No figure of speed is looked at here.

mod report;

use report::{number, read, run};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

fn psa(arguments: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_psa")), arguments)
}

/// Runs a mode with `--json` and returns its one object, after the checks that hold for all.
fn bench(arguments: &[&str]) -> Value {
    read(psa(&[&["bench"], arguments, &["--json"]].concat()), arguments)
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
        (&["bench", "fanout", "--subs", "1", "--server", "127.0.0.1:1"], "cannot connect"),
    ] {
        let output = psa(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(error.contains(part) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}
