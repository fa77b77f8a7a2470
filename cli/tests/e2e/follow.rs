//! Everything that is published reaches everyone who follows, once, however often they are killed.
//!
//! Each input goes line by line to a topic of its own, from one publisher process for each, all at once.
//! 50 subscriber processes follow; 20 of them are killed with SIGKILL at random moments and started
//! again. In the end each one's output is the input, byte for byte.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::feed::{self, Hold, Progress};
use super::follower::{Follower, Keep};
use super::harness::*;
use super::input::{self, Input};

const SUBSCRIBERS: usize = 50;
const KILLED: usize = 20;

/// When a subscriber is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Before there is a record, perhaps before it has connected.
    Before,
    /// When so much of the input is in its output.
    At(f64),
    /// When so much is, and again as soon as it has started, before it can have caught up.
    Twice(f64),
}

#[test]
fn real_files_arrive_whole_at_subscribers_that_are_killed() {
    everything_arrives("real files", |_| input::logs(), KeptBy::Retention);
}

#[test]
fn made_files_arrive_whole_at_subscribers_that_are_killed() {
    everything_arrives("made files", input::made, KeptBy::Retention);
}

#[test]
fn real_files_arrive_whole_through_leases_although_nothing_else_keeps_them() {
    everything_arrives("leases", |_| input::logs(), KeptBy::Leases);
}

/// Why the records are there when a subscriber that was killed comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum KeptBy {
    /// The topic keeps more than an input, as by default.
    Retention,
    /// The topic keeps nothing that everyone has passed, in segments of a few lines; but each
    /// subscriber that is killed has a lease.
    Leases,
}

impl KeptBy {
    fn server(self) -> Server {
        match self {
            KeptBy::Retention => Server::start(&[]),
            KeptBy::Leases => {
                Server::start(&["--topic-retention", "nothing", "--topic-segment", "4KiB"])
            }
        }
    }

    fn follower(self, server: &Server, number: usize, input: &Input, killed: bool) -> Follower {
        let name = format!("subscriber-{number}");
        let keep = match (killed, number % 2) {
            (true, _) => Keep::State,
            (false, 0) => Keep::Output,
            (false, _) => Keep::Standard,
        };
        let mut flags = Vec::new();
        if killed && self == KeptBy::Leases {
            flags.extend(["--lease", &name, "--lease-ttl", "10m"]);
            // With or without, the one that was killed must not be in the way of its next life.
            flags.extend((number.is_multiple_of(10)).then_some("--take-over"));
        }
        Follower::new(server, &name, &input.name, keep, &flags)
    }
}

fn everything_arrives(
    name: &str,
    inputs: impl FnOnce(&mut fastrand::Rng) -> Vec<Input>,
    kept_by: KeptBy,
) {
    let mut random = random(name);
    let inputs = inputs(&mut random);
    let server = kept_by.server();
    let topics: Vec<(Input, Arc<Progress>)> =
        inputs.into_iter().map(|input| (input, Arc::default())).collect();
    let (mut steady, mut restless) = (Vec::new(), Vec::new());
    for number in 0..SUBSCRIBERS {
        let (input, progress) = &topics[number % topics.len()];
        // The killed ones spread over the topics as the others do.
        let plan = (number % 5 < 2).then(|| plan(number, &mut random));
        let mut follower = kept_by.follower(&server, number, input, plan.is_some());
        follower.start();
        let Some(plan) = plan else {
            steady.push((follower, input));
            continue;
        };
        // Before anything is fed, so that nothing can be too late.
        let ends = input.line_ends();
        let plan: Vec<_> = plan.into_iter().map(|phase| step(phase, &ends, progress)).collect();
        restless.push((follower, input, plan));
    }
    assert_eq!(restless.len(), KILLED);
    if kept_by == KeptBy::Leases {
        // A lease keeps nothing before it is made.
        for (number, (input, _)) in topics.iter().enumerate() {
            let here = (number..SUBSCRIBERS).step_by(topics.len()).count();
            server.describe_until(&input.name, "the topic's subscribers to be there", |stats| {
                stats["cursors"] == here
            });
        }
    }
    let killed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let mut restarting = Vec::new();
        for (mut follower, input, plan) in restless {
            let (random, killed) = (random.fork(), &killed);
            restarting.push(scope.spawn(move || {
                disturb(&mut follower, plan, input, random, killed);
                (follower, input)
            }));
        }
        let publishers: Vec<_> = topics
            .iter()
            .map(|(input, progress)| feed::publish(&server, input, progress.clone(), random.fork()))
            .collect();
        for ((input, _), publisher) in topics.iter().zip(publishers) {
            let run = publisher.join().expect("it says why").expect(exit::DONE);
            assert_eq!(run.stderr, "", "the publisher of {}", input.name);
            let stats = server.describe(&input.name);
            assert_eq!(stats["next_offset"], input.line_ends().len(), "{}: {stats}", input.name);
        }
        for follower in restarting {
            steady.push(follower.join().expect("it says why"));
        }
    });
    if kept_by == KeptBy::Leases {
        // Everyone has passed everything and has committed it: nothing is kept any more.
        for (input, _) in &topics {
            server.describe_until(&input.name, "what everyone passed to be freed", |stats| {
                stats["live_segments"] == 1 && stats["unlinked_segments"] == 0
            });
        }
    }
    for (input, _) in &topics {
        server.run(&["topics", "close", "--", &input.name]).expect(exit::DONE);
    }
    for (follower, input) in steady {
        follower.expect(input);
    }
    check_kills(&killed.into_inner().unwrap());
}

