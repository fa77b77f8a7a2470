//! Where event streams sit: their cursors, in reach of somebody who can take one away.
//!
//! A stream is polled when its connection has room for more. One whose client takes nothing is not
//! polled any more, and so cannot notice by itself that it has held its place in the log for too long:
//! over HTTP/2 its socket may even be lively. So its cursor lies in a seat that the API's watch can
//! reach. The watch takes the cursor of a stream that was offered bytes and has not come back for
//! more in `stall_timeout`; the stream finds that out, and ends in the middle, when it is next polled.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::log::Cursor;

/// All seats that are taken.
pub(super) struct Seats {
    began: Instant,
    taken: Mutex<HashMap<u64, Arc<Seat>>>,
    next: AtomicU64,
    /// Streams whose cursors were taken away.
    cleared: AtomicU64,
}

/// One stream's place.
pub(super) struct Seat {
    number: u64,
    cursor: Mutex<Option<Cursor<[u8]>>>,
    /// When the stream last handed bytes to its connection, in milliseconds since the API opened;
    /// 0 while it waits for records itself.
    handed_on: AtomicU64,
}

impl Seats {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            taken: Mutex::default(),
            next: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
        }
    }

    /// Takes a seat. [`leave`](Self::leave) it.
    pub(super) fn take(&self, cursor: Cursor<[u8]>) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            cursor: Mutex::new(Some(cursor)),
            handed_on: AtomicU64::new(0),
        });
        self.lock().insert(seat.number, seat.clone());
        seat
    }

    /// Leaves a seat, and lets go of its cursor.
    pub(super) fn leave(&self, seat: &Seat) {
        self.lock().remove(&seat.number);
        // The watch may still have the seat for a moment.
        drop(seat.cursor().take());
    }

    /// The stream of this seat has handed bytes to its connection, which is now to take them.
    pub(super) fn handed_on(&self, seat: &Seat) {
        // Relaxed, as below: a time, which orders nothing.
        seat.handed_on.store(self.now(), Ordering::Relaxed);
    }

    /// The stream of this seat waits for records.
    pub(super) fn waits(&self, seat: &Seat) {
        seat.handed_on.store(0, Ordering::Relaxed);
    }

    /// Takes the cursors of streams that were not polled in `limit` although there was something to
    /// take.
    pub(super) fn clear_stalled(&self, limit: Duration) {
        let seats: Vec<_> = self.lock().values().cloned().collect();
        let now = self.now();
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        for seat in seats {
            let handed_on = seat.handed_on.load(Ordering::Relaxed);
            if handed_on != 0
                && now.saturating_sub(handed_on) > limit
                && seat.cursor().take().is_some()
            {
                self.cleared.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("an event stream was ended: its client takes nothing");
            }
        }
    }

    /// How many streams lost their cursors.
    pub(super) fn cleared(&self) -> u64 {
        self.cleared.load(Ordering::Relaxed)
    }

    /// Never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The cursor, unless it was taken away.
    pub(super) fn cursor(&self) -> MutexGuard<'_, Option<Cursor<[u8]>>> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, Start};

    #[test]
    fn only_who_has_something_to_take_and_does_not_loses_its_cursor() {
        let log = Log::<[u8]>::builder().build().unwrap();
        let seats = Seats::new();
        let [waiting, stalled, left] =
            std::array::from_fn(|_| seats.take(log.subscribe(Start::Next).unwrap()));
        seats.handed_on(&waiting);
        seats.waits(&waiting);
        seats.handed_on(&stalled);
        seats.leave(&left);
        assert_eq!(log.stats().cursors, 2);
        seats.clear_stalled(Duration::from_secs(3600));
        assert_eq!((log.stats().cursors, seats.cleared()), (2, 0));
        while seats.cleared() == 0 {
            seats.clear_stalled(Duration::ZERO);
        }
        assert!(waiting.cursor().is_some() && stalled.cursor().is_none());
        seats.clear_stalled(Duration::ZERO);
        assert_eq!((log.stats().cursors, seats.cleared()), (1, 1));
    }
}
