//! Turns what `psa sub` receives into output: each record once, formatted, and each missing record reported.
//! Pure: no socket, no file.
//!
//! The client resumes by itself and reports its gaps. What it cannot know is what the output already contains. A
//! state file may be ahead of a lease's commit (an earlier run died between writing and committing; the records
//! come again and are dropped here), or behind it (another holder used the lease in the meantime; that is a
//! gap). So the position up to which everything is in the output is kept here, and everything that
//! arrives is compared with it.

use crate::error::one_line;
use crate::format::{Formatter, ReceivedRecord, epoch as show_epoch};
use crate::writer::Work;
use psa::Position;
use psa::protocol::{GapReason, Records};

/// Records that will not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The reason, if the server gave one.
    pub(crate) reason: Option<GapReason>,
    /// The position that was expected.
    pub(crate) expected: Position,
    /// The position of the next record that arrives.
    pub(crate) resumes_at: Position,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Missing { reason, expected, resumes_at } = self;
        if expected.epoch != resumes_at.epoch {
            return write!(
                f,
                "the topic was recreated: everything from offset {} of epoch {} on is gone; goes on at offset {} of epoch {}",
                expected.next,
                show_epoch(expected.epoch),
                resumes_at.next,
                show_epoch(resumes_at.epoch)
            );
        }
        let why = match reason {
            Some(GapReason::Evicted) => {
                "evicted, because this subscriber was too slow at the memory limit"
            }
            Some(_) => "collected before they were received",
            None => "passed by the lease under another holder",
        };
        let count = resumes_at.next.saturating_sub(expected.next);
        write!(
            f,
            "{count} records from offset {} to {} were {why}",
            expected.next,
            resumes_at.next.saturating_sub(1)
        )
    }
}

/// The received records that were not yet handed to the writer.
#[derive(Debug)]
pub(crate) struct Intake {
    topic: String,
    formatter: Formatter,
    /// Everything before it is in the output or on its way there.
    expected: Position,
    /// How many records are still wanted; `None` for all.
    left: Option<u64>,
    bytes: Vec<u8>,
    /// Whether there is something to write: bytes, or a new position.
    dirty: bool,
    /// Whether nothing was recorded before this run, and nothing has arrived yet.
    fresh: bool,
    /// Records written in this run.
    taken: u64,
}

impl Intake {
    pub(crate) fn new(
        topic: &str,
        formatter: Formatter,
        expected: Position,
        count: Option<u64>,
        fresh: bool,
    ) -> Intake {
        Intake {
            topic: one_line(topic),
            formatter,
            expected,
            left: count,
            bytes: Vec::new(),
            dirty: true,
            fresh,
            taken: 0,
        }
    }

