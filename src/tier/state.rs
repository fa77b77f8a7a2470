//! What a topic has beside its records: its name, its settings, its leases, what the conditions of its appends are checked
//! against, and whether it is closed.
//!
//! It is kept in the notes of the topic's own files, in order with the records and as safely as they are. So there is no
//! second store that could disagree with the files, and a topic's folder is the whole topic. Each file begins with all of
//! the state; after that come changes, each of which states a value, so that to read one twice does no harm.
//!
//! Numbers are little-endian. A note begins with a byte that says what it is:
//!
//! | byte | note | then |
//! | --- | --- | --- |
//! | 1 | all of the state | what is in [`State::encode`] |
//! | 2 | a lease was created, or committed | name, next offset, time to live in milliseconds |
//! | 3 | a lease ended | name |
//! | 4 | the topic was closed | |
//! | 5 | the records of this frame were appended with a condition | flags, number of records, time in nanoseconds since the Unix epoch; a [producer](Producer), a sequence, if the flags say so |
//! | 6 | the topic was deleted, and its records are kept for others | |
//!
//! A name is its length (2 bytes) and its bytes. Several notes can lie in one frame, each with its length (4 bytes) in
//! front. The flags of note 5, from the lowest bit: there is a producer; there is a sequence; it closed the topic; it
//! completed the topic.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Durability;
use super::conditions::{Condition, Conditions, Performed, Producer, Progress};
use crate::log::{Overflow, Retention};

const ALL: u8 = 1;
const LEASE: u8 = 2;
const END_LEASE: u8 = 3;
const CLOSED: u8 = 4;
const PERFORMED: u8 = 5;
const HIDDEN: u8 = 6;

/// The state of one topic that is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) closed: bool,
    pub(crate) leases: BTreeMap<String, LeaseState>,
    /// What its creator wrote down about it, for itself.
    pub(crate) about: Vec<u8>,
    /// Whether all that its creator asked for is there. If not, nobody was told that the topic exists.
    pub(crate) complete: bool,
    /// It was deleted, and its records are kept for others.
    pub(crate) hidden: bool,
    pub(crate) conditions: Conditions,
}

/// The settings of a stored topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) segment_bytes: u64,
    pub(crate) memory_limit: u64,
    pub(crate) disk_limit: u64,
    pub(crate) retention: Retention,
    pub(crate) overflow: Overflow,
    pub(crate) durability: Durability,
}

/// A lease, as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseState {
    /// The first offset that is not committed.
    pub(crate) next: u64,
    pub(crate) ttl: Duration,
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Lease(String, LeaseState),
    EndLease(String),
    Closed,
    Performed(Performed),
    Hidden,
}

/// A note that is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a note cannot be read: another version of the program may have written it")]
pub(crate) struct BadNote;

impl State {
    /// The state of a topic that has just been created.
    pub(crate) fn new(name: String, settings: Settings) -> Self {
        Self {
            name,
            settings,
            closed: false,
            leases: BTreeMap::new(),
            about: Vec::new(),
            complete: true,
            hidden: false,
            conditions: Conditions::default(),
        }
    }

    /// The note with all of it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Settings { segment_bytes, memory_limit, disk_limit, retention, overflow, durability } =
            self.settings;
        let (kind, value) = match retention {
            Retention::Nothing => (0, 0),
            Retention::Records(records) => (1, records),
            Retention::Bytes(bytes) => (2, bytes),
            Retention::Age(age) => (3, u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            Retention::Everything => (4, 0),
        };
        let overflow = match overflow {
            Overflow::Block => 0,
            Overflow::Reject => 1,
            Overflow::Evict => 2,
        };
        let durability = match durability {
            Durability::Memory => 0,
            Durability::Written => 1,
            Durability::Synced => 2,
        };
        let mut note = vec![ALL];
        put_name(&mut note, &self.name);
        note.extend_from_slice(&[kind, overflow, durability, self.closed.into()]);
        for number in [value, segment_bytes, memory_limit, disk_limit, self.leases.len() as u64] {
            note.extend_from_slice(&number.to_le_bytes());
        }
        for (name, lease) in &self.leases {
            put_lease(&mut note, name, lease);
        }
        self.encode_rest(&mut note);
        framed(&note)
    }

