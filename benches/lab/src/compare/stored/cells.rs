//! The cells: what is stored, in which way, and who takes part.

use crate::compare::rival::Rival;
use crate::compare::summary::Subject;

/// What an acknowledgement means in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// The records were forced to the disk.
    Synced,
    /// The system has them, in a file.
    Written,
}

/// What is done in a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Work {
    /// So many publishers, each with a connection of its own, send batches of so many records, and have so many batches
    /// without an acknowledgement at most.
    Publish { publishers: usize, batch: usize, ahead: usize },
    /// One publisher sends so many records a second, whether or not the earlier ones were acknowledged.
    Paced { rate: f64 },
    /// One subscriber reads so many stored records from the first.
    Replay { records: u64 },
}

/// One cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    /// What it is called after the promise.
    name: &'static str,
    pub(crate) promise: Promise,
    pub(crate) work: Work,
    /// Bytes of a record.
    pub(crate) size: usize,
}

/// Who takes part, and in which way it publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// This server.
    Psa,
    /// The disk alone, with the bytes that psa would write.
    Raw,
    /// JetStream; each message is published by itself and acknowledged by itself.
    Jetstream,
    /// JetStream; a batch is an *atomic batch*, with one acknowledgement.
    JetstreamBatch,
    /// JetStream; messages are *ingested fast*, with an acknowledgement for up to 500 of them.
    JetstreamFast,
    /// Redis streams; the `XADD`s of a batch are pipelined.
    Streams,
    /// Redis streams; the `XADD`s of a batch are one transaction.
    StreamsMulti,
}

impl Who {
    /// The name in the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Who::Psa => "psa",
            Who::Raw => "raw",
            Who::Jetstream => "jetstream",
            Who::JetstreamBatch => "jetstream-batch",
            Who::JetstreamFast => "jetstream-fast",
            Who::Streams => "streams",
            Who::StreamsMulti => "streams-multi",
        }
    }

    /// Its server. The disk is measured where psa is.
    pub(crate) fn rival(self) -> Rival {
        match self {
            Who::Psa | Who::Raw => Rival::Psa,
            Who::Jetstream | Who::JetstreamBatch | Who::JetstreamFast => Rival::Jetstream,
            Who::Streams | Who::StreamsMulti => Rival::Streams,
        }
    }
}

/// Records a second where the rate is given.
const RATE: f64 = 1000.0;

/// All cells; those of a quick run are small.
pub(crate) fn all(quick: bool) -> Vec<Cell> {
    let (many, some, records) = if quick { (8, 4, 19_200) } else { (256, 64, 1_000_000) };
    let mut all = Vec::new();
    for promise in [Promise::Synced, Promise::Written] {
        let mut cell = |name, work, size| all.push(Cell { name, promise, work, size });
        let publish = |publishers, batch, ahead| Work::Publish { publishers, batch, ahead };
        cell("one", publish(1, 1, 1), 256);
        cell("many", publish(many, 1, 1), 256);
        cell("pipelined", publish(1, 1, 1024), 256);
        cell("batches", publish(some, 64, 1), 256);
        cell("large", publish(some, 1, 1), 16 << 10);
        cell("paced", Work::Paced { rate: RATE }, 256);
    }
    let (promise, work) = (Promise::Written, Work::Replay { records });
    all.push(Cell { name: "replay", promise, work, size: 256 });
    all
}

impl Cell {
    /// The cell's name on the command line and in the figures.
    pub(crate) fn name(&self) -> String {
        let promise = match self.promise {
            Promise::Synced => "synced",
            Promise::Written => "written",
        };
        format!("{promise}-{}", self.name)
    }

    /// The cell as reports describe it. Its publishers stand where others have their subscribers.
    pub(crate) fn subject(&self) -> Subject {
        let (kind, subscribers) = match self.work {
            Work::Publish { publishers, .. } => ("stored", publishers),
            Work::Paced { .. } => ("stored-paced", 1),
            Work::Replay { .. } => ("stored-replay", 1),
        };
        Subject { name: self.name(), kind, subscribers, size: self.size }
    }

    /// Who takes part: each rival in every way that makes sense for the work.
    pub(crate) fn contenders(&self) -> Vec<Who> {
        let mut all = vec![Who::Psa, Who::Jetstream, Who::Streams];
        match self.work {
            Work::Publish { batch, .. } if batch > 1 => {
                all.extend([Who::JetstreamBatch, Who::StreamsMulti]);
            }
            Work::Publish { ahead, .. } if ahead > 1 => all.push(Who::JetstreamFast),
            Work::Publish { publishers: 1, .. } if self.promise == Promise::Synced => {
                all.push(Who::Raw);
            }
            _ => {}
        }
        all
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
