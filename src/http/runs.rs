//! Encoded events that many streams share.
//!
//! # Encoded once for all
//!
//! When a record arrives, every stream of its topic wakes and wants the same bytes. So the first one encodes
//! what is there as a *run*: up to `run_bytes` of consecutive records of one segment. It leaves the run with the
//! topic, and the others take the same memory, at the cost of a look-up and one more reference. Where one run
//! ends the next one begins, so streams that keep up stay on the same runs; one that begins in the middle of a
//! run takes the rest of it, and is then in step. Streams in another [form](Form) share among themselves.
//!
//! # What is kept
//!
//! Only new records: a run is kept if it lies after all others. A stream that reads old records encodes them
//! for itself alone, and so displaces nothing. The oldest runs go when the topic's share of memory, or all topics'
//! memory together, is used up. Nothing depends on a run being there, and a run holds nothing back in the log:
//! a cursor passes its records when their bytes are handed to the connection.
//!
//! # What a slow stream costs
//!
//! The bytes that its connection has not taken yet: at most one run more than the connection's buffer. They
//! live until the connection drops them, even if the topic has dropped the run.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::task;

use super::dispatch::{Dispatch, DispatchTask, Follower};
use super::encode::Form;
use crate::broker::{TopicCursor, Watched};
use crate::log::{Batch, Limit, Log, ReadError};

/// The most records in one run: their ends are kept beside the bytes.
const RUN_RECORDS: usize = 1_024;
/// Roughly how many bytes an event adds to its record, for the first guess of a run's size.
const EVENT_OVERHEAD: usize = 48;

/// Wakes the streams of a topic in turn.
async fn dispatch(mut dispatcher: DispatchTask<[u8]>) {
    while dispatcher.dispatch_some().await {
        // The streams that were woken run first. Then tokio looks at its sockets before it resumes a task that
        // yields: the next record may be waiting there. Otherwise it would look only after every 61 tasks.
        task::yield_now().await;
    }
}

/// The runs of all topics.
pub(super) struct Cache {
    topics: Mutex<Topics>,
    budget: Arc<RunBudget>,
}

/// The topics that have streams.
#[derive(Default)]
struct Topics {
    runs: HashMap<(u64, Form), Weak<TopicRuns>>,
    /// No stream waits for records any more, on any topic.
    waits_are_over: bool,
}

/// What the runs of all topics share: limits, the memory in use, and statistics.
struct RunBudget {
    run_bytes: usize,
    topic_bytes: usize,
    all_bytes: usize,
    used: AtomicUsize,
    /// Runs that were encoded, how many of these were kept, and how often a stream took a kept run.
    encoded: AtomicU64,
    kept: AtomicU64,
    taken: AtomicU64,
    /// Records and bytes that all streams have taken.
    records: AtomicU64,
    bytes: AtomicU64,
}

/// What the cache has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) bytes: usize,
    pub(super) encoded: u64,
    pub(super) kept: u64,
    pub(super) taken: u64,
    pub(super) delivered_records: u64,
    pub(super) delivered_bytes: u64,
}

