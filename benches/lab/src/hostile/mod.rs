//! `psa-lab hostile`: the effect of bad clients of the HTTP API on the TCP listener.
//!
//! A fan-out over the TCP listener is measured alternately alone and next to bad clients of every kind
//! ([`attacks`]) on the HTTP API of the same server. Each run next to bad clients is compared with the mean of the
//! runs before and after it. Every record is checked in all runs. The bad clients are a process of their own
//! ([`clients`]). They, and the work that the server does for them, take processor time from a fan-out that could
//! use all of it, so that time is part of the result. At the end the server must hold nothing for them any more.

pub(crate) mod args;
mod attacks;
pub(crate) mod clients;

use self::args::HostileArgs;
use self::attacks::{Attack, LARGE, PROTECTED, TOKEN};
use self::clients::Clients;
use crate::system;
use psa::protocol::{Overflow, Retention, Settings};
use psa_load::error::{Error, Result, describe_io};
use psa_load::facts;
use psa_load::report::{Report, Spread, rate};
use psa_load::rig::Rig;
use psa_load::run::{Plan, Run};
use psa_load::server::OwnServer;
use psa_load::source::{Amount, usual_batch};
use psa_load::units::human_size;
use psa_load::verify::Tally;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The flags of the measured server: an HTTP API, short timeouts, and no topics created by clients. A token and a
/// limit on HTTP connections below the number of bad clients are added.
const SERVER: [&str; 7] = [
    "--http=127.0.0.1:0",
    "--timeout-handshake=2s",
    "--timeout-frame=2s",
    "--timeout-stall=3s",
    "--topic-create-on-publish=false",
    "--topic-create-on-subscribe=false",
    "--limit-memory=1GiB",
];
/// How many HTTP connections the server accepts for every hundred bad clients.
const PLACES: usize = 80;
/// The contents of the topic that bad clients request, far more than the system buffers: the number of batches,
/// the records in a batch, and the bytes of a record.
const STORED: (usize, usize, usize) = (16, 4096, 256);
/// How long the server may take to release everything after the bad clients are gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures the fan-out alone and next to bad clients.
pub(crate) fn hostile(args: &HostileArgs) -> Result {
    let common = &args.common;
    let mut flags: Vec<String> = SERVER.iter().map(|flag| (*flag).to_owned()).collect();
    flags.push(format!("--token={TOKEN}"));
    let places = (args.each * Attack::ALL.len() * PLACES / 100).max(1);
    flags.push(format!("--http-connections={places}"));
    flags.extend(common.serve.iter().cloned());
    let mut own = OwnServer::start(&flags)?;
    let http = http_address(&mut own)?;
    let mut rig = Rig::over(own, TOKEN)?;
    prepare(&http)?;
    let plan = plan(args);
    // Warm up both, so that one-time allocations (threads, pools, buffers) do not count.
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
    report.set("bad_clients", args.each * Attack::ALL.len());
    report_usage(&mut report, before, &hostile, after);
    report.print(common.json)
}

/// The address of the server's HTTP API, which it prints after the address of the TCP listener.
fn http_address(server: &mut OwnServer) -> Result<String> {
    loop {
        let line = server.line()?;
        if line.is_empty() {
            return Err(Error::failed("start a server", "it has no HTTP API"));
        }
        let address = line.split_once("curl -N http://").map(|(_, rest)| rest);
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
            ..Settings::default()
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

/// Creates the topics that the bad clients use.
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

/// Sends one request and returns the response if it was successful.
fn ask(http: &str, line: &str, body: &[u8]) -> Result<String> {
    let exchange = || -> std::io::Result<String> {
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
    let answer = exchange().map_err(|error| Error::failed(line, describe_io(&error)))?;
    if answer.starts_with("HTTP/1.1 2") {
        return Ok(answer);
    }
    Err(Error::failed(line, answer.lines().last().unwrap_or("no answer")))
}

/// The memory and the descriptors that the server holds.
#[derive(Clone, Copy, Debug)]
struct Usage {
    rss: u64,
    descriptors: u64,
}

impl Usage {
    fn now(rig: &Rig) -> Usage {
        let pid = rig.own.as_ref().map_or(0, OwnServer::pid);
        let rss = facts::usage(pid).map_or(0, |usage| usage.rss);
        Usage { rss, descriptors: system::entries(pid, "fd") }
    }
}

/// Waits until no bad client is connected, and returns what the server holds then. If `expected` is set, the number
/// of descriptors must fall back to it.
fn settled(rig: &Rig, expected: Option<u64>) -> Result<Usage> {
    let began = Instant::now();
    let mut last = Usage::now(rig);
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = Usage::now(rig);
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

/// A run next to bad clients.
struct Hostile {
    run: Run,
    /// What the bad clients report to have done.
    done: Value,
    /// How long they ran, in seconds.
    seconds: f64,
    /// What the server held at the end of the run, with the bad clients still connected.
    usage: Usage,
}

fn beside(plan: &Plan, rig: &mut Rig, http: &str, each: usize, title: &str) -> Result<Hostile> {
    let began = Instant::now();
    let clients = Clients::start(http, each)?;
    let run = plan.run(rig, title, || ())?;
    let usage = Usage::now(rig);
    let done = clients.end()?;
    Ok(Hostile { run, done, seconds: began.elapsed().as_secs_f64(), usage })
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
    for attack in Attack::ALL {
        let sum = |what: &str| -> u64 {
            hostile.iter().filter_map(|one| one.done["deeds"][attack.name()][what].as_u64()).sum()
        };
        report.row(format!("  {}", attack.name()), format!("{} times", sum("deeds")));
    }
    report.set("records", hostile.iter().map(|one| one.run.published.records).sum::<u64>());
    report.set("runs", each);
    report.tally(&tally);
}

fn report_usage(report: &mut Report, before: Usage, hostile: &[Hostile], after: Usage) {
    let most = |figure: fn(&Hostile) -> u64| hostile.iter().map(figure).max().unwrap_or(0);
    let (rss, descriptors) = (most(|one| one.usage.rss), most(|one| one.usage.descriptors));
    for (when, usage) in
        [("before", before), ("beside", Usage { rss, descriptors }), ("after", after)]
    {
        report.set(&format!("server_rss_{when}_bytes"), usage.rss);
        report.set(&format!("server_descriptors_{when}"), usage.descriptors);
    }
    let sizes = [before.rss, rss, after.rss].map(human_size);
    report.row("server's memory before, beside, after", sizes.join(", "));
    let counts =
        [before.descriptors, descriptors, after.descriptors].map(|count| count.to_string());
    report.row("its descriptors before, beside, after", counts.join(", "));
}
