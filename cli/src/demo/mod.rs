//! `psa demo`: half a minute's tour in one terminal, with a list of checks at the end.
//!
//! The demo starts a server of its own on a free port and creates a topic with small segments. Four
//! subscribers follow the topic:
//!
//! | name | how it subscribes | what happens to it |
//! | --- | --- | --- |
//! | ann | in this process | nothing |
//! | bob | in this process | stops reading for a while |
//! | cid | in this process | loses his connection, and resumes with (epoch, last offset) |
//! | dora | `psa sub --lease --state --output` | is killed with SIGKILL, and started again |
//!
//! Each step of the story happens at a certain number of published lines and not at a certain time, so
//! `--fast` shows the same story in a tenth of the time. At the end, a server that keeps its topics in a temporary folder is
//! killed and started again. The checks at the end are computed from the records
//! that each subscriber received, and the command fails if one of them does not hold.

mod restart;
mod screen;
mod subscribers;

use crate::args::DemoArgs;
use crate::connect;
use crate::error::{Error, Exit, Result};
use crate::signals::Signals;
use crate::snapshot::memory;
use crate::units::{human_count, human_size};
use psa::client::{Client, Publisher, PublisherOptions, TopicDetails};
use psa::protocol::{Overflow, Retention, Settings};
use psa_load::client::failure;
use psa_load::server::OwnServer;
use screen::{Screen, View};
use std::time::{Duration, Instant};
use subscribers::{ChildSubscriber, DORA, DemoSubscriber, Files, Order, Received};

/// The text whose lines are published over and over, each with a number in front: `docs/collection.md`, through a
/// symbolic link, because a package contains only the files in its own folder.
const TEXT: &str = include_str!("text.md");
/// How many lines are published.
const LINES: u64 = 30_000;
const TOPIC: &str = "demo";
/// Bytes of a segment: small, so that segments visibly come and go.
const SEGMENT: u32 = 16 << 10;
/// The topic's memory limit in bytes.
const LIMIT: u64 = 8 << 20;
/// How often lines are published and the screen is drawn.
const TICK: Duration = Duration::from_millis(50);
/// How long to wait for an expected event before the demo fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// When each step of the story happens, in percent of the published lines.
mod step {
    pub(super) const BOB_STALLS: u64 = 22;
    pub(super) const CID_DIES: u64 = 35;
    pub(super) const CID_RESUMES: u64 = 42;
    pub(super) const BOB_CONTINUES: u64 = 50;
    pub(super) const DORA_DIES: u64 = 62;
    pub(super) const DORA_RETURNS: u64 = 80;
}

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Result {
    let time = Duration::from_secs(if args.fast { 3 } else { 30 });
    connect::block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            outcome = demonstrate(time) => outcome,
            exit = signals.next() => Err(Error::quiet(exit)),
        }
    })
}

/// The state of a running demo.
struct Stage {
    screen: Screen,
    client: Client,
    publisher: Publisher,
    /// What was published, as a subscriber would have received it.
    published: Received,
    ann: DemoSubscriber,
    bob: DemoSubscriber,
    cid: DemoSubscriber,
    dora: ChildSubscriber,
    files: Files,
    details: TopicDetails,
    checks: Checks,
    most_segments: u64,
    most_bytes: u64,
    // Last, so that it is dropped after everything that is connected to it.
    server: OwnServer,
}

/// The checks that are printed at the end: whether each holds, and its text.
#[derive(Default)]
struct Checks(Vec<(bool, String)>);

impl Checks {
    fn add(&mut self, holds: bool, what: String) {
        self.0.push((holds, what));
    }
}

async fn demonstrate(time: Duration) -> Result {
    let mut stage = Stage::set_up().await?;
    stage.play(time).await?;
    stage.finish().await
}

