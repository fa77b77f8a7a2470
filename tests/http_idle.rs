//! What an idle connection of the HTTP API costs, and an event stream that waits.

#![cfg(feature = "http")]

#[path = "adversary/allocator.rs"]
mod allocator;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use psa::broker::{Broker, BrokerConfig};
use psa::http::{HttpConfig, HttpServer};

/// Asks, reads until `part` has come, and keeps nothing but the socket.
fn ask(address: SocketAddr, path: &str, part: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    ask_again(&mut stream, path, part);
    stream
}

fn ask_again(stream: &mut TcpStream, path: &str, part: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    read_to(stream, part);
}

fn read_to(stream: &mut TcpStream, part: &str) {
    let (mut got, mut bytes) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&got).contains(part) {
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&bytes[..read]);
    }
}

/// The bounds are a half of what both took while they had hyper's buffers: 20 KB.
#[test]
fn idle_connections_and_streams_that_wait_cost_little() {
    const MANY: usize = 400;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _in_runtime = runtime.enter();
    let config = HttpConfig { listen: "127.0.0.1:0".parse().unwrap(), ..HttpConfig::default() };
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let server = HttpServer::bind_with(config, broker.clone()).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let running = runtime.spawn(server.run(std::future::pending()));
    let events = "/topics/idle/events?from=next";
    for (path, part, most) in [("/healthz", "ok\n", 10 << 10), (events, "caught-up", 10 << 10)] {
        // The first ones warm up what is made once, and memory that is used again: as many as there are.
        let mut sockets: Vec<_> = (0..MANY).map(|_| ask(address, path, part)).collect();
        // An idle connection is taken back from hyper after at most a second, if the machine has time for it.
        std::thread::sleep(Duration::from_millis(1_500));
        let mut before = allocator::in_use();
        loop {
            std::thread::sleep(Duration::from_millis(700));
            let now = allocator::in_use();
            if now + before / 100 >= before {
                break;
            }
            before = now;
        }
        sockets.extend((0..MANY).map(|_| ask(address, path, part)));
        let began = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let each = (allocator::in_use() - before) / MANY as i64;
            if each <= most {
                println!("{each} bytes for each of {MANY}: {path}");
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{each} bytes: {path}");
        }
        // They are alive, all of them.
        if path == events {
            broker.topic("idle").unwrap().blocking_append(b"wake up").unwrap();
            sockets.iter_mut().for_each(|socket| read_to(socket, "wake up"));
        } else {
            sockets.iter_mut().for_each(|socket| ask_again(socket, path, part));
        }
        drop(sockets);
        let began = Instant::now();
        while handle.connections() > 0 {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    handle.abort();
    runtime.block_on(running).unwrap();
}
