//! A server inside your own program: TCP clients, browsers and the program itself share the topics of one broker.
//!
//! The program listens on two free ports and prints how to reach them. It also prints every record that is published to
//! the topic `events`, which it reads without a socket. Ctrl-C shuts the broker, which ends everything: both listeners
//! accept nothing new, deliver everything that was acknowledged, and then close the connections.
//!
//! ```sh
//! cargo run --release --example embedded_server
//! ```

use std::error::Error;
use std::future::pending;

use psa::broker::{Broker, BrokerConfig, Purpose};
use psa::http::{HttpConfig, HttpServer};
use psa::server::{Server, ServerConfig};
use psa::{Cursor, ReadError, Start};

/// Prints records until the topic ends, and returns how many there were.
async fn print(mut events: Cursor<[u8]>) -> u64 {
    loop {
        let read = events.next(|batch| {
            for (offset, record) in batch.iter() {
                println!("record {offset}: {}", String::from_utf8_lossy(record));
            }
        });
        match read.await {
            Ok(()) => {}
            Err(ReadError::Lagged(lagged)) => println!("missed {} records", lagged.missed),
            // To shut the broker closes the topics, also for this program.
            Err(_) => return events.offset(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // All topics together use at most this much memory.
    let broker = Broker::new(BrokerConfig { max_bytes: 256 << 20, ..BrokerConfig::default() })?;
    let config = ServerConfig { listen: "127.0.0.1:0".parse()?, ..ServerConfig::default() };
    let server = Server::bind_with(config, broker.clone())?;
    let config = HttpConfig { listen: "127.0.0.1:0".parse()?, ..HttpConfig::default() };
    let http = HttpServer::bind_with(config, broker.clone())?;

    let topic = broker.open("events", Purpose::Publish)?;
    let printing = tokio::spawn(print(topic.log().subscribe(Start::Earliest)?));
    topic.append("the server has started").await?;

    println!("clients: {}", server.local_addr());
    println!("browsers: http://{}/", http.local_addr());
    println!("  psa pub events --server {}", server.local_addr());
    println!("  curl -d hello http://{}/topics/events", http.local_addr());

    let handles = (server.handle(), http.handle());
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
        let (clients, browsers) = (handles.0.connections(), handles.1.connections());
        println!("draining: {clients} clients and {browsers} browsers");
        // One call for both listeners. To end one of them alone, there is `drain` of its handle.
        broker.shut();
    };
    // Each of them returns when its last connection has ended, or after the drain timeout.
    tokio::join!(server.run(interrupted), http.run(pending()));
    println!("drained after {} records", printing.await?);
    Ok(())
}
