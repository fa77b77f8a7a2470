//! The run that is traced: a publisher at a steady rate, and its subscribers.

use super::TraceArgs;
use super::record::{LineKind, Recorder, Recording, Track};
use psa::{Cursor, Log, Overflow, ReadError, Start, Stats};
use psa_load::error::{Error, Result};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Payload of a record.
const RECORD: usize = 64;
/// How often the publisher appends.
const TICK: Duration = Duration::from_millis(1);

/// When the stalled subscribers do not read, when the late one starts, and when one subscriber holds on to a
/// batch, all in parts of the run's time.
const STALL: (f64, f64) = (0.20, 0.55);
const LATE: f64 = 0.40;
const LONG_READ: (f64, f64) = (0.75, 0.85);
/// The pause between two reads of the lazy subscriber, in parts of the run's time.
const LAZY: f64 = 0.06;

/// Runs the workload. The statistics are taken after all subscribers have left.
pub(super) fn run(args: &TraceArgs) -> Result<(Recording, Stats)> {
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
    let workload = Workload { log: &log, began, time: args.time, evicts: args.limit.is_some() };

    let tracks = thread::scope(|scope| {
        let mut readers = Vec::new();
        for n in 0..args.subs {
            let track = Track::new(format!("prompt {}", n + 1), LineKind::Prompt);
            let cursor = workload.attach(Start::Earliest);
            let reads_long = n == 0;
            readers.push(scope.spawn(move || workload.follow(cursor, track, reads_long)));
        }
        let cursor = workload.attach(Start::Earliest);
        readers
            .push(scope.spawn(move || workload.lazy(cursor, Track::new("lazy", LineKind::Lazy))));
        for n in 0..args.stalled {
            let track = Track::new(format!("stalled {}", n + 1), LineKind::Stalled);
            let cursor = workload.attach(Start::Earliest);
            readers.push(scope.spawn(move || workload.stalled(cursor, track)));
        }
        readers.push(scope.spawn(move || workload.late(Track::new("late", LineKind::Late))));
        let end = workload.publish(args.rate, Track::new("the log's end", LineKind::End));
        log.close();
        let readers = readers.into_iter().map(|reader| reader.join().expect("it does not panic"));
        std::iter::once(end).chain(readers).collect()
    });
    let time = began.elapsed();
    // All readers have left. This call is also the last one that could keep a segment from being freed.
    let stats = log.stats();
    Ok((Recording { events: recorder.events(), tracks, time }, stats))
}

/// A run in progress: its log, its start, its length, and whether the log evicts.
#[derive(Clone, Copy)]
struct Workload<'a> {
    log: &'a Log<[u8]>,
    began: Instant,
    time: Duration,
    evicts: bool,
}

impl Workload<'_> {
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
            // At a memory limit the log evicts, so no append is refused, and only this thread closes the log.
            let offsets = self.log.blocking_append_batch(&batch).expect("there is room");
            track.at(self.now(), offsets.end);
            thread::sleep(TICK);
        }
        track
    }

    /// Reads until the log ends.
    fn follow(&self, mut cursor: Cursor<[u8]>, mut track: Track, reads_long: bool) -> Track {
        let mut has_read_long = !(reads_long && self.evicts);
        loop {
            let read = cursor.blocking_next(|_| {
                if !has_read_long && self.is_during(LONG_READ) {
                    has_read_long = true;
                    // Under eviction, the read in progress keeps the segment's memory, not the pin.
                    self.sleep_until(LONG_READ.1);
                }
            });
            if !self.note(read, &cursor, &mut track) {
                return track;
            }
        }
    }

    /// From time to time, reads all records that are there.
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

    /// Stops reading for a while, then catches up.
    fn stalled(&self, mut cursor: Cursor<[u8]>, mut track: Track) -> Track {
        loop {
            if self.is_during(STALL) {
                track.at(self.now(), cursor.offset());
                self.sleep_until(STALL.1);
                track.at(self.now(), cursor.offset());
            }
            let read = cursor.blocking_next(|_| ());
            if !self.note(read, &cursor, &mut track) {
                return track;
            }
        }
    }

    /// Starts in the middle of the stall, with the earliest record.
    fn late(&self, mut track: Track) -> Track {
        self.sleep_until(LATE);
        let cursor = self.attach(Start::Earliest);
        track.at(self.now(), cursor.offset());
        self.follow(cursor, track, false)
    }

    /// Records the cursor's position after a read. Returns false if the log has ended.
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
                track.gaps.push((now, lagged.first_missed, lagged.offsets().end));
            }
            Err(_) => return false,
        }
        track.at(now, cursor.offset());
        true
    }
}
