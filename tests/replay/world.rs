//! The log and the model side by side: what each step of a program does to both, and what has to be
//! equal afterwards.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::books::{Books, BudgetBooks};
use super::kind::Kind;
use super::log::{
    Batch, Budget, Cursor, Lease, LeaseOptions, Limit, Log, ReadError, Record, Retention, Start,
    SubscribeError,
};
use super::meter::{Allocated, Beside, Meter};
use super::model::{Begin, Model, Place, Read, Refusal, Rules, Sizes};

pub(crate) const NAMES: [&str; 2] = ["a", "b"];
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// One step of a program.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Append {
        records: u64,
    },
    Subscribe(From),
    Read {
        who: usize,
        records: usize,
    },
    Seek {
        who: usize,
        to: From,
    },
    Drop {
        who: usize,
    },
    Resume {
        who: usize,
    },
    Take {
        name: usize,
        from: From,
        hours: u64,
    },
    ReadLease {
        who: usize,
        records: usize,
    },
    Commit {
        who: usize,
        behind: u64,
    },
    Detach {
        who: usize,
    },
    Release {
        who: usize,
    },
    End {
        name: usize,
    },
    Close,
    /// Hours go by. Nobody sees to the log meanwhile.
    #[allow(dead_code, reason = "only where clocks can be moved")]
    Pass {
        hours: u64,
    },
    #[allow(dead_code, reason = "as above")]
    Maintain,
}

/// Where somebody starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Earliest,
    Next,
    /// Around the kept records: this far before or after the first one.
    At(i64),
    Last(u64),
    /// So many hours ago.
    #[allow(dead_code, reason = "only where clocks can be moved")]
    HoursAgo(u64),
}

/// What a program can do to the machine that it runs on.
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    /// Lets time pass.
    pub(crate) pass: fn(Duration),
    /// The start at what was appended when so much time had passed since the program began, or later.
    pub(crate) since: fn(Duration) -> Start,
    /// Counts the bytes that a call allocates and does not free.
    pub(crate) allocated: Allocated,
}

/// The log, those who read it, and the model of all that.
pub(crate) struct World<K: Kind> {
    kind: K,
    log: Log<K::Record>,
    model: Model,
    cursors: Vec<(Cursor<K::Record>, Place)>,
    leases: Vec<(Lease<K::Record>, Place)>,
    machine: Option<Machine>,
    /// What is beside it may be counted by the same one.
    meter: Rc<Meter>,
    beside: Option<Beside>,
    /// What the log itself has allocated, without a segment.
    shell: i64,
    /// Whether there has been a lease.
    leased: bool,
}

impl<K: Kind> World<K> {
    /// A fresh log. Without a machine nothing is counted, and no time can pass.
    pub(crate) fn new(kind: K, rules: Rules, machine: Option<Machine>) -> Self {
        let meter = Rc::new(Meter::new(machine.map(|machine| machine.allocated)));
        Self::beside(kind, rules, machine, meter, None)
    }

    /// A fresh log, perhaps beside another one with the same budget, and counted together with it.
    pub(crate) fn beside(
        kind: K,
        rules: Rules,
        machine: Option<Machine>,
        meter: Rc<Meter>,
        budget: Option<(Arc<Budget>, Rc<BudgetBooks>)>,
    ) -> Self {
        let segment = K::segment(K::ROOM);
        let limit = rules.limit.map(|segments| segments * segment);
        let mut builder = K::builder(K::ROOM).retention(rules.retention).overflow(rules.overflow);
        builder = builder.pool_segments(rules.pool as usize);
        if let Some(limit) = limit {
            builder = builder.memory_limit(limit);
        }
        let mut budget_books = None;
        if let Some((budget, books)) = budget {
            builder = builder.budget(budget);
            budget_books = Some(books);
        }
        let books = Books::new(segment, limit, rules.pool, budget_books);
        let sizes = Sizes { room: K::ROOM, slot: K::SLOT, least: K::LEAST, segment: K::segment };
        let model = Model::new(sizes, rules, books);
        let beside = machine.map(|machine| Beside::learn(kind, machine.allocated));
        let before = meter.bytes().unwrap_or(0);
        let log = meter.count(|| builder.build().unwrap());
        // A thread's first guard in a log allocates its place there.
        meter.count(|| log.stats());
        World {
            kind,
            log,
            model,
            cursors: Vec::new(),
            leases: Vec::new(),
            machine,
            shell: meter.bytes().unwrap_or(0) - before - segment as i64,
            meter,
            beside,
            leased: false,
        }
    }

