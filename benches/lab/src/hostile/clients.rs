//! The process with the bad clients: so many of each kind, each of which does its deed again and again.
//!
//! It says `ready` when every kind has done its own once, goes on until its standard input ends, and then
//! says in one line what it has done.

use super::args::HostileClientsArgs;
use super::deeds::Deed;
use psa_cli::bench::facts;
use psa_cli::connect;
use psa_cli::error::{Error, Exit, Result, describe_io};
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// How long one that stays does so, if it is not sent away: longer than the server's patience.
const STAY: Duration = Duration::from_secs(4);
/// What is between two deeds of one that does not: each is a burden, not a flood.
const PAUSE: Duration = Duration::from_millis(100);
/// The receive buffer of one that does not read: all else waits in the server.
const BUFFER: u32 = 4 << 10;

/// What all of a kind have done.
#[derive(Default)]
struct Done {
    /// Connections on which it was done, and those that could not be made.
    deeds: AtomicU64,
    refused: AtomicU64,
}

/// Does as the module says.
pub(crate) fn clients(args: &HostileClientsArgs) -> Result {
    let runtime = connect::runtime()?;
    let done: Arc<[Done; Deed::ALL.len()]> = Arc::default();
    let (http, each) = (args.http, args.each);
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for kind in 0..Deed::ALL.len() {
            for _ in 0..each {
                tasks.spawn(again_and_again(kind, http, done.clone()));
            }
        }
        let all_done = || done.iter().all(|done| done.deeds.load(Ordering::Relaxed) > 0);
        while !all_done() {
            sleep(Duration::from_millis(10)).await;
        }
        psa_cli::print(b"ready\n")?;
        // Whatever comes: this is its end.
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().count());
        let _ = ended.await;
        tasks.abort_all();
        Ok::<_, Error>(())
    })?;
    let mut deeds = Map::new();
    for (deed, done) in Deed::ALL.iter().zip(done.iter()) {
        let [did, refused] = [&done.deeds, &done.refused].map(|it| it.load(Ordering::Relaxed));
        deeds.insert(deed.name().into(), json!({ "deeds": did, "refused": refused }));
    }
    let said = json!({ "deeds": deeds, "cpu_s": facts::own_cpu() });
    psa_cli::print(format!("{said}\n").as_bytes())
}

async fn again_and_again(kind: usize, http: SocketAddr, done: Arc<[Done; Deed::ALL.len()]>) {
    let (deed, done) = (Deed::ALL[kind], &done[kind]);
    loop {
        match connect(http).await {
            Ok(mut stream) => {
                // That it is cut off in the middle is what it is for.
                let _ = timeout(STAY, deed.act(&mut stream)).await;
                done.deeds.fetch_add(1, Ordering::Relaxed);
                sleep(if deed.stays() { STAY } else { PAUSE }).await;
            }
            Err(_) => {
                done.refused.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connect(http: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if http.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.connect(http).await
}

/// That process, as the one that measures sees it.
pub(super) struct Clients {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Clients {
    /// Starts it and waits until every kind has done its deed.
    pub(super) fn start(http: &str, each: usize) -> Result<Clients> {
        let fail = |error: &std::io::Error| Error::failed("start bad clients", describe_io(error));
        let program = std::env::current_exe().map_err(|error| fail(&error))?;
        let mut command = Command::new(program);
        command.args(["hostile-clients", "--http", http, "--each", &each.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| fail(&error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let Some(stdout) = stdout else {
            return Err(Error::failed("start bad clients", "they have no output"));
        };
        let mut clients = Clients { child, stdin, lines: BufReader::new(stdout) };
        match clients.line()?.as_str() {
            "ready" => Ok(clients),
            line => Err(Error::failed("start bad clients", format!("they said `{line}`"))),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Err(Error::new(Exit::Failed, "the bad clients' process", "it ended early")),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(Error::failed("the bad clients' process", describe_io(&error))),
        }
    }

    /// Ends it: what it has done.
    pub(super) fn end(mut self) -> Result<Value> {
        drop(self.stdin.take());
        let line = self.line()?;
        serde_json::from_str(&line).map_err(|_| Error::failed("the bad clients' process", line))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
