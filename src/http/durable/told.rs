//! The newest event of a stream, which its followers share.
//!
//! When records come, every follower is called and wants the same bytes. The first one encodes what is
//! there and leaves it here; who stands at the same place takes the same memory. What is here is taken only
//! if it goes as far as the stream was [seen to](super::super::turns), or is as large as an event may be: a
//! follower that is behind is better served by one larger event than by many small ones. It goes with the
//! last follower.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Where the newest event lies.
#[derive(Default)]
pub(super) struct Told(Mutex<Option<Event>>);

/// Records as an event, with the control event after it.
#[derive(Clone)]
pub(super) struct Event {
    /// The places of its first record, and after its last one.
    pub(super) from: u64,
    pub(super) to: u64,
    /// There was more than fits into one.
    pub(super) full: bool,
    pub(super) control: Control,
    /// Both, and where the control event begins.
    pub(super) bytes: Bytes,
    pub(super) data: usize,
}

/// What a control event says, beside the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// The stream ends here.
    Closed,
    /// It goes on. `cursor` keeps requests of different times apart for caches.
    Open { up_to_date: bool, cursor: u64 },
}

impl Control {
    /// As an event, at the place `next`.
    pub(super) fn event(self, next: &str) -> String {
        let rest = match self {
            Self::Closed => "\"streamClosed\":true,\"upToDate\":true".to_owned(),
            Self::Open { up_to_date: true, cursor } => {
                format!("\"streamCursor\":\"{cursor}\",\"upToDate\":true")
            }
            Self::Open { up_to_date: false, cursor } => format!("\"streamCursor\":\"{cursor}\""),
        };
        format!("event: control\ndata:{{\"streamNextOffset\":\"{next}\",{rest}}}\n\n")
    }
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, Option<Event>> {
        // What is in here is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event that begins at `at`, if it goes as far as `seen`; otherwise what `encode` makes,
    /// which is kept unless it lies in front of the one that is here. Others wait meanwhile, instead of
    /// doing the same.
    pub(super) fn take<E>(
        &self,
        at: u64,
        seen: u64,
        encode: impl FnOnce() -> Result<Option<Event>, E>,
    ) -> Result<Option<Event>, E> {
        let mut known = self.lock();
        match &*known {
            Some(event) if event.from == at && (event.full || event.to >= seen) => {
                return Ok(Some(event.clone()));
            }
            // Who reads old records pushes nothing out, and keeps nobody waiting.
            Some(event) if at < event.from => {
                drop(known);
                return encode();
            }
            _ => {}
        }
        let event = encode()?;
        if event.is_some() {
            known.clone_from(&event);
        }
        Ok(event)
    }

    /// Nobody follows any more.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(from: u64, to: u64, full: bool) -> Event {
        let bytes = Bytes::from(format!("{from} to {to};"));
        Event { from, to, full, control: Control::Closed, data: bytes.len(), bytes }
    }

    fn take(told: &Told, at: u64, seen: u64) -> (Event, bool) {
        let mut made = false;
        let taken = told.take::<()>(at, seen, || {
            made = true;
            Ok(Some(event(at, seen, false)))
        });
        (taken.unwrap().unwrap(), made)
    }

    #[test]
    fn who_stands_at_the_same_place_gets_the_same_memory() {
        let told = Told::default();
        let (first, made) = take(&told, 3, 5);
        assert!(made);
        let (second, made) = take(&told, 3, 5);
        assert!(!made);
        assert_eq!(second.bytes.as_ptr(), first.bytes.as_ptr());
        told.forget();
        assert!(take(&told, 3, 5).1);
    }

    #[test]
    fn an_event_is_taken_only_if_a_new_one_would_not_be_longer() {
        let told = Told::default();
        take(&told, 3, 5);
        assert!(!take(&told, 3, 4).1, "it is longer than it had to be");
        let (longer, made) = take(&told, 3, 6);
        assert!(made && longer.to == 6);
        assert!(!take(&told, 3, 6).1, "the longer one is kept");
        assert!(take(&told, 1, 6).1, "older records are nobody else's");
        assert!(!take(&told, 3, 6).1, "and push nothing out");
        told.take::<()>(6, 9, || Ok(Some(event(6, 8, true)))).unwrap();
        assert!(!take(&told, 6, 20).1, "it is as long as it can be");
    }
}
