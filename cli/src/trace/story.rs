//! The run that is traced: a publisher at a steady rate, and those who follow.

use super::TraceArgs;
use super::record::{Kind, Recorder, Recording, Track};
use crate::error::{Error, Result};
use psa::{Cursor, Log, Overflow, ReadError, Start, Stats};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Payload of a record.
const RECORD: usize = 64;
/// How often the publisher appends.
const TICK: Duration = Duration::from_millis(1);

/// What happens when, in parts of the run's time.
const STALL: (f64, f64) = (0.20, 0.55);
const LATE: f64 = 0.40;
const LOOK: (f64, f64) = (0.75, 0.85);
/// How often the lazy one reads, in parts of the run's time.
const LAZY: f64 = 0.06;

/// Runs it. The statistics are of the moment when all have gone.
pub(super) fn play(args: &TraceArgs) -> Result<(Recording, Stats)> {
    let began = Instant::now();
    let recorder = Arc::new(Recorder::new(began));
    let segment = usize::try_from(args.segment).unwrap_or(usize::MAX);
    let mut builder = Log::<[u8]>::builder()
        .segment_bytes(segment)
        .segment_records((segment / RECORD).max(1))
        .observer(recorder.clone());
    if let Some(limit) = args.limit {
        builder = builder.memory_limit(limit).overflow(Overflow::Evict);
    }
    let log = builder.build().map_err(|error| Error::usage("--segment or --limit", error))?;
    let stage = Stage { log: &log, began, time: args.time, evicts: args.limit.is_some() };

    let tracks = thread::scope(|scope| {
        let mut players = Vec::new();
        for n in 0..args.subs {
            let track = Track::new(format!("prompt {}", n + 1), Kind::Prompt);
            let cursor = stage.attach(Start::Earliest);
            let looks_long = n == 0;
            players.push(scope.spawn(move || stage.follow(cursor, track, looks_long)));
        }
        let cursor = stage.attach(Start::Earliest);
        players.push(scope.spawn(move || stage.lazy(cursor, Track::new("lazy", Kind::Lazy))));
        for n in 0..args.stalled {
            let track = Track::new(format!("stalled {}", n + 1), Kind::Stalled);
            let cursor = stage.attach(Start::Earliest);
            players.push(scope.spawn(move || stage.stalled(cursor, track)));
        }
        players.push(scope.spawn(move || stage.late(Track::new("late", Kind::Late))));
        let end = stage.publish(args.rate, Track::new("the log's end", Kind::End));
        log.close();
        let players = players.into_iter().map(|player| player.join().expect("it does not panic"));
        std::iter::once(end).chain(players).collect()
    });
    let time = began.elapsed();
    // Everybody has gone; this is also the last look that could keep anything.
    let stats = log.stats();
    Ok((Recording { events: recorder.events(), tracks, time }, stats))
}

/// Where everybody plays.
#[derive(Clone, Copy)]
struct Stage<'a> {
    log: &'a Log<[u8]>,
    began: Instant,
    time: Duration,
    evicts: bool,
}

impl Stage<'_> {
    fn attach(&self, start: Start) -> Cursor<[u8]> {
        self.log.subscribe(start).expect("the earliest record is always there")
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn moment(&self, part: f64) -> Instant {
        self.began + self.time.mul_f64(part)
    }

    fn sleep_until(&self, part: f64) {
        thread::sleep(self.moment(part).saturating_duration_since(Instant::now()));
    }

    fn is_during(&self, (from, to): (f64, f64)) -> bool {
        (self.moment(from)..self.moment(to)).contains(&Instant::now())
    }

    fn publish(&self, rate: u64, mut track: Track) -> Track {
        let record = [0u8; RECORD];
        let mut published = 0;
        while self.now() < self.time {
            let due = (rate as f64 * self.now().as_secs_f64()) as u64;
            let batch = vec![&record[..]; (due - published) as usize];
            published = due;
            // A limit evicts, so that nothing is refused; the log is closed by us alone.
            let offsets = self.log.append_batch(&batch).expect("there is room");
            track.at(self.now(), offsets.end);
            thread::sleep(TICK);
        }
        track
    }

    /// Reads until the log ends.
    fn follow(&self, mut cursor: Cursor<[u8]>, mut track: Track, looks_long: bool) -> Track {
        let mut has_looked = !(looks_long && self.evicts);
        loop {
            let read = cursor.next_blocking(|_| {
                if !has_looked && self.is_during(LOOK) {
                    has_looked = true;
                    // Under eviction, what is read is kept by the look, not by the pin.
                    self.sleep_until(LOOK.1);
                }
            });
            if !self.note(read, &cursor, &mut track) {
                return track;
            }
        }
    }

    /// Reads all that is there, once in a while.
    fn lazy(&self, mut cursor: Cursor<[u8]>, mut track: Track) -> Track {
        loop {
            thread::sleep(self.time.mul_f64(LAZY));
            track.at(self.now(), cursor.offset());
            loop {
                match cursor.try_next(|_| ()) {
                    Ok(None) => break,
                    read => {
                        if !self.note(read, &cursor, &mut track) {
                            return track;
                        }
                    }
                }
            }
            track.at(self.now(), cursor.offset());
        }
    }

    /// Stops for a while, then catches up.
    fn stalled(&self, mut cursor: Cursor<[u8]>, mut track: Track) -> Track {
        loop {
            if self.is_during(STALL) {
                track.at(self.now(), cursor.offset());
                self.sleep_until(STALL.1);
                track.at(self.now(), cursor.offset());
            }
            let read = cursor.next_blocking(|_| ());
            if !self.note(read, &cursor, &mut track) {
                return track;
            }
        }
    }

    /// Comes when the stalled one holds most, and begins with the earliest record.
    fn late(&self, mut track: Track) -> Track {
        self.sleep_until(LATE);
        let cursor = self.attach(Start::Earliest);
        track.at(self.now(), cursor.offset());
        self.follow(cursor, track, false)
    }

    /// Takes down where the cursor is now. False if the log has ended.
    fn note<U>(
        &self,
        read: std::result::Result<U, ReadError>,
        cursor: &Cursor<[u8]>,
        track: &mut Track,
    ) -> bool {
        let now = self.now();
        match read {
            Ok(_) => {}
            Err(ReadError::Lagged(lagged)) => {
                let end = lagged.first_missed + lagged.missed;
                track.gaps.push((now, lagged.first_missed, end));
            }
            Err(_) => return false,
        }
        track.at(now, cursor.offset());
        true
    }
}
