//! The naive model: everything in plain lists, every question answered by looking at all of them.

mod leases;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use leases::Lease;

use super::books::Books;
use super::kind::Size;
use super::log::{Overflow, Retention};

/// As many segments as can go.
const ALL: usize = usize::MAX;
/// As many as a publisher collects at once, where others may have let go of any number.
const STEP: usize = 2;

/// A segment: its records, and who stands in it.
#[derive(Debug)]
struct Segment {
    number: u64,
    base: u64,
    room: Size,
    bytes: u64,
    standing: u64,
    /// Slots of its records.
    slots: u64,
    /// When it was linked.
    linked: Duration,
    /// When its records were appended.
    appended: Vec<Duration>,
}

impl Segment {
    fn records(&self) -> u64 {
        self.appended.len() as u64
    }

    fn end(&self) -> u64 {
        self.base + self.records()
    }

    fn has_room(&self, more: Size) -> bool {
        self.records() + more.records <= self.room.records
            && self.slots + more.slots <= self.room.slots
    }
}

/// Where somebody stands: at an offset, in a segment. The segment may be gone, by eviction.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    segment: u64,
}

/// Where somebody begins to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    Earliest,
    Next,
    At(u64),
    Last(u64),
    /// At the first record that was appended when so much time had passed, or later.
    Since(Duration),
}

/// Why nobody can stand there.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// It is gone; what is left begins here.
    Collected(u64),
    /// It has not been dealt out; the next one will be this.
    Future(u64),
}

/// What a read brings.
#[derive(Debug)]
pub(crate) enum Read {
    Records(Range<u64>),
    Nothing,
    End,
    Missed(Range<u64>),
}

/// How a log is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) retention: Retention,
    pub(crate) overflow: Overflow,
    /// The most memory, in segments.
    pub(crate) limit: Option<u64>,
    /// The most segments that are kept for later.
    pub(crate) pool: u64,
}

/// What the records of a log are to the model.
pub(crate) struct Sizes {
    /// What a segment has room for.
    pub(crate) room: Size,
    /// Bytes of a slot.
    pub(crate) slot: u64,
    /// What a record counts at least where bytes are counted.
    pub(crate) least: u64,
    /// Bytes of a segment with this room.
    pub(crate) segment: fn(Size) -> u64,
}

pub(crate) struct Model {
    sizes: Sizes,
    retention: Retention,
    overflow: Overflow,
    books: Books,
    chain: VecDeque<Segment>,
    leases: BTreeMap<&'static str, Lease>,
    /// Whether leases that expired at the limit may have left more than a publisher collects at once.
    has_backlog: bool,
    /// What has passed since the log was made.
    now: Duration,
    closed: bool,
}