    fn begin(&self, from: From) -> Begin {
        match from {
            From::Earliest => Begin::Earliest,
            From::Next => Begin::Next,
            From::At(from_first) => Begin::At(self.model.first().saturating_add_signed(from_first)),
            From::Last(records) => Begin::Last(records),
            From::HoursAgo(hours) => {
                Begin::Since(self.model.now().saturating_sub(HOUR * hours as u32))
            }
        }
    }

    fn start(&self, begin: Begin) -> Start {
        match begin {
            Begin::Earliest => Start::Earliest,
            Begin::Next => Start::Next,
            Begin::At(offset) => Start::At(offset),
            Begin::Last(records) => Start::Last(records),
            Begin::Since(passed) => {
                (self.machine.expect("a clock that can be moved").since)(passed)
            }
        }
    }

    pub(crate) fn step(&mut self, op: Op) {
        match op {
            Op::Append { records } => {
                let next = self.model.next();
                let offsets = next..next + records;
                let real = self.meter.count(|| self.kind.append(&self.log, offsets.clone()));
                let modelled = self.model.append(self.kind.size(offsets));
                assert_eq!(real.is_ok(), modelled, "append of {records}: {real:?}");
                if let Ok(offsets) = real {
                    assert_eq!(offsets, next..next + records);
                }
            }
            Op::Subscribe(from) => {
                let begin = self.begin(from);
                let start = self.start(begin);
                let modelled = self.model.attach(begin);
                self.subscribe(start, modelled);
            }
            Op::Read { who, records } => {
                if let Some((cursor, place)) = pick(&mut self.cursors, who) {
                    let modelled = self.model.read(place, records as u64);
                    self.meter.count(|| check_read(self.kind, cursor, &modelled, records));
                    assert_eq!(cursor.offset(), place.offset);
                    let lag = cursor.lag();
                    assert_eq!(lag.records, self.model.next() - place.offset);
                }
            }
            Op::Seek { who, to } => {
                let begin = self.begin(to);
                let start = self.start(begin);
                if let Some((cursor, place)) = pick(&mut self.cursors, who) {
                    let real = self.meter.count(|| cursor.seek(start));
                    let modelled = self.model.attach(begin);
                    check_start(start, real.map(|()| cursor.offset()), &modelled);
                    if let Ok(new) = modelled {
                        let old = std::mem::replace(place, new);
                        self.model.leave(&old);
                    }
                }
            }
            Op::Drop { who } => {
                if let Some((cursor, place)) = take(&mut self.cursors, who) {
                    self.meter.count(|| drop(cursor));
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
                    self.meter.count(|| drop(cursor));
                    self.model.leave(&place);
                    self.resume_elsewhere(!epoch, offset);
                    let modelled = self.model.attach(Begin::At(place.offset));
                    self.subscribe(Start::After { epoch, offset }, modelled);
                }
            }
            Op::Take { name, from, hours } => {
                let (name, ttl) = (NAMES[name], HOUR * hours as u32);
                let begin = self.begin(from);
                let start = self.start(begin);
                let options = LeaseOptions { ttl, start, take_over: true };
                let real = self.meter.count(|| self.log.lease(name, options));
                let modelled = self.model.take_lease(name, begin, ttl);
                assert_eq!(real.is_ok(), modelled.is_ok(), "{start:?}: {real:?}");
                if let (Ok(lease), Ok(place)) = (real, modelled) {
                    assert_eq!(lease.committed(), self.model.committed(name));
                    self.leases.push((lease, place));
                    self.leased = true;
                }
            }
            Op::ReadLease { who, records } => {
                if let Some((lease, place)) = pick(&mut self.leases, who) {
                    if lease.committed().is_none() {
                        assert_eq!(lease.try_next(|_| ()), Err(ReadError::TakenOver));
                    } else {
                        let modelled = self.model.read(place, records as u64);
                        self.meter.count(|| check_read(self.kind, lease, &modelled, records));
                        assert_eq!(lease.offset(), place.offset);
                    }
                }
            }
            Op::Commit { who, behind } => {
                if let Some((lease, place)) = pick(&mut self.leases, who) {
                    let offset = place.offset.saturating_sub(behind);
                    let held = lease.committed().is_some();
                    let real = self.meter.count(|| lease.commit(..=offset));
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
                    let held = lease.committed().is_some();
                    self.model.detach(lease.name(), held, &place);
                    self.meter.count(|| drop(lease));
                }
            }
            Op::Release { who } => {
                if let Some((lease, place)) = take(&mut self.leases, who) {
                    if lease.committed().is_some() {
                        self.model.end_lease(lease.name());
                    }
                    self.model.detach(lease.name(), false, &place);
                    self.meter.count(|| lease.release());
                }
            }
            Op::End { name } => {
                let real = self.meter.count(|| self.log.end_lease(NAMES[name]));
                assert_eq!(real, self.model.end_lease(NAMES[name]));
            }
            Op::Close => {
                self.meter.count(|| self.log.close());
                self.model.close();
            }
            Op::Pass { hours } => {
                let time = HOUR * hours as u32;
                (self.machine.expect("a clock that can be moved").pass)(time);
                self.model.pass(time);
            }
            Op::Maintain => {
                let real = self.meter.count(|| self.log.maintain());
                // Without a machine, its clock and the model's differ.
                let modelled = self.model.maintain();
                assert!(self.machine.is_none() || real == modelled, "{real:?}, not {modelled:?}");
            }
        }
    }

