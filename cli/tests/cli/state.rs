//! Files that `psa sub` makes: what a refused run leaves, and two runs at a time.

use super::harness::*;
use std::process::Stdio;

#[test]
fn two_first_runs_on_one_state_file_are_one_and_a_refusal() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let args = ["sub", "t", "--format", "raw", "--state", state.to_str().unwrap()];
    // Nothing is there yet: the first one has recorded its place at most.
    let mut first = server.psa(&args).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the first one has its file", || state.exists());
    let second = run(server.psa(&args));
    second.failed(1, "another process uses it");
    server.publish("t", b"a\n");
    assert_eq!(read_some(&mut first, 2), b"a\n");
    first.kill().unwrap();
    first.wait().unwrap();
    // Its place was recorded after the record was written: it is there, or comes once more.
    let again = run(server.psa(&[&args[..], &["--exit-at-end"]].concat())).ok();
    assert!(again.is_empty() || again == b"a\n", "{again:?}");
}

#[test]
fn many_first_runs_are_one() {
    let server = Server::start(&[]);
    server.publish("t", b"a\nb\n");
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let start = |_| {
            let args = ["sub", "t", "--format", "raw", "--state", state.to_str().unwrap()];
            let mut command = server.psa(&args);
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut all: Vec<_> = (0..6).map(start).collect();
        // All but one end by themselves.
        eventually("five are refused", || {
            all.iter_mut().filter_map(|one| one.try_wait().unwrap()).count() == 5
        });
        let running =
            all.iter_mut().find_map(|one| one.try_wait().unwrap().is_none().then_some(one));
        assert_eq!(read_some(running.unwrap(), 4), b"a\nb\n");
        for one in &mut all {
            let _ = one.kill();
            one.wait().unwrap();
        }
    }
}

#[test]
fn a_run_that_is_refused_leaves_no_file_and_spoils_none() {
    let server = Server::start(&["--topic-create-on-subscribe=false"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (state, output) = (path("state"), path("output"));
    for args in [
        &["sub", "none", "--state", &state][..],
        &["sub", "none", "--output", &output],
        &["sub", "none", "--state", &state, "--output", &output],
    ] {
        run(server.psa(args)).failed(4, "[unknown-topic]");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{args:?}");
    }
    // What an earlier run has written stays until there is something else to write.
    std::fs::write(&output, "precious").unwrap();
    run(server.psa(&["sub", "none", "--output", &output])).failed(4, "[unknown-topic]");
    assert_eq!(std::fs::read(&output).unwrap(), b"precious");
    let both = run(server.psa(&["sub", "none", "--state", &state, "--output", &state]));
    both.failed(2, "it is the state and the output");
}
