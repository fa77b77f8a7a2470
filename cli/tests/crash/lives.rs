//! The lives of one folder's servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use psa::client::{BatchEvent, SubscribeOptions};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::harness::*;
use super::publishers::{Ledger, over_http, pipelined, single};
use super::side::{self, Side};
use super::subscribers::{Leased, leased, looking, paging, resuming, steady};
use super::world::{Id, Judged, Stored, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn what_was_acknowledged_or_seen_survives_every_kill() {
    let first = number("PSA_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let lives = number("PSA_TEST_LIVES").unwrap_or(6);
    for round in 0..number("PSA_TEST_ROUNDS").unwrap_or(1) {
        let seed = first.wrapping_add(round);
        eprintln!("what survives every kill: PSA_TEST_SEED={seed} PSA_TEST_LIVES={lives}");
        folder(fastrand::Rng::with_seed(seed), lives);
    }
}

/// An address that nobody else has, since it is needed again and again.
pub(crate) fn own_address() -> String {
    if cfg!(target_os = "linux") {
        let part = || fastrand::u8(1..255);
        format!("127.{}.{}.{}:0", part(), part(), part())
    } else {
        "127.0.0.1:0".into()
    }
}

pub(crate) fn flags<'a>(data: &'a str, http: &'a str) -> [&'a str; 4] {
    ["--data", data, "--http", http]
}

/// Where the HTTP API listens, from what the server says at its start.
pub(crate) fn http_address(server: &mut Server) -> SocketAddr {
    eventually("the address of the HTTP API", || {
        let said = String::from_utf8(server.process().stdout()).expect("text");
        let address = said.split_once("curl -N http://").and_then(|(_, behind)| {
            behind.split_once('/').and_then(|(address, _)| address.parse().ok())
        });
        address.ok_or(said)
    })
}

/// What a task has at its end. The numbers are those of topics.
enum Outcome {
    Published(usize, Ledger),
    Read(usize, u64),
    Leased(usize, Leased),
    Looked(u64),
    Side(Vec<Side>),
}

/// All tasks that go on through all lives.
struct Load {
    tasks: JoinSet<Outcome>,
    published: Vec<(usize, Ledger)>,
    read: Vec<(usize, u64)>,
    leased: Vec<(usize, Leased)>,
    side: Option<Vec<Side>>,
    looks: u64,
}

/// Publishers of each topic.
const PUBLISHERS: usize = 2 + 2 * ONE_BY_ONE;
/// Those that wait for each answer, over each of the two listeners.
const ONE_BY_ONE: usize = 3;

impl Load {
    fn start(world: &Arc<World>, runtime: &Runtime, random: &mut fastrand::Rng) -> Load {
        let mut tasks = JoinSet::new();
        let _context = runtime.enter();
        for (topic, stored) in world.topics.iter().enumerate() {
            for resends in [false, true] {
                let task = pipelined(world.clone(), topic, resends, random.fork());
                tasks.spawn(async move { Outcome::Published(topic, task.await) });
            }
            for _ in 0..ONE_BY_ONE {
                let task = single(world.clone(), topic, random.fork());
                tasks.spawn(async move { Outcome::Published(topic, task.await) });
                let task = over_http(world.clone(), topic, random.fork());
                tasks.spawn(async move { Outcome::Published(topic, task.await) });
            }
            let task = looking(world.clone(), topic, random.fork());
            tasks.spawn(async move { Outcome::Looked(task.await) });
            let task = steady(world.clone(), topic, random.fork());
            tasks.spawn(async move { Outcome::Read(topic, task.await) });
            let task = resuming(world.clone(), topic, random.fork());
            tasks.spawn(async move { Outcome::Read(topic, task.await) });
            let task = leased(world.clone(), topic, random.fork());
            tasks.spawn(async move { Outcome::Leased(topic, task.await) });
            if !stored.is_small {
                // Nothing keeps records for it between two pages.
                let task = paging(world.clone(), topic, random.fork());
                tasks.spawn(async move { Outcome::Read(topic, task.await) });
            }
        }
        let task = side::come_and_go(world.clone(), random.fork());
        tasks.spawn(async move { Outcome::Side(task.await) });
        let (published, read, leased) = Default::default();
        Load { tasks, published, read, leased, side: None, looks: 0 }
    }

    /// Takes what has ended; fails with a task that failed.
    fn look(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            match ended {
                Ok(Outcome::Published(topic, ledger)) => self.published.push((topic, ledger)),
                Ok(Outcome::Read(topic, end)) => self.read.push((topic, end)),
                Ok(Outcome::Leased(topic, leased)) => self.leased.push((topic, leased)),
                Ok(Outcome::Looked(looks)) => self.looks += looks,
                Ok(Outcome::Side(all)) => self.side = Some(all),
                Err(failed) => std::panic::resume_unwind(failed.into_panic()),
            }
        }
    }

    /// Waits until so many publishes more were acknowledged.
    fn goes_on(&mut self, world: &World, more: u64) {
        let until = world.answers() + more;
        eventually("publishers to go on", || {
            self.look();
            let now = world.answers();
            if now >= until { Ok(()) } else { Err(format!("{now} of {until}")) }
        });
    }
}

/// Everything about one folder.
struct Folder {
    data: tempfile::TempDir,
    server: Server,
    world: Arc<World>,
    runtime: Runtime,
    random: fastrand::Rng,
}

