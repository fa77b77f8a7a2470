//! The cells: what is measured, with how many subscribers and bytes, and which contenders take part.

use super::peer::Limits;
use super::rival::Rival;
use super::summary::Subject;

/// What a cell measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Measure {
    /// Deliveries per second.
    Fanout,
    /// The time until the last subscriber has received this many messages, published in one burst.
    Burst { records: u64 },
    /// How late records are at a fixed rate.
    Latency { rate: f64, seconds: f64 },
    /// What one stalled subscriber costs the others and the server.
    Stalled { records: u64 },
    /// How fast one subscriber reads stored records.
    Replay { records: u64 },
    /// What an idle subscriber costs the server.
    Idle,
}

/// One cell of the comparison: a measure at one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) measure: Measure,
    pub(crate) subscribers: usize,
    /// The size of a record in bytes.
    pub(crate) size: usize,
}

/// One contender of a cell: a rival, and the limits it is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) rival: Rival,
    pub(crate) limits: Limits,
}

impl Column {
    /// The contender's name in the figures.
    pub(crate) fn name(self) -> String {
        match self.limits {
            Limits::Raised => self.rival.name().to_owned(),
            Limits::Usual => format!("{}-default", self.rival.name()),
        }
    }
}

/// Records per second in the latency cells.
const RATE: f64 = 1000.0;

/// All cells; those of a quick run are small.
pub(crate) fn all(quick: bool) -> Vec<Cell> {
    let cell = |measure, subscribers, size| Cell { measure, subscribers, size };
    let fanout = |subscribers, size| cell(Measure::Fanout, subscribers, size);
    if quick {
        return vec![
            fanout(1, 64),
            fanout(20, 64),
            fanout(20, 16),
            fanout(20, 1024),
            cell(Measure::Burst { records: 100 }, 20, 4),
            cell(Measure::Latency { rate: RATE, seconds: 0.2 }, 20, 64),
            cell(Measure::Stalled { records: 10_000 }, 4, 1024),
            cell(Measure::Replay { records: 20_000 }, 1, 64),
            cell(Measure::Idle, 100, 16),
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
        cell(Measure::Burst { records: 1000 }, 500, 4),
        cell(Measure::Latency { rate: RATE, seconds: 2.0 }, 100, 64),
        cell(Measure::Latency { rate: RATE, seconds: 2.0 }, 1000, 64),
        cell(Measure::Stalled { records: 200_000 }, 10, 1024),
        cell(Measure::Replay { records: 1_000_000 }, 1, 64),
        cell(Measure::Idle, 10_000, 16),
    ]
}

impl Cell {
    /// The cell's name on the command line and in the figures.
    pub(crate) fn name(&self) -> String {
        let Cell { measure, subscribers, size } = self;
        match measure {
            Measure::Fanout => format!("fanout-{subscribers}x{size}"),
            Measure::Burst { records } => format!("burst-{subscribers}x{records}x{size}"),
            Measure::Latency { .. } => format!("latency-{subscribers}"),
            Measure::Stalled { .. } => format!("stalled-1of{subscribers}"),
            Measure::Replay { records } => format!("replay-{records}x{size}"),
            Measure::Idle => format!("idle-{subscribers}"),
        }
    }

    /// The name of the measure, as reports know it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.measure {
            Measure::Fanout => "fanout",
            Measure::Burst { .. } => "burst",
            Measure::Latency { .. } => "latency",
            Measure::Stalled { .. } => "stalled",
            Measure::Replay { .. } => "replay",
            Measure::Idle => "idle",
        }
    }

    /// The cell as reports describe it.
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            name: self.name(),
            kind: self.kind(),
            subscribers: self.subscribers,
            size: self.size,
        }
    }

    /// The contenders that take part. Rivals for which the cell makes no sense are left out.
    pub(crate) fn columns(&self) -> Vec<Column> {
        let raised = |rival| Column { rival, limits: Limits::Raised };
        let usual = |rival| Column { rival, limits: Limits::Usual };
        let rivals = [Rival::Psa, Rival::Nats, Rival::Redis, Rival::Streams].map(raised);
        let more = match self.measure {
            Measure::Fanout | Measure::Burst { .. } => vec![raised(Rival::Ceiling)],
            Measure::Latency { .. } => vec![raised(Rival::Relay)],
            Measure::Stalled { .. } => vec![usual(Rival::Nats), usual(Rival::Redis)],
            Measure::Replay { .. } => {
                return [Rival::Psa, Rival::Streams, Rival::Jetstream].map(raised).into();
            }
            Measure::Idle => Vec::new(),
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
