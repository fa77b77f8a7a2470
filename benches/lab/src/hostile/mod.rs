//! `psa-lab hostile`: what bad clients of the HTTP API do to the TCP listener.
//!
//! A fan-out over the TCP listener is measured in turns alone and beside bad clients of every kind
//! ([`deeds`]) on the HTTP API of the same server, and each run beside them is compared with the mean of
//! those before and after it. Every record is checked in both. The bad clients are a process of their own
//! ([`clients`]): they and what the server does for them take processor time from a fan-out that wants all of
//! it, and how much that is belongs to the result. In the end they must have left nothing behind.

pub(crate) mod args;
pub(crate) mod clients;
mod deeds;

use self::args::HostileArgs;
use self::clients::Clients;
use self::deeds::{Deed, LARGE, PROTECTED, TOKEN};
use crate::system;
use psa::protocol::{Overflow, Retention, Settings};
use psa_cli::bench::facts;
use psa_cli::bench::report::{Report, Spread, rate};
use psa_cli::bench::rig::Rig;
use psa_cli::bench::run::{Plan, Run};
use psa_cli::bench::server::OwnServer;
use psa_cli::bench::source::{Amount, usual_batch};
use psa_cli::bench::verify::Tally;
use psa_cli::error::{Error, Exit, Result, describe_io};
use psa_cli::units::human_size;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The measured server: it asks for a token, is soon tired of who does nothing, and has fewer places than
/// there are bad clients.
const SERVER: [&str; 7] = [
    "--http=127.0.0.1:0",
    "--timeout-handshake=2s",
    "--timeout-frame=2s",
    "--timeout-stall=3s",
    "--topic-create-on-publish=false",
    "--topic-create-on-subscribe=false",
    "--limit-memory=1GiB",
];
/// Places for HTTP connections, to a hundred bad clients.
const PLACES: usize = 80;
/// What is in the topic that bad clients ask for, far more than the system buffers: batches, records of
/// each, and bytes of one.
const STORED: (usize, usize, usize) = (16, 4096, 256);
/// How long what bad clients held may take to be let go when they are gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures it.
pub(crate) fn hostile(args: &HostileArgs) -> Result {
    let common = &args.common;
    if common.named {
        return Err(Error::new(Exit::Usage, "--server", "this mode needs a server of its own"));
    }
    let mut flags: Vec<String> = SERVER.iter().map(|flag| (*flag).to_owned()).collect();
    flags.push(format!("--token={TOKEN}"));
    let places = (args.each * Deed::ALL.len() * PLACES / 100).max(1);
    flags.push(format!("--http-connections={places}"));
    flags.extend(common.serve.iter().cloned());
    let mut own = OwnServer::start(&flags)?;
    let http = http_address(&mut own)?;
    let mut rig = Rig::over(own, TOKEN)?;
    prepare(&http)?;
    let plan = plan(args);
    // Once each, for what is made once: threads, pools, buffers.
    plan.run(&mut rig, "warming up", || ())?;
    beside(&plan, &mut rig, &http, args.each, "warming up beside bad clients")?;
    let before = settled(&rig, None)?;
    let mut alone = vec![plan.run(&mut rig, "alone", || ())?];
    let mut hostile = Vec::new();
    for i in 1..=common.runs(5) {
        let title = format!("run {i} of {} beside bad clients", common.runs(5));
        hostile.push(beside(&plan, &mut rig, &http, args.each, &title)?);
        alone.push(plan.run(&mut rig, &format!("run {i} alone"), || ())?);
    }
    let after = settled(&rig, Some(before.descriptors))?;
    let protected = ask(&http, &format!("GET /topics/{PROTECTED}"), &[])?;
    if !protected.contains("\"next_offset\":0,") {
        return Err(Error::failed("the benchmark failed", "a bad client has published"));
    }
    let mut report =
        Report::new("hostile", args.describe(&flags[..flags.len() - common.serve.len()]));
    summarise(&mut report, &alone, &hostile);
    report.set("subscribers", args.fan.subs);
    report.set("record_bytes", args.fan.size);
    report.set("bad_clients", args.each * Deed::ALL.len());
    left(&mut report, before, &hostile, after);
    report.print(common.json)
}

/// Where its HTTP API listens, which it says after where the other one does.
fn http_address(server: &mut OwnServer) -> Result<String> {
    loop {
        let line = server.line()?;
        if line.is_empty() {
            return Err(Error::failed("start a server", "it has no HTTP API"));
        }
        let address = line.split_once("curl -N http://").map(|(_, behind)| behind);
        if let Some((address, _)) = address.and_then(|address| address.split_once('/')) {
            return Ok(address.to_owned());
        }
    }
}

fn plan(args: &HostileArgs) -> Plan {
    Plan {
        settings: Settings {
            overflow: Some(Overflow::Block),
            retention: Some(Retention::Nothing),
            memory_limit: 64 << 20,
            segment_bytes: 0,
        },
        subscribers: args.fan.subs,
        stalled: 0,
        pause: None,
        size: args.fan.size,
        batch: usual_batch(args.fan.size),
        amount: match args.records {
            Some(records) => Amount::Records(records.max(1)),
            None => Amount::Time(Duration::from_secs_f64(args.seconds)),
        },
        pace: None,
        one_by_one: false,
        threads: args.common.threads(),
    }
}

