//! The README's `curl` lines, run as they are printed.
//!
//! They name the default port, which somebody else may have on this machine. So they are given a home
//! with a `.curlrc` that sends what is for that port to the test's server; the lines are not touched.

use std::fs;
use std::process::{Command, Stdio};

use super::curl;
use super::harness::*;
use super::real::Real;

const README: &str = include_str!("../../../README.md");

/// The lines of the block under the comment.
fn lines() -> Vec<&'static str> {
    let (_, behind) = README.split_once("<!-- curl -->\n```sh\n").expect("the block is there");
    let (block, _) = behind.split_once("```").expect("it ends");
    block.lines().collect()
}

#[test]
fn the_curl_lines_work_as_printed() {
    if !curl::is_there("the README's lines") {
        return;
    }
    let mut lines = lines().into_iter();
    assert_eq!(lines.next(), Some("psa serve --http 127.0.0.1:9854 &"));
    let real = Real::start(&[]);
    let home = real.server.path("home");
    fs::create_dir(&home).unwrap();
    let port = real.http.port();
    let sends =
        format!("connect-to = \"127.0.0.1:9854:127.0.0.1:{port}\"\nsilent\nshow-error\nfail\n");
    fs::write(home.join(".curlrc"), sends).unwrap();
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).stdin(Stdio::null());
        command.env("HOME", &home).env("CURL_HOME", &home).env_remove("XDG_CONFIG_HOME");
        command.env("no_proxy", "*");
        Process::start(real.server.folder.path(), command)
    };

    let mut followers = Vec::new();
    let mut said = Vec::new();
    for line in lines {
        match line.strip_suffix(" &") {
            // `exec`, so that the process that is ended is `curl` itself.
            Some(line) => followers.push(shell(&format!("exec {line}"))),
            None => said.push(shell(line).wait().expect(exit::DONE)),
        }
    }
    let json =
        |at: usize| -> serde_json::Value { serde_json::from_str(said[at].text()).expect("JSON") };
    assert_eq!((&json(0)["first_offset"], &json(0)["count"]), (&0.into(), &1.into()));
    assert_eq!((&json(1)["first_offset"], &json(1)["count"]), (&1.into(), &2.into()));
    assert_eq!(json(2)["records"][0]["data"], "{\"n\":1}");
    assert_eq!(json(2)["records"][1]["data"], "{\"n\":2}");
    assert_eq!(json(3)["settings"]["overflow"], "evict");
    assert!(said[4].text().contains("psa_topic_appended_records_total{topic=\"greetings\"} 3\n"));
    assert_eq!(said.len(), 5);
    let [follower] = &followers[..] else { panic!("one line follows") };
    eventually("the events", || {
        let events = String::from_utf8(follower.stdout()).expect("text");
        let all = ["data: hello\n", "data: {\"n\":1}\n", "data: {\"n\":2}\n", "event: caught-up\n"];
        if all.iter().all(|event| events.contains(event)) { Ok(()) } else { Err(events) }
    });
}
