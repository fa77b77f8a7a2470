//! A client that keeps its position in its own database (here redb): the balances, and the position up to which they
//! are correct, change in one transaction. Whenever the client is killed, the next run continues exactly there, so each
//! payment counts exactly once.
//!
//! Without arguments, the program starts a server, publishes payments, and runs itself again and again as the client,
//! killing it in the middle, until all payments are done. Then it prints the balances.
//!
//! ```sh
//! cargo run --release --example position_in_database [DATABASE ADDRESS]
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, future, process};

use psa::Position;
use psa::client::{BatchEvent, Client, SubscribeOptions};
use psa::server::{Limits, Server, ServerConfig};
use redb::{Database, ReadableTable, TableDefinition};

const BALANCES: TableDefinition<'_, &str, u64> = TableDefinition::new("balances");
/// For each topic, the epoch and the next offset.
const POSITIONS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("positions");
const TOPIC: &str = "payments";

fn position(database: &Database) -> Result<Option<Position>, Box<dyn Error>> {
    let write = database.begin_write()?;
    // Creates the table the first time.
    let stored = write.open_table(POSITIONS)?.get(TOPIC)?.map(|stored| stored.value());
    write.commit()?;
    Ok(stored.map(|(epoch, next)| Position { epoch, next }))
}

/// Stores the payments and the position after them: both or neither.
fn store(
    database: &Database,
    paid: &BTreeMap<String, u64>,
    position: Position,
) -> Result<(), Box<dyn Error>> {
    let write = database.begin_write()?;
    {
        let mut balances = write.open_table(BALANCES)?;
        for (account, amount) in paid {
            let before = balances.get(account.as_str())?.map_or(0, |balance| balance.value());
            balances.insert(account.as_str(), before + amount)?;
        }
        write.open_table(POSITIONS)?.insert(TOPIC, (position.epoch, position.next))?;
    }
    Ok(write.commit()?)
}

/// Every step waits for the disk, so this uses the client for threads. In a task, `store` would need `spawn_blocking`.
fn follow(database: &Database, address: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::builder(address).blocking_connect()?;
    let from =
        position(database)?.map_or_else(SubscribeOptions::earliest, SubscribeOptions::resume);
    let mut payments = client.subscribe(TOPIC, from)?;
    println!("starting at {}", payments.position().next);
    while let Some(event) = payments.next_batch() {
        let mut paid = BTreeMap::new();
        match event? {
            BatchEvent::Records(batch) => {
                for (offset, record) in batch.iter() {
                    let (account, amount) = std::str::from_utf8(record)?
                        .split_once(' ')
                        .ok_or_else(|| format!("record {offset} is no payment"))?;
                    *paid.entry(account.to_owned()).or_default() += amount.parse::<u64>()?;
                }
            }
            // The position moves past the gap, so this is printed once.
            BatchEvent::Gap(gap) => println!("missed: {gap}"),
            BatchEvent::Closed { .. } => break,
            _ => continue,
        }
        store(database, &paid, payments.position())?;
        println!("stored up to {}", payments.position().next);
    }
    for balance in database.begin_read()?.open_table(BALANCES)?.iter()? {
        let (account, balance) = balance?;
        println!("balance of {}: {}", account.value(), balance.value());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [database, address] = &arguments[..] {
        return follow(&Database::create(database)?, address);
    }
    let database = env::temp_dir().join(format!("psa-payments-{}.redb", process::id()));
    demonstrate(&database)?;
    Ok(fs::remove_file(&database)?)
}

#[tokio::main]
async fn demonstrate(database: &Path) -> Result<(), Box<dyn Error>> {
    // Small chunks, so that there is something to interrupt.
    let limits = Limits { chunk_records: 500, ..Limits::default() };
    let listen = "127.0.0.1:0".parse()?;
    let server = Server::bind(ServerConfig { listen, limits, ..ServerConfig::default() })?;
    let address = server.local_addr().to_string();
    tokio::spawn(server.run(future::pending()));
    let client = Client::builder(&address).connect().await?;
    let payments: Vec<_> = (1..=5_000).map(|n| format!("{} {n}", ["ann", "bob"][n % 2])).collect();

    for lines in [3, 6, 9, usize::MAX] {
        // The last run ends with the topic; the runs before it would wait for more.
        if lines == usize::MAX {
            client.close_topic(TOPIC).await?;
        } else {
            client.publish_batch(TOPIC, &payments).await?;
        }
        let mut run = Command::new(env::current_exe()?)
            .args([database.as_os_str(), address.as_ref()])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(run.stdout.take().ok_or("no output")?);
        for line in output.lines().take(lines) {
            println!("{}: {}", run.id(), line?);
        }
        // Kills the run in the middle, or does nothing if it has ended.
        run.kill()?;
        println!("{}: {}", run.id(), run.wait()?);
    }
    Ok(())
}