impl Folder {
    fn start(random: fastrand::Rng) -> Folder {
        let data = tempfile::tempdir().expect("a temporary folder");
        let listen = own_address();
        let path = data.path().to_str().expect("text");
        let mut server = Server::start_on(&listen, &flags(path, &listen));
        let http = http_address(&mut server);
        let world = Arc::new(World::new(server.address, http));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let client = world.client();
        runtime.block_on(async {
            for topic in &world.topics {
                let settings = topic.settings();
                client.create_topic(topic.name, settings).await.expect("it is new");
                // So that there is one to find.
                let first = Id { publisher: topic.publisher(), number: 0 };
                let published = client.publish(topic.name, &first.bytes()).await.expect("it is up");
                topic.acknowledged(published.epoch, published.first, std::iter::once(first));
            }
        });
        let folder = Folder { data, server, world, runtime, random };
        folder.found();
        folder
    }

    /// Looks at what a new server has found, and lets publishers begin.
    fn found(&self) {
        let client = self.world.client();
        self.runtime.block_on(async {
            for topic in &self.world.topics {
                let end = topic.end();
                let found = client.describe(topic.name).await;
                let found = found.unwrap_or_else(|error| panic!("`{}`: {error}", topic.name));
                assert_eq!(found.settings.durability, topic.settings().durability);
                assert_eq!(found.stored.and_then(|stored| stored.failed), None);
                topic.begins(end, found.stats.epoch, found.stats.next);
            }
        });
        self.world.begin_life();
    }

    /// Kills the server, and starts another one.
    fn next_server(&mut self) {
        let run = self.server.take_process().kill();
        assert_eq!(run.code, exit::KILLED);
        assert!(!run.stderr.contains("ERROR"), "{}", run.stderr);
        self.world.end_life();
        let path = self.data.path().to_str().expect("text").to_owned();
        while self.random.u8(..4) == 0 {
            // One that dies somewhere in its start, on an address that nobody knows.
            let args = ["serve", "--listen", "127.0.0.1:0"];
            let args = args.into_iter().chain(flags(&path, "127.0.0.1:0"));
            let process = Process::start(self.server.folder.path(), psa(args));
            std::thread::sleep(Duration::from_micros(self.random.u64(..40_000)));
            process.kill();
        }
        let http = self.world.http.to_string();
        self.server.start_again(&flags(&path, &http));
        self.found();
    }

    /// Reads a whole topic, which is closed.
    fn judge(&self, topic: &Stored) -> Judged {
        self.runtime.block_on(async {
            let options = SubscribeOptions::earliest();
            let client = self.world.client();
            let mut subscription =
                client.subscribe(topic.name, options).await.expect("it is there");
            let epoch = subscription.position().epoch;
            let first = subscription.position().next;
            let mut all = BTreeMap::new();
            loop {
                match subscription.next_batch().await.expect("the end comes first") {
                    Ok(BatchEvent::Records(batch)) => {
                        assert_eq!(batch.epoch(), epoch);
                        all.extend(batch.iter().map(|(offset, record)| (offset, Id::of(record))));
                    }
                    Ok(BatchEvent::Closed { next, .. }) => return topic.judge(&all, first, next),
                    other => panic!("{other:?}"),
                }
            }
        })
    }
}

/// One folder, and so many servers.
fn folder(random: fastrand::Rng, lives: u64) {
    let mut folder = Folder::start(random);
    let world = folder.world.clone();
    let mut load = Load::start(&world, &folder.runtime, &mut folder.random);
    for _ in 1..lives {
        let many = folder.random.u64(..600);
        load.goes_on(&world, many);
        // Not to wait for anything: to be anywhere.
        std::thread::sleep(Duration::from_micros(folder.random.u64(..20_000)));
        folder.next_server();
    }
    load.goes_on(&world, 100);
    world.end();
    eventually("publishers to end", || {
        load.look();
        let left = load.published.len();
        if left == PUBLISHERS * world.topics.len() && load.side.is_some() {
            Ok(())
        } else {
            Err(format!("{left}"))
        }
    });
    folder.runtime.block_on(async {
        for topic in &world.topics {
            world.client().close_topic(topic.name).await.expect("it is there");
        }
    });
    eventually("subscribers to come to the end", || {
        load.look();
        if load.tasks.is_empty() { Ok(()) } else { Err(format!("{} do not", load.tasks.len())) }
    });
    // One more: what was closed stays closed.
    folder.next_server();
    for (number, topic) in world.topics.iter().enumerate() {
        let judged = folder.judge(topic);
        let mut counts = [0; 3];
        let leased = load.leased.iter().filter(|(of, _)| *of == number).map(|(_, leased)| leased);
        let published = load.published.iter().filter(|(of, _)| *of == number);
        let published = published.map(|(_, ledger)| ledger);
        for ledger in published.chain(leased.clone().map(|leased| &leased.ledger)) {
            let these = ledger.check(&judged);
            counts.iter_mut().zip(these).for_each(|(all, these)| *all += these);
        }
        let ends = load.read.iter().filter(|(of, _)| *of == number).map(|(_, end)| *end);
        for end in ends.chain(leased.clone().map(|leased| leased.end)) {
            assert_eq!(end, judged.next, "of `{}`", topic.name);
        }
        let (commits, earlier) =
            leased.fold((0, 0), |all, leased| (all.0 + leased.commits, all.1 + leased.earlier));
        eprintln!(
            "  `{}`: {} records; {} acknowledged, of the unknown {} there and {} not; {} deliveries; \
             {commits} commits, {earlier} times not all of them there",
            topic.name, judged.next, judged.acknowledged, counts[1], counts[2], judged.seen,
        );
    }
    let side = load.side.take().expect("it has ended");
    let [open, closed, gone] = folder.runtime.block_on(side::check(&world.client(), &side));
    eprintln!("  the ends were asked for {} times", load.looks);
    eprintln!("  {} other topics: {open} open, {closed} closed, {gone} gone", side.len());
    folder.server.process().signal(rustix::process::Signal::TERM);
    folder.server.take_process().wait().expect(exit::DONE);
}
