//! `psa demo --fast`: the story is told, and everything that it checks holds.

use std::process::{Command, Stdio};

#[test]
fn the_demo_verifies_what_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_psa"));
    command.args(["demo", "--fast"]).env("TMPDIR", folder.path()).stdin(Stdio::null());
    // Settings of whoever runs the tests must not reach the demo's processes.
    command.env("PSA_LISTEN", "nowhere").env("PSA_TOPIC_MEMORY", "64KiB");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    assert!(error.is_empty(), "{error}");
    // No terminal: plain lines, nothing redrawn.
    assert!(!text.contains(['\r', '\x1b']), "{text:?}");
    let (story, checked) = text.split_once("What was checked:\n").expect("a verdict");
    for part in [
        "bob stops reading",
        "cid's connection is gone",
        "cid is back",
        "dora is killed (SIGKILL)",
        "dora is started again",
        "Everybody has read to the end",
        "started again with the same folder",
    ] {
        assert!(story.contains(part), "{part}: {story}");
    }
    assert!(checked.lines().all(|line| line.starts_with("  yes ")), "{checked}");
    for part in [
        "30,000 records were published",
        "cid resumed at offset",
        "segments were kept for bob",
        "dora's lease kept",
        "ann has all of them",
        "bob has all of them",
        "cid has all of them",
        "dora's file has all of them once",
        "gaps and repetitions: 0",
        "segments: 1 now",
        "limit 8.0 MiB",
        "the killed server has lost none of 2,000 records, in the same epoch",
    ] {
        assert!(checked.contains(part), "{part}: {checked}");
    }
    // Nothing is left behind.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
