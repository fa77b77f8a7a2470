//! `psa-lab`, each measurement at a tiny size, through the real binary: what it says is complete, and nothing
//! was lost or came twice. No figure of speed is looked at here.

#[path = "../../../cli/tests/bench_command/report.rs"]
mod report;

use report::{number, read, run};
use serde_json::Value;
use std::process::{Command, Output};

fn lab(arguments: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_psa-lab")), arguments)
}

/// Runs a measurement with `--json` and returns its one object, after the checks that hold for all.
fn measure(arguments: &[&str]) -> Value {
    read(lab(&[arguments, &["--json"]].concat()), arguments)
}

#[test]
fn bad_clients_of_one_listener_take_nothing_from_the_other() {
    let flags = ["--subs", "3", "--records", "20000", "--runs", "2", "--each", "2"];
    let report = measure(&[&["hostile"], &flags[..]].concat());
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

/// Every cell of stored topics, tiny.
#[cfg(target_os = "linux")]
#[test]
fn stored_topics_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let output = lab(&["stored", "--quick", "--json", "--folder", path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cells = report["cells"].as_array().unwrap();
    let mut names: Vec<_> = cells.iter().map(|cell| cell["name"].as_str().unwrap()).collect();
    for cell in cells {
        assert!(number(&cell["stored"], "median") > 0.0, "{cell}");
        assert!(number(&cell["judged"], "median") > 0.0, "{cell}");
    }
    names.dedup();
    assert_eq!(names.len(), 11, "{names:?}");
    let points = report["commit"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 9, "{report}");
    for point in points {
        // Every publisher's append is in some group.
        assert!(number(&point["records_in_group"], "median") >= 1.0, "{point}");
        assert!(number(&point["records_per_s"], "median") > 0.0, "{point}");
        assert!(number(&point["p99_us"], "median") >= number(&point["p50_us"], "median"));
    }
    let topics = report["lag"]["topics"].as_array().unwrap();
    assert_eq!(topics.len(), 3, "{report}");
    for topic in topics {
        let last = |key: &str| topic[key].as_array().and_then(|all| all.last()?.as_f64());
        assert!(last("published_bytes") > Some(0.0) && last("memory_bytes") > Some(0.0), "{topic}");
        assert!(last("read_bytes") <= last("published_bytes"), "{topic}");
        // Only the stored one has files.
        let is_stored = topic["name"].as_str().unwrap().starts_with("written");
        assert_eq!(last("disk_bytes") > Some(0.0), is_stored, "{topic}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
}

/// The tables of such a measurement, in a document with their marks.
#[cfg(target_os = "linux")]
#[test]
fn the_tables_of_stored_topics_are_placed_between_their_marks() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (figures, document) = (path("stored.json"), path("document.md"));
    let measured = ["stored", "--quick", "--cells", "single,commit", "--out", &figures];
    let output = lab(&[&measured[..], &["--folder", folder.path().to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let marks = "before\n<!-- rows -->\nold\n<!-- end of rows -->\nbetween\n<!-- commit -->\n\n<!-- end of commit -->\n";
    std::fs::write(&document, marks).unwrap();
    let placed = lab(&["stored", "--report", &figures, "--into", &document]);
    assert!(placed.status.success(), "{}", String::from_utf8_lossy(&placed.stderr));
    let text = std::fs::read_to_string(&document).unwrap();
    for part in ["before\n<!-- rows -->", "| one publisher (a task)", "A quick run", "| 256 | "] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("old"), "{text}");
    // A document without marks is a mistake.
    std::fs::write(&document, "nothing").unwrap();
    let placed = lab(&["stored", "--report", &figures, "--into", &document]);
    assert!(!placed.status.success());
    assert_eq!(std::fs::read_to_string(&document).unwrap(), "nothing");
}

/// Every cell of the comparison of stored topics, tiny: whoever is installed takes part, and has stored what it
/// acknowledged.
#[cfg(target_os = "linux")]
#[test]
fn stored_rivals_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let (file, place) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
    let output = lab(&[
        "compare",
        "--stored",
        "--quick",
        "--seconds",
        "0.05",
        "--out",
        file,
        "--folder",
        place,
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout.is_empty(), "{said}");
    // Who is missing is no fault of ours, but nobody shall think that they were measured.
    said.lines().filter(|line| line.contains("is left out")).for_each(|line| println!("{line}"));
    let figures: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(figures["errors"].as_array().unwrap().len(), 0, "{figures}");
    let missing = figures["missing"].to_string();
    let cells = figures["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 13, "{figures}");
    for cell in cells {
        let (name, kind) = (cell["name"].as_str().unwrap(), cell["kind"].as_str().unwrap());
        let more: &[&str] = match name.split_once('-').unwrap().1 {
            "batches" => &["jetstream-batch", "streams-multi"],
            "pipelined" => &["jetstream-fast"],
            "one" if name.starts_with("synced") => &["raw"],
            _ => &[],
        };
        for who in [&["psa", "jetstream", "streams"], more].concat() {
            if who.starts_with("jetstream") && missing.contains("JetStream")
                || who.starts_with("streams") && missing.contains("Redis")
            {
                continue;
            }
            let all = &cell["contenders"][who]["figures"];
            let median = |key: &str| number(&all[key], "median");
            assert_eq!(median("faults"), 0.0, "{name}, {who}: {cell}");
            assert!(median("records") > 0.0, "{name}, {who}: {cell}");
            if kind != "stored-replay" {
                assert!(median("p99_us") >= median("p50_us") && median("p50_us") > 0.0);
            }
            if who != "psa" {
                assert!(cell["psa_to_others"][who].is_object(), "{name}, {who}: {cell}");
            }
        }
    }
    let report = lab(&["compare", "--report", file]);
    let tables = String::from_utf8(report.stdout).unwrap();
    for cell in cells {
        let row = format!("| {} | psa | ", cell["name"].as_str().unwrap());
        assert!(tables.contains(&row), "{row} in {tables}");
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "it leaves nothing behind but its figures");
}

/// Every cell of the comparison, tiny: whoever is installed takes part, and all that was published came.
#[test]
fn rivals_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let path = file.to_str().unwrap();
    let output = lab(&["compare", "--quick", "--seconds", "0.05", "--out", path]);
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
    let report = lab(&["compare", "--report", path]);
    let tables = String::from_utf8(report.stdout).unwrap();
    for cell in cells {
        let row = format!("| {} | psa | ", cell["name"].as_str().unwrap());
        assert!(tables.contains(&row), "{row} in {tables}");
    }
}

/// The soak in short: everything comes and goes, each record is checked, and in the end nothing is left.
/// `PSA_TEST_SOAK_MINUTES=60` makes it a long one, which also judges whether memory grows.
#[test]
fn soak_checks_everything_and_leaves_nothing_behind() {
    let minutes = std::env::var("PSA_TEST_SOAK_MINUTES").unwrap_or_else(|_| "0.15".to_owned());
    let report = measure(&["soak", "--minutes", &minutes]);
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

#[test]
fn wrong_use_is_said_in_one_line() {
    for (arguments, part) in [
        (&["compare", "--cells", "fan"][..], "no cell `fan`"),
        (&["compare", "--report", "no.json"], "no.json"),
    ] {
        let output = lab(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(error.contains(part) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}
