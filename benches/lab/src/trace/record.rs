//! The recording of a run: every event of its segments, and the positions of each cursor over time.

use psa::{Event, Observer};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Records events, each with its time.
pub(super) struct Recorder {
    began: Instant,
    events: Mutex<Vec<(Duration, Event)>>,
}

impl Recorder {
    pub(super) fn new(began: Instant) -> Recorder {
        Recorder { began, events: Mutex::default() }
    }

    /// The recorded events in the order of their times.
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

/// The positions of one cursor, or of the log's end, over time.
pub(super) struct Track {
    pub(super) name: String,
    pub(super) kind: LineKind,
    /// Times and offsets, both ascending.
    pub(super) positions: Vec<(Duration, u64)>,
    /// When the cursor was evicted, and the range of offsets that it missed.
    pub(super) gaps: Vec<(Duration, u64, u64)>,
}

/// The kind of a line in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    /// The log's end: the offset of the next record.
    End,
    /// A subscriber that reads each record as soon as it is published.
    Prompt,
    /// A subscriber that reads from time to time.
    Lazy,
    /// A subscriber that stops reading for a while.
    Stalled,
    /// A subscriber that starts long after the others.
    Late,
}

impl Track {
    pub(super) fn new(name: impl Into<String>, kind: LineKind) -> Track {
        Track { name: name.into(), kind, positions: Vec::new(), gaps: Vec::new() }
    }

    /// Adds a position. While the offset does not change, only the time of the last entry moves.
    pub(super) fn at(&mut self, time: Duration, offset: u64) {
        // The first and the last moment of a standstill are enough for the picture.
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

/// Everything that was recorded of a run.
pub(super) struct Recording {
    pub(super) events: Vec<(Duration, Event)>,
    pub(super) tracks: Vec<Track>,
    /// How long the run took.
    pub(super) time: Duration,
}

impl Recording {
    /// The recording as JSON lines for other programs, events first.
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
                // Later versions of the library may report events that are not drawn.
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