impl Cache {
    pub(super) fn new(run_bytes: usize, topic_bytes: usize, all_bytes: usize) -> Self {
        let budget = RunBudget {
            run_bytes,
            topic_bytes,
            all_bytes,
            used: AtomicUsize::new(0),
            encoded: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        Self { topics: Mutex::default(), budget: Arc::new(budget) }
    }

    /// The runs of the topic with this epoch, in this form. They are dropped with the last stream that uses them.
    pub(super) fn topic(&self, epoch: u64, form: Form) -> Arc<TopicRuns> {
        let mut topics = self.lock();
        if let Some(runs) = topics.runs.get(&(epoch, form)).and_then(Weak::upgrade) {
            return runs;
        }
        topics.runs.retain(|_, runs| runs.strong_count() > 0);
        let runs = Arc::new(TopicRuns {
            form,
            topic: form.topic(epoch),
            dispatch: Arc::default(),
            runs: Mutex::default(),
            budget: self.budget.clone(),
        });
        if topics.waits_are_over {
            runs.dispatch.end();
        }
        topics.runs.insert((epoch, form), Arc::downgrade(&runs));
        runs
    }

    /// Ends the waits of all streams, of those that are about to begin, too: the API drains.
    pub(super) fn end_waits(&self) {
        let all: Vec<_> = {
            let mut topics = self.lock();
            topics.waits_are_over = true;
            topics.runs.values().filter_map(Weak::upgrade).collect()
        };
        for runs in all {
            runs.dispatch.end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        // A panic under the lock cannot leave the map half changed: each writer does one insert, at its end.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> Figures {
        // Relaxed: statistics.
        Figures {
            bytes: self.budget.used.load(Ordering::Relaxed),
            encoded: self.budget.encoded.load(Ordering::Relaxed),
            kept: self.budget.kept.load(Ordering::Relaxed),
            taken: self.budget.taken.load(Ordering::Relaxed),
            delivered_records: self.budget.records.load(Ordering::Relaxed),
            delivered_bytes: self.budget.bytes.load(Ordering::Relaxed),
        }
    }
}

/// What a stream takes: the bytes, and the record among them whose latency is measured, if there is one.
pub(super) type Taken = (Bytes, Option<Watched>);

/// The runs of one topic in one form.
pub(super) struct TopicRuns {
    form: Form,
    /// What is the same in all records of the topic.
    topic: String,
    dispatch: Arc<Dispatch>,
    runs: Mutex<Runs>,
    budget: Arc<RunBudget>,
}

/// Runs in the order of their offsets. There may be holes between them.
#[derive(Default)]
struct Runs {
    list: VecDeque<EncodedRun>,
    bytes: usize,
}

struct EncodedRun {
    first: u64,
    /// Where each record's event ends.
    ends: Vec<usize>,
    bytes: Bytes,
}

impl EncodedRun {
    fn next(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    fn cost(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }

    /// The events from `offset` on, and how many there are.
    fn from(&self, offset: u64, form: Form) -> Option<(Bytes, usize)> {
        let skipped = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        let left = self.ends.len().checked_sub(skipped).filter(|left| *left > 0)?;
        let start = skipped.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some((form.rest(&self.bytes, start), left))
    }
}

impl Runs {
    fn find(&self, offset: u64, form: Form) -> Option<(Bytes, usize)> {
        let after = self.list.partition_point(|run| run.first <= offset);
        self.list.get(after.checked_sub(1)?)?.from(offset, form)
    }

    /// Whether a run that begins here lies after all others.
    fn is_new(&self, first: u64) -> bool {
        self.list.back().is_none_or(|last| last.next() <= first)
    }
}

impl TopicRuns {
    /// Adds a stream that is woken in turn with the others. `log` is the topic's log.
    pub(super) fn follow<P>(&self, log: &Log<[u8], P>) -> Follower {
        let (follower, task) = self.dispatch.follow(|| log.watch());
        task.map(|task| tokio::spawn(dispatch(task)));
        follower
    }

    /// Takes the next events for `cursor`, which moves past them; `None` if there is no record yet.
    ///
    /// # Errors
    ///
    /// Those of [`TopicCursor::peek`].
    pub(super) fn take(&self, cursor: &mut TopicCursor) -> Result<Option<Taken>, ReadError> {
        let before = cursor.offset();
        let taken = self.find_or_encode(cursor)?;
        if let Some((bytes, _)) = &taken {
            // Relaxed: statistics. Once for each run, not for each record.
            self.budget.records.fetch_add(cursor.offset() - before, Ordering::Relaxed);
            self.budget.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(taken)
    }

    fn find_or_encode(&self, cursor: &mut TopicCursor) -> Result<Option<Taken>, ReadError> {
        let mut runs = self.lock();
        let offset = cursor.offset();
        if let Some((bytes, records)) = runs.find(offset, self.form) {
            drop(runs);
            // The stream that encoded these records saw them committed, and held the lock before us: so the
            // peek shows them, unless the cursor was evicted, which it reports.
            let limit = Limit { records, bytes: usize::MAX };
            let look =
                |batch: &Batch<'_, [u8]>| ((batch.first_offset(), batch.len()), Watched::of(batch));
            let (seen, watched) = cursor.peek(limit, look)?.unzip();
            if seen == Some((offset, records)) {
                cursor.advance(records);
                self.budget.taken.fetch_add(1, Ordering::Relaxed);
                return Ok(Some((bytes, watched.flatten())));
            }
            debug_assert!(false, "{records} records at {offset} were encoded, {seen:?} is there");
            return self.encode_alone(cursor);
        }
        if !runs.is_new(offset) {
            drop(runs);
            return self.encode_alone(cursor);
        }
        // Under the lock: the other streams that woke for the same record wait, instead of encoding it too.
        // They wait as long as encoding one run takes.
        let Some((run, watched)) = self.encode(cursor)? else { return Ok(None) };
        let bytes = run.bytes.clone();
        self.keep(&mut runs, run);
        Ok(Some((bytes, watched)))
    }

    /// Encodes for this stream alone, and keeps nothing.
    fn encode_alone(&self, cursor: &mut TopicCursor) -> Result<Option<Taken>, ReadError> {
        Ok(self.encode(cursor)?.map(|(run, watched)| (run.bytes, watched)))
    }

    fn encode(
        &self,
        cursor: &mut TopicCursor,
    ) -> Result<Option<(EncodedRun, Option<Watched>)>, ReadError> {
        let limit = Limit { records: RUN_RECORDS, bytes: self.budget.run_bytes };
        let run = cursor.peek(limit, |batch| (self.run(batch), Watched::of(batch)))?;
        if let Some((run, _)) = &run {
            cursor.advance(run.ends.len());
            self.budget.encoded.fetch_add(1, Ordering::Relaxed);
        }
        Ok(run)
    }

    fn run(&self, batch: &Batch<'_, [u8]>) -> EncodedRun {
        let mut bytes = Vec::with_capacity(batch.payload().len() + batch.len() * EVENT_OVERHEAD);
        let mut ends = Vec::with_capacity(batch.len());
        for (offset, record) in batch.iter() {
            self.form.record(&mut bytes, &self.topic, offset, record);
            ends.push(bytes.len());
        }
        self.form.finish(&mut bytes);
        if bytes.capacity() > bytes.len() + bytes.len() / 2 {
            bytes.shrink_to_fit();
        }
        EncodedRun { first: batch.first_offset(), ends, bytes: bytes.into() }
    }

    /// Keeps a run, if there is room for it.
    fn keep(&self, runs: &mut Runs, run: EncodedRun) {
        let cost = run.cost();
        while runs.bytes + cost > self.budget.topic_bytes
            && let Some(oldest) = runs.list.pop_front()
        {
            runs.bytes -= oldest.cost();
            self.budget.used.fetch_sub(oldest.cost(), Ordering::Relaxed);
        }
        let all = self.budget.all_bytes;
        let room = |used: usize| used.checked_add(cost).filter(|used| *used <= all);
        let fits = runs.bytes + cost <= self.budget.topic_bytes
            && self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        if fits {
            runs.bytes += cost;
            runs.list.push_back(run);
            self.budget.kept.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        // A panic under the lock cannot leave the list half changed: pushing a run is the last step.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TopicRuns {
    fn drop(&mut self) {
        let bytes = self.lock().bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::start::epoch_text;
    use crate::log::{Log, Retention, Start};

    fn log(records: usize) -> Log<[u8]> {
        let builder = Log::<[u8]>::builder().segment_bytes(4096);
        let log = builder.retention(Retention::Everything).build().unwrap();
        for n in 0..records {
            log.blocking_append(format!("record {n}").as_bytes()).unwrap();
        }
        log
    }

    /// What a stream that begins at `offset` gets, and in how many pieces it comes.
    fn read(runs: &TopicRuns, log: &Log<[u8]>, offset: u64) -> (String, usize) {
        let mut cursor = TopicCursor::in_memory(&log.read_only(), Start::At(offset)).unwrap();
        let (mut all, mut pieces) = (Vec::new(), 0);
        while let Some((bytes, _)) = runs.take(&mut cursor).unwrap() {
            all.extend_from_slice(&bytes);
            pieces += 1;
        }
        assert_eq!(cursor.offset(), log.next_offset());
        (String::from_utf8(all).unwrap(), pieces)
    }

    fn expected(log: &Log<[u8]>, from: u64) -> String {
        let id = epoch_text(log.epoch());
        (from..log.next_offset()).map(|n| format!("data: record {n}\nid: {id}:{n}\n\n")).collect()
    }

    #[test]
    fn one_encodes_and_all_take_it() {
        let log = log(3);
        let cache = Cache::new(1 << 16, 1 << 20, 1 << 20);
        let runs = cache.topic(log.epoch(), Form::Event);
        for _ in 0..5 {
            assert_eq!(read(&runs, &log, 0), (expected(&log, 0), 1));
        }
        // The rest of a run, from its middle on.
        assert_eq!(read(&runs, &log, 2), (expected(&log, 2), 1));
        let figures = cache.figures();
        assert_eq!((figures.encoded, figures.kept, figures.taken), (1, 1, 5));
        // Later records are a run of their own, which streams that began in the middle reach in step.
        log.blocking_append(b"record 3").unwrap();
        assert_eq!(read(&runs, &log, 0), (expected(&log, 0), 2));
        assert_eq!(read(&runs, &log, 1), (expected(&log, 1), 2));
        assert_eq!(cache.figures().encoded, 2);
    }

    #[test]
    fn readers_of_old_records_displace_nothing() {
        let log = log(1000);
        let cache = Cache::new(64, 1 << 20, 1 << 20);
        let runs = cache.topic(log.epoch(), Form::Event);
        assert_eq!(read(&runs, &log, 900).0, expected(&log, 900));
        let kept = cache.figures().kept;
        assert_eq!(read(&runs, &log, 0).0, expected(&log, 0));
        assert_eq!(cache.figures().kept, kept);
        let encoded = cache.figures().encoded;
        assert_eq!(read(&runs, &log, 900).0, expected(&log, 900));
        assert_eq!(cache.figures().encoded, encoded, "they are still there");
    }

    #[test]
    fn what_is_kept_has_its_limits() {
        let log = log(1000);
        let cache = Cache::new(64, 1_000, 1 << 20);
        let runs = cache.topic(log.epoch(), Form::Event);
        assert_eq!(read(&runs, &log, 0).0, expected(&log, 0));
        assert!(cache.figures().bytes <= 1_000 && cache.figures().bytes > 500);
        drop(runs);
        assert_eq!(cache.figures().bytes, 0, "they go with the last stream");

        let cache = Cache::new(64, 1 << 20, 2_000);
        let runs: Vec<_> = (0..3).map(|_| self::log(100)).collect();
        let held: Vec<_> = runs
            .iter()
            .map(|log| {
                let runs = cache.topic(log.epoch(), Form::Event);
                assert_eq!(read(&runs, log, 0).0, expected(log, 0));
                runs
            })
            .collect();
        assert!(cache.figures().bytes <= 2_000 && cache.figures().bytes > 1_500);
        drop(held);
        let none = Cache::new(64, 1 << 20, 0);
        let log = self::log(100);
        assert_eq!(read(&none.topic(log.epoch(), Form::Event), &log, 0).0, expected(&log, 0));
    }

    #[test]
    fn a_recreated_log_has_runs_of_its_own() {
        let cache = Cache::new(1 << 16, 1 << 20, 1 << 20);
        let logs = [log(3), log(3)];
        let runs =
            [cache.topic(logs[0].epoch(), Form::Event), cache.topic(logs[1].epoch(), Form::Event)];
        for (log, runs) in logs.iter().zip(&runs) {
            assert_eq!(read(runs, log, 0).0, expected(log, 0));
        }
        assert!(Arc::ptr_eq(&runs[0], &cache.topic(logs[0].epoch(), Form::Event)));
    }

    #[test]
    fn streams_of_another_form_share_among_themselves() {
        let log = log(3);
        let cache = Cache::new(1 << 16, 1 << 20, 1 << 20);
        for form in [Form::Event, Form::Json, Form::Binary] {
            let runs = cache.topic(log.epoch(), form);
            let mut all = Vec::new();
            for at in [0, 0, 1] {
                let mut cursor = TopicCursor::in_memory(&log.read_only(), Start::At(at)).unwrap();
                all.push(runs.take(&mut cursor).unwrap().unwrap().0);
            }
            assert_eq!(all[0].as_ptr(), all[1].as_ptr(), "the same memory");
            let mut expected = Vec::new();
            for n in 1..3 {
                let record = format!("record {n}");
                form.record(&mut expected, &form.topic(log.epoch()), n, record.as_bytes());
            }
            form.finish(&mut expected);
            assert_eq!(all[2], expected);
        }
        assert_eq!(cache.figures().encoded, 3);
    }

    #[test]
    fn streams_on_many_threads_get_the_same() {
        let log = log(0);
        let cache = Cache::new(1_000, 10_000, 1 << 20);
        let publisher = log.clone();
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let runs = cache.topic(log.epoch(), Form::Event);
                    let read_only = log.read_only();
                    let mut cursor = TopicCursor::in_memory(&read_only, Start::Earliest).unwrap();
                    scope.spawn(move || {
                        let mut all = Vec::new();
                        loop {
                            match runs.take(&mut cursor) {
                                Ok(Some((bytes, _))) => all.extend_from_slice(&bytes),
                                Ok(None) => std::thread::yield_now(),
                                Err(ReadError::Closed) => break String::from_utf8(all).unwrap(),
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            for n in 0..5_000 {
                publisher.blocking_append(format!("record {n}").as_bytes()).unwrap();
            }
            publisher.close();
            for reader in readers {
                assert!(reader.join().unwrap() == expected(&log, 0));
            }
        });
    }
}