    /// What most topics do not have. The files of earlier versions do not have this part either.
    fn encode_rest(&self, note: &mut Vec<u8>) {
        let Conditions { producers, sequence, closed_by, records } = &self.conditions;
        let is_plain = self.about.is_empty() && self.complete && !self.hidden;
        if is_plain && self.conditions == Conditions::default() {
            return;
        }
        note.extend_from_slice(&[self.complete.into(), self.hidden.into()]);
        note.extend_from_slice(&(self.about.len() as u64).to_le_bytes());
        note.extend_from_slice(&self.about);
        note.extend_from_slice(&records.to_le_bytes());
        note.extend_from_slice(&[sequence.is_some().into(), closed_by.is_some().into()]);
        sequence.iter().for_each(|sequence| put_name(note, sequence));
        closed_by.iter().for_each(|producer| put_producer(note, producer));
        note.extend_from_slice(&(producers.len() as u64).to_le_bytes());
        for (id, Progress { epoch, seq, time }) in producers {
            put_name(note, id);
            for number in [epoch, seq, time] {
                note.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    fn decode_rest(&mut self, input: &mut &[u8]) -> Option<()> {
        if input.is_empty() {
            return Some(());
        }
        let [complete, hidden] = *take(input)?;
        (self.complete, self.hidden) = (complete != 0, hidden != 0);
        let about = usize::try_from(take_u64(input)?).ok()?;
        let (about, rest) = input.split_at_checked(about)?;
        (self.about, *input) = (about.to_vec(), rest);
        let conditions = &mut self.conditions;
        conditions.records = take_u64(input)?;
        let [has_sequence, was_closed_by] = *take(input)?;
        if has_sequence != 0 {
            conditions.sequence = Some(take_name(input)?);
        }
        if was_closed_by != 0 {
            conditions.closed_by = Some(take_producer(input)?);
        }
        for _ in 0..take_u64(input)? {
            let id = take_name(input)?;
            let [epoch, seq, time] = [(); 3].map(|()| take_u64(input));
            let progress = Progress { epoch: epoch?, seq: seq?, time: time? };
            conditions.producers.insert(id, progress);
        }
        Some(())
    }

    fn decode(mut note: &[u8]) -> Option<State> {
        let input = &mut note;
        let name = take_name(input)?;
        let [kind, overflow, durability, closed] = *take(input)?;
        let [value, segment_bytes, memory_limit, disk_limit, leases] =
            [(); 5].map(|()| take_u64(input));
        let retention = match (kind, value?) {
            (0, _) => Retention::Nothing,
            (1, records) => Retention::Records(records),
            (2, bytes) => Retention::Bytes(bytes),
            (3, nanos) => Retention::Age(Duration::from_nanos(nanos)),
            (4, _) => Retention::Everything,
            _ => return None,
        };
        let overflow = match overflow {
            0 => Overflow::Block,
            1 => Overflow::Reject,
            2 => Overflow::Evict,
            _ => return None,
        };
        let durability = match durability {
            0 => Durability::Memory,
            1 => Durability::Written,
            2 => Durability::Synced,
            _ => return None,
        };
        let settings = Settings {
            segment_bytes: segment_bytes?,
            memory_limit: memory_limit?,
            disk_limit: disk_limit?,
            retention,
            overflow,
            durability,
        };
        let mut state = State { closed: closed != 0, ..State::new(name, settings) };
        for _ in 0..leases? {
            let (name, lease) = take_lease(input)?;
            state.leases.insert(name, lease);
        }
        state.decode_rest(input)?;
        input.is_empty().then_some(state)
    }

    /// Whether a frame's notes begin with all of a state.
    pub(crate) fn is_all(notes: &[u8]) -> bool {
        notes.get(4) == Some(&ALL)
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Lease(name, lease) => {
                self.leases.insert(name.clone(), *lease);
            }
            Change::EndLease(name) => {
                self.leases.remove(name);
            }
            Change::Closed => self.closed = true,
            Change::Performed(performed) => {
                self.conditions.note(performed);
                self.closed |= performed.condition.closes;
                self.complete |= performed.condition.completes;
            }
            Change::Hidden => self.hidden = true,
        }
    }

    /// Reads a frame's notes, and changes `state` by them.
    pub(crate) fn read(state: &mut Option<State>, mut notes: &[u8]) -> Result<(), BadNote> {
        while !notes.is_empty() {
            let length = u32::from_le_bytes(*take(&mut notes).ok_or(BadNote)?) as usize;
            let (note, rest) = notes.split_at_checked(length).ok_or(BadNote)?;
            notes = rest;
            match note.split_first() {
                Some((&ALL, note)) => *state = Some(State::decode(note).ok_or(BadNote)?),
                Some((kind, note)) => {
                    let change = Change::decode(*kind, note).ok_or(BadNote)?;
                    state.as_mut().ok_or(BadNote)?.apply(&change);
                }
                None => return Err(BadNote),
            }
        }
        Ok(())
    }
}

impl Change {
    /// The note for this change.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut note = Vec::new();
        match self {
            Change::Lease(name, lease) => {
                note.push(LEASE);
                put_lease(&mut note, name, lease);
            }
            Change::EndLease(name) => {
                note.push(END_LEASE);
                put_name(&mut note, name);
            }
            Change::Closed => note.push(CLOSED),
            Change::Performed(performed) => put_performed(&mut note, performed),
            Change::Hidden => note.push(HIDDEN),
        }
        framed(&note)
    }

    fn decode(kind: u8, mut note: &[u8]) -> Option<Change> {
        let input = &mut note;
        let change = match kind {
            LEASE => take_lease(input).map(|(name, lease)| Change::Lease(name, lease))?,
            END_LEASE => Change::EndLease(take_name(input)?),
            CLOSED => Change::Closed,
            PERFORMED => Change::Performed(take_performed(input)?),
            HIDDEN => Change::Hidden,
            _ => return None,
        };
        input.is_empty().then_some(change)
    }
}

fn framed(note: &[u8]) -> Vec<u8> {
    let length = u32::try_from(note.len()).expect("a topic has not that many leases");
    [&length.to_le_bytes(), note].concat()
}

fn put_name(note: &mut Vec<u8>, name: &str) {
    let length = u16::try_from(name.len()).expect("names were checked");
    note.extend_from_slice(&length.to_le_bytes());
    note.extend_from_slice(name.as_bytes());
}

fn put_lease(note: &mut Vec<u8>, name: &str, lease: &LeaseState) {
    put_name(note, name);
    let ttl = u64::try_from(lease.ttl.as_millis()).unwrap_or(u64::MAX);
    note.extend_from_slice(&lease.next.to_le_bytes());
    note.extend_from_slice(&ttl.to_le_bytes());
}

fn put_performed(note: &mut Vec<u8>, performed: &Performed) {
    let Performed { condition, records, time } = performed;
    let Condition { producer, sequence, closes, completes, next: _, has_type: _ } = condition;
    let flags = [producer.is_some(), sequence.is_some(), *closes, *completes];
    let flags = flags.iter().rev().fold(0, |all, flag| all << 1 | u8::from(*flag));
    note.extend_from_slice(&[PERFORMED, flags]);
    note.extend_from_slice(&records.to_le_bytes());
    note.extend_from_slice(&time.to_le_bytes());
    producer.iter().for_each(|producer| put_producer(note, producer));
    sequence.iter().for_each(|sequence| put_name(note, sequence));
}

fn put_producer(note: &mut Vec<u8>, producer: &Producer) {
    put_name(note, &producer.id);
    note.extend_from_slice(&producer.epoch.to_le_bytes());
    note.extend_from_slice(&producer.seq.to_le_bytes());
}

fn take<'a, const N: usize>(input: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(first)
}

