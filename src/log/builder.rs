//! Building a log.

use std::marker::PhantomData;

use super::chain::Chain;
use super::clock::Clock;
use super::config::Config;
use super::error::BuildError;
use super::layout::Layout;
use super::observer::{Observed, Observer};
use super::publisher::Publisher;
use super::record::Record;
use super::retention::{Budget, Overflow, Retention};
use super::start::Position;
use super::{Exclusive, Log, Shared};
use crate::sync::Arc;

/// Arena of a byte log's segment, unless set.
const SEGMENT_BYTES: usize = 1 << 20;
/// Arena of a value log's segment, roughly, unless set.
const VALUES_BYTES: usize = 64 << 10;
/// Least and most values in a segment, unless set.
const VALUES: (usize, usize) = (64, 4096);
/// Payload bytes for which a byte log's segment has one index entry, unless set.
const BYTES_PER_RECORD: usize = 32;

/// Settings of a [`Log`], all with defaults.
///
/// ```
/// use psa::{Log, Overflow, Retention};
/// let log = Log::<[u8]>::builder()
///     .segment_bytes(256 << 10)
///     .retention(Retention::Records(10_000))
///     .memory_limit(64 << 20)
///     .overflow(Overflow::Evict)
///     .build()?;
/// # Ok::<(), psa::BuildError>(())
/// ```
pub struct Builder<R: Record + ?Sized> {
    segment_bytes: Option<usize>,
    segment_records: Option<usize>,
    stamp_every: usize,
    shares_times: bool,
    retention: Retention,
    overflow: Overflow,
    memory_limit: Option<u64>,
    record_limit: Option<u64>,
    weigh: Option<fn(&R) -> usize>,
    budget: Option<Arc<Budget>>,
    pool_segments: usize,
    begin: Option<Position>,
    observed: Observed,
    clock: Clock,
    records: PhantomData<fn() -> Box<R>>,
}

impl<R: Record + ?Sized> Builder<R> {
    pub(super) fn new() -> Self {
        Builder {
            segment_bytes: None,
            segment_records: None,
            stamp_every: 64,
            shares_times: false,
            retention: Retention::default(),
            overflow: Overflow::default(),
            memory_limit: None,
            record_limit: None,
            weigh: None,
            budget: None,
            pool_segments: 2,
            begin: None,
            observed: Observed::default(),
            clock: Clock::default(),
            records: PhantomData,
        }
    }

    /// Bytes of payload in one segment, the unit of allocation and collection. At most 4 GiB.
    /// Default: 1 MiB; for values, room for 64 KiB of them, at least 64 and at most 4096 values. Less under a limit that
    /// has no room for four such segments.
    ///
    /// Small segments give memory back earlier; large ones cost less per record.
    pub fn segment_bytes(mut self, bytes: usize) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// Records in one segment. In a byte log, the index takes four bytes for each. Default: one for
    /// every 32 bytes of payload; for values, as many as [`segment_bytes`](Self::segment_bytes) has
    /// room for.
    pub fn segment_records(mut self, records: usize) -> Self {
        self.segment_records = Some(records);
        self
    }

    /// Keeps the append time of every `n`-th record; `n` is a power of two. The other records are
    /// known to lie between two whose times are kept. Each time costs a look at the clock (25 ns)
    /// and 8 bytes. Default: 64.
    pub fn stamp_every(mut self, n: usize) -> Self {
        self.stamp_every = n;
        self
    }

    /// Keeps the append time of every record. One that comes within 100 ms after the one before it may have that one's
    /// time; at least one in 64 has its own.
    #[allow(dead_code, reason = "the broker's, which is not always built")]
    pub(crate) fn stamp_all(mut self) -> Self {
        self.stamp_every = 1;
        self.shares_times = true;
        self
    }

