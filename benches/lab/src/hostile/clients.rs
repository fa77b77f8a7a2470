//! The process that holds the bad clients: a number of each kind, each of which repeats its attack.
//!
//! It prints `ready` when every kind has attacked at least once, continues until its standard input ends, and then
//! prints one line with what it has done.

use super::args::HostileClientsArgs;
use super::attacks::Attack;
use psa_load::client::runtime;
use psa_load::error::{Error, Exit, Result, describe_io};
use psa_load::facts;
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// How long a client stays connected unless the server disconnects it: longer than the server's timeouts.
const STAY: Duration = Duration::from_secs(4);
/// The pause between two attacks of a client that does not stay: the attacks are a load, not a flood.
const PAUSE: Duration = Duration::from_millis(100);
/// The receive buffer of every client. If the client does not read, everything else waits in the server.
const BUFFER: u32 = 4 << 10;

/// What all clients of one kind have done.
#[derive(Default)]
struct Done {
    /// Connections with an attack.
    attacks: AtomicU64,
    /// Connections that could not be made.
    refused: AtomicU64,
}

/// Runs the bad clients, as the module's documentation says.
pub(crate) fn clients(args: &HostileClientsArgs) -> Result {
    let runtime = runtime()?;
    let done: Arc<[Done; Attack::ALL.len()]> = Arc::default();
    let (http, each) = (args.http, args.each);
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for kind in 0..Attack::ALL.len() {
            for _ in 0..each {
                tasks.spawn(repeat_attack(kind, http, done.clone()));
            }
        }
        let all_done = || done.iter().all(|done| done.attacks.load(Ordering::Relaxed) > 0);
        while !all_done() {
            sleep(Duration::from_millis(10)).await;
        }
        psa_load::print(b"ready\n")?;
        // Wait for the end of standard input, whatever it contains.
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().count());
        let _ = ended.await;
        tasks.abort_all();
        Ok::<_, Error>(())
    })?;
    let mut attacks = Map::new();
    for (attack, done) in Attack::ALL.iter().zip(done.iter()) {
        let [did, refused] = [&done.attacks, &done.refused].map(|it| it.load(Ordering::Relaxed));
        attacks.insert(attack.name().into(), json!({ "deeds": did, "refused": refused }));
    }
    let report = json!({ "deeds": attacks, "cpu_s": facts::own_cpu() });
    psa_load::print(format!("{report}\n").as_bytes())
}

async fn repeat_attack(kind: usize, http: SocketAddr, done: Arc<[Done; Attack::ALL.len()]>) {
    let (attack, done) = (Attack::ALL[kind], &done[kind]);
    loop {
        match connect(http).await {
            Ok(mut stream) => {
                // An error is expected: the server should disconnect most of these clients.
                let _ = timeout(STAY, attack.run(&mut stream)).await;
                done.attacks.fetch_add(1, Ordering::Relaxed);
                sleep(if attack.stays() { STAY } else { PAUSE }).await;
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

/// A handle to that process, for the process that measures.
pub(super) struct Clients {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Clients {
    /// Starts the process and waits until every kind of client has attacked.
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

    /// Ends the process and returns what it has done.
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
