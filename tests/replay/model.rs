//! The naive model: everything in plain lists, every question answered by looking at all of them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use psa::{Overflow, Retention, Start};

/// A segment: its records, and who stands in it.
#[derive(Debug)]
struct Segment {
    number: u64,
    base: u64,
    records: u64,
    capacity: u64,
    bytes: u64,
    standing: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.base + self.records
    }
}

/// Where somebody stands: at an offset, in a segment. The segment may be gone, by eviction.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    segment: u64,
}

/// Why nobody can stand there.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    Collected,
    Future,
}

/// What a read brings.
#[derive(Debug)]
pub(crate) enum Read {
    Records(Range<u64>),
    Nothing,
    End,
    Missed(Range<u64>),
}

pub(crate) struct Model {
    capacity: u64,
    retention: Retention,
    limit: Option<(u64, Overflow)>,
    bytes_for: fn(u64) -> u64,
    chain: VecDeque<Segment>,
    leases: BTreeMap<&'static str, Place>,
    closed: bool,
}

impl Model {
    pub(crate) fn new(
        capacity: u64,
        retention: Retention,
        limit: Option<(u64, Overflow)>,
        bytes_for: fn(u64) -> u64,
    ) -> Self {
        let bytes = bytes_for(capacity);
        let first = Segment { number: 0, base: 0, records: 0, capacity, bytes, standing: 0 };
        Model {
            capacity,
            retention,
            limit,
            bytes_for,
            chain: VecDeque::from([first]),
            leases: BTreeMap::new(),
            closed: false,
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.chain[0].base
    }

    pub(crate) fn next(&self) -> u64 {
        self.open().end()
    }

    pub(crate) fn segments(&self) -> u64 {
        self.chain.len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.chain.iter().map(|segment| segment.bytes).sum()
    }

    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    fn open(&self) -> &Segment {
        self.chain.back().expect("a chain is never empty")
    }

    fn by_number(&mut self, number: u64) -> Option<&mut Segment> {
        self.chain.iter_mut().find(|segment| segment.number == number)
    }

    /// Appends; false if that is refused.
    pub(crate) fn append(&mut self, records: u64) -> bool {
        if records == 0 {
            return true;
        }
        let open = self.open();
        let fits = !self.closed && open.records + records <= open.capacity;
        if !fits && !self.roll(records) {
            return false;
        }
        self.chain.back_mut().expect("a chain is never empty").records += records;
        true
    }

    /// A new segment behind the open one, if there is room for it.
    fn roll(&mut self, records: u64) -> bool {
        if self.closed {
            return false;
        }
        let capacity = self.capacity.max(records);
        let bytes = (self.bytes_for)(capacity);
        if let Some((limit, overflow)) = self.limit {
            if capacity > self.capacity && bytes > limit / 2 {
                return false;
            }
            while self.bytes() + bytes > limit {
                let goes = match overflow {
                    Overflow::Evict => true,
                    Overflow::Block => self.chain[0].standing == 0,
                    _ => false,
                };
                if !goes || self.chain.len() == 1 {
                    return false;
                }
                self.chain.pop_front();
            }
        }
        let (number, base) = (self.open().number + 1, self.next());
        self.chain.push_back(Segment { number, base, records: 0, capacity, bytes, standing: 0 });
        self.collect();
        true
    }

    /// Drops what nobody can ask for any more.
    fn collect(&mut self) {
        while self.chain.len() > 1 && self.chain[0].standing == 0 {
            let sealed_behind = self.open().base - self.chain[1].base;
            let passed = match self.retention {
                Retention::Nothing => true,
                Retention::Records(keep) => sealed_behind >= keep,
                Retention::Bytes(keep) => sealed_behind * 8 >= keep,
                _ => false,
            };
            if !passed {
                break;
            }
            self.chain.pop_front();
        }
    }

    fn stand(&mut self, offset: u64) -> Place {
        // The last segment that begins at or before the offset.
        let segment = self.chain.iter_mut().rev().find(|segment| segment.base <= offset);
        let segment = segment.expect("the offset is kept");
        segment.standing += 1;
        Place { offset, segment: segment.number }
    }

    pub(crate) fn attach(&mut self, start: Start) -> Result<Place, Refusal> {
        let offset = match start {
            Start::Earliest => {
                let head = &mut self.chain[0];
                head.standing += 1;
                return Ok(Place { offset: head.base, segment: head.number });
            }
            Start::Next => self.next(),
            Start::At(offset) => offset,
            Start::Last(records) => self.next().saturating_sub(records).max(self.first()),
            other => unreachable!("not modelled: {other:?}"),
        };
        if offset < self.first() {
            Err(Refusal::Collected)
        } else if offset > self.next() {
            Err(Refusal::Future)
        } else {
            Ok(self.stand(offset))
        }
    }

    pub(crate) fn leave(&mut self, place: &Place) {
        if let Some(segment) = self.by_number(place.segment) {
            segment.standing -= 1;
            self.collect();
        }
    }

    /// Reads up to `records` records of one segment and moves behind them.
    pub(crate) fn read(&mut self, place: &mut Place, records: u64) -> Read {
        if self.by_number(place.segment).is_none() {
            let first = self.first();
            if place.offset < first {
                let missed = place.offset..first;
                let head = &mut self.chain[0];
                head.standing += 1;
                *place = Place { offset: first, segment: head.number };
                return Read::Missed(missed);
            }
            *place = self.stand(place.offset);
        }
        self.cross(place);
        let (closed, last) = (self.closed, self.open().number);
        let segment = self.by_number(place.segment).expect("found above");
        let end = segment.end().min(place.offset + records);
        if end == place.offset {
            return if closed && segment.number == last { Read::End } else { Read::Nothing };
        }
        let read = place.offset..end;
        place.offset = end;
        self.cross(place);
        Read::Records(read)
    }

    /// Whoever has read a segment to its end stands in the next one, if there is one.
    fn cross(&mut self, place: &mut Place) {
        loop {
            let segment = self.by_number(place.segment).expect("not evicted");
            let (number, at_end) = (segment.number, segment.end() == place.offset);
            if !at_end || self.by_number(number + 1).is_none() {
                return;
            }
            self.by_number(number + 1).expect("asked above").standing += 1;
            self.by_number(number).expect("asked above").standing -= 1;
            place.segment = number + 1;
            self.collect();
        }
    }

    pub(crate) fn take_lease(
        &mut self,
        name: &'static str,
        start: Start,
    ) -> Result<Place, Refusal> {
        if !self.leases.contains_key(name) {
            let committed = self.attach(start)?;
            self.leases.insert(name, committed);
        }
        let committed = self.leases[name].clone();
        Ok(self.ahead(&committed, committed.offset))
    }

    /// A place further on; a lost one if the offset was evicted.
    fn ahead(&mut self, from: &Place, offset: u64) -> Place {
        let lost = Place { offset, segment: from.segment };
        self.attach(Start::At(offset)).unwrap_or(lost)
    }

    pub(crate) fn commit(&mut self, name: &str, offset: u64) {
        let (name, old) = self.lease(name);
        if offset >= old.offset {
            let new = self.ahead(&old, offset + 1);
            self.leases.insert(name, new);
            self.leave(&old);
        }
    }

    fn lease(&self, name: &str) -> (&'static str, Place) {
        let (name, place) = self.leases.get_key_value(name).expect("a held lease is in the table");
        (name, place.clone())
    }

    pub(crate) fn committed(&self, name: &str) -> Option<u64> {
        self.leases.get(name).map(|place| place.offset)
    }

    pub(crate) fn end_lease(&mut self, name: &str) -> bool {
        let Some(place) = self.leases.remove(name) else { return false };
        self.leave(&place);
        true
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}
