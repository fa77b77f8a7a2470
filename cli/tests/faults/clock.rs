//! A wall clock that jumps, forwards and back, while the server runs.
//!
//! The machine's own clock is left alone: a few lines ([`SHIM`], built here with the compiler that builds the
//! tests) are loaded into the server in front of the C library's `clock_gettime`, and add to the wall clock
//! what a file says. The monotonic clock, which never jumps, is passed on.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::path::PathBuf;
use std::time::SystemTime;

use psa::client::{Client, Event, SubscribeOptions};
use psa::protocol::{Code, LeaseRequest, OnGap, Request, Start, Subscribe};

use super::harness::*;
use super::healthy::Healthy;
use super::preload::preload;
use super::raw::*;

const SHIM: &str = "tests/faults/shim.rs";

const DAY: i64 = 86_400;

/// A server whose wall clock can be set.
struct Jumping {
    server: Server,
    offset: PathBuf,
    /// Where both of them lie.
    _folder: tempfile::TempDir,
}

impl Jumping {
    fn start(flags: &[&str]) -> Jumping {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let offset = folder.path().join("offset");
        std::fs::write(&offset, "0").expect("the folder is ours");
        let mut command = psa(["serve", "--listen", "127.0.0.1:0"].iter().chain(flags));
        command.env("SHIM_OFFSET", &offset);
        preload(&mut command, SHIM, folder.path());
        Jumping { server: Server::start_by(command), offset, _folder: folder }
    }

    /// Sets the wall clock to what it really is and so many seconds, and makes sure that the server sees it.
    fn jump(&mut self, seconds: i64) {
        // At once: a file that was cut and not written yet would be no offset at all.
        let new = self.offset.with_extension("new");
        std::fs::write(&new, seconds.to_string()).expect("the folder is ours");
        std::fs::rename(&new, &self.offset).expect("the folder is ours");
        let said = self.server.process().stderr().len();
        let day = date(seconds);
        eventually("the server to log something under the new date", || {
            drop(Raw::open(&self.server));
            let log = self.server.process().stderr();
            match log[said..].contains(&day) {
                true => Ok(()),
                false => Err(format!("no {day} in {}", &log[said..])),
            }
        });
    }
}

/// The date (UTC) in so many seconds, as logs have it: by the algorithm of Howard Hinnant.
fn date(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let days = (now.as_secs() as i64 + seconds).div_euclid(DAY) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, day) = (year + era * 400, day - (153 * month + 2) / 5 + 1);
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!("{year:04}-{month:02}-{day:02}")
}

/// When the records of a topic were appended, as the server says.
fn times(server: &Server, topic: &str) -> Vec<SystemTime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client =
            Client::builder(server.address.to_string()).connect().await.expect("it listens");
        let options = SubscribeOptions::earliest().caught_up();
        let mut sub = client.subscribe(topic, options).await.expect("it is there");
        let mut times = Vec::new();
        loop {
            match sub.next().await.expect("no end").expect("no error") {
                Event::Record(record) => times.push(record.time()),
                Event::CaughtUp { .. } => return times,
                other => panic!("{other:?}"),
            }
        }
    })
}

fn leased(lease: &str, ttl_ms: u32) -> Vec<u8> {
    let lease = Some(LeaseRequest { name: name(lease), ttl_ms, take_over: false });
    let (start, on_gap) = (Start::Earliest, OnGap::Error);
    let (request, sub, caught_up) = (1, 1, false);
    let topic = name("kept");
    encoded(&Request::Subscribe(Subscribe { request, sub, topic, start, on_gap, caught_up, lease }))
}

#[test]
fn the_wall_clock_moves_no_deadline_and_no_record() {
    let mut jumping = Jumping::start(&["--timeout-idle", "2s", "--log-level", "debug"]);
    let mut healthy = Healthy::start(&jumping.server);
    let server = &jumping.server;
    server
        .run(&["topics", "create", "kept", "--retention", "1h", "--segment", "4KiB"])
        .expect(exit::DONE);
    server.publish(&["pub", "kept"], b"before\n").expect(exit::DONE);
    let mut holder = Raw::open(server);
    holder.send(&leased("lasting", 3_600_000));
    assert!(matches!(holder.next(), Said::Subscribed { .. }));
    drop(holder);

    // Two days forwards: neither an age of one hour nor a lease of one hour is over.
    jumping.jump(2 * DAY);
    let server = &jumping.server;
    healthy.goes_on();
    // More than a segment, so that what is old could be let go of.
    let filler = vec![b'x'; 3000].repeat(10);
    let filler = filler.chunks(3000).collect::<Vec<_>>().join(&b'\n');
    server.publish(&["pub", "kept"], &filler).expect(exit::DONE);
    let stats = server.describe("kept");
    assert_eq!((&stats["first_offset"], &stats["lease_count"]), (&0.into(), &1.into()), "{stats}");
    let left = stats["leases"][0]["expires_in_ms"].as_u64().expect("a number");
    assert!(left > 1_800_000, "an hour less the time of this test: {stats}");

    // Four days back: deadlines that fall due still do.
    jumping.jump(-2 * DAY);
    let server = &jumping.server;
    healthy.goes_on();
    Raw::open(server).goodbye(Code::IdleTimeout);
    let mut holder = Raw::open(server);
    holder.send(&leased("short", 200));
    assert!(matches!(holder.next(), Said::Subscribed { .. }));
    drop(holder);
    server.describe_until("kept", "the short lease to end", |stats| stats["lease_count"] == 1);
    server
        .run(&["topics", "create", "aged", "--retention", "300ms", "--segment", "4KiB"])
        .expect(exit::DONE);
    server.publish(&["pub", "aged"], &filler).expect(exit::DONE);
    server.describe_until("aged", "what is old to go", |stats| stats["live_segments"] == 1);
    server.publish(&["pub", "kept"], b"after\n").expect(exit::DONE);

    // A record's time is the wall clock's at its append, and never goes back: what came after the clock was set back
    // has the latest time that there was.
    let times = times(server, "kept");
    assert_eq!(times.len(), 12);
    assert!(times.is_sorted(), "{times:?}");
    let last = times[11].duration_since(times[0]).expect("they are sorted").as_secs() as i64;
    assert!((2 * DAY - 60..2 * DAY + 3600).contains(&last), "{last} s");
    // So whoever asks for the last hour, by a clock that was set back, misses nothing of it.
    let run = server.run(&["sub", "kept", "--from", "1h", "--exit-at-end"]).expect(exit::DONE);
    assert_eq!(run.text().lines().count(), 12);
    healthy.finish(server);
}

#[test]
fn a_topic_takes_the_wall_clock_of_its_making() {
    let mut jumping = Jumping::start(&["--log-level", "debug"]);
    jumping.jump(2 * DAY);
    let server = &jumping.server;
    server.publish(&["pub", "t"], b"one\n").expect(exit::DONE);
    let ahead = |times: &[SystemTime]| {
        times[0].duration_since(SystemTime::now()).expect("it is ahead").as_secs() as i64
    };
    let days = ahead(&times(server, "t"));
    assert!((DAY..=2 * DAY).contains(&days), "{days} s ahead");
    // Back to what is right: the topic stays with what it has.
    jumping.jump(0);
    let server = &jumping.server;
    server.publish(&["pub", "t"], b"two\n").expect(exit::DONE);
    let times = times(server, "t");
    assert!(times.is_sorted() && ahead(&times[1..]) > DAY, "{times:?}");
}
