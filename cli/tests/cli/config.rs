//! Help, completions, configuration, and what is said about wrong ones.

use super::harness::*;
use std::process::Stdio;

#[test]
fn the_origin_of_every_value_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("psa.toml");
    std::fs::write(&file, "[limit]\ntopics = 5\nconnections = 6\nleases = 7\n").unwrap();
    let mut command = psa(&["config", "--json", "--limit-leases", "9"]);
    command.env("PSA_CONFIG", &file).env("PSA_LIMIT_CONNECTIONS", "8").env("PSA_TOKEN", "hunter2");
    let ended = run(command);
    assert!(!ended.text().contains("hunter2"));
    let config: serde_json::Value = serde_json::from_slice(&ended.ok()).unwrap();
    let check = |name: &str, value: u64, origin: &str| {
        assert_eq!(config[name]["value"], value);
        assert_eq!(config[name]["origin"], origin);
    };
    check("limit.topics", 5, &format!("{}:2", file.display()));
    check("limit.connections", 8, "PSA_LIMIT_CONNECTIONS");
    check("limit.leases", 9, "--limit-leases");
    check("limit.frame", 8 << 20, "default");
    assert_eq!(config["token"], serde_json::json!({ "set": true, "origin": "PSA_TOKEN" }));
}

#[test]
fn the_printed_configuration_can_be_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("psa.toml");
    let first =
        run(psa(&["config", "--topic-retention", "1000 records", "--limit-memory=2GiB"])).ok();
    std::fs::write(&file, &first).unwrap();
    let again = run(psa(&["config", "--json", "--config", file.to_str().unwrap()])).ok();
    let again: serde_json::Value = serde_json::from_slice(&again).unwrap();
    assert_eq!(again["topic.retention"]["value"], "1000 records");
    assert_eq!(again["limit.memory"]["value"], 2u64 << 30);
}

#[test]
fn wrong_use_is_one_line_and_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("psa.toml");
    std::fs::write(&file, "listen = '127.0.0.1:0'\n[limit]\nmemroy = 1\n").unwrap();
    let file = file.to_str().unwrap();
    for (args, part) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["config", "--limit-memroy", "1"], "similar argument exists: '--limit-memory'"),
        (&["config", "--limit-memory", "64M"], "--limit-memory: `M` can mean two units"),
        (
            &["config", "--config", file],
            "psa.toml:3: unknown key `limit.memroy`; did you mean `limit.memory`?",
        ),
        (&["config", "--config", "/nowhere.toml"], "/nowhere.toml: no such file or directory"),
        (
            &["serve", "--listen", "0.0.0.0:0"],
            "can be reached from other machines and no token is set",
        ),
        (&["serve", "--log-level", "=,="], "--log-level"),
        (&["config", "--topic-durability", "synced"], "give one with --data FOLDER"),
        (&["serve", "--topic-durability", "written"], "there is no folder for data"),
        (&["config", "--data", file], "is no folder"),
        (&["serve", "--data", file], "is no folder"),
        (&["serve", "--topic-disk", "2TiB"], "has no room in limit.topic_disk"),
        (&["serve", "--token", "a", "--token-file", "b"], "already sets the token"),
        (&["serve", "--token-file", "/nowhere"], "/nowhere: no such file or directory"),
        (&["pub"], "<TOPIC>"),
        (&["pub", "t", "--lines", "--whole"], "cannot be used with"),
        (&["sub", "t", "--from", "1", "--last", "2"], "cannot be used with"),
        (&["sub", "t", "--after", "5"], "expected EPOCH:OFFSET"),
        (&["sub", "t", "--take-over"], "--lease"),
        (&["sub", "t", "--format", "xml"], "xml"),
        (&["sub", "a\nb"], "control character"),
        (&["topics", "create", "t", "--retention", "1000"], "1000 records"),
        (&["stats", "--watch"], "it needs a terminal"),
        (&["topics", "--server", "nowhere"], "--server: expected HOST:PORT"),
    ] {
        let ended = run(psa(args));
        ended.failed(2, part);
        assert!(ended.out.is_empty(), "{args:?}");
    }
    let mut command = psa(&["config"]);
    command.env("PSA_LIMIT_MEMROY", "1");
    run(command).failed(2, "did you mean PSA_LIMIT_MEMORY?");
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["--version"], &["serve", "--help"], &["sub", "-h"]] {
        let ended = run(psa(args));
        assert!(ended.err.is_empty());
        assert!(!ended.ok().is_empty());
    }
    assert_eq!(run(psa(&[])).code, Some(2));
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(psa(&["completions", shell]));
        assert!(
            script.text().contains("--take-over") || script.text().contains("take-over"),
            "{shell}"
        );
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    for args in [&["config"][..], &["completions", "bash"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = psa(args);
        command.stdout(writer).stderr(Stdio::piped());
        let ended: Ended = command.spawn().unwrap().wait_with_output().unwrap().into();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let mut command = psa(&["config"]);
    command
        .stdout(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .stderr(Stdio::piped());
    let ended: Ended = command.spawn().unwrap().wait_with_output().unwrap().into();
    ended.failed(1, "standard output: no space left on device");
}

#[test]
fn variables_of_container_platforms_are_ignored_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // What Kubernetes sets in a namespace with services called psa, psa-headless and psa-metrics.
    let links = [
        ("PSA_SERVICE_HOST", "10.0.0.1"),
        ("PSA_SERVICE_PORT_HTTP_API", "9854"),
        ("PSA_PORT_9853_TCP_PORT", "9853"),
        ("PSA_HEADLESS_SERVICE_HOST", "None"),
        ("PSA_HEADLESS_SERVICE_PORT", "9853"),
        ("PSA_METRICS_PORT", "tcp://10.0.0.2:9854"),
        ("PSA_METRICS_PORT_9854_TCP", "tcp://10.0.0.2:9854"),
        ("PSA_METRICS_PORT_9854_SCTP_ADDR", "10.0.0.2"),
    ];
    let mut command = psa(&["serve", "--listen", "127.0.0.1:0"]);
    command.envs(links).stderr(std::fs::File::create(&log).unwrap());
    let _server = Server::from(command);
    eventually("they are told", || {
        let log = std::fs::read_to_string(&log).unwrap();
        links.iter().all(|(name, _)| log.contains(name)) && log.contains("ignored")
    });
    for typo in ["PSA_METRICS_POTR", "PSA_PORT_TCP", "PSA_HEADLESS_SERVICE", "PSA_WEB_PORT_80_HTTP"]
    {
        let mut command = psa(&["config"]);
        command.env(typo, "1");
        run(command).failed(2, typo);
    }
}

#[test]
fn a_level_that_is_none_is_refused() {
    for command in ["serve", "config"] {
        for (level, part) in [("warning", "did you mean warn?"), ("inof", "did you mean info?")] {
            let ended = run(psa(&[command, "--log-level", level, "--listen", "127.0.0.1:0"]));
            ended.failed(2, &format!("--log-level: `{level}` is no level"));
            ended.failed(2, part);
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn help_that_cannot_be_written_is_a_failure() {
    for args in [&["--help"][..], &["--version"], &["sub", "--help"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = psa(args);
        command.stdout(full).stderr(Stdio::piped());
        let ended: Ended = command.spawn().unwrap().wait_with_output().unwrap().into();
        ended.failed(1, "standard output: no space left on device");
    }
}
