//! At-least-once processing with a lease: a worker processes a record first and commits it afterwards. If it dies in
//! between, the lease keeps the record, and the next worker processes it again. A record may be processed twice, but is
//! never lost.
//!
//! Without arguments, the program starts a server, publishes some letters, and runs itself as the worker three times.
//! The first two workers die after they have sent a letter and before they have committed it. At the end, the program
//! prints how many times each letter was sent.
//!
//! ```sh
//! cargo run --release --example at_least_once [ADDRESS OUTBOX [CRASH_AT]]
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{self, Command};
use std::time::Duration;
use std::{env, future};

use psa::client::{Client, Event, LeaseOptions, SubscribeOptions};
use psa::server::{Server, ServerConfig};

const TOPIC: &str = "letters";

/// Sends all letters in the topic by appending each of them to the outbox.
async fn work(address: &str, outbox: &Path, crash_at: Option<u64>) -> Result<(), Box<dyn Error>> {
    let mut outbox = File::options().create(true).append(true).open(outbox)?;
    let client = Client::builder(address).connect().await?;
    // The lease outlives its holder by a minute. A new worker takes it over without waiting, since the server may not
    // have noticed yet that the old worker is dead.
    let lease = LeaseOptions::new("postman", Duration::from_secs(60)).take_over();
    let options = SubscribeOptions::earliest().lease(lease).caught_up();
    let mut letters = client.subscribe(TOPIC, options).await?;
    println!("starting at {}", letters.committed());

    while let Some(event) = letters.next().await {
        match event? {
            Event::Record(letter) => {
                // Process the record. The result must be on the disk before the commit.
                outbox.write_all(&[letter.data(), b"\n"].concat())?;
                outbox.sync_data()?;
                println!("sent {}: {}", letter.offset(), String::from_utf8_lossy(letter.data()));
                if crash_at == Some(letter.offset()) {
                    // Simulate a crash: no destructor runs, and the client does not say goodbye to the server.
                    process::exit(1);
                }
                // `commit_later` would not wait for the server, but more records would be repeated after a crash.
                letters.commit(..=letter.offset()).await?;
            }
            // A lease has gaps only if the topic evicts, or if the server was restarted.
            Event::Gap(gap) => println!("lost: {gap}"),
            // A service would wait for more. After this orderly end the lease still exists and is free for the next
            // worker.
            Event::CaughtUp { .. } => {
                println!("done up to {}", letters.committed());
                return Ok(letters.end().await?);
            }
            Event::Closed { reason, .. } => {
                return Err(format!("no more letters: {reason:?}").into());
            }
            _ => {}
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [address, outbox, crash_at @ ..] = &arguments[..] {
        let crash_at = crash_at.first().map(|offset| offset.parse()).transpose()?;
        return work(address, Path::new(outbox), crash_at).await;
    }
    let outbox = env::temp_dir().join(format!("psa-outbox-{}", process::id()));
    demonstrate(&outbox).await?;
    Ok(fs::remove_file(&outbox)?)
}

async fn demonstrate(outbox: &Path) -> Result<(), Box<dyn Error>> {
    let listen = "127.0.0.1:0".parse()?;
    let server = Server::bind(ServerConfig { listen, ..ServerConfig::default() })?;
    let address = server.local_addr().to_string();
    tokio::spawn(server.run(future::pending()));
    let client = Client::builder(&address).connect().await?;
    let letters: Vec<_> = (1..=8).map(|n| format!("letter {n}")).collect();
    client.publish_batch(TOPIC, &letters).await?;

    for crash_at in [Some("2"), Some("5"), None] {
        let mut worker = Command::new(env::current_exe()?);
        worker.args([address.as_ref(), outbox.as_os_str()]).args(crash_at);
        println!("the worker ended: {}", worker.status()?);
    }

    let sent = fs::read_to_string(outbox)?;
    for letter in &letters {
        let times = sent.lines().filter(|line| line == letter).count();
        println!("{letter} was sent {times} times");
    }
    Ok(())
}