    fn subscribe(&mut self, start: Start, modelled: Result<Place, Refusal>) {
        let real = self.meter.count(|| self.log.subscribe(start));
        check_start(start, real.as_ref().map(Cursor::offset).map_err(|e| *e), &modelled);
        if let (Ok(cursor), Ok(place)) = (real, modelled) {
            self.cursors.push((cursor, place));
        }
    }

    /// An offset of another log's says nothing here, and the answer says what does.
    fn resume_elsewhere(&self, epoch: u64, offset: u64) {
        match self.log.subscribe(Start::After { epoch, offset }) {
            Err(SubscribeError::WrongEpoch { asked, epoch: real, first, next }) => {
                assert_eq!((asked, real), (epoch, self.log.epoch()));
                assert_eq!((first, next), (self.model.first(), self.model.next()));
            }
            other => panic!("epoch {epoch}: {other:?}"),
        }
    }

    /// Hours go by, as somebody else has seen to.
    #[allow(dead_code, reason = "only where two logs share a budget")]
    pub(crate) fn passed(&mut self, time: Duration) {
        self.model.pass(time);
    }

    /// The memory bound, with equality: segments, their bytes, and the bytes that were allocated.
    pub(crate) fn check(&self) {
        self.check_log();
        if let Some(allocated) = self.meter.bytes() {
            let stats = self.log.stats();
            assert_eq!(allocated, self.allocated(), "allocated, not as the model says: {stats:?}");
        }
    }

    /// What the log says of itself.
    pub(crate) fn check_log(&self) {
        let (stats, books) = (self.log.stats(), self.model.books());
        assert_eq!(stats.first_offset, self.model.first());
        assert_eq!(stats.next_offset, self.model.next());
        assert_eq!(stats.live_segments, self.model.segments(), "{stats:?}");
        assert_eq!(stats.live_bytes, books.live(), "{stats:?}");
        assert_eq!(stats.pooled_segments, books.pooled(), "{stats:?}");
        assert_eq!(stats.pooled_bytes, books.pooled_bytes(), "{stats:?}");
        assert_eq!(stats.unlinked_segments, 0, "{stats:?}");
        assert_eq!(stats.cursors, self.cursors.len() + self.leases.len());
        assert_eq!(stats.leases, self.model.leases());
        let memory = stats.live_bytes + stats.pooled_bytes;
        assert!(stats.memory_limit.is_none_or(|limit| memory <= limit), "{stats:?}");
    }

