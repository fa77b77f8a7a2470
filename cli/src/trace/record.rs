//! What a run leaves: every event of its segments, and where each cursor was when.

use psa::{Event, Observer};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Takes events down with the time at which they came.
pub(super) struct Recorder {
    began: Instant,
    events: Mutex<Vec<(Duration, Event)>>,
}

impl Recorder {
    pub(super) fn new(began: Instant) -> Recorder {
        Recorder { began, events: Mutex::default() }
    }

    /// What was taken down, in the order of time.
    pub(super) fn events(&self) -> Vec<(Duration, Event)> {
        let mut events = self.events.lock().expect("nobody panics while writing").clone();
        events.sort_by_key(|(at, _)| *at);
        events
    }
}

impl Observer for Recorder {
    fn on_event(&self, event: Event) {
        let mut events = self.events.lock().expect("nobody panics while writing");
        events.push((self.began.elapsed(), event));
    }
}

/// Where one cursor, or the log's end, was when.
pub(super) struct Track {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Times and offsets, both ascending.
    pub(super) positions: Vec<(Duration, u64)>,
    /// When it was evicted, from which offset to which.
    pub(super) gaps: Vec<(Duration, u64, u64)>,
}

/// What kind of line it is in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Where the next record goes.
    End,
    /// Reads as soon as there is something.
    Prompt,
    /// Reads once in a while.
    Lazy,
    /// Stops for a time.
    Stalled,
    /// Comes when the others have been there for long.
    Late,
}

impl Track {
    pub(super) fn new(name: impl Into<String>, kind: Kind) -> Track {
        Track { name: name.into(), kind, positions: Vec::new(), gaps: Vec::new() }
    }

    /// Notes a position, unless it is the last one still.
    pub(super) fn at(&mut self, time: Duration, offset: u64) {
        // The first and the last moment of a standstill are enough.
        if let [.., (_, before), (until, last)] = &mut self.positions[..]
            && *before == offset
            && *last == offset
        {
            *until = time;
        } else {
            self.positions.push((time, offset));
        }
    }
}

/// All of it.
pub(super) struct Recording {
    pub(super) events: Vec<(Duration, Event)>,
    pub(super) tracks: Vec<Track>,
    /// How long the run was.
    pub(super) time: Duration,
}

impl Recording {
    /// For other programs: one JSON object a line, events first.
    pub(super) fn json_lines(&self) -> String {
        let mut out = String::new();
        for (at, event) in &self.events {
            let body = match *event {
                Event::Linked { segment, base, bytes, reused } => format!(
                    r#""event":"linked","segment":{segment},"base":{base},"bytes":{bytes},"reused":{reused}"#
                ),
                Event::Sealed { segment, records } => {
                    format!(r#""event":"sealed","segment":{segment},"records":{records}"#)
                }
                Event::Pinned { segment, pins } => {
                    format!(r#""event":"pinned","segment":{segment},"pins":{pins}"#)
                }
                Event::Unpinned { segment, pins } => {
                    format!(r#""event":"unpinned","segment":{segment},"pins":{pins}"#)
                }
                Event::Closed { segment, evicted } => {
                    format!(r#""event":"closed","segment":{segment},"evicted":{evicted}"#)
                }
                Event::Unlinked { segment } => {
                    format!(r#""event":"unlinked","segment":{segment}"#)
                }
                Event::Reclaimed { segment, bytes, pooled } => format!(
                    r#""event":"reclaimed","segment":{segment},"bytes":{bytes},"pooled":{pooled}"#
                ),
                // The library may learn to tell more than is drawn.
                _ => continue,
            };
            let _ = writeln!(out, r#"{{"ns":{},{body}}}"#, at.as_nanos());
        }
        for Track { name, positions, gaps, .. } in &self.tracks {
            let name = serde_json::Value::from(name.as_str());
            for (at, offset) in positions {
                let ns = at.as_nanos();
                let _ = writeln!(out, r#"{{"ns":{ns},"cursor":{name},"offset":{offset}}}"#);
            }
            for (at, from, to) in gaps {
                let ns = at.as_nanos();
                let _ = writeln!(out, r#"{{"ns":{ns},"cursor":{name},"missed":[{from},{to}]}}"#);
            }
        }
        out
    }
}
