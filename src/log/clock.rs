//! The clocks that a log goes by.
//!
//! Append times come from the wall clock, which can be set. If it is set forward, later records are later by as much.
//! If it is set back, records keep the latest time that there was until the clock has caught up. So
//! [`Start::Since`](super::Start::Since), which refers to the same clock, never begins too late, with one exception:
//! records that keep no time of their own and came between the last record that does and the moment when the clock
//! was set back. How late those were is unknown. How long records are kept, and when leases expire, is measured by the
//! clock that cannot be set.

use crate::sync::time::{Duration, Instant, SystemTime, coarse};
use crate::sync::{Arc, AtomicU64, Ordering};

/// The clock that a log goes by: for append times, [`Retention::Age`](super::Retention::Age), and the expiry of leases.
/// Waiting with a timeout always goes by the system's clock.
///
/// By default a log goes by the system's clock. A test gives it a [`ManualClock`], so that nothing has to wait for
/// time to pass. The logs of a broker go by tokio's clock, which a test can pause.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(ManualClock),
    Given(GivenTime),
    Functions {
        instant: fn() -> Instant,
        wall: fn() -> SystemTime,
    },
}

impl Clock {
    /// The system's clocks: the wall clock, and the one that cannot be set.
    #[must_use]
    pub fn system() -> Self {
        Clock(Source::System)
    }

    /// A clock that is read by these functions: the one that cannot be set, and the wall clock. Both return promptly,
    /// do not panic and do not use the log.
    #[allow(dead_code, reason = "the broker's, which is not always built")]
    pub(crate) fn from_functions(instant: fn() -> Instant, wall: fn() -> SystemTime) -> Self {
        Clock(Source::Functions { instant, wall })
    }

    /// The clock that cannot be set.
    fn instant(&self) -> Instant {
        match &self.0 {
            Source::System | Source::Given(_) => Instant::now(),
            Source::Manual(clock) => clock.hands.began + clock.passed(),
            Source::Functions { instant, .. } => instant(),
        }
    }

    /// The wall clock, in nanoseconds since the Unix epoch.
    #[inline]
    fn wall(&self) -> u64 {
        let now = match &self.0 {
            // Relaxed: whoever appends sees the time that it has set.
            Source::Given(time) => return time.0.load(Ordering::Relaxed),
            Source::System => SystemTime::now(),
            Source::Manual(clock) => clock.hands.wall + clock.passed(),
            Source::Functions { wall, .. } => wall(),
        };
        now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
    }
}

/// For how long records may share the time of one before them: see [`LogClock::now_or`].
const SHARED_FOR: Duration = Duration::from_millis(100);

/// A clock that stands still until it is told to advance: for tests of retention by age, leases and append times.
///
/// Clones are the same clock. It begins at the time of the system's clock.
///
/// ```
/// use std::time::Duration;
///
/// use psa::{Log, ManualClock, Retention, Start};
///
/// let clock = ManualClock::new();
/// let hour = Duration::from_secs(3600);
/// let log = Log::<u64>::builder()
///     .segment_records(1)
///     .retention(Retention::Age(hour))
///     .clock(clock.clone())
///     .build()?;
/// log.blocking_append(1)?;
/// log.blocking_append(2)?;
/// assert_eq!(log.maintain(), Some(hour));
/// assert_eq!(log.first_offset(), 0);
/// clock.advance(hour);
/// log.maintain();
/// assert_eq!(log.first_offset(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    hands: Arc<Hands>,
}

#[derive(Debug)]
struct Hands {
    began: Instant,
    wall: SystemTime,
    /// Nanoseconds.
    passed: AtomicU64,
}

impl ManualClock {
    /// A clock that shows the system's time at this moment.
    #[must_use]
    pub fn new() -> Self {
        let (began, wall) = (Instant::now(), SystemTime::now());
        ManualClock { hands: Arc::new(Hands { began, wall, passed: AtomicU64::new(0) }) }
    }

    /// Moves the clock forward. In all it goes a century, and no further.
    ///
    /// Nobody is woken by this: a log does what is due at its next [`maintain`](super::Log::maintain).
    pub fn advance(&self, by: Duration) {
        const CENTURY: u64 = 100 * 365 * 24 * 60 * 60 * 1_000_000_000;
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let later = |passed: u64| Some(passed.saturating_add(by).min(CENTURY));
        // Relaxed: who advances it and then calls a log sees its own store; others have to be synchronised anyway.
        let _ = self.hands.passed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    fn passed(&self) -> Duration {
        Duration::from_nanos(self.hands.passed.load(Ordering::Relaxed))
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl From<ManualClock> for Clock {
    fn from(clock: ManualClock) -> Self {
        Clock(Source::Manual(clock))
    }
}

/// A clock for records that were appended earlier, to another log: their append times are what their only appender says.
/// All else goes by the system's clock.
#[allow(dead_code, reason = "of stored topics, which are not always built")]
#[derive(Clone, Debug)]
pub(crate) struct GivenTime(Arc<AtomicU64>);

#[allow(dead_code, reason = "as above")]
impl GivenTime {
    pub(crate) fn new() -> Self {
        GivenTime(Arc::new(AtomicU64::new(0)))
    }

    /// Sets the append time of the records that are appended next, in nanoseconds since the Unix epoch.
    pub(crate) fn set(&self, time: u64) {
        // Relaxed: see `wall`.
        self.0.store(time, Ordering::Relaxed);
    }
}

impl From<GivenTime> for Clock {
    fn from(time: GivenTime) -> Self {
        Clock(Source::Given(time))
    }
}

/// A log's clock, and when the log was built.
pub(super) struct LogClock {
    clock: Clock,
    began: Instant,
}

impl LogClock {
    pub(super) fn new(clock: Clock) -> Self {
        LogClock { began: clock.instant(), clock }
    }

    /// The wall clock, in nanoseconds since the Unix epoch. About 25 ns.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.clock.wall()
    }

    /// As [`now`](Self::now), or the time of a record just before, if that is [`SHARED_FOR`] ago at most, as a clock says that
    /// costs a third and is some milliseconds late. If the clock was set back, that is the time of the record, too.
    pub(super) fn now_or(&self, before: Option<u64>) -> u64 {
        if let (Some(before), Source::System) = (before, &self.clock.0) {
            let coarse = coarse().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            if coarse < Duration::from_nanos(before) + SHARED_FOR {
                return before;
            }
        }
        self.now()
    }

    /// The clock that cannot be set.
    pub(super) fn instant(&self) -> Instant {
        self.clock.instant()
    }

    /// Nanoseconds since the log was built, by the clock that cannot be set.
    pub(super) fn passed(&self) -> u64 {
        self.instant().saturating_duration_since(self.began).as_nanos() as u64
    }
}
