//! Too many at once, and too many one after another.
#![cfg(target_os = "linux")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use psa::protocol::{OnGap, Start};
use socket2::{Domain, SockRef, Socket, Type};

use super::harness::*;
use super::healthy::Healthy;
use super::raw::*;

#[test]
fn with_64_descriptors_those_that_are_there_are_served_and_the_others_wait() {
    let script = "ulimit -n 64 && exec \"$0\" serve --listen 127.0.0.1:0";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_psa")]).env_clear();
    let mut server = Server::start_by(command);
    let mut healthy = Healthy::start(&server);
    let mut all: Vec<_> = (0..200)
        .map(|_| {
            let mut raw = Raw::silent(&server);
            raw.send(&hello(1, 1, ""));
            raw
        })
        .collect();
    // The kernel queues those that the server cannot accept; it says so, and once.
    let said = |server: &mut Server| server.process().stderr();
    eventually("the server to have no descriptors left", || {
        match said(&mut server).matches("raise the limit of open files").count() {
            0 => Err("nothing was said".into()),
            _ => Ok(()),
        }
    });
    for raw in &mut all[..40] {
        assert_eq!(raw.next(), Said::Welcome { version: 1 });
        raw.lives();
    }
    healthy.goes_on();
    // Whoever leaves makes room for one that waits: in the end all have been there.
    let mut welcome = 40;
    while !all.is_empty() {
        let gone = all.len().min(20);
        all.drain(..gone);
        welcome -= gone.min(welcome);
        let until = all.len().min(welcome + 20);
        for raw in &mut all[welcome..until] {
            assert_eq!(raw.next(), Said::Welcome { version: 1 });
            raw.lives();
        }
        welcome = until;
        healthy.goes_on();
    }
    healthy.finish(&server);
    let log = server.process().stderr();
    assert!(log.matches("raise the limit of open files").count() <= 10, "{log}");
}

/// Descriptors and resident bytes of the server.
fn used(server: &mut Server) -> (usize, u64) {
    let id = server.process().id();
    let descriptors = std::fs::read_dir(format!("/proc/{id}/fd")).expect("it is our child").count();
    let statm = std::fs::read_to_string(format!("/proc/{id}/statm")).expect("it is our child");
    let pages: u64 = statm.split(' ').nth(1).expect("a field").parse().expect("a number");
    (descriptors, pages * 4096)
}

/// A connection from a loopback address of its own: one address has too few ports for so many.
fn connect(server: SocketAddr, number: u32) -> Raw {
    let [_, a, b, c] = (number / 5000 + 1).to_be_bytes();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let own = SocketAddr::from((Ipv4Addr::new(127, a, b, c.max(2)), 0));
    socket.bind(&own.into()).expect("a free port");
    socket.connect(&server.into()).expect("it listens");
    Raw::from(std::net::TcpStream::from(socket))
}

/// One of many that come and go.
fn pass_by(server: SocketAddr, number: u32) {
    let mut raw = connect(server, number);
    match number % 5 {
        // Gone before it is accepted, perhaps.
        0 => {}
        1 => raw.send(&hello(1, 1, "")[..5]),
        2 => raw.send(&hello(1, 1, "")),
        3 => {
            raw.send(&hello(1, 1, ""));
            assert_eq!(raw.next(), Said::Welcome { version: 1 });
        }
        _ => {
            raw.send(&[hello(1, 1, ""), subscribe(1, "t", Start::Earliest, OnGap::Error)].concat());
            assert_eq!(raw.next(), Said::Welcome { version: 1 });
            assert!(matches!(raw.next(), Said::Subscribed { .. }));
        }
    }
    if number.is_multiple_of(2) {
        // A reset instead of an orderly end.
        SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).expect("a socket can do that");
    }
}

#[test]
fn after_a_flood_of_connections_everything_is_back() {
    const THREADS: u32 = 4;
    /// What is no growth: less than the smallest thing that a connection could leave, times the flood.
    const NOISE: u64 = 1 << 20;
    let connections = if super::is_full() { 100_000 } else { 12_000 };
    let mut server = Server::start(&[]);
    // A record that the subscribers among them are sent.
    server.publish(&["pub", "t"], b"something\n").expect(exit::DONE);
    let address = server.address;
    let flood = |numbers: std::ops::Range<u32>| {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let numbers = numbers.clone();
                scope.spawn(move || {
                    numbers.skip(thread as usize).step_by(THREADS as usize).for_each(|number| {
                        pass_by(address, number);
                    });
                });
            }
        });
    };
    let settled = |server: &mut Server| {
        server.describe_until("t", "all to be gone", |stats| stats["cursors"] == 0);
    };
    // What is made once: threads' buffers, tables, arenas of the allocator.
    flood(0..2000);
    settled(&mut server);
    let before = used(&mut server);
    flood(2000..2000 + connections);
    settled(&mut server);
    let after = eventually("the descriptors to be back", || {
        let after = used(&mut server);
        if after.0 <= before.0 { Ok(after) } else { Err(format!("{after:?}, {before:?} before")) }
    });
    eprintln!(
        "{connections} connections: descriptors and bytes {before:?} before, {after:?} after"
    );
    assert!(after.1 <= before.1 + NOISE, "{after:?}, {before:?} before");
    // And it works.
    let run = server.run(&["sub", "t", "--exit-at-end"]).expect(exit::DONE);
    assert_eq!(run.text(), "something\n");
}
