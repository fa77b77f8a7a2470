//! Output that goes away: a pipe whose reader has had enough, a terminal that closes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::harness::*;
use super::healthy::Healthy;
use super::wrapped::wrapped;

fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| format!("{number} {:.<100}\n", "").into_bytes()).collect()
}

#[test]
fn a_broken_pipe_ends_a_subscriber_quietly() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let input = lines(50_000);
    server.publish(&["pub", "--keep-ends", "t"], &input).expect(exit::DONE);
    let state = server.path("state");
    let args = ["sub", "t", "--format", "raw", "--state", state.to_str().expect("a plain path")];
    let mut taken = 0;
    for count in [1, 10_000, 300_000] {
        let mut process =
            Process::start_with_output(server.folder.path(), server.command(&args), Stdio::piped());
        let mut stdout = process.child().stdout.take().expect("it is a pipe");
        let mut bytes = vec![0; count];
        stdout.read_exact(&mut bytes).expect("it writes");
        // As `head` does.
        drop(stdout);
        let run = process.wait().expect(exit::DONE);
        assert_eq!(run.stderr, "", "nobody is left to be told");
        // It begins at most where the last one's reader went away: nothing is lost, and what was
        // in between may come again.
        let begin = find(&input, &bytes);
        assert!(begin <= taken, "from {begin}, {taken} were taken: what is between is lost");
        taken = begin + count;
    }
    let rest = server.run(&[&args[..], &["--exit-at-end"]].concat()).expect(exit::DONE).stdout;
    assert!(rest.len() >= input.len() - taken && input.ends_with(&rest), "{} bytes", rest.len());
    healthy.finish(&server);
}

/// Where in the input the beginning of a line like this is.
fn find(input: &[u8], bytes: &[u8]) -> usize {
    let starts = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let mut starts = std::iter::once(0).chain(starts);
    starts.find(|at| input[*at..].starts_with(bytes)).expect("it is of the input")
}

#[test]
fn a_broken_pipe_ends_the_other_commands_quietly() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    for args in [
        &["topics"][..],
        &["topics", "--json"],
        &["topics", "describe", "healthy"],
        &["stats"],
        &["stats", "--json"],
        &["config"],
        &["completions", "bash"],
        &["sub", "healthy", "--count", "3"],
    ] {
        let command = server.command(args);
        let run = Process::start_with_output(server.folder.path(), command, closed()).wait();
        assert_eq!((run.code, run.stderr.as_str()), (exit::DONE, ""), "{args:?}");
    }
    // A server whose first lines nobody reads serves all the same.
    let command = psa(["serve", "--listen", "127.0.0.1:0"]);
    let mut serving = Process::start_with_output(server.folder.path(), command, closed());
    eventually("the server to listen", || match serving.stderr() {
        log if log.contains("serving") => Ok(()),
        log => Err(log),
    });
    assert!(serving.is_running(), "{}", serving.stderr());
    healthy.finish(&server);
}

/// A terminal: its own side, and the side that a process gets.
fn terminal() -> (OwnedFd, File) {
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
    let own = own.expect("a terminal");
    grantpt(&own).expect("it is ours");
    unlockpt(&own).expect("it is ours");
    let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&own, size).expect("it is ours");
    let name = ptsname(&own, Vec::new()).expect("it has a name");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let other = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).expect("its other side");
    (own, other.into())
}

/// Starts a command in a terminal of its own, as a shell's window does; only standard error goes
/// elsewhere. A hang-up means to it what it means by default, although these tests themselves may
/// run under `nohup`, whose children inherit that it means nothing.
fn in_terminal(server: &Server, command: &Command) -> (OwnedFd, Process) {
    let (own, other) = terminal();
    let mut setsid = Command::new("setsid");
    setsid.args(["--ctty", "env", "--default-signal=HUP"]);
    let mut wrapped = wrapped(setsid, command);
    wrapped.stdin(other.try_clone().expect("a descriptor"));
    let process = Process::start_with_output(server.folder.path(), wrapped, other);
    (own, process)
}

