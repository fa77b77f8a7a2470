//! What is known of a run from outside, and the hosts that take part in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use psa_simulated::server::{Server, ServerConfig, ServerHandle};
use turmoil::{Builder, Sim};

/// How finely time runs.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Simulated time after which a run has to be over.
pub(crate) const AT_MOST: Duration = Duration::from_secs(1800);

/// Everything that happened, in order, and what must agree about it.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// One line for each thing that happened, with its time: what two runs are compared by.
    pub(crate) trace: Vec<String>,
    /// What each place of the topic holds, as soon as somebody knows.
    places: BTreeMap<(u64, u64), u64>,
    /// The numbers in them.
    seen: BTreeSet<u64>,
    /// What was certainly not carried out.
    refused: BTreeSet<u64>,
    /// The numbers that were acknowledged.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// What each subscriber got: how many records, how many gaps.
    pub(crate) got: BTreeMap<usize, (u64, u64)>,
    /// Times that a subscription connected again by itself.
    pub(crate) reconnections: u64,
    /// Subscribers that have seen the end of the topic.
    pub(crate) finished: BTreeSet<usize>,
    /// Whether the publisher has published all.
    pub(crate) is_published: bool,
}

pub(crate) type Shared = Rc<RefCell<World>>;

impl World {
    /// Notes something, with the simulated time.
    pub(crate) fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        let time = turmoil::sim_elapsed().unwrap_or_default();
        self.trace.push(format!("{:>9.3} {what}", time.as_secs_f64()));
    }

    /// Notes what a place holds, and that it holds nothing else, and nothing else holds it.
    #[track_caller]
    pub(crate) fn saw(&mut self, epoch: u64, offset: u64, number: u64) {
        let known = *self.places.entry((epoch, offset)).or_insert(number);
        assert_eq!(known, number, "at {offset} of epoch {epoch:x}");
        assert!(!self.refused.contains(&number), "{number} was certainly not carried out");
        if self.seen.insert(number) {
            return;
        }
        let places = self.places.iter().filter(|(_, known)| **known == number).count();
        assert_eq!(places, 1, "{number} is there {places} times");
    }

    /// Notes that a publish was certainly not carried out.
    #[track_caller]
    pub(crate) fn not_carried_out(&mut self, number: u64) {
        assert!(!self.seen.contains(&number), "{number} was carried out");
        self.refused.insert(number);
    }

    /// How many records the topic has, as far as anybody has seen.
    pub(crate) fn records(&self) -> usize {
        self.places.len()
    }
}

/// A network and a server on it, called `server`.
pub(crate) struct Net {
    pub(crate) sim: Sim<'static>,
    pub(crate) world: Shared,
    /// The running server's handle.
    pub(crate) server: Rc<RefCell<Option<ServerHandle>>>,
}

impl Net {
    /// A network whose messages take from `least` to `most`, and that depends on the seed alone.
    pub(crate) fn new(
        seed: u64,
        (least, most): (Duration, Duration),
        change: impl Fn(&mut ServerConfig) + 'static,
    ) -> Net {
        // The epochs of topics and the jitter of those that connect again.
        fastrand::seed(seed);
        let mut builder = Builder::new();
        builder
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(AT_MOST)
            .min_message_latency(least)
            .max_message_latency(most)
            .tcp_capacity(64);
        let mut sim = builder.build();
        let server = Rc::new(RefCell::new(None));
        let running = server.clone();
        let change = Rc::new(change);
        sim.host("server", move || {
            let (running, change) = (running.clone(), change.clone());
            async move {
                let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9853));
                let allow_public_without_token = true;
                let mut config =
                    ServerConfig { listen, allow_public_without_token, ..ServerConfig::default() };
                change(&mut config);
                let server = Server::bind(config)?;
                running.replace(Some(server.handle()));
                server.run(std::future::pending()).await;
                Ok(())
            }
        });
        Net { sim, world: Shared::default(), server }
    }

    /// Connections that the server has.
    pub(crate) fn connections(&self) -> usize {
        self.server.borrow().as_ref().map_or(0, ServerHandle::connections)
    }

    /// Runs until something has happened; when that was.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&Net) -> bool) -> Duration {
        while !is_so(self) {
            if let Err(error) = self.sim.step() {
                let world = self.world.borrow();
                let last = world.trace.iter().rev().take(30).rev().cloned().collect::<Vec<_>>();
                panic!("{error} before {what}; the last of what happened:\n{}", last.join("\n"));
            }
        }
        self.sim.elapsed()
    }

    /// Lets so much time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.sim.elapsed() + time;
        self.until("the time to pass", |net| net.sim.elapsed() >= until);
    }
}
