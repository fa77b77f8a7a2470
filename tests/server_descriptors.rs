//! Listeners that have run out of file descriptors: each waits, says so once, and goes on.
//!
//! The limit holds for a process, so the listener runs in one of its own: this test again, started through
//! a shell that lowers the limit.

#![cfg(all(feature = "server", feature = "http", target_os = "linux"))]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use psa::broker::{Broker, BrokerConfig};
use psa::http::{HttpConfig, HttpServer};
use psa::protocol::{Hello, Request};
use psa::server::{Server, ServerConfig};

const CHILD: &str = "PSA_FEW_DESCRIPTORS";
const DESCRIPTORS: usize = 40;

/// Counts what is logged as an error or a warning.
struct CountLines;
static ERRORS: AtomicU32 = AtomicU32::new(0);
static WARNINGS: AtomicU32 = AtomicU32::new(0);

impl tracing::Subscriber for CountLines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let is_error = *event.metadata().level() == tracing::Level::ERROR;
        let count = if is_error { &ERRORS } else { &WARNINGS };
        count.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Which of the two listeners.
#[derive(Clone, Copy, PartialEq)]
enum Over {
    Tcp,
    Http,
}

/// The listener: tells its address, ends with its stdin, tells how many lines it logged.
fn child(over: Over) {
    tracing::subscriber::set_global_default(CountLines).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = || async {
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = send.send(());
        });
        let _ = receive.await;
    };
    runtime.block_on(async {
        let listen = "127.0.0.1:0".parse().unwrap();
        match over {
            Over::Tcp => {
                let server = Server::bind(ServerConfig { listen, ..Default::default() }).unwrap();
                println!("address {}", server.local_addr());
                server.run(ended()).await;
            }
            Over::Http => {
                let broker = Broker::new(BrokerConfig::default()).unwrap();
                let config = HttpConfig { listen, ..Default::default() };
                let server = HttpServer::bind_with(config, broker).unwrap();
                println!("address {}", server.local_addr());
                server.run(ended()).await;
            }
        }
    });
    println!("errors {}", ERRORS.load(Ordering::Relaxed));
    println!("warnings {}", WARNINGS.load(Ordering::Relaxed));
}

impl Over {
    /// What a client says first.
    fn request(self) -> Vec<u8> {
        match self {
            Self::Tcp => {
                let mut bytes = Vec::new();
                let hello = Hello { version_min: 1, version_max: 1, token: "", client: "" };
                Request::Hello(hello).encode(&mut bytes);
                bytes
            }
            Self::Http => b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        }
    }

    /// Whether a first answer comes in time.
    fn is_welcome(self, stream: &mut TcpStream, patience: Duration) -> bool {
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).is_ok()
            && match self {
                Self::Tcp => bytes[4] == 0x81,
                Self::Http => bytes == *b"HTTP/1.1",
            }
    }

    /// Asks on a connection that is there, and waits for the answer.
    fn lives(self, stream: &mut TcpStream) {
        let (ask, end) = match self {
            Self::Tcp => {
                let mut ping = Vec::new();
                Request::Ping { token: 1 }.encode(&mut ping);
                (ping, 1_u64.to_le_bytes().to_vec())
            }
            // The answer to the first request is not read to its end: this one's says which it is.
            Self::Http => {
                let ask = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
                (ask, br#"code":"not-found""#.to_vec())
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&ask).unwrap();
        let mut bytes = Vec::new();
        while !bytes.windows(end.len()).any(|window| window == end) {
            let mut more = [0; 256];
            let read = stream.read(&mut more).unwrap();
            assert!(read > 0);
            bytes.extend_from_slice(&more[..read]);
        }
    }
}

/// Connects and says the first thing.
fn connect(address: &str, over: Over) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&over.request()).unwrap();
    stream
}

/// Processor time that the process has used, in ticks of 10 ms.
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_the_tcp_listener_waits_and_goes_on() {
    waits_and_goes_on("without_descriptors_the_tcp_listener_waits_and_goes_on", Over::Tcp);
}

#[test]
fn without_descriptors_the_http_listener_waits_and_goes_on() {
    waits_and_goes_on("without_descriptors_the_http_listener_waits_and_goes_on", Over::Http);
}

fn waits_and_goes_on(test: &str, over: Over) {
    if std::env::var_os(CHILD).is_some() {
        return child(over);
    }
    let myself = std::env::current_exe().unwrap();
    let mut server = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n {DESCRIPTORS} && exec \"$0\" --exact --nocapture \"$1\""))
        .arg(&myself)
        .arg(test)
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

    let mut sockets: Vec<_> = (0..2 * DESCRIPTORS).map(|_| connect(&address, over)).collect();
    let mut welcome = Vec::new();
    let mut waiting = Vec::new();
    for mut socket in sockets.drain(..) {
        // Once one waits, all after it do: they are accepted in order.
        let patience =
            if waiting.is_empty() { Duration::from_secs(2) } else { Duration::from_millis(1) };
        match over.is_welcome(&mut socket, patience) {
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
    let began = Instant::now();
    for mut socket in welcome {
        over.lives(&mut socket);
    }
    for mut socket in waiting {
        assert!(
            over.is_welcome(&mut socket, Duration::from_secs(10)),
            "after {:?}",
            began.elapsed()
        );
    }
    drop(server.stdin.take());
    let errors: u32 = tell("errors ").parse().unwrap();
    // Once for each time that it ran out: while the others left it may have done so again.
    let warnings: u32 = tell("warnings ").parse().unwrap();
    assert!((1..=4).contains(&errors) && warnings == 0, "{errors} errors, {warnings} warnings");
    assert!(server.wait().unwrap().success());
}