    /// The topic's name, for messages.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// How many records were written in this run.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether all wanted records have arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == Some(0)
    }

    /// The number of bytes that wait for the writer.
    pub(crate) fn pending(&self) -> usize {
        self.bytes.len()
    }

    /// The records that are missing if the subscription is at `position`. Call this before the records from that
    /// position; if any are missing, report them and call [`skip_to`](Self::skip_to).
    pub(crate) fn missing_before(
        &self,
        position: Position,
        reason: Option<GapReason>,
    ) -> Option<Missing> {
        let behind = position.epoch == self.expected.epoch && position.next <= self.expected.next;
        (!behind).then_some(Missing { reason, expected: self.expected, resumes_at: position })
    }

    /// The records that are missing when the server reports a gap: none, if the output has all of them already.
    ///
    /// Before anything is recorded, a lease decides where the subscription begins, and only the server knows the
    /// gap before that. `asked` is the epoch that the user named.
    pub(crate) fn missing_in(
        &self,
        reason: GapReason,
        first_missed: u64,
        position: Position,
        asked: Option<u64>,
    ) -> Option<Missing> {
        let reported = || {
            let epoch = match reason {
                GapReason::OtherEpoch => asked.unwrap_or_default(),
                _ => position.epoch,
            };
            let expected = Position { epoch, next: first_missed };
            Missing { reason: Some(reason), expected, resumes_at: position }
        };
        self.missing_before(position, Some(reason)).or_else(|| self.fresh.then(reported))
    }

    /// Gives up the missing records before `position`.
    pub(crate) fn skip_to(&mut self, position: Position) {
        self.expected = position;
        self.dirty = true;
        self.fresh = false;
    }

    /// Takes consecutive records, the first of which has the offset `first` in the expected epoch.
    /// Drops records that the output has already, and those beyond the wanted number.
    pub(crate) fn records(&mut self, first: u64, time: u64, records: Records<'_>) {
        debug_assert!(first <= self.expected.next, "a gap comes first");
        let known = self.expected.next.saturating_sub(first);
        let wanted = self.left.unwrap_or(u64::MAX);
        for (index, data) in (0..records.count().into()).zip(records.iter()).skip(known as usize) {
            if index - known >= wanted {
                break;
            }
            let record =
                ReceivedRecord { epoch: self.expected.epoch, offset: first + index, time, data };
            self.formatter.write(&mut self.bytes, record);
            self.expected.next = first + index + 1;
            self.taken += 1;
            self.left = self.left.map(|left| left - 1);
            self.dirty = true;
        }
        self.fresh = false;
    }

    /// The next piece to write, if there is anything to write. `empty` is a buffer to reuse, from an earlier piece.
    pub(crate) fn work(&mut self, empty: Vec<u8>) -> Option<Work> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let bytes = std::mem::replace(&mut self.bytes, empty);
        self.bytes.clear();
        Some(Work { bytes, position: self.expected })
    }

    /// Whether [`work`](Self::work) would return something.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    fn intake(next: u64, count: Option<u64>) -> Intake {
        Intake::new(
            "t",
            Formatter::new(Format::Text, "t"),
            Position { epoch: 1, next },
            count,
            false,
        )
    }

    /// Feeds the records `first..end`, each of which contains its own offset.
    fn feed(intake: &mut Intake, first: u64, end: u64) {
        let (mut ends, mut payload) = (Vec::new(), Vec::new());
        for offset in first..end {
            payload.extend_from_slice(offset.to_string().as_bytes());
            ends.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        }
        intake.records(first, 0, Records::new(0, &ends, &payload).unwrap());
    }

    fn text(intake: &mut Intake) -> (String, u64) {
        let work = intake.work(Vec::new()).unwrap();
        (String::from_utf8(work.bytes).unwrap(), work.position.next)
    }

    #[test]
    fn records_that_are_here_already_are_dropped() {
        let mut intake = intake(3, None);
        feed(&mut intake, 0, 2);
        assert_eq!(intake.taken(), 0);
        feed(&mut intake, 2, 5);
        feed(&mut intake, 5, 6);
        assert_eq!(text(&mut intake), ("3\n4\n5\n".into(), 6));
        assert!(intake.work(Vec::new()).is_none());
    }

    #[test]
    fn a_count_stops_within_a_chunk() {
        let mut intake = intake(2, Some(3));
        feed(&mut intake, 0, 4);
        assert!(!intake.is_complete());
        feed(&mut intake, 4, 9);
        assert!(intake.is_complete());
        assert_eq!(text(&mut intake), ("2\n3\n4\n".into(), 5));
        feed(&mut intake, 5, 10);
        assert!(intake.work(Vec::new()).is_none(), "nothing is taken beyond the count");
    }

    #[test]
    fn the_first_place_is_written_although_nothing_came() {
        let mut intake = intake(7, None);
        assert_eq!(text(&mut intake), (String::new(), 7));
    }

    #[test]
    fn gaps_are_measured_against_what_is_here() {
        let mut intake = intake(10, None);
        let at = |epoch, next| Position { epoch, next };
        assert_eq!(intake.missing_before(at(1, 10), None), None);
        assert_eq!(
            intake.missing_before(at(1, 5), None),
            None,
            "a lease that is behind us repeats"
        );
        let missing = intake.missing_before(at(1, 15), Some(GapReason::Evicted)).unwrap();
        assert!(
            missing.to_string().starts_with("5 records from offset 10 to 14 were evicted"),
            "{missing}"
        );
        let missing = intake.missing_before(at(2, 3), Some(GapReason::OtherEpoch)).unwrap();
        assert!(missing.to_string().contains("recreated"), "{missing}");
        // Even at offset 0 of a new epoch: the old epoch has ended.
        assert!(intake.missing_before(at(2, 0), None).is_some());
        intake.skip_to(at(1, 15));
        feed(&mut intake, 15, 16);
        assert_eq!(text(&mut intake), ("15\n".into(), 16));
    }

    #[test]
    fn the_first_gap_of_a_lease_is_the_servers_to_tell() {
        let missing = |fresh: bool, next: u64| {
            let formatter = Formatter::new(Format::Text, "t");
            let intake = Intake::new("t", formatter, Position { epoch: 1, next: 10 }, None, fresh);
            intake.missing_in(GapReason::Collected, 5, Position { epoch: 1, next }, None)
        };
        let told = missing(true, 10).unwrap().to_string();
        assert!(told.starts_with("5 records from offset 5 to 9"), "{told}");
        // If the state is ahead of the lease, nothing is missing.
        assert_eq!(missing(false, 10), None);
        let told = missing(false, 12).unwrap().to_string();
        assert!(told.starts_with("2 records from offset 10 to 11"), "{told}");
    }
}