    /// What is kept after every cursor has passed it. Default: nothing.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// What happens at the memory limit. Default: publishers wait.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// The most bytes of memory that the log's segments take: live, pooled and unlinked ones, with
    /// their indexes. There must be room for two segments; by default, segments are small enough for four.
    /// Default: no limit.
    ///
    /// Memory that values own, such as a string's, counts only if they are [weighed](Builder::<u64>::weigh).
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// The most records that are kept: a capacity. What happens there is up to [`overflow`](Self::overflow). At
    /// least 2. Default: no limit.
    ///
    /// The log never has more than this many between [`first_offset`](Log::first_offset) and
    /// [`next_offset`](Log::next_offset). Memory comes back by whole segments, so it may be at its limit with fewer: by
    /// as many as one segment holds. By default, that is a quarter of the limit, or less. A batch may have half as many
    /// records as the limit.
    ///
    /// ```
    /// use psa::{Log, Overflow, Start};
    /// let log = Log::<u64>::builder().record_limit(1024).overflow(Overflow::Reject).build()?;
    /// let cursor = log.subscribe(Start::Earliest)?;
    /// let kept = (0..).take_while(|n| log.try_append(*n).is_ok()).count();
    /// assert_eq!(kept, 1024);
    /// assert!(log.stats().live_bytes < 16 << 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn record_limit(mut self, records: u64) -> Self {
        self.record_limit = Some(records);
        self
    }

    /// A limit that the log shares with other logs.
    pub fn budget(mut self, budget: Arc<Budget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// How many freed segments are kept for reuse, at most 64. Default: 2.
    pub fn pool_segments(mut self, segments: usize) -> Self {
        self.pool_segments = segments;
        self
    }

    /// Where the log begins: with this epoch, and with this offset for its first record. For a log that goes on with
    /// records which are kept elsewhere, so that subscribers can resume across a restart. Offsets up to 2^63 are
    /// possible. Default: a new epoch, and 0.
    ///
    /// Logs of the same epoch must have the same records at the same offsets: that is what subscribers rely on, and the
    /// log cannot check it.
    ///
    /// ```
    /// use psa::{Log, Position, Start};
    /// let stored: Position = "0x5eed:41".parse()?;
    /// let log = Log::<u64>::builder().begin_at(stored).build()?;
    /// assert_eq!(log.try_append(7), Ok(42));
    /// assert_eq!(log.subscribe(Start::Resume(stored))?.try_recv()?, Some((42, 7)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin_at(mut self, position: Position) -> Self {
        self.begin = Some(position);
        self
    }

    /// The observer that is told what happens to the log's segments. It costs nothing per record.
    /// Default: none.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observed = Observed(Some(observer));
        self
    }

    /// The clock for append times, retention by age and the expiry of leases. Default: the system's.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// A log to which every handle can append.
    ///
    /// # Errors
    ///
    /// [`BuildError`] says which setting is wrong and what is possible.
    pub fn build(self) -> Result<Log<R>, BuildError> {
        Ok(Log::<R, Shared>::of(self.chain(false)?))
    }

    /// A log with a single publisher, which appends without any locked instruction, and the handle
    /// with which others subscribe.
    ///
    /// # Errors
    ///
    /// [`BuildError`] says which setting is wrong and what is possible.
    pub fn build_exclusive(self) -> Result<(Publisher<R>, Log<R, Exclusive>), BuildError> {
        let log = Log::<R, Exclusive>::of(self.chain(true)?);
        Ok((Publisher::new(log.chain.clone()), log))
    }

    fn chain(self, exclusive: bool) -> Result<Arc<Chain<R>>, BuildError> {
        let layout = self.layout(exclusive)?;
        check("pool_segments", self.pool_segments, 0, 64)?;
        let segment = layout.bytes::<R>();
        let config = Config {
            layout,
            retention: self.retention,
            overflow: self.overflow,
            memory_limit: self.memory_limit,
            record_limit: self.record_limit,
            budget: self.budget,
            pool_segments: self.pool_segments,
            exclusive,
            observed: self.observed,
        };
        if let Some(limit) = config.limit().filter(|limit| limit / 2 < segment) {
            return Err(BuildError::LimitTooSmall { limit, segment });
        }
        let limit = config.budget.as_ref().map_or(u64::MAX, |budget| budget.limit());
        if let Some(Position { next, .. }) = self.begin.filter(|begin| begin.next > 1 << 63) {
            let expected = "an offset up to 2^63".to_owned();
            return Err(BuildError::Setting { setting: "begin_at", value: next, expected });
        }
        Chain::new(config, self.begin, self.clock, self.weigh)
            .ok_or(BuildError::BudgetExhausted { limit, segment })
    }

    fn layout(&self, exclusive: bool) -> Result<Layout, BuildError> {
        if self.weigh.is_some() && self.memory_limit.is_none() {
            return Err(BuildError::Needs { setting: "weigh", needs: "memory_limit" });
        }
        let weight = self.weigh.and(self.memory_limit).map_or(0, |limit| (limit / 8).max(1));
        let indexed = !(exclusive && R::ONE_SLOT);
        let slot = size_of::<R::Slot>();
        let (slots, records) = if R::ONE_SLOT {
            let fit = |bytes: usize| bytes.checked_div(slot).unwrap_or(VALUES.1);
            let usual = match self.segment_bytes {
                // At least one value fits: what was set is named, not the number that follows from it.
                Some(bytes) if self.segment_records.is_none() => {
                    check("segment_bytes", bytes, slot, isize::MAX as usize)?;
                    fit(bytes)
                }
                _ => fit(VALUES_BYTES).clamp(VALUES.0, VALUES.1),
            };
            let records = self.segment_records.unwrap_or(usual);
            (records, records)
        } else {
            let bytes = self.segment_bytes.unwrap_or(SEGMENT_BYTES);
            (bytes, self.segment_records.unwrap_or((bytes / BYTES_PER_RECORD).max(1)))
        };
        check("segment_records", records, 1, Layout::MAX_RECORDS)?;
        check("segment_bytes", slots.saturating_mul(slot.max(1)), 1, isize::MAX as usize)?;
        check("segment_bytes", slots, 1, Layout::MAX_SLOTS)?;
        if !self.stamp_every.is_power_of_two() || self.stamp_every > 1 << 30 {
            return Err(BuildError::Setting {
                setting: "stamp_every",
                value: self.stamp_every as u64,
                expected: "a power of two up to 2^30".to_owned(),
            });
        }
        let layout = Layout {
            records: records as u32,
            slots: slots as u32,
            stamp_every: self.stamp_every as u32,
            shares_times: self.shares_times,
            indexed,
            weight,
        };
        self.fit_limits(layout)
    }

    /// Makes a segment whose size was not set so small that some of them fit the limits.
    fn fit_limits(&self, mut layout: Layout) -> Result<Layout, BuildError> {
        if let Some(limit) = self.record_limit {
            if limit < 2 {
                let expected = "2 or more".to_owned();
                return Err(BuildError::Setting {
                    setting: "record_limit",
                    value: limit,
                    expected,
                });
            }
            if self.segment_records.is_some() {
                let half = usize::try_from(limit / 2).unwrap_or(usize::MAX);
                check("segment_records", layout.records as usize, 1, half)?;
            } else {
                let quarter = u32::try_from(limit / 4).unwrap_or(u32::MAX).max(1);
                layout.records = layout.records.min(quarter);
                if R::ONE_SLOT {
                    layout.slots = layout.records;
                }
            }
        }
        let (bytes, records) = (self.segment_bytes, self.segment_records);
        if let (Some(limit), None, None) = (self.memory_limit, bytes, records) {
            // Where values are weighed, an eighth of the limit in each is theirs.
            let parts = if layout.weight > 0 { 6 } else { 4 };
            // Smaller ones would be all overhead.
            const LEAST: u64 = 512;
            let payload = |layout: &Layout| u64::from(layout.slots) * size_of::<R::Slot>() as u64;
            while layout.slots > 1
                && (layout.bytes::<R>() > limit / 2
                    || layout.bytes::<R>() > limit / parts && payload(&layout) > LEAST)
            {
                layout.records = (layout.records / 2).max(1);
                layout.slots /= 2;
            }
        }
        Ok(layout)
    }
}

