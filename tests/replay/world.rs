//! The log and the model side by side: what each step of a program does to both, and what has to be
//! equal afterwards.

use std::time::Duration;

use psa::{
    Builder, Cursor, Lease, LeaseOptions, Limit, Log, Overflow, ReadError, Retention, Start,
    SubscribeError,
};

use super::model::{Model, Place, Read, Refusal};

const CAPACITY: u64 = 4;
const NAMES: [&str; 2] = ["a", "b"];

/// One step of a program.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Append { records: u64 },
    Subscribe(From),
    Read { who: usize, records: usize },
    Seek { who: usize, to: From },
    Drop { who: usize },
    Resume { who: usize },
    Take { name: usize, from: From },
    ReadLease { who: usize, records: usize },
    Commit { who: usize, behind: u64 },
    Detach { who: usize },
    Release { who: usize },
    End { name: usize },
    Close,
}

/// Where somebody starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Earliest,
    Next,
    /// Around the kept records: this far before or behind the first one.
    At(i64),
    Last(u64),
}

/// The log, those who read it, and the model of all that.
pub(crate) struct World {
    log: Log<u64>,
    model: Model,
    cursors: Vec<(Cursor<u64>, Place)>,
    leases: Vec<(Lease<u64>, Place)>,
}

fn builder() -> Builder<u64> {
    Log::builder().segment_records(CAPACITY as usize).stamp_every(1 << 20).pool_segments(0)
}

/// Bytes of a segment for `records` records, learnt from logs rather than from the formula.
fn segment_bytes(records: u64) -> u64 {
    builder().segment_records(records as usize).build().unwrap().stats().live_bytes
}

impl World {
    pub(crate) fn new(retention: Retention, limit: Option<(u64, Overflow)>) -> Self {
        let mut builder = builder().retention(retention);
        let segment = segment_bytes(CAPACITY);
        if let Some((segments, overflow)) = limit {
            builder = builder.memory_limit(segments * segment).overflow(overflow);
        }
        let limit = limit.map(|(segments, overflow)| (segments * segment, overflow));
        let model = Model::new(CAPACITY, retention, limit, segment_bytes);
        World { log: builder.build().unwrap(), model, cursors: Vec::new(), leases: Vec::new() }
    }

    fn start(&self, from: From) -> Start {
        match from {
            From::Earliest => Start::Earliest,
            From::Next => Start::Next,
            From::At(from_first) => Start::At(self.model.first().saturating_add_signed(from_first)),
            From::Last(records) => Start::Last(records),
        }
    }

    fn check_start(
        &self,
        start: Start,
        real: Result<u64, SubscribeError>,
        modelled: &Result<Place, Refusal>,
    ) {
        match (real, modelled) {
            (Ok(offset), Ok(place)) => assert_eq!(offset, place.offset, "{start:?}"),
            (Err(SubscribeError::Collected { first, .. }), Err(Refusal::Collected)) => {
                assert_eq!(first, self.model.first());
            }
            (Err(SubscribeError::Future { next, .. }), Err(Refusal::Future)) => {
                assert_eq!(next, self.model.next());
            }
            (real, modelled) => panic!("{start:?}: {real:?}, but the model says {modelled:?}"),
        }
    }

