//! A server that has run out of file descriptors: it waits, says so once, and goes on.
//!
//! The limit holds for a process, so the server runs in one of its own: this test again, started through
//! a shell that lowers the limit.

#![cfg(all(feature = "server", target_os = "linux"))]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use psa::{
    protocol::{Hello, Request},
    server::{Server, ServerConfig},
};

const CHILD: &str = "PSA_FEW_DESCRIPTORS";
const DESCRIPTORS: usize = 40;

/// Counts what is logged as an error.
struct CountErrors;
static ERRORS: AtomicU32 = AtomicU32::new(0);

impl tracing::Subscriber for CountErrors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        ERRORS.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// The server: tells its address, ends with its stdin, tells how many errors it logged.
fn child() {
    tracing::subscriber::set_global_default(CountErrors).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..Default::default() };
        let server = Server::bind(config).unwrap();
        println!("address {}", server.local_addr());
        let handle = server.handle();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            handle.abort();
        });
        server.run(std::future::pending()).await;
    });
    println!("errors {}", ERRORS.load(Ordering::Relaxed));
}

/// Connects and says HELLO.
fn connect(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut bytes = Vec::new();
    let hello = Hello { version_min: 1, version_max: 1, token: "", client: "" };
    Request::Hello(hello).encode(&mut bytes);
    stream.write_all(&bytes).unwrap();
    stream
}

/// Whether a WELCOME comes in time.
fn is_welcome(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut bytes = [0; 8];
    match stream.read_exact(&mut bytes) {
        Ok(()) => bytes[4] == 0x81,
        Err(_) => false,
    }
}

/// Processor time that the process has used, in ticks of 10 ms.
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let myself = std::env::current_exe().unwrap();
    let mut server = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n {DESCRIPTORS} && exec \"$0\" --exact --nocapture \"$1\""))
        .arg(&myself)
        .arg("without_descriptors_it_waits_and_goes_on")
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(server.stdout.take().unwrap()).lines();
    // The harness may have begun the line already.
    let mut tell = |word: &str| loop {
        let line = told.next().expect("a line").unwrap();
        if let Some((_, rest)) = line.split_once(word) {
            return rest.trim().to_string();
        }
    };
    let address = tell("address ");

    let mut sockets: Vec<_> = (0..2 * DESCRIPTORS).map(|_| connect(&address)).collect();
    let mut welcome = Vec::new();
    let mut waiting = Vec::new();
    for mut socket in sockets.drain(..) {
        // Once one waits, all behind it do: they are accepted in order.
        let patience =
            if waiting.is_empty() { Duration::from_secs(2) } else { Duration::from_millis(1) };
        match is_welcome(&mut socket, patience) {
            true => welcome.push(socket),
            false => waiting.push(socket),
        }
    }
    assert!(welcome.len() > DESCRIPTORS / 2 && welcome.len() < DESCRIPTORS, "{}", welcome.len());
    assert_eq!(welcome.len() + waiting.len(), 2 * DESCRIPTORS);

    // It does not spin meanwhile.
    let before = ticks(server.id());
    std::thread::sleep(Duration::from_secs(1));
    let used = ticks(server.id()) - before;
    assert!(used <= 20, "{} ms of processor time in a second of waiting", 10 * used);

    // Those that have a connection are served, and as they leave, those that wait are.
    let mut ping = Vec::new();
    Request::Ping { token: 1 }.encode(&mut ping);
    let began = Instant::now();
    for mut socket in welcome {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(&ping).unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(&1_u64.to_le_bytes()) {
            let mut more = [0; 256];
            let read = socket.read(&mut more).unwrap();
            assert!(read > 0);
            bytes.extend_from_slice(&more[..read]);
        }
    }
    for mut socket in waiting {
        assert!(is_welcome(&mut socket, Duration::from_secs(10)), "after {:?}", began.elapsed());
    }
    drop(server.stdin.take());
    let errors: u32 = tell("errors ").parse().unwrap();
    // Once for each time that it ran out: while the others left it may have done so again.
    assert!((1..=4).contains(&errors), "{errors}");
    assert!(server.wait().unwrap().success());
}