impl<T: Send + Sync + 'static> Builder<T> {
    /// Counts memory that values own towards the [memory limit](Self::memory_limit), which is needed for this. `weigh`
    /// returns how many bytes a value owns outside of itself, for example a vector's capacity.
    ///
    /// Each segment reserves an eighth of the limit for what its values own, and ends when that is used up; a value or
    /// a batch that weighs more has a segment of its own. So values never own more than the limit allows, and
    /// [`Stats::live_bytes`](super::Stats::live_bytes) counts what is reserved. `weigh` is called at least once for each
    /// value, by the thread that appends it, before anything is appended. A value must not weigh more later on. An
    /// append takes about twice as long.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use psa::{Log, Overflow, Start};
    /// let log = Log::<Arc<[u8]>>::builder()
    ///     .memory_limit(1 << 20)
    ///     .weigh(|value| value.len())
    ///     .overflow(Overflow::Reject)
    ///     .build()?;
    /// let cursor = log.subscribe(Start::Earliest)?;
    /// let value: Arc<[u8]> = vec![0; 4096].into();
    /// let kept = (0..).take_while(|_| log.try_append(value.clone()).is_ok()).count();
    /// assert!((160..256).contains(&kept), "{kept} of 4 KiB, within 1 MiB");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn weigh(mut self, weigh: fn(&T) -> usize) -> Self {
        self.weigh = Some(weigh);
        self
    }
}

fn check(setting: &'static str, value: usize, least: usize, most: usize) -> Result<(), BuildError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let expected = format!("{least} to {most}");
    Err(BuildError::Setting { setting, value: value as u64, expected })
}

// Derived, these two impls would require the same of `R`.
impl<R: Record + ?Sized> Clone for Builder<R> {
    fn clone(&self) -> Self {
        Builder {
            budget: self.budget.clone(),
            observed: self.observed.clone(),
            clock: self.clock.clone(),
            ..*self
        }
    }
}

impl<R: Record + ?Sized> std::fmt::Debug for Builder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("segment_bytes", &self.segment_bytes)
            .field("segment_records", &self.segment_records)
            .field("stamp_every", &self.stamp_every)
            .field("retention", &self.retention)
            .field("overflow", &self.overflow)
            .field("memory_limit", &self.memory_limit)
            .field("record_limit", &self.record_limit)
            .field("weigh", &self.weigh.is_some())
            .field("budget", &self.budget)
            .field("pool_segments", &self.pool_segments)
            .field("begin", &self.begin)
            .field("observed", &self.observed)
            .field("clock", &self.clock)
            .finish()
    }
}