    pub(crate) fn step(&mut self, op: Op) {
        match op {
            Op::Append { records } => {
                let next = self.model.next();
                let real = self.log.try_append_batch(next..next + records);
                let modelled = self.model.append(records);
                assert_eq!(real.is_ok(), modelled, "append of {records}");
                if let Ok(offsets) = real {
                    assert_eq!(offsets, next..next + records);
                }
            }
            Op::Subscribe(from) => {
                let start = self.start(from);
                let real = self.log.subscribe(start);
                let modelled = self.model.attach(start);
                self.check_start(
                    start,
                    real.as_ref().map(Cursor::offset).map_err(|e| *e),
                    &modelled,
                );
                if let (Ok(cursor), Ok(place)) = (real, modelled) {
                    self.cursors.push((cursor, place));
                }
            }
            Op::Read { who, records } => {
                if let Some((cursor, place)) = pick(&mut self.cursors, who) {
                    check_read(cursor, &self.model.read(place, records as u64), records);
                    assert_eq!(cursor.offset(), place.offset);
                    let lag = cursor.lag();
                    assert_eq!(lag.records, self.model.next() - place.offset);
                }
            }
            Op::Seek { who, to } => {
                let start = self.start(to);
                if self.cursors.is_empty() {
                    return;
                }
                let who = who % self.cursors.len();
                let real = self.cursors[who].0.seek(start);
                let modelled = self.model.attach(start);
                let (cursor, place) = &mut self.cursors[who];
                let offset = real.map(|()| cursor.offset());
                if let Ok(new) = &modelled {
                    let old = std::mem::replace(place, new.clone());
                    self.model.leave(&old);
                }
                self.check_start(start, offset, &modelled);
            }
            Op::Drop { who } => {
                if let Some((cursor, place)) = take(&mut self.cursors, who) {
                    drop(cursor);
                    self.model.leave(&place);
                }
            }
            Op::Resume { who } => {
                if let Some((cursor, place)) = take(&mut self.cursors, who) {
                    let Some(offset) = cursor.offset().checked_sub(1) else {
                        self.cursors.push((cursor, place));
                        return;
                    };
                    let epoch = cursor.epoch();
                    drop(cursor);
                    self.model.leave(&place);
                    let start = Start::After { epoch, offset };
                    let real = self.log.subscribe(start);
                    let modelled = self.model.attach(Start::At(place.offset));
                    let offset = real.as_ref().map(Cursor::offset).map_err(|e| *e);
                    self.check_start(start, offset, &modelled);
                    if let (Ok(cursor), Ok(place)) = (real, modelled) {
                        self.cursors.push((cursor, place));
                    }
                }
            }
            Op::Take { name, from } => {
                let start = self.start(from);
                let options =
                    LeaseOptions { ttl: Duration::from_secs(86_400), start, take_over: true };
                let real = self.log.lease(NAMES[name], options);
                let modelled = self.model.take_lease(NAMES[name], start);
                assert_eq!(real.is_ok(), modelled.is_ok(), "{start:?}: {real:?}");
                if let (Ok(lease), Ok(place)) = (real, modelled) {
                    self.leases.push((lease, place));
                }
            }
            Op::ReadLease { who, records } => {
                if let Some((lease, place)) = pick(&mut self.leases, who) {
                    if lease.committed().is_none() {
                        assert_eq!(lease.try_next(|_| ()), Err(ReadError::TakenOver));
                    } else {
                        check_read(lease, &self.model.read(place, records as u64), records);
                        assert_eq!(lease.offset(), place.offset);
                    }
                }
            }
            Op::Commit { who, behind } => {
                if let Some((lease, place)) = pick(&mut self.leases, who) {
                    let offset = place.offset.saturating_sub(behind);
                    let held = lease.committed().is_some();
                    let real = lease.commit(offset);
                    assert_eq!(real.is_ok(), held && offset < place.offset, "{real:?}");
                    if real.is_ok() {
                        self.model.commit(lease.name(), offset);
                        let committed = self.model.committed(lease.name());
                        assert_eq!(lease.committed(), committed);
                    }
                }
            }
            Op::Detach { who } => {
                if let Some((lease, place)) = take(&mut self.leases, who) {
                    drop(lease);
                    self.model.leave(&place);
                }
            }
            Op::Release { who } => {
                if let Some((lease, place)) = take(&mut self.leases, who) {
                    if lease.committed().is_some() {
                        self.model.end_lease(lease.name());
                    }
                    lease.release();
                    self.model.leave(&place);
                }
            }
            Op::End { name } => {
                assert_eq!(self.log.end_lease(NAMES[name]), self.model.end_lease(NAMES[name]));
            }
            Op::Close => {
                self.log.close();
                self.model.close();
            }
        }
    }

    /// The memory bound, with equality.
    pub(crate) fn check(&self) {
        let stats = self.log.stats();
        assert_eq!(stats.first_offset, self.model.first());
        assert_eq!(stats.next_offset, self.model.next());
        assert_eq!(stats.live_segments, self.model.segments(), "{stats:?}");
        assert_eq!(stats.live_bytes, self.model.bytes(), "{stats:?}");
        assert_eq!((stats.unlinked_segments, stats.pooled_segments), (0, 0), "{stats:?}");
        assert_eq!(stats.cursors, self.cursors.len() + self.leases.len());
        assert_eq!(stats.leases, self.model.leases());
        assert!(stats.memory_limit.is_none_or(|limit| stats.live_bytes <= limit), "{stats:?}");
    }

    /// The end of a program: whatever is left goes with its holders.
    pub(crate) fn finish(self, retention: Retention) {
        let World { log, model, cursors, leases } = self;
        drop((cursors, leases));
        for name in NAMES {
            log.end_lease(name);
        }
        if matches!(retention, Retention::Nothing) {
            assert_eq!(log.stats().live_segments, 1);
        }
        assert_eq!(log.next_offset(), model.next());
    }
}

fn pick<T>(among: &mut [T], who: usize) -> Option<&mut T> {
    let len = among.len();
    among.get_mut(who.checked_rem(len)?)
}

fn take<T>(among: &mut Vec<T>, who: usize) -> Option<T> {
    let len = among.len();
    Some(among.swap_remove(who.checked_rem(len)?))
}

/// Reads for real, and compares with what the model read.
fn check_read(cursor: &mut Cursor<u64>, modelled: &Read, records: usize) {
    let limit = Limit { records, ..Limit::NONE };
    let real = cursor.peek(limit, |batch| {
        assert!(batch.iter().all(|(offset, value)| offset == *value));
        batch.first_offset()..batch.next_offset()
    });
    match (real, modelled) {
        (Ok(Some(offsets)), Read::Records(expected)) => {
            assert_eq!(offsets, *expected);
            cursor.advance((offsets.end - offsets.start) as usize);
        }
        (Ok(None), Read::Nothing) | (Err(ReadError::Closed), Read::End) => {}
        (Err(ReadError::Lagged(lagged)), Read::Missed(missed)) => {
            assert_eq!(lagged.first_missed..lagged.first_missed + lagged.missed, *missed);
        }
        (real, modelled) => panic!("read {real:?}, but the model says {modelled:?}"),
    }
}