impl Model {
    /// The model of a fresh log, whose first segment stands in `books`.
    pub(crate) fn new(sizes: Sizes, rules: Rules, books: Books) -> Self {
        let first = Segment {
            number: 0,
            base: 0,
            room: sizes.room,
            bytes: books.live(),
            standing: 0,
            slots: 0,
            linked: Duration::ZERO,
            appended: Vec::new(),
        };
        Model {
            sizes,
            retention: rules.retention,
            overflow: rules.overflow,
            books,
            chain: VecDeque::from([first]),
            leases: BTreeMap::new(),
            has_backlog: false,
            now: Duration::ZERO,
            closed: false,
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.chain[0].base
    }

    pub(crate) fn next(&self) -> u64 {
        self.open().end()
    }

    /// Whether a segment has ever gone.
    pub(crate) fn has_collected(&self) -> bool {
        self.chain[0].number > 0
    }

    pub(crate) fn segments(&self) -> u64 {
        self.chain.len() as u64
    }

    pub(crate) fn books(&self) -> &Books {
        &self.books
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// What only the passing of time makes necessary; how long until there is more of it.
    pub(crate) fn maintain(&mut self) -> Option<Duration> {
        self.expire(ALL);
        self.collect(ALL);
        let leases = self.leases.values().filter_map(|lease| lease.until);
        let by_age = match (self.retention, self.chain.get(1)) {
            (Retention::Age(keep), Some(second)) => Some(second.linked + keep),
            _ => None,
        };
        // What is due is collected, unless somebody stands in it; then there is nothing to do until they leave.
        let by_age = by_age.filter(|due| *due > self.now);
        leases.chain(by_age).min().map(|due| due.saturating_sub(self.now))
    }

    fn open(&self) -> &Segment {
        self.chain.back().expect("a chain is never empty")
    }

    fn by_number(&mut self, number: u64) -> Option<&mut Segment> {
        self.chain.iter_mut().find(|segment| segment.number == number)
    }

    /// Appends; false if that is refused.
    pub(crate) fn append(&mut self, size: Size) -> bool {
        if size.records == 0 {
            return true;
        }
        let fits = !self.closed && self.open().has_room(size);
        if !fits && !self.roll(size) {
            return false;
        }
        let times = std::iter::repeat_n(self.now, size.records as usize);
        let open = self.chain.back_mut().expect("a chain is never empty");
        open.appended.extend(times);
        open.slots += size.slots;
        true
    }

    /// Whether a publisher collects a little at a time.
    pub(crate) fn collects_little(&self) -> bool {
        self.has_backlog || self.overflow == Overflow::Evict && self.books.has_limit()
    }

    /// A new segment after the open one, if there is room for it.
    fn roll(&mut self, size: Size) -> bool {
        if self.closed {
            return false;
        }
        let standard = self.sizes.room;
        let fits = size.records <= standard.records && size.slots <= standard.slots;
        // What does not fit gets a segment to its measure.
        let room = if fits { standard } else { size };
        let bytes = (self.sizes.segment)(room);
        if !fits && bytes > self.books.largest() {
            return false;
        }
        while !self.books.obtain(bytes, fits) {
            // What time alone lets go of goes first.
            let head = self.chain[0].number;
            self.expire(STEP);
            self.collect(STEP);
            if self.chain[0].number != head {
                continue;
            }
            let goes = match self.overflow {
                Overflow::Evict => true,
                Overflow::Block => self.chain[0].standing == 0,
                _ => false,
            };
            if !goes || self.chain.len() == 1 {
                return false;
            }
            self.unlink();
            self.collect(if self.overflow == Overflow::Evict { 1 } else { STEP });
        }
        self.chain.push_back(Segment {
            number: self.open().number + 1,
            base: self.next(),
            room,
            bytes,
            standing: 0,
            slots: 0,
            linked: self.now,
            appended: Vec::new(),
        });
        if !self.collects_little() {
            self.collect(ALL);
            return true;
        }
        let head = self.chain[0].number;
        self.collect(STEP);
        if self.chain[0].number < head + STEP as u64 {
            self.has_backlog = false;
        }
        true
    }

    /// The oldest segment goes.
    fn unlink(&mut self) {
        let gone = self.chain.pop_front().expect("a chain is never empty");
        self.books.take_back(gone.bytes, gone.room == self.sizes.room);
    }

    /// Drops what nobody can ask for any more, from the oldest segment on. To be called exactly where
    /// the log collects: with retention by age, a call too many would let go of more.
    fn collect(&mut self, most: usize) {
        for _ in 0..most {
            if self.chain.len() == 1 || self.chain[0].standing > 0 {
                break;
            }
            let sealed_behind = self.open().base - self.chain[1].base;
            let slots_behind = || {
                self.chain.range(1..self.chain.len() - 1).map(|segment| segment.slots).sum::<u64>()
            };
            let passed = match self.retention {
                Retention::Nothing => true,
                Retention::Records(keep) => sealed_behind >= keep,
                Retention::Bytes(keep) => {
                    let payload = slots_behind() * self.sizes.slot;
                    payload.max(sealed_behind * self.sizes.least) >= keep
                }
                Retention::Age(keep) => self.now - self.chain[1].linked >= keep,
                _ => false,
            };
            if !passed {
                break;
            }
            self.unlink();
        }
    }

    /// Comes to stand in the last segment that begins at or before the offset. Whoever does so has
    /// stood at the head before, to look for it.
    fn stand(&mut self, offset: u64) -> Place {
        let segment = self.chain.iter_mut().rev().find(|segment| segment.base <= offset);
        let segment = segment.expect("the offset is kept");
        segment.standing += 1;
        let place = Place { offset, segment: segment.number };
        self.collect(ALL);
        place
    }

    /// See [`Begin::Since`].
    fn stand_since(&mut self, time: Duration) -> Place {
        let begun = |segment: &&mut Segment| segment.linked < time;
        let found = match self.chain.iter_mut().rev().find(begun) {
            Some(segment) => segment,
            None => &mut self.chain[0],
        };
        found.standing += 1;
        let before = found.appended.iter().filter(|appended| **appended < time).count() as u64;
        let place = Place { offset: found.base + before, segment: found.number };
        self.collect(ALL);
        place
    }

    pub(crate) fn attach(&mut self, begin: Begin) -> Result<Place, Refusal> {
        let offset = match begin {
            Begin::Earliest => {
                let first = self.first();
                return Ok(self.at_head(first));
            }
            Begin::Next => {
                let offset = self.next();
                let open = self.chain.back_mut().expect("a chain is never empty");
                open.standing += 1;
                return Ok(Place { offset, segment: open.number });
            }
            Begin::At(offset) => offset,
            Begin::Last(records) => self.next().saturating_sub(records).max(self.first()),
            Begin::Since(time) => return Ok(self.stand_since(time)),
        };
        let (first, next) = (self.first(), self.next());
        if (first..=next).contains(&offset) {
            return Ok(self.stand(offset));
        }
        // It has stood at the head to look.
        self.collect(ALL);
        Err(if offset < first { Refusal::Collected(first) } else { Refusal::Future(next) })
    }

    /// Comes to stand in the oldest segment, with this offset or what was missed since.
    fn at_head(&mut self, offset: u64) -> Place {
        let head = &mut self.chain[0];
        head.standing += 1;
        Place { offset, segment: head.number }
    }

    pub(crate) fn leave(&mut self, place: &Place) {
        self.leave_collecting(place, ALL);
    }

    fn leave_collecting(&mut self, place: &Place, most: usize) {
        if let Some(segment) = self.by_number(place.segment) {
            segment.standing -= 1;
            if segment.standing > 0 {
                return;
            }
        }
        // Also if it was evicted: what only it held back was left to others.
        self.collect(most);
    }

    /// Reads up to `records` records of one segment and moves past them.
    pub(crate) fn read(&mut self, place: &mut Place, records: u64) -> Read {
        let read = self.look(place, records);
        if let Read::Records(read) = &read {
            place.offset = read.end;
            self.cross(place);
        }
        read
    }

    /// Looks, and moves where it stands if it has nothing to read there.
    fn look(&mut self, place: &mut Place, records: u64) -> Read {
        if self.by_number(place.segment).is_none() {
            *place = self.at_head(place.offset);
        }
        let base = self.by_number(place.segment).expect("it stands there").base;
        if place.offset < base {
            let missed = place.offset..base;
            place.offset = base;
            return Read::Missed(missed);
        }
        self.cross(place);
        let (closed, last) = (self.closed, self.open().number);
        let segment = self.by_number(place.segment).expect("found above");
        let end = segment.end().min(place.offset + records);
        if end == place.offset {
            return if closed && segment.number == last { Read::End } else { Read::Nothing };
        }
        Read::Records(place.offset..end)
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
            place.segment = number + 1;
            self.leave(&Place { offset: place.offset, segment: number });
        }
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}
