//! Exactly-once processing: the program is killed again and again, and every payment counts once.

use psa::client::Client;
use psa::server::{Limits, Server, ServerConfig};

use crate::program::Program;

/// A server in this process, and a client of it. Its chunks are small, so that the program stores often.
async fn serve() -> (Client, String) {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let limits = Limits { chunk_records: 50, ..Limits::default() };
    let server = Server::bind(ServerConfig { listen, limits, ..ServerConfig::default() });
    let server = server.expect("a free port");
    let address = server.local_addr().to_string();
    tokio::spawn(server.run(std::future::pending()));
    (Client::builder(&address).build().expect("an address"), address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_payment_counts_once() {
    let (client, address) = serve().await;
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("payments");
    let database = database.to_str().expect("a path of text");
    let start = || Program::start("position_in_database", [database, &address]);

    let (mut amount, mut total, mut stored) = (0, 0, 0);
    for round in 0..8 {
        let mut program = start();
        let begins: u64 = program.expect("starting at ").parse().expect("an offset");
        assert!(begins >= stored, "it said that {stored} were stored, and begins at {begins}");
        // Twenty chunks or more, so that the program is in the middle of them when it is killed.
        for _ in 0..20 {
            let payments = (0..50).map(|_| {
                amount += 1;
                total += amount;
                format!("ann {amount}")
            });
            let payments: Vec<_> = payments.collect();
            client.publish_batch("payments", &payments).await.expect("published");
        }
        for _ in 0..=round {
            stored = program.expect("stored up to ").parse().expect("an offset");
        }
        for line in program.kill() {
            if let Some(offset) = line.strip_prefix("stored up to ") {
                stored = offset.parse().expect("an offset");
            }
        }
    }

    client.close_topic("payments").await.expect("a topic");
    let mut program = start();
    program.succeed();
    assert_eq!(program.said("balance of ann: "), [total.to_string()], "{:#?}", program.seen);
    // Once more, with nothing to do.
    let mut program = start();
    program.succeed();
    assert_eq!(program.said("starting at "), [amount.to_string()]);
    assert_eq!(program.said("balance of ann: "), [total.to_string()]);

    // Another server has a different epoch: its payments are new ones, and the program reports the gap.
    let (client, address) = serve().await;
    client.publish_batch("payments", &["ann 3", "bob 4"]).await.expect("published");
    client.close_topic("payments").await.expect("a topic");
    let mut program = Program::start("position_in_database", [database, &address]);
    program.succeed();
    assert_eq!(program.said("missed: ").len(), 1, "{:#?}", program.seen);
    assert_eq!(program.said("balance of ann: "), [(total + 3).to_string()]);
    assert_eq!(program.said("balance of bob: "), ["4"]);
}