    /// Bytes that the log has allocated, as the model says.
    pub(crate) fn allocated(&self) -> i64 {
        let Some(beside) = &self.beside else { return 0 };
        let books = self.model.books();
        (books.live() + books.pooled_bytes()) as i64
            + self.shell
            + if self.model.has_collected() { beside.retiring } else { 0 }
            + if self.leased { beside.table } else { 0 }
            + beside.lease * self.model.leases() as i64
            + beside.holder * self.leases.len() as i64
    }

    /// The end of a program: whatever is left goes with its holders.
    pub(crate) fn finish(self, retention: Retention) {
        let World { log, model, cursors, leases, meter, .. } = self;
        meter.count(|| cursors.into_iter().for_each(|(cursor, _)| drop(cursor)));
        meter.count(|| leases.into_iter().for_each(|(lease, _)| drop(lease)));
        for name in NAMES {
            meter.count(|| log.end_lease(name));
        }
        // What was left to the publishers that follow, which collect a little at a time. Nowhere else is it needed.
        if model.collects_little() {
            meter.count(|| log.maintain());
        }
        if matches!(retention, Retention::Nothing) {
            assert_eq!(log.stats().live_segments, 1);
        }
        assert_eq!(log.next_offset(), model.next());
        meter.count(|| drop(log));
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

/// A cursor, or a lease, which reads as a cursor does.
trait Reads<R: Record + ?Sized> {
    /// Shows so many records at most, and moves past them.
    fn read<U>(
        &mut self,
        records: usize,
        look: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<Option<U>, ReadError>;
}

macro_rules! reads {
    ($reader:ident) => {
        impl<R: Record + ?Sized> Reads<R> for $reader<R> {
            fn read<U>(
                &mut self,
                records: usize,
                look: impl FnOnce(&Batch<'_, R>) -> U,
            ) -> Result<Option<U>, ReadError> {
                let mut shown = 0;
                let limit = Limit { records, ..Limit::NONE };
                let seen = self.peek(limit, |batch| {
                    shown = batch.len();
                    look(batch)
                });
                self.advance(shown);
                seen
            }
        }
    };
}
reads!(Cursor);
reads!(Lease);

/// Reads for real, and compares with what the model read.
fn check_read<K: Kind>(
    kind: K,
    reader: &mut impl Reads<K::Record>,
    modelled: &Read,
    records: usize,
) {
    let real = reader.read(records, |batch| {
        assert!(batch.iter().all(|(offset, record)| kind.is(offset, record)));
        batch.first_offset()..batch.next_offset()
    });
    match (real, modelled) {
        (Ok(Some(offsets)), Read::Records(expected)) => {
            assert_eq!(offsets, *expected);
        }
        (Ok(None), Read::Nothing) | (Err(ReadError::Closed), Read::End) => {}
        (Err(ReadError::Lagged(lagged)), Read::Missed(missed)) => {
            assert_eq!(lagged.first_missed..lagged.first_missed + lagged.missed, *missed);
        }
        (real, modelled) => panic!("read {real:?}, but the model says {modelled:?}"),
    }
}

fn check_start(start: Start, real: Result<u64, SubscribeError>, modelled: &Result<Place, Refusal>) {
    match (real, modelled) {
        (Ok(offset), Ok(place)) => assert_eq!(offset, place.offset, "{start:?}"),
        (Err(SubscribeError::Collected { first, .. }), Err(Refusal::Collected(expected))) => {
            assert_eq!(first, *expected);
        }
        (Err(SubscribeError::Future { next, .. }), Err(Refusal::Future(expected))) => {
            assert_eq!(next, *expected);
        }
        (real, modelled) => panic!("{start:?}: {real:?}, but the model says {modelled:?}"),
    }
}
