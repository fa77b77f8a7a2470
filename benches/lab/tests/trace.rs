//! `psa-lab trace`: what it draws is what happened.

use std::path::Path;
use std::process::{Command, Output};

fn trace(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psa-lab"));
    command.current_dir(folder).arg("trace").args(args);
    command.output().unwrap()
}

/// The number in front of `what`.
fn number_before(text: &str, what: &str) -> u64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let at =
        words.iter().position(|word| *word == what).unwrap_or_else(|| panic!("{what}: {text}"));
    words[at - 1].replace(',', "").parse().unwrap_or_else(|_| panic!("{what}: {text}"))
}

/// One run with an eviction and a long look, and everything that its files have to agree on.
#[test]
fn the_picture_shows_the_segments_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let args = "--time 600ms --rate 50000 --segment 16KiB --limit 512KiB --events events.jsonl";
    let output = trace(folder.path(), &args.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let segments = number_before(&text, "segments,");
    assert!(segments > 10, "{text}");
    assert_eq!(segments, number_before(&text, "of") + number_before(&text, "reused."), "{text}");

    let events = std::fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |name: &str| events.iter().filter(|e| e["event"] == name).count() as u64;
    assert_eq!((count("linked"), count("sealed")), (segments, segments));
    // The last one is the open one to the end.
    assert_eq!((count("closed"), count("reclaimed")), (segments - 1, segments - 1));
    let missed = events.iter().filter(|e| e["missed"].is_array()).count();
    let evicted: u64 = events.iter().filter_map(|e| e["evicted"].as_u64()).sum();
    assert_eq!(count("pinned"), count("unpinned") + evicted, "everybody has gone");
    assert!(missed > 0 && evicted > 0, "the stalled one is evicted and told: {missed}, {evicted}");

    let picture = std::fs::read_to_string(folder.path().join("trace.svg")).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    let bars = picture.matches(r#"class="open"/>"#).count() as u64;
    assert_eq!(bars, segments + 1, "one bar for each, and one in the legend");
    for name in ["prompt 1", "prompt 2", "lazy", "stalled 1", "late", "limit 512.0 KiB"] {
        assert!(picture.contains(name), "{name}");
    }
}

#[test]
fn bad_input_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (args, code, said) in [
        (&["--time", "1ms"][..], 2, "--time"),
        (&["--limit", "1KiB"], 2, "limit"),
        (&["--out", "no/such/folder/trace.svg"], 1, "no/such/folder/trace.svg"),
        (&["--rate", "0"], 2, "--rate"),
    ] {
        let output = trace(folder.path(), args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(said) && error.lines().count() == 1, "{args:?}: {error}");
    }
}
