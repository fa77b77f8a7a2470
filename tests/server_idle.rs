//! What an idle subscriber costs.

#![cfg(feature = "server")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use psa::protocol::{Hello, OnGap, Request, Start, Subscribe, TopicName};
use psa::server::{Server, ServerConfig};

/// Resident memory of this process in bytes; `None` where the system does not say.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}

/// Connects, subscribes, and keeps nothing but the socket.
fn idle_subscriber(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut bytes = Vec::new();
    let hello = Hello { version_min: 1, version_max: 1, token: "", client: "idle" };
    Request::Hello(hello).encode(&mut bytes);
    let topic = TopicName::new("idle").unwrap();
    let ask = Subscribe {
        request: 1,
        sub: 1,
        topic,
        start: Start::Next,
        on_gap: OnGap::Error,
        caught_up: false,
        lease: None,
    };
    Request::Subscribe(ask).encode(&mut bytes);
    stream.write_all(&bytes).unwrap();
    stream
}

/// 1.3 to 1.5 KiB were measured; the bound is above it just so that a timer, a buffer or a queue that creeps into the idle
/// session is noticed, and a page more or less is not.
#[test]
fn an_idle_subscriber_costs_little() {
    const MANY: usize = 400;
    const MOST_BYTES: u64 = 5 << 9;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _in_runtime = runtime.enter();
    let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..Default::default() };
    let server = Server::bind(config).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let running = runtime.spawn(server.run(std::future::pending()));
    let subscribe = |many: usize, until: usize| {
        let sockets: Vec<_> = (0..many).map(|_| idle_subscriber(address)).collect();
        let began = Instant::now();
        while handle.subscriptions() < until {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(100));
        sockets
    };
    let many: usize = std::env::var("IDLE").map_or(MANY, |n| n.parse().unwrap());
    // The first ones warm up what is made once: thread buffers, tables, the topic.
    let mut sockets = subscribe(40, 40);
    let before = resident();
    sockets.extend(subscribe(many, many + 40));
    let Some((before, after)) = before.zip(resident()) else { return };
    let each = after.saturating_sub(before) / many as u64;
    println!("{each} bytes of resident memory for each of {many} idle subscribers");
    assert!(each <= MOST_BYTES, "{each} bytes");
    // They are alive, all of them: one record reaches each.
    handle.broker().topic("idle").unwrap().blocking_append(b"wake up").unwrap();
    for socket in &mut sockets {
        let mut bytes = [0; 4096];
        let mut got = Vec::new();
        while !got.ends_with(b"wake up") {
            let read = socket.read(&mut bytes).unwrap();
            assert!(read > 0);
            got.extend_from_slice(&bytes[..read]);
        }
    }
    handle.abort();
    runtime.block_on(running).unwrap();
}