/// Reads from a terminal until `text` has come.
fn shows(terminal: &OwnedFd, text: &str) {
    let mut file = File::from(terminal.try_clone().expect("a descriptor"));
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let mut piece = [0; 4096];
        let count = file.read(&mut piece).expect("the process runs and writes");
        seen.extend(&piece[..count]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_terminal_that_closes_ends_what_ran_in_it() {
    let server = Server::start(&["--topic-retention", "nothing", "--topic-segment", "4KiB"]);
    let healthy = Healthy::start(&server);
    let command = server.command(&["sub", "t", "--lease", "mine", "--lease-ttl", "10m"]);
    let (screen, subscriber) = in_terminal(&server, &command);
    server.describe_until("t", "the subscriber", |stats| stats["cursors"] == 1);
    let (keyboard, publisher) = in_terminal(&server, &server.command(&["pub", "t"]));
    let mut keys = File::from(keyboard.try_clone().expect("a descriptor"));
    keys.write_all(b"typed\n").expect("a terminal");
    shows(&screen, "typed");
    server.describe_until("t", "the commit", |stats| stats["leases"][0]["committed"] == 1);
    let (control, serving) = in_terminal(&server, &psa(["serve", "--listen", "127.0.0.1:0"]));
    shows(&control, "listens on");

    // The windows are closed.
    drop((screen, keyboard, keys, control));
    let run = subscriber.wait().expect(exit::HANGUP);
    assert_eq!(run.stderr, "", "the subscriber has nothing to say");
    publisher.wait().expect_line(exit::HANGUP, &["1 record was acknowledged, at offset 0"]);
    // A server drains, as with SIGTERM.
    let run = serving.wait().expect(exit::DONE);
    assert!(run.stderr.contains("draining"), "{}", run.stderr);

    // What was acknowledged meanwhile is there for the subscriber's next life.
    server.publish(&["pub", "t"], b"later\n").expect(exit::DONE);
    let run = server.run(&["sub", "t", "--lease", "mine", "--count", "1"]).expect(exit::DONE);
    assert_eq!(run.text(), "later\n");
    healthy.finish(&server);
}

/// `nohup` and its kind say so by ignoring the signal.
#[test]
#[cfg(target_os = "linux")]
fn who_was_told_to_ignore_a_hangup_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let deaf = |command: &Command| {
        let mut wrapped = Command::new("sh");
        wrapped.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    };
    let server = Server::start(&[]);
    let mut serving =
        Process::start(folder.path(), deaf(&psa(["serve", "--listen", "127.0.0.1:0"])));
    let mut following = Process::start(folder.path(), deaf(&server.command(&["sub", "t"])));
    eventually("the server to listen", || match serving.stdout() {
        out if out.contains(&b'\n') => Ok(()),
        _ => Err(serving.stderr()),
    });
    server.publish(&["pub", "t"], b"before\n").expect(exit::DONE);
    let received = |process: &Process, text: &str| {
        eventually("the subscriber to receive", || match process.stdout() {
            out if out == text.as_bytes() => Ok(()),
            out => Err(format!("{:?}; {}", String::from_utf8_lossy(&out), process.stderr())),
        });
    };
    received(&following, "before\n");
    for process in [&serving, &following] {
        process.signal(Signal::HUP);
    }
    server.publish(&["pub", "t"], b"after\n").expect(exit::DONE);
    received(&following, "before\nafter\n");
    assert!(following.is_running(), "{}", following.stderr());
    // Asked to end as one asks, they do; and the server was not draining until then.
    following.signal(Signal::TERM);
    following.wait().expect(exit::TERMINATE);
    assert!(serving.is_running() && !serving.stderr().contains("draining"), "{}", serving.stderr());
    serving.signal(Signal::TERM);
    serving.wait().expect(exit::DONE);
}

/// A hang-up that somebody sends while the terminal is there means to read files again; one because the
/// terminal is gone means the end.
#[test]
#[cfg(target_os = "linux")]
fn a_hang_up_ends_a_server_in_a_terminal_with_the_terminal_alone() {
    let server = Server::start(&[]);
    let (control, serving) = in_terminal(&server, &psa(["serve", "--listen", "127.0.0.1:0"]));
    shows(&control, "listens on");
    serving.signal(Signal::HUP);
    eventually("it says that there is nothing to read again", || match serving.stderr() {
        log if log.contains("nothing to read again") => Ok(()),
        log => Err(log),
    });
    assert!(!serving.stderr().contains("draining"));
    drop(control);
    let run = serving.wait().expect(exit::DONE);
    assert!(run.stderr.contains("draining"), "{}", run.stderr);
}