impl Stage {
    async fn set_up() -> Result<Stage> {
        let mut screen = Screen::new();
        // A small send buffer keeps unread records in the server, where the demo can show them.
        let server = OwnServer::start(&["--send-buffer".into(), "4KiB".into()])?;
        let client = Client::builder(server.address()).name("psa demo").connect().await;
        let client = client.map_err(|error| failure(server.address(), &error))?;
        screen.say(&format!("A server of our own listens on {}.", server.address()))?;
        let settings = Settings {
            segment_bytes: SEGMENT,
            overflow: Some(Overflow::Block),
            retention: Some(Retention::Nothing),
            memory_limit: LIMIT,
            ..Settings::default()
        };
        let made = client.create_topic(TOPIC, settings).await;
        made.map_err(|error| failure(TOPIC, &error))?;
        screen.say(&format!(
            "Topic `{TOPIC}`: segments of {}, nothing is kept that all have read.",
            human_size(SEGMENT.into())
        ))?;
        let publisher = client.publisher(TOPIC, PublisherOptions::default()).await;
        let publisher = publisher.map_err(|error| failure(TOPIC, &error))?;
        let files = Files::new()?;
        let dora = ChildSubscriber::start(server.address(), TOPIC, &files)?;
        let start = |name| DemoSubscriber::start(&client, TOPIC, name, Received::default());
        let (ann, bob, cid) = (start("ann").await?, start("bob").await?, start("cid").await?);
        // Publish nothing before dora has subscribed: the topic keeps only what a subscriber still needs.
        let began = Instant::now();
        let details = loop {
            let details = describe(&client).await?;
            if details.leases.iter().any(|lease| lease.name == DORA) {
                break details;
            }
            if began.elapsed() > PATIENCE {
                return Err(Error::failed("psa sub", "it did not subscribe in time"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        screen.say(
            "ann, bob and cid follow it; dora does as `psa sub --lease`, a process of her own.",
        )?;
        let (published, checks) = (Received::default(), Checks::default());
        Ok(Stage {
            screen,
            client,
            publisher,
            published,
            ann,
            bob,
            cid,
            dora,
            files,
            details,
            checks,
            most_segments: 0,
            most_bytes: 0,
            server,
        })
    }

    /// Publishes all lines in about this time, and runs each step of the story when its turn comes.
    async fn play(&mut self, time: Duration) -> Result {
        let began = Instant::now();
        let text: Vec<&str> = TEXT.lines().filter(|line| !line.is_empty()).collect();
        let mut cut = Received::default();
        let mut steps_done = 0;
        while self.published.records < LINES {
            tokio::time::sleep(TICK.min(time / 200)).await;
            let part = began.elapsed().as_secs_f64() / time.as_secs_f64();
            // Never publish past the next step before it has happened.
            let next_step = [
                step::BOB_STALLS,
                step::CID_DIES,
                step::CID_RESUMES,
                step::BOB_CONTINUES,
                step::DORA_DIES,
                step::DORA_RETURNS,
                100,
            ][steps_done];
            let until = (LINES * next_step / 100).min((LINES as f64 * part) as u64);
            self.publish(&text, until).await?;
            self.refresh().await?;
            if self.published.records < LINES * next_step / 100 {
                continue;
            }
            steps_done += 1;
            match next_step {
                step::BOB_STALLS => {
                    self.bob.order(Order::Stall);
                    self.narrate(
                        "bob stops reading. What he has not read stays; the others go on.",
                    )?;
                }
                step::CID_DIES => {
                    self.cid.order(Order::Die);
                    cut = self.cid.end().await?;
                    let last = human_count(cut.next.saturating_sub(1));
                    self.narrate(&format!(
                        "cid's connection is gone. The last record he got: {last}."
                    ))?;
                }
                step::CID_RESUMES => self.resume(&cut).await?,
                step::BOB_CONTINUES => {
                    let held = self.details.stats.live_segments;
                    let what = format!("{held} segments were kept for bob while he stood still");
                    self.checks.add(held > 3, what);
                    self.bob.order(Order::Follow);
                    self.narrate("bob reads on, and what he passes is given back.")?;
                }
                step::DORA_DIES => {
                    self.dora.kill()?;
                    self.narrate(
                        "dora is killed (SIGKILL). Her lease keeps what she did not commit.",
                    )?;
                }
                step::DORA_RETURNS => self.bring_back()?,
                _ => {}
            }
        }
        self.publisher.flush().await.map_err(|error| failure("publish", &error))
    }

    async fn resume(&mut self, cut: &Received) -> Result {
        let missed = self.published.next - cut.next;
        self.cid = DemoSubscriber::start(&self.client, TOPIC, "cid", cut.clone()).await?;
        let (epoch, last) =
            (crate::format::epoch(cut.epoch), human_count(cut.next.saturating_sub(1)));
        self.narrate(&format!("cid is back, asks for what comes after ({epoch}, {last})."))?;
        let next = human_count(cut.next);
        let what = format!("cid resumed at offset {next}; {} came meanwhile", human_count(missed));
        self.checks.add(missed > 0, what);
        Ok(())
    }

    fn bring_back(&mut self) -> Result {
        let lease = self.details.leases.iter().find(|lease| lease.name == DORA);
        let (committed, held) = lease.map_or((0, true), |lease| (lease.committed, lease.held));
        let kept = self.details.stats.next.saturating_sub(committed);
        self.dora = ChildSubscriber::start(self.server.address(), TOPIC, &self.files)?;
        self.narrate("dora is started again, and goes on in the middle of her file.")?;
        let (from, kept_words) = (human_count(committed), human_count(kept));
        let what = format!("dora's lease kept {kept_words} records from offset {from} on");
        self.checks.add(!held && kept > 0 && self.details.stats.first <= committed, what);
        Ok(())
    }

    /// Publishes lines until `until` of them are published in all.
    async fn publish(&mut self, text: &[&str], until: u64) -> Result {
        let first = self.published.next;
        let lines: Vec<String> = (first..until)
            .map(|n| format!("{n:05} {}", text[(n % text.len() as u64) as usize]))
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        let sent = self.publisher.send_batch(&lines).await;
        // The ticket is not needed: the flush at the end reports every failure.
        sent.map(drop).map_err(|error| failure("publish", &error))?;
        (first..)
            .zip(&lines)
            .for_each(|(offset, line)| self.published.take(offset, line.as_bytes()));
        Ok(())
    }

    /// Asks the server about the topic and redraws the line under the story.
    async fn refresh(&mut self) -> Result {
        self.details = describe(&self.client).await?;
        let stats = &self.details.stats;
        self.most_segments = self.most_segments.max(stats.live_segments);
        self.most_bytes = self.most_bytes.max(memory(stats));
        let behind = self.behind();
        self.screen.draw(&View { stats, behind: &behind })
    }

    fn behind(&self) -> [(&'static str, u64); 4] {
        let next = self.details.stats.next;
        let lease = self.details.leases.iter().find(|lease| lease.name == DORA);
        let dora = lease.map_or(next, |lease| lease.committed);
        let [ann, bob, cid] = [&self.ann, &self.bob, &self.cid]
            .map(|one| (one.name, next.saturating_sub(one.next())));
        [ann, bob, cid, (DORA, next.saturating_sub(dora))]
    }

    fn narrate(&mut self, text: &str) -> Result {
        let behind = self.behind();
        self.screen.note(&View { stats: &self.details.stats, behind: &behind })?;
        self.screen.say(text)
    }

    /// Waits until all subscribers have read to the end, and prints the checks.
    async fn finish(mut self) -> Result {
        // Wait for all commits before closing the topic: nothing can be committed to a closed topic, so dora's
        // lease would keep her last lines until it expires.
        let began = Instant::now();
        while self.behind().iter().any(|(_, behind)| *behind > 0) && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.refresh().await?;
        }
        self.narrate("Everybody has read to the end. The topic is closed.")?;
        self.client.close_topic(TOPIC).await.map_err(|error| failure(TOPIC, &error))?;
        let mut checks = std::mem::take(&mut self.checks);
        let (hash, lines) = (self.published.hash(), human_count(LINES));
        checks.0.insert(
            0,
            (
                self.published.records == LINES,
                format!("{lines} records were published and acknowledged, hash {hash:016x}"),
            ),
        );
        let mut gaps = 0;
        for one in [&mut self.ann, &mut self.bob, &mut self.cid] {
            let received = tokio::time::timeout(PATIENCE, one.end()).await;
            let received =
                received.map_err(|_| Error::failed(one.name, "did not come to the end"))??;
            gaps += received.gaps + received.out_of_order;
            let same = received.records == LINES && received.hash() == hash;
            checks.add(same, format!("{} has all of them in order, the same hash", one.name));
        }
        let ended = self.dora.end(PATIENCE).await;
        let file = subscribers::read_lines(&self.files.output())?;
        let same = ended && file.records == LINES && file.hash() == hash;
        checks.add(same, "dora's file has all of them once, the same hash".into());
        checks.add(gaps == 0, format!("gaps and repetitions: {gaps}"));
        let began = Instant::now();
        while self.details.stats.live_segments > 1 && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.refresh().await?;
        }
        let (now, most) = (self.details.stats.live_segments, self.most_segments);
        checks.add(now == 1, format!("segments: {now} now, {most} at the most"));
        let (bytes, limit) = (human_size(self.most_bytes), human_size(LIMIT));
        let within = self.most_bytes <= LIMIT;
        checks.add(within, format!("the topic's memory: {bytes} at the most, limit {limit}"));
        if let Some(usage) = self.server.usage() {
            let peak = human_size(usage.peak_rss);
            let most = (64 << 20) + LIMIT;
            checks.add(usage.peak_rss <= most, format!("the server's memory: {peak} at the most"));
        }
        checks.add(self.server.is_alive(), "the server is well".into());
        restart::play(&mut self.screen, &mut checks).await?;
        self.screen.say("\nWhat was checked:")?;
        for (holds, what) in &checks.0 {
            self.screen.say(&format!("  {} {what}", if *holds { "yes" } else { "NO " }))?;
        }
        match checks.0.iter().filter(|(holds, _)| !holds).count() {
            0 => Ok(()),
            wrong => Err(Error::new(Exit::Failed, "demo", format!("{wrong} checks did not hold"))),
        }
    }
}

async fn describe(client: &Client) -> Result<TopicDetails> {
    client.describe(TOPIC).await.map_err(|error| failure(TOPIC, &error))
}