fn take_u64(input: &mut &[u8]) -> Option<u64> {
    take(input).map(|bytes| u64::from_le_bytes(*bytes))
}

fn take_name(input: &mut &[u8]) -> Option<String> {
    let length = u16::from_le_bytes(*take(input)?) as usize;
    let (name, rest) = input.split_at_checked(length)?;
    *input = rest;
    String::from_utf8(name.to_vec()).ok()
}

fn take_performed(input: &mut &[u8]) -> Option<Performed> {
    let [flags] = *take(input)?;
    let has = |bit: u8| flags & 1 << bit != 0;
    let (records, time) = (take_u64(input)?, take_u64(input)?);
    let producer = if has(0) { Some(take_producer(input)?) } else { None };
    let sequence = if has(1) { Some(take_name(input)?) } else { None };
    let condition =
        Condition { producer, sequence, closes: has(2), completes: has(3), ..Condition::default() };
    (flags < 1 << 4).then_some(Performed { condition, records, time })
}

fn take_producer(input: &mut &[u8]) -> Option<Producer> {
    let id = take_name(input)?;
    let (epoch, seq) = (take_u64(input)?, take_u64(input)?);
    Some(Producer { id, epoch, seq })
}

fn take_lease(input: &mut &[u8]) -> Option<(String, LeaseState)> {
    let name = take_name(input)?;
    let next = take_u64(input)?;
    let ttl = Duration::from_millis(take_u64(input)?);
    Some((name, LeaseState { next, ttl }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let settings = Settings {
            segment_bytes: 1,
            memory_limit: 2,
            disk_limit: 3,
            retention: Retention::Age(Duration::from_millis(4)),
            overflow: Overflow::Evict,
            durability: Durability::Written,
        };
        let lease = LeaseState { next: 7, ttl: Duration::from_secs(9) };
        let leases = [("a".to_owned(), lease), (String::new(), lease)].into();
        State { closed: true, leases, ..State::new("töpic".into(), settings) }
    }

    /// With all that most topics do not have.
    fn stream() -> State {
        let producer = |seq| Producer { id: "p".into(), epoch: 3, seq };
        let mut conditions = Conditions::default();
        for (seq, sequence) in [(0, None), (1, Some("s".to_owned()))] {
            let condition = Condition {
                producer: Some(producer(seq)),
                sequence,
                closes: seq == 1,
                completes: true,
                ..Condition::default()
            };
            conditions.note(&Performed { condition, records: 2, time: 5 });
        }
        State { about: b"about".to_vec(), complete: false, hidden: true, conditions, ..state() }
    }

    #[test]
    fn what_most_topics_do_not_have_reads_back() {
        let plain = state().encode();
        for whole in
            [stream(), State { complete: false, ..state() }, State { hidden: true, ..state() }]
        {
            let notes = whole.encode();
            assert!(notes.len() > plain.len());
            let mut read = None;
            State::read(&mut read, &notes).unwrap();
            assert_eq!(read, Some(whole));
        }
        for end in 1..stream().encode().len() {
            let notes = &stream().encode()[..end];
            assert_eq!(State::read(&mut None, notes), Err(BadNote), "{end}");
        }
    }

    #[test]
    fn a_state_and_its_changes_read_back() {
        let lease = LeaseState { next: 8, ttl: Duration::from_secs(1) };
        let changes = [
            Change::Lease("b".into(), lease),
            Change::Lease("a".into(), lease),
            Change::EndLease(String::new()),
            Change::Closed,
            Change::Hidden,
        ];
        let mut expected = State { closed: false, ..state() };
        let mut notes = expected.encode();
        assert!(State::is_all(&notes));
        for change in &changes {
            expected.apply(change);
            notes.extend(change.encode());
            assert!(!State::is_all(&change.encode()));
        }
        let mut read = None;
        State::read(&mut read, &notes).unwrap();
        assert_eq!(read, Some(expected));
        // Read twice, nothing changes.
        let before = read.clone();
        for change in &changes {
            State::read(&mut read, &change.encode()).unwrap();
        }
        assert_eq!(read, before);
    }

    #[test]
    fn an_append_with_a_condition_is_noted() {
        let producer = Some(Producer { id: "p".into(), epoch: 1, seq: 0 });
        let sequence = Some("s".into());
        let (closes, completes) = (true, true);
        let all = Condition { producer, sequence, closes, completes, ..Condition::default() };
        let some = [
            Condition::default(),
            Condition { sequence: None, ..all.clone() },
            Condition { producer: None, closes: false, ..all.clone() },
            all,
        ];
        for condition in some {
            let change = Change::Performed(Performed { condition, records: 7, time: 8 });
            let begun = State { closed: false, complete: false, ..state() };
            let mut expected = begun.clone();
            expected.apply(&change);
            let mut read = Some(begun);
            State::read(&mut read, &change.encode()).unwrap();
            assert_eq!(read.as_ref(), Some(&expected));
            let Change::Performed(performed) = change else { unreachable!() };
            assert_eq!(expected.closed, performed.condition.closes);
            assert_eq!(expected.complete, performed.condition.completes);
            assert_eq!(expected.conditions.records, 7);
        }
    }

    #[test]
    fn every_word_reads_back() {
        let retentions = [
            Retention::Nothing,
            Retention::Records(1),
            Retention::Bytes(2),
            Retention::Age(Duration::from_nanos(3)),
            Retention::Everything,
        ];
        let overflows = [Overflow::Block, Overflow::Reject, Overflow::Evict];
        let words = [Durability::Memory, Durability::Written, Durability::Synced];
        for (at, retention) in retentions.into_iter().enumerate() {
            let (overflow, durability) = (overflows[at % 3], words[at % 3]);
            let settings = Settings { retention, overflow, durability, ..state().settings };
            let state = State { settings, ..state() };
            let mut read = None;
            State::read(&mut read, &state.encode()).unwrap();
            assert_eq!(read, Some(state));
        }
    }

    #[test]
    fn what_is_cut_or_unknown_is_refused() {
        let notes = state().encode();
        for end in 1..notes.len() {
            assert_eq!(State::read(&mut None, &notes[..end]), Err(BadNote), "{end}");
        }
        assert_eq!(State::read(&mut None, &Change::Closed.encode()), Err(BadNote));
        let unknown_flag = [&[PERFORMED, 16][..], &[0; 16]].concat();
        for note in [&[][..], &[9], &[CLOSED, 1], &[LEASE, 1, 0], &unknown_flag] {
            assert_eq!(State::read(&mut Some(state()), &framed(note)), Err(BadNote), "{note:?}");
        }
    }
}