/// Makes the topics that the bad clients are after.
fn prepare(http: &str) -> Result {
    for topic in [LARGE, PROTECTED] {
        ask(http, &format!("PUT /topics/{topic}"), br#"{"retention":"everything"}"#)?;
    }
    let (batches, records, size) = STORED;
    let record = [&(size as u32).to_le_bytes()[..], &vec![b'x'; size]].concat();
    for _ in 0..batches {
        ask(http, &format!("POST /topics/{LARGE}"), &record.repeat(records))?;
    }
    Ok(())
}

/// One request, and its answer if it went well.
fn ask(http: &str, line: &str, body: &[u8]) -> Result<String> {
    let said = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(http)?;
        let length = body.len();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/vnd.psa.records\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = said().map_err(|error| Error::failed(line, describe_io(&error)))?;
    if answer.starts_with("HTTP/1.1 2") {
        return Ok(answer);
    }
    Err(Error::failed(line, answer.lines().last().unwrap_or("no answer")))
}

/// What the server holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    rss: u64,
    descriptors: u64,
}

impl Held {
    fn now(rig: &Rig) -> Held {
        let pid = rig.own.as_ref().map_or(0, OwnServer::pid);
        let rss = facts::usage(pid).map_or(0, |usage| usage.rss);
        Held { rss, descriptors: system::entries(pid, "fd") }
    }
}

/// Waits until nobody is connected but us, and says what the server holds then. `expected` is how many
/// descriptors it has to come back to.
fn settled(rig: &Rig, expected: Option<u64>) -> Result<Held> {
    let began = Instant::now();
    let mut last = Held::now(rig);
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = Held::now(rig);
        let done = match expected {
            Some(expected) => now.descriptors <= expected,
            None => now.descriptors == last.descriptors && began.elapsed() > Duration::from_secs(3),
        };
        if done {
            return Ok(now);
        }
        if began.elapsed() > PATIENCE {
            let why = format!("{} descriptors are still open, {expected:?} were", now.descriptors);
            return Err(Error::failed("the benchmark failed", why));
        }
        last = now;
    }
}

/// A run beside bad clients.
struct Hostile {
    run: Run,
    /// What they said that they did.
    done: Value,
    /// How long they were there.
    seconds: f64,
    /// What the server held when they were about to go.
    held: Held,
}

fn beside(plan: &Plan, rig: &mut Rig, http: &str, each: usize, title: &str) -> Result<Hostile> {
    let began = Instant::now();
    let clients = Clients::start(http, each)?;
    let run = plan.run(rig, title, || ())?;
    let held = Held::now(rig);
    let done = clients.end()?;
    Ok(Hostile { run, done, seconds: began.elapsed().as_secs_f64(), held })
}

fn summarise(report: &mut Report, alone: &[Run], hostile: &[Hostile]) {
    let [mut before, mut beside, mut ratio, mut share] = [(); 4].map(|()| Spread::default());
    let [mut own, mut own_beside] = [(); 2].map(|()| Spread::default());
    let (mut tally, mut each) = (Tally::default(), Vec::new());
    let cpu = |run: &Run| run.server.map(|used| 1e9 * used.cpu / run.tally.records.max(1) as f64);
    for run in alone {
        tally.add(&run.tally);
        before.push(run.per_second());
        cpu(run).into_iter().for_each(|cpu| own.push(cpu));
    }
    for (i, one) in hostile.iter().enumerate() {
        let run = &one.run;
        tally.add(&run.tally);
        beside.push(run.per_second());
        cpu(run).into_iter().for_each(|cpu| own_beside.push(cpu));
        let around = (alone[i].per_second() + alone[i + 1].per_second()) / 2.0;
        ratio.push(run.per_second() / around);
        let took = one.done["cpu_s"].as_f64().unwrap_or(0.0) / one.seconds;
        share.push(took);
        each.push(json!({
            "deliveries_per_s": run.per_second(),
            "alone_per_s": around,
            "ratio": run.per_second() / around,
            "records": run.published.records,
            "seconds": run.seconds,
            "bad_clients_cores": took,
            "done": one.done["deeds"],
        }));
    }
    report.spread("deliveries_per_s", "deliveries beside bad clients", &beside, rate);
    report.spread("alone_per_s", "alone", &before, rate);
    report.spread("ratio", "ratio", &ratio, |ratio| format!("{ratio:.3}"));
    let nanos = |nanos: f64| format!("{nanos:.1} ns");
    report.spread(
        "server_cpu_ns_beside",
        "server's time of a delivery, beside",
        &own_beside,
        nanos,
    );
    report.spread("server_cpu_ns_alone", "the same alone", &own, nanos);
    report.spread("bad_clients_cores", "cores that the bad clients took", &share, |cores| {
        format!("{cores:.2}")
    });
    for deed in Deed::ALL {
        let sum = |what: &str| -> u64 {
            hostile.iter().filter_map(|one| one.done["deeds"][deed.name()][what].as_u64()).sum()
        };
        report.row(format!("  {}", deed.name()), format!("{} times", sum("deeds")));
    }
    report.set("records", hostile.iter().map(|one| one.run.published.records).sum::<u64>());
    report.set("runs", each);
    report.tally(&tally);
}

fn left(report: &mut Report, before: Held, hostile: &[Hostile], after: Held) {
    let most = |held: fn(&Hostile) -> u64| hostile.iter().map(held).max().unwrap_or(0);
    let (rss, descriptors) = (most(|one| one.held.rss), most(|one| one.held.descriptors));
    for (when, held) in
        [("before", before), ("beside", Held { rss, descriptors }), ("after", after)]
    {
        report.set(&format!("server_rss_{when}_bytes"), held.rss);
        report.set(&format!("server_descriptors_{when}"), held.descriptors);
    }
    let sizes = [before.rss, rss, after.rss].map(human_size);
    report.row("server's memory before, beside, after", sizes.join(", "));
    let counts =
        [before.descriptors, descriptors, after.descriptors].map(|count| count.to_string());
    report.row("its descriptors before, beside, after", counts.join(", "));
}
