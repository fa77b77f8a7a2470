//! A folder for data that is damaged: `psa serve` starts without the topic and says so, `psa verify` names what it is, and
//! `psa repair` cuts it.

use super::harness::*;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A folder with two topics, each with three batches of records, and no server.
fn filled(data: &str) {
    let mut server = Server::start(&["--data", data]);
    for batch in 0..3 {
        for topic in ["a", "b"] {
            let lines: String = (0..100).map(|n| format!("{topic} {batch} {n}\n")).collect();
            server.publish(topic, lines.as_bytes());
        }
    }
    signal(&server.child, Signal::TERM);
    assert_eq!(wait(&mut server.child), Some(0));
}

/// The one file of this topic.
fn file_of(data: &Path, topic: &str) -> PathBuf {
    let folders = std::fs::read_dir(data.join("topics")).unwrap();
    let mut files = folders.map(|entry| entry.unwrap().path().join("00000000000000000000.log"));
    let has = |file: &PathBuf| {
        let text = format!("{topic} 1 51");
        let bytes = std::fs::read(file).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    files.find(has).unwrap()
}

fn damage(data: &Path, topic: &str) {
    let file = file_of(data, topic);
    let mut bytes = std::fs::read(&file).unwrap();
    let text = format!("{topic} 1 50");
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
}

#[test]
fn what_is_damaged_is_named_and_cut_when_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let data = path.to_str().unwrap();
    run(psa(&["verify", data])).failed(1, "no folder for data");
    filled(data);

    // Sound.
    let text = String::from_utf8(run(psa(&["verify", data])).ok()).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("a: sound, 300 records in 1 file"), "{text}");
    run(psa(&["repair", data, "--topic", "a"])).failed(1, "nothing to repair");
    run(psa(&["repair", data, "--topic", "c"])).failed(2, "no topic \"c\"");
    run(psa(&["repair", data])).failed(2, "--topic");

    // In use.
    let server = Server::start(&["--data", data]);
    run(psa(&["verify", data])).failed(1, "another process uses this folder");
    run(psa(&["repair", data, "--topic", "a"])).failed(1, "another process uses this folder");
    drop(server);

    damage(&path, "a");
    let ended = run(psa(&["verify", data]));
    ended.failed(5, "1 of 2 topics is damaged");
    let text = ended.text();
    assert!(text.contains("a: DAMAGED") && text.contains("b: sound, 300 records"), "{text}");
    assert!(text.contains("00000000000000000000.log, byte "), "{text}");
    assert!(text.contains("cannot be read: records 100 to 199"), "{text}");
    let ended = run(psa(&["verify", data, "--topic", "a", "--json"]));
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let value: serde_json::Value = serde_json::from_slice(&ended.out).unwrap();
    assert_eq!((&value["topic"], &value["records"]), (&"a".into(), &200.into()));
    let problem = &value["problems"][0];
    assert_eq!((&problem["lost_from"], &problem["lost_to"]), (&100.into(), &200.into()));
    run(psa(&["verify", data, "--topic", "b"])).ok();

    // The server starts without it, and says so.
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", data, "--log-level", "error"];
    let mut command = psa(&serve);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let text = String::from_utf8(read_some(&mut child, 400)).unwrap();
    assert!(text.contains("1 topic, 300 records"), "{text}");
    assert!(text.contains("DAMAGED, and missing: "), "{text}");
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child), Some(0));
    let mut log = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut log).unwrap();
    assert!(log.contains("psa verify"), "{log}");

    // Said first, then done.
    let before = std::fs::read(file_of(&path, "a")).unwrap();
    let text = run(psa(&["repair", data, "--topic", "a", "--dry-run"])).ok();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("Kept: records 0 to 99.") && text.contains("Nothing was changed"),
        "{text}"
    );
    assert!(text.contains("100 records could be read of these"), "{text}");
    run(psa(&["verify", data, "--json"])).failed(5, "1 of 2");
    let text = run(psa(&["repair", data, "--topic", "a"])).ok();
    let text = String::from_utf8(text).unwrap();
    let aside = text.lines().last().unwrap().trim();
    assert!(aside.ends_with(".log.before-repair"), "{text}");
    assert!(std::fs::read(aside).unwrap() == before, "what was cut is beside it");
    run(psa(&["verify", data])).ok();
    let server = Server::start(&["--data", data]);
    let all = |topic| run(server.psa(&["sub", topic, "--exit-at-end", "--format", "raw"])).ok();
    let expected: String = (0..100).map(|n| format!("a 0 {n}\n")).collect();
    assert_eq!(String::from_utf8(all("a")).unwrap(), expected);
    assert_eq!(all("b").iter().filter(|byte| **byte == b'\n').count(), 300);
}
