//! The cells: what is measured, with how many subscribers and bytes, and who takes part.

use super::peer::Limits;
use super::rival::Rival;
use super::summary::Subject;

/// What a cell asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Deliveries a second.
    Fanout,
    /// How long it takes until the last one has so many messages, published at once.
    Burst { records: u64 },
    /// How late records are at a fixed rate.
    Latency { rate: f64, seconds: f64 },
    /// What one subscriber that stands still costs the others, and the server.
    Stalled { records: u64 },
    /// How fast one subscriber reads what is stored.
    Replay { records: u64 },
    /// What a subscriber that waits costs the server.
    Idle,
}

/// One line of the comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) subscribers: usize,
    /// Bytes of a record.
    pub(crate) size: usize,
}

/// One column: who takes part, and with which limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) rival: Rival,
    pub(crate) limits: Limits,
}

impl Entry {
    /// As in the figures.
    pub(crate) fn name(self) -> String {
        match self.limits {
            Limits::Raised => self.rival.name().to_owned(),
            Limits::Usual => format!("{}-default", self.rival.name()),
        }
    }
}

/// Records a second of the latency cells.
const RATE: f64 = 1000.0;

/// All cells; those of a quick run are small.
pub(crate) fn all(quick: bool) -> Vec<Cell> {
    let cell = |kind, subscribers, size| Cell { kind, subscribers, size };
    let fanout = |subscribers, size| cell(Kind::Fanout, subscribers, size);
    if quick {
        return vec![
            fanout(1, 64),
            fanout(20, 64),
            fanout(20, 16),
            fanout(20, 1024),
            cell(Kind::Burst { records: 100 }, 20, 4),
            cell(Kind::Latency { rate: RATE, seconds: 0.2 }, 20, 64),
            cell(Kind::Stalled { records: 10_000 }, 4, 1024),
            cell(Kind::Replay { records: 20_000 }, 1, 64),
            cell(Kind::Idle, 100, 16),
        ];
    }
    vec![
        fanout(1, 64),
        fanout(10, 64),
        fanout(100, 64),
        fanout(1000, 64),
        fanout(5000, 64),
        fanout(100, 16),
        fanout(100, 1024),
        cell(Kind::Burst { records: 1000 }, 500, 4),
        cell(Kind::Latency { rate: RATE, seconds: 2.0 }, 100, 64),
        cell(Kind::Latency { rate: RATE, seconds: 2.0 }, 1000, 64),
        cell(Kind::Stalled { records: 200_000 }, 10, 1024),
        cell(Kind::Replay { records: 1_000_000 }, 1, 64),
        cell(Kind::Idle, 10_000, 16),
    ]
}

impl Cell {
    /// As on the command line and in the figures.
    pub(crate) fn name(&self) -> String {
        let Cell { kind, subscribers, size } = self;
        match kind {
            Kind::Fanout => format!("fanout-{subscribers}x{size}"),
            Kind::Burst { records } => format!("burst-{subscribers}x{records}x{size}"),
            Kind::Latency { .. } => format!("latency-{subscribers}"),
            Kind::Stalled { .. } => format!("stalled-1of{subscribers}"),
            Kind::Replay { records } => format!("replay-{records}x{size}"),
            Kind::Idle => format!("idle-{subscribers}"),
        }
    }

    /// The kind's name.
    pub(crate) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Fanout => "fanout",
            Kind::Burst { .. } => "burst",
            Kind::Latency { .. } => "latency",
            Kind::Stalled { .. } => "stalled",
            Kind::Replay { .. } => "replay",
            Kind::Idle => "idle",
        }
    }

    /// What reports say of it.
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            name: self.name(),
            kind: self.kind(),
            subscribers: self.subscribers,
            size: self.size,
        }
    }

    /// Who takes part. A rival is left out where the cell's question has no meaning for it.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let raised = |rival| Entry { rival, limits: Limits::Raised };
        let usual = |rival| Entry { rival, limits: Limits::Usual };
        let rivals = [Rival::Psa, Rival::Nats, Rival::Redis, Rival::Streams].map(raised);
        let more = match self.kind {
            Kind::Fanout | Kind::Burst { .. } => vec![raised(Rival::Ceiling)],
            Kind::Latency { .. } => vec![raised(Rival::Relay)],
            Kind::Stalled { .. } => vec![usual(Rival::Nats), usual(Rival::Redis)],
            Kind::Replay { .. } => {
                return [Rival::Psa, Rival::Streams, Rival::Jetstream].map(raised).into();
            }
            Kind::Idle => Vec::new(),
        };
        rivals.into_iter().chain(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for quick in [false, true] {
            let mut names: Vec<_> = all(quick).iter().map(Cell::name).collect();
            names.sort();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }
}
