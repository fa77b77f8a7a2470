//! Ends of commands that wait: for whoever reads a FIFO, for records on a quiet topic, for a pipe that is full.

use super::harness::*;
use super::wrapped::wrapped;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// The same command, whose signals end it although these tests may run where they mean nothing.
fn with_default_signals(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP");
    wrapped(env, command)
}

fn cursors(server: &Server, topic: &str) -> u64 {
    let list = run(server.psa(&["topics", "--json"])).ok();
    let list = String::from_utf8(list).unwrap();
    let topics = list.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    topics.filter(|line| line["topic"] == topic).map(|line| line["cursors"].as_u64().unwrap()).sum()
}

#[test]
fn a_signal_ends_who_waits_for_the_reader_of_a_fifo() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (stop, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let command = server.psa(&["sub", "t", "--output", fifo.to_str().unwrap()]);
        let mut child = with_default_signals(&command).stderr(Stdio::piped()).spawn().unwrap();
        // It has taken the signals over when it waits in open(2).
        let wait_channel = format!("/proc/{}/task", child.id());
        eventually("it waits for a reader", || {
            let tasks = std::fs::read_dir(&wait_channel).unwrap();
            tasks.flatten().any(|task| {
                std::fs::read_to_string(task.path().join("wchan"))
                    .is_ok_and(|at| at.contains("wait_for_partner"))
            })
        });
        signal(&child, stop);
        assert_eq!(wait(&mut child), Some(code));
    }
}

#[test]
fn a_fifo_is_written_when_somebody_reads_it() {
    let server = Server::start(&[]);
    server.publish("t", b"a\nb\n");
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let args = ["sub", "t", "--format", "raw", "--output", fifo.to_str().unwrap()];
    let mut child = server.psa(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = std::fs::File::open(&fifo).unwrap();
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"a\nb\n");
    // Nothing more comes: that nobody reads it any more is seen all the same.
    drop(reader);
    assert_eq!(wait(&mut child), Some(1));
    let mut said = String::new();
    child.stderr.unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("broken pipe"), "{said}");
}

#[test]
fn a_reader_that_leaves_a_quiet_topic_ends_the_subscriber() {
    let server = Server::start(&[]);
    server.publish("t", b"0\n1\n2\n3\n4\n");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    for flags in [&[][..], &["--lease", "l"], &["--state", state.to_str().unwrap()]] {
        let mut command = server.psa(&["sub", "t", "--format", "raw"]);
        command.args(flags).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert_eq!(read_some(&mut child, 10), b"0\n1\n2\n3\n4\n");
        assert!(child.try_wait().unwrap().is_none(), "it waits for more");
        // As `head` does.
        drop(child.stdout.take());
        assert_eq!(wait(&mut child), Some(0), "{flags:?}");
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
        eventually("its place in the topic is free", || {
            cursors(&server, "t") == 0 || flags.contains(&"--lease")
        });
    }
    let stats = server.stats("t");
    let lease = &stats["leases"][0];
    assert_eq!((&lease["held"], &lease["committed"]), (&false.into(), &5.into()), "{stats}");
}

#[test]
fn a_reader_that_leaves_ends_a_subscriber_that_has_no_server() {
    // A server that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let mut command = psa(&["sub", "t", "--server", &address]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _connection = silent.accept().unwrap();
    drop(child.stdout.take());
    assert_eq!(wait(&mut child), Some(0));
}

/// A message onto a full pipe keeps nobody from being ended.
#[test]
fn a_signal_ends_who_waits_to_say_something() {
    let server = Server::start(&[]);
    server.publish("t", b"a\n");
    let (unread, mut messages) = std::io::pipe().unwrap();
    // Full but for what one cannot see: no line has room.
    rustix::io::ioctl_fionbio(&messages, true).unwrap();
    while messages.write(&[b'x'; 4096]).is_ok() {}
    while messages.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&messages, false).unwrap();
    let command = server.psa(&["sub", "t", "--verbose"]);
    let mut command = with_default_signals(&command);
    let mut child = command.stdout(Stdio::null()).stderr(messages).spawn().unwrap();
    eventually("it has subscribed, and says so", || cursors(&server, "t") == 1);
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child), Some(143));
    drop(unread);
}
