//! One subscriber that is killed again and again while it writes.
//!
//! In `follow`, the subscribers mostly wait when they are killed. Here records are fed up to the moment of
//! each kill, so that kills fall between the write of the records and the write of the state too.

use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::follower::{Follower, Keep};
use super::harness::*;
use super::input::Input;

#[test]
fn a_subscriber_that_is_killed_again_and_again_at_work_writes_each_record_once() {
    killed_again_and_again("killed again", 150, &[]);
}

#[test]
fn one_that_forces_each_piece_to_the_disk_does_so_too() {
    // Most of its time it is between the records and the state.
    killed_again_and_again("killed again while it syncs", 50, &["--sync"]);
}

fn killed_again_and_again(name: &str, kills: usize, flags: &[&str]) {
    let mut random = random(name);
    let server = Server::start(&["--topic-retention", "48MiB"]);
    let mut command = server.command(&["pub", "--keep-ends", "lines"]);
    command.stdin(Stdio::piped());
    let mut publisher = Process::start(server.folder.path(), command);
    let mut stdin = publisher.child().stdin.take().expect("it is a pipe");
    let mut input = Input { name: "lines".into(), bytes: Vec::new() };
    let mut number = 0_u32;
    let mut feed = |random: &mut fastrand::Rng| {
        let from = input.bytes.len();
        for _ in 0..random.u8(1..30) {
            let width = random.usize(0..80);
            writeln!(input.bytes, "{number} {:.<width$}", "").expect("memory takes all");
            number += 1;
        }
        stdin.write_all(&input.bytes[from..]).expect("the publisher reads");
    };
    let mut follower = Follower::new(&server, "it", "lines", Keep::State, flags);
    for kill in 0..kills {
        let before = follower.length();
        follower.start();
        // Sometimes as it starts and cuts off what the last run left half done; otherwise at work.
        if random.u8(0..5) > 0 {
            eventually("the output to grow", || {
                feed(&mut random);
                if follower.length() > before {
                    return Ok(());
                }
                let process = follower.process();
                assert!(process.is_running(), "kill {kill}: {}", process.stderr());
                Err(format!("{before} bytes, kill {kill}"))
            });
        }
        for _ in 0..random.u8(0..5) {
            feed(&mut random);
            // Not to wait for anything: to be anywhere.
            thread::sleep(Duration::from_micros(random.u64(0..150)));
        }
        follower.kill();
    }
    drop(stdin);
    publisher.wait().expect(exit::DONE);
    follower.start();
    server.run(&["topics", "close", "lines"]).expect(exit::DONE);
    follower.expect(&input);
}
