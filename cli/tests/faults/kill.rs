//! Publishers that are killed with SIGKILL while they publish. (Subscribers: `e2e::again`, `e2e::follow`.)

use std::io::{ErrorKind, Write};
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use super::harness::*;

/// What is published in one life: as many lines as it comes to, of any length, numbered.
fn line(life: usize, number: usize, random: &mut fastrand::Rng) -> String {
    let width = random.usize(0..300);
    format!("{life} {number} {:.<width$}|\n", "")
}

/// Feeds a publisher until it is killed; the lines that went into the pipe whole, and the one that did not.
fn feed(life: usize, mut stdin: ChildStdin, mut random: fastrand::Rng) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        for _ in 0..random.u8(1..60) {
            lines.push(line(life, lines.len(), &mut random));
            let line = lines.last().expect("just pushed").as_bytes();
            if let Err(error) = stdin.write_all(line) {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                return lines;
            }
        }
        // A stream, not a flood.
        std::thread::sleep(Duration::from_micros(random.u64(0..300)));
    }
}

/// The life and the number that a line begins with.
fn parse(line: &str) -> (usize, usize) {
    assert!(line.ends_with('|'), "a torn record: {line:?}");
    let mut words = line.split(' ').map_while(|word| word.parse().ok());
    let parsed = words.next().zip(words.next());
    parsed.unwrap_or_else(|| panic!("no record of ours: {line:?}"))
}

#[test]
fn what_a_killed_publisher_leaves_is_a_beginning_of_what_it_sent() {
    let mut random = random("killed publishers");
    let lives = if super::is_full() { 500 } else { 40 };
    let server = Server::start(&["--topic-memory", "64MiB"]);
    let follower = server.spawn(&["sub", "t", "--format", "raw"]);
    server.describe_until("t", "the subscriber to be there", |stats| stats["cursors"] == 1);
    let mut sent = Vec::new();
    for life in 0..lives {
        let mut command = server.command(&["pub", "--keep-ends", "t"]);
        command.stdin(Stdio::piped());
        let mut publisher = Process::start(server.folder.path(), command);
        let stdin = publisher.child().stdin.take().expect("it is a pipe");
        let feeding = std::thread::spawn({
            let random = random.fork();
            move || feed(life, stdin, random)
        });
        if random.u8(0..4) > 0 {
            // At work, and not only as it starts.
            let before = server.look_at("t").map(|stats| stats["next_offset"].clone());
            server.describe_until("t", "something to arrive", |stats| {
                before.as_ref().is_ok_and(|before| stats["next_offset"] != *before)
            });
        }
        // Not to wait for anything: to be anywhere.
        std::thread::sleep(Duration::from_micros(random.u64(0..3000)));
        assert_eq!(publisher.kill().code, exit::KILLED);
        sent.push(feeding.join().expect("it says why"));
    }
    // The server may still have what the last ones sent in its sockets: a connection is read to its end
    // before it is over.
    let healthy = server.publish(&["pub", "--keep-ends", "t"], format!("{lives} 0 |\n").as_bytes());
    healthy.expect(exit::DONE);
    sent.push(vec![format!("{lives} 0 |\n")]);
    server.run(&["topics", "close", "t"]).expect(exit::DONE);
    let run = follower.wait().expect(exit::DONE);
    assert_eq!(run.stderr, "");
    let text = run.text();
    // Lives may overlap, since one that is killed leaves bytes on the way; each by itself is in order.
    let mut next = vec![0; sent.len()];
    for record in text.lines() {
        let (life, number) = parse(record);
        assert_eq!(number, next[life], "of life {life}");
        assert_eq!(record.as_bytes(), sent[life][number].trim_end().as_bytes());
        next[life] += 1;
    }
    let (arrived, all): (usize, usize) = (next.iter().sum(), sent.iter().map(Vec::len).sum());
    let whole = next.iter().zip(&sent).filter(|(next, sent)| **next == sent.len()).count();
    let none = next.iter().filter(|next| **next == 0).count();
    eprintln!("{arrived} of {all} records; {whole} lives whole, {none} without a record");
    assert_eq!(next[lives], 1, "the one that was not killed");
    // Of some lives nothing is there, of others all; that kills fell in the middle has to be seen.
    assert!(whole + none < lives, "no kill fell into the middle of anything");
    let stats = server.describe("t");
    assert_eq!(stats["next_offset"], arrived, "{stats}");
}
