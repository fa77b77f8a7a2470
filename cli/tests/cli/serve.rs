//! `psa serve`: how it begins and how it ends.

use super::harness::*;
use super::wrapped::wrapped;
use rustix::process::Signal;
use std::process::{Command, Stdio};

#[test]
fn it_says_what_to_type_next() {
    let mut command = psa(&["serve", "--listen", "localhost:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let text = String::from_utf8(read_some(&mut child, 160)).unwrap();
    assert!(text.contains(" listens on ") && text.contains("psa sub greetings"), "{text}");
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn a_port_that_is_taken_is_explained() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(psa(&["serve", "--listen", &address, "--log-level", "off"]));
    ended.failed(1, &address);
    assert!(ended.err.contains("--listen"), "{}", ended.err);
}

#[test]
fn a_signal_drains_what_was_acknowledged() {
    for stop in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&[]);
        let input: Vec<u8> = (0..200_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let mut command = server.psa(&["sub", "t", "--format", "raw", "--reconnect", "0s"]);
        let mut subscriber = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("the subscriber is there", || {
            let list = run(server.psa(&["topics", "--json"])).ok();
            String::from_utf8(list).unwrap().contains("\"cursors\":1")
        });
        server.publish("t", &input);
        // The subscriber reads nothing so far: its pipe is full, and so is its socket.
        signal(&server.child, stop);
        let mut out = Vec::new();
        std::io::Read::read_to_end(subscriber.stdout.as_mut().unwrap(), &mut out).unwrap();
        assert!(out == input, "{} of {} bytes", out.len(), input.len());
        assert_eq!(wait(&mut server.child), Some(0));
        assert_eq!(wait(&mut subscriber), Some(3), "the server is gone");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--timeout-drain", "1d"]);
    server.publish(
        "t",
        &vec![b'x'; 1 << 20].chunks(100).flat_map(|c| [c, b"\n"].concat()).collect::<Vec<_>>(),
    );
    // A subscriber that does not read keeps the drain from ending.
    let mut command = server.psa(&["sub", "t", "--reconnect", "0s"]);
    let mut subscriber = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let payload: Vec<u8> =
        (0..40 << 20).map(|n| if n % 1000 == 999 { b'\n' } else { b'y' }).collect();
    run(server.psa(&[
        "topics",
        "create",
        "big",
        "--overflow",
        "reject",
        "--retention",
        "everything",
    ]))
    .ok();
    server.publish("big", &payload);
    let mut command = server.psa(&["sub", "big", "--reconnect", "0s"]);
    let mut stalled = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    read_some(&mut stalled, 1000);
    signal(&server.child, Signal::TERM);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(server.child.try_wait().unwrap().is_none(), "it drains");
    signal(&server.child, Signal::TERM);
    assert_eq!(wait(&mut server.child), Some(143));
    for child in [&mut subscriber, &mut stalled] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn log_lines_can_be_json() {
    let mut command = psa(&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    read_some(&mut child, 100);
    signal(&child, Signal::TERM);
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert!(ended.err.lines().count() > 0);
    for line in ended.err.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "INFO");
    }
}

#[test]
fn a_hang_up_without_a_terminal_ends_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // As systemd has it: no terminal, and neither an access file nor a certificate.
    let mut session = Command::new("setsid");
    session.args(["env", "--default-signal=HUP"]);
    let mut command = wrapped(session, &psa(&["serve", "--listen", "127.0.0.1:0"]));
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut server = Server::from(command);
    server.publish("t", b"precious\n");
    for _ in 0..2 {
        signal(&server.child, Signal::HUP);
    }
    eventually("it says that there is nothing to read again", || {
        std::fs::read_to_string(&log).unwrap().contains("nothing to read again")
    });
    assert_eq!(run(server.psa(&["sub", "t", "--count", "1"])).ok(), b"precious\n\n");
    assert!(server.child.try_wait().unwrap().is_none());
}

/// A file of tokens that cannot be read, since nobody writes the FIFO that has its name by now.
#[test]
fn a_reload_that_hangs_keeps_nobody_from_ending_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (access, log) = (folder.path().join("access.toml"), folder.path().join("log"));
    let entry = run(psa(&["token", "new", "a", "--publish", "*", "--subscribe", "*"]));
    std::fs::write(&access, entry.text()).unwrap();
    let mut command = psa(&["serve", "--listen", "127.0.0.1:0", "--access-file"]);
    command.arg(&access).stderr(std::fs::File::create(&log).unwrap());
    let mut server = Server::from(command);
    std::fs::remove_file(&access).unwrap();
    assert!(Command::new("mkfifo").arg(&access).status().unwrap().success());
    signal(&server.child, Signal::HUP);
    let threads = format!("/proc/{}/task", server.child.id());
    eventually("it reads the file again", || {
        std::fs::read_dir(&threads).unwrap().flatten().any(|task| {
            std::fs::read_to_string(task.path().join("wchan"))
                .is_ok_and(|at| at.contains("wait_for_partner"))
        })
    });
    signal(&server.child, Signal::TERM);
    assert_eq!(wait(&mut server.child), Some(0));
}

#[test]
fn a_service_manager_is_told_when_it_listens_and_when_it_drains() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = psa(&["serve", "--listen", "127.0.0.1:0", "--log-level", "error"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut server = Server::from(command);
    let mut told = [0; 64];
    let mut hears = |part: &str| {
        let count = socket.recv(&mut told).unwrap();
        let text = String::from_utf8_lossy(&told[..count]).into_owned();
        assert!(text.contains(part), "{text}");
    };
    hears("READY=1");
    run(server.psa(&["topics"])).ok();
    signal(&server.child, Signal::TERM);
    hears("STOPPING=1");
    assert_eq!(wait(&mut server.child), Some(0));
}