/// When the subscriber with this number is killed. Every phase occurs, whatever the seed.
fn plan(number: usize, random: &mut fastrand::Rng) -> Vec<Phase> {
    let middle = |random: &mut fastrand::Rng| 0.05 + 0.8 * random.f64();
    match number / 5 % 5 {
        0 => vec![Phase::Before, Phase::At(middle(random))],
        1 => vec![Phase::At(middle(random))],
        2 => vec![Phase::Twice(middle(random)), Phase::At(0.9 + 0.1 * random.f64())],
        3 => vec![Phase::At(0.9 + 0.1 * random.f64())],
        _ => {
            let mut moments = [(); 4].map(|()| middle(random));
            moments.sort_by(f64::total_cmp);
            moments.map(Phase::At).into()
        }
    }
}

/// A kill, how much output it waits for, and what holds the publisher until then.
struct Step {
    phase: Phase,
    target: usize,
    _hold: Hold,
}

fn step(phase: Phase, ends: &[usize], progress: &Arc<Progress>) -> Step {
    let (Phase::At(part) | Phase::Twice(part)) = phase else {
        return Step { phase, target: 0, _hold: progress.hold(0) };
    };
    let line = |part: f64| ends[((ends.len() as f64 * part) as usize).min(ends.len() - 1)];
    // A tenth further, the publisher is held, so that the kill comes before the end of the input; near
    // the end, half of what is left.
    let slack = (0.1_f64).min((1.0 - part) / 2.0);
    Step { phase, target: line(part), _hold: progress.hold(line(part + slack)) }
}

/// Kills the subscriber as planned, and starts it again.
fn disturb(
    follower: &mut Follower,
    plan: Vec<Step>,
    input: &Input,
    mut random: fastrand::Rng,
    killed: &Mutex<Vec<(String, Phase, usize)>>,
) {
    for step in plan {
        eventually("a killed subscriber's output to grow", || {
            let length = follower.length();
            if length >= step.target {
                return Ok(());
            }
            let (name, process) = (follower.name.clone(), follower.process());
            assert!(process.is_running(), "{name} ended by itself: {}", process.stderr());
            Err(format!("{length} of {} bytes by {name}: {}", step.target, process.stderr()))
        });
        // Anywhere in what it is doing.
        let moment = |random: &mut fastrand::Rng| {
            thread::sleep(Duration::from_micros(random.u64(0..20_000)));
        };
        moment(&mut random);
        follower.kill();
        let mut kills = vec![follower.length()];
        if let Phase::Twice(_) = step.phase {
            follower.start();
            moment(&mut random);
            follower.kill();
            kills.push(follower.length());
        }
        for length in kills {
            assert!(length <= input.bytes.len(), "more than there is");
            killed.lock().unwrap().push((follower.name.clone(), step.phase, length));
        }
        if random.bool() {
            // Away for a while: more is published meanwhile.
            thread::sleep(Duration::from_micros(random.u64(0..200_000)));
        }
        follower.start();
    }
}

/// Checks that the kills were what they were meant to be.
fn check_kills(kills: &[(String, Phase, usize)]) {
    let count = |wanted: &dyn Fn(&Phase, usize) -> bool| {
        kills.iter().filter(|(_, phase, length)| wanted(phase, *length)).count()
    };
    let before = count(&|phase, length| *phase == Phase::Before && length == 0);
    let middle =
        count(&|phase, length| matches!(phase, Phase::At(part) if *part < 0.9) && length > 0);
    let end = count(&|phase, _| matches!(phase, Phase::At(part) if *part >= 0.9));
    let starting = count(&|phase, _| matches!(phase, Phase::Twice(_)));
    eprintln!(
        "{} kills: {before} before the first record, {middle} midway, {end} near the end, {starting} \
         of pairs at a start",
        kills.len()
    );
    assert!(before >= 4 && middle >= 8 && end >= 4 && starting >= 8, "{kills:?}");
}
