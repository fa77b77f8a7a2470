//! `--state` and `--output` against SIGKILL at random moments.

use super::harness::*;
use std::path::Path;
use std::process::{Child, Stdio};

/// Numbered lines, so that a difference shows where it is.
fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| format!("{n} {}\n", "x".repeat(n % 50)).into_bytes()).collect()
}

#[track_caller]
fn assert_same(output: &Path, input: &[u8]) {
    let got = std::fs::read(output).unwrap();
    let same = got.iter().zip(input).take_while(|(a, b)| a == b).count();
    assert!(
        got == input,
        "they differ from byte {same} on; {} bytes of {}",
        got.len(),
        input.len()
    );
}

fn start(server: &Server, state: &Path, output: &Path, flags: &[&str]) -> Child {
    let mut command = server.psa(&["sub", "t", "--format", "raw", "--exit-at-end"]);
    command.arg("--state").arg(state).arg("--output").arg(output).args(flags);
    command.stderr(Stdio::inherit()).spawn().unwrap()
}

/// Kills and starts it again until a life is long enough, and returns how many were not.
fn live_and_die(random: &mut fastrand::Rng, mut start: impl FnMut() -> Child) -> u32 {
    let mut deaths = 0;
    let mut longest = 2_000;
    loop {
        let mut child = start();
        // At first it dies while it starts; later lives reach further, so that it comes to an end.
        std::thread::sleep(std::time::Duration::from_micros(random.u64(0..longest)));
        if deaths < 40 {
            let _ = child.kill();
        }
        match wait(&mut child) {
            Some(0) => return deaths,
            Some(code) => panic!("it failed with {code}"),
            None => deaths += 1,
        }
        longest += 1_500;
    }
}

#[test]
fn killed_at_random_moments_the_output_is_the_input() {
    let server = Server::start(&["--topic-memory", "128MiB"]);
    run(server.psa(&[
        "topics",
        "create",
        "t",
        "--overflow",
        "reject",
        "--retention",
        "everything",
    ]))
    .ok();
    let input = lines(400_000);
    server.publish("t", &input);
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let (state, output) = (folder.path().join("state"), folder.path().join("out"));
    let deaths = live_and_die(&mut random, || start(&server, &state, &output, &[]));
    assert!(deaths > 3, "it was killed {deaths} times only");
    assert_same(&output, &input);
    // Run once more: nothing is added.
    assert_eq!(wait(&mut start(&server, &state, &output, &["--sync"])), Some(0));
    assert_same(&output, &input);
}

#[test]
fn with_a_lease_nothing_is_lost_although_nothing_else_keeps_it() {
    // No retention: what a killed subscriber did not commit is there for its lease alone.
    let server = Server::start(&["--topic-retention", "nothing", "--topic-memory", "128MiB"]);
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let (state, output) = (folder.path().join("state"), folder.path().join("out"));
    let lease = ["--lease", "l", "--lease-ttl", "1h", "--take-over", "--on-gap", "fail"];
    // The lease exists before the first record.
    assert_eq!(wait(&mut start(&server, &state, &output, &lease)), Some(0));
    let input = lines(300_000);
    let (first, second) = input.split_at(input.len() / 2);
    let cut = first.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let (first, second) = (&input[..cut], [&first[cut..], second].concat());
    server.publish("t", first);
    live_and_die(&mut random, || start(&server, &state, &output, &lease));
    assert_same(&output, first);
    server.publish("t", &second);
    live_and_die(&mut random, || start(&server, &state, &output, &lease));
    assert_same(&output, &input);
    // Everything is committed, so nothing is held back any more.
    let stats = server.stats("t");
    assert_eq!(stats["leases"][0]["committed"], stats["next_offset"]);
}

#[test]
fn following_while_it_is_published() {
    let server = Server::start(&["--topic-memory", "128MiB"]);
    run(server.psa(&[
        "topics",
        "create",
        "t",
        "--overflow",
        "reject",
        "--retention",
        "everything",
    ]))
    .ok();
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let (state, output) = (folder.path().join("state"), folder.path().join("out"));
    let input = lines(100_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in input.chunks(input.len() / 50 + 1) {
                // Cut anywhere: the records are different ones then, the bytes are the same.
                server.publish("t", part);
            }
        });
        for _ in 0..15 {
            let mut command = server.psa(&["sub", "t", "--format", "raw"]);
            command.arg("--state").arg(&state).arg("--output").arg(&output);
            let mut child = command.spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(random.u64(0..60)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
    assert_eq!(wait(&mut start(&server, &state, &output, &[])), Some(0));
    assert_same(&output, &input);
}

#[test]
fn mistakes_with_the_files_spoil_nothing() {
    let server = Server::start(&[]);
    server.publish("t", b"a\nb\n");
    let folder = tempfile::tempdir().unwrap();
    let (state, output) = (folder.path().join("state"), folder.path().join("out"));
    let sub = |topic: &str, state: &Path, output: &Path| {
        let mut command = server.psa(&["sub", topic, "--format", "raw", "--exit-at-end"]);
        run({
            command.arg("--state").arg(state).arg("--output").arg(output);
            command
        })
    };
    std::fs::write(&output, "precious").unwrap();
    sub("t", &state, &output).failed(1, "it has content already");
    assert_eq!(std::fs::read(&output).unwrap(), b"precious");
    std::fs::remove_file(&output).unwrap();
    sub("t", &state, &output).ok();
    sub("u", &state, &output).failed(2, "it holds the state of topic `t`");
    std::fs::write(&output, "something else").unwrap();
    sub("t", &state, &output).failed(1, "it is not the output that the state describes");
    assert_eq!(std::fs::read(&output).unwrap(), b"something else");
    std::fs::remove_file(&output).unwrap();
    std::fs::remove_file(&state).unwrap();
    sub("t", Path::new("/nowhere/state"), &output).failed(1, "/nowhere/state");
    // No byte before the state says where it begins; and since nothing was written, no file either.
    assert!(!output.exists());

    // Two at a time.
    let mut command = server.psa(&["sub", "t", "--format", "raw"]);
    command.arg("--state").arg(&state).arg("--output").arg(&output);
    let mut first = command.spawn().unwrap();
    eventually("the first one writes", || std::fs::read(&output).is_ok_and(|got| got == b"a\nb\n"));
    sub("t", &state, &output).failed(1, "another process uses it");
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(std::fs::read(&output).unwrap(), b"a\nb\n");
}

#[test]
fn a_state_without_an_output_goes_on_behind_what_was_printed() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let sub = |flags: &[&str]| {
        let mut command = server.psa(&["sub", "t", "--format", "raw", "--exit-at-end"]);
        command.arg("--state").arg(&state).args(flags);
        run(command).ok()
    };
    server.publish("t", b"0\n1\n2\n");
    assert_eq!(sub(&["--count", "2"]), b"0\n1\n");
    server.publish("t", b"3\n");
    assert_eq!(sub(&[]), b"2\n3\n");
    assert_eq!(sub(&["--from", "earliest"]), b"", "the state wins over --from");
    // The topic is recreated: said, and then all of it.
    run(server.psa(&["topics", "delete", "t"])).ok();
    server.publish("t", b"new\n");
    let mut command = server.psa(&["sub", "t", "--format", "raw", "--exit-at-end"]);
    command.arg("--state").arg(&state);
    let again = run(command);
    assert!(again.err.contains("recreated"), "{}", again.err);
    assert_eq!(again.ok(), b"new\n");
    assert_eq!(sub(&[]), b"");
}
