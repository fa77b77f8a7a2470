//! The last scene: a server that keeps its topics in a folder is killed, and started again.

use super::screen::Screen;
use super::subscribers::{DemoSubscriber, Order, Received};
use super::{Checks, PATIENCE};
use crate::error::{Error, Result};
use crate::units::human_count;
use psa::client::{Client, PublisherOptions};
use psa::protocol::Settings;
use psa_load::client::failure;
use psa_load::server::OwnServer;
use std::time::{Duration, Instant};

const TOPIC: &str = "kept";
const EVE: &str = "eve";
/// How many lines are published; half of them before the subscriber goes.
const LINES: u64 = 2_000;

/// Plays it.
pub(super) async fn play(screen: &mut Screen, checks: &mut Checks) -> Result {
    let folder = tempfile::tempdir().map_err(|error| Error::file("a temporary folder", &error))?;
    let flags = ["--data".into(), folder.path().display().to_string()];
    let mut server = OwnServer::start(&flags)?;
    let client = connect(&server).await?;
    let made = client.create_topic(TOPIC, Settings::default()).await;
    made.map_err(|error| failure(TOPIC, &error))?;
    let mut eve = DemoSubscriber::start(&client, TOPIC, EVE, Received::default()).await?;
    let publisher = client.publisher(TOPIC, PublisherOptions::default()).await;
    let publisher = publisher.map_err(|error| failure(TOPIC, &error))?;
    let mut published = Received::default();
    screen.say("Another server keeps its topics in a folder (--data). eve follows one of them.")?;
    for half in 0..2 {
        let numbers = half * LINES / 2..(half + 1) * LINES / 2;
        let lines: Vec<String> = numbers.clone().map(|n| format!("{n:05} kept")).collect();
        let sent = publisher.send_batch(&lines).await;
        sent.map(drop).map_err(|error| failure("publish", &error))?;
        publisher.flush().await.map_err(|error| failure("publish", &error))?;
        numbers.zip(&lines).for_each(|(offset, line)| published.take(offset, line.as_bytes()));
        // What is published then, she has not seen before the server is killed.
        let began = Instant::now();
        while half == 0 && eve.next() < published.next && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        eve.order(Order::Die);
    }
    let cut = eve.end().await?;
    server.kill();
    screen.say("It is killed (SIGKILL), and started again with the same folder.")?;
    let mut server = OwnServer::start(&flags)?;
    let client = connect(&server).await?;
    let mut eve = DemoSubscriber::start(&client, TOPIC, EVE, cut.clone()).await?;
    client.close_topic(TOPIC).await.map_err(|error| failure(TOPIC, &error))?;
    let received = tokio::time::timeout(PATIENCE, eve.end()).await;
    let received = received.map_err(|_| Error::failed(EVE, "did not come to the end"))??;
    let same = received.records == LINES && received.hash() == published.hash();
    let exact = received.gaps + received.out_of_order == 0 && received.epoch == cut.epoch;
    let lines = human_count(LINES);
    let what = format!("the killed server has lost none of {lines} records, in the same epoch");
    checks.add(same && exact, what);
    checks.add(server.is_alive(), "it is well, too".into());
    Ok(())
}

async fn connect(server: &OwnServer) -> Result<Client> {
    let client = Client::builder(server.address()).name("psa demo").connect().await;
    client.map_err(|error| failure(server.address(), &error))
}
