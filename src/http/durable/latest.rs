//! The latest event of a stream, which its followers share.
//!
//! When records arrive, every follower is woken and wants the same bytes. The first one encodes what is there and
//! leaves it here; a follower at the same position takes the same memory. The event is taken only if it reaches
//! as far as the [dispatcher](super::super::dispatch) has seen, or is as large as an event may be: one larger
//! event serves a follower that is behind better than many small ones. The event is dropped with the last
//! follower.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Holds the latest event, if there is one.
#[derive(Default)]
pub(super) struct LatestEvent(Mutex<Option<EncodedEvent>>);

/// Records as a `data` event, and the `control` event after it.
#[derive(Clone)]
pub(super) struct EncodedEvent {
    /// The position before its first record.
    pub(super) from: u64,
    /// The position after its last record.
    pub(super) to: u64,
    /// There were more records than fit into one event, or than had been read from files.
    pub(super) full: bool,
    pub(super) control: Control,
    /// Both events.
    pub(super) bytes: Bytes,
    /// The length of the `data` event, which is where the `control` event begins.
    pub(super) data: usize,
}

/// What a `control` event says, besides the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// The stream ends here.
    Closed,
    /// The stream continues. With `cursor`, caches distinguish requests made at different times.
    Open { up_to_date: bool, cursor: u64 },
}

impl Control {
    /// As an event. `next` is the position, as the client sees it.
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

impl LatestEvent {
    fn lock(&self) -> MutexGuard<'_, Option<EncodedEvent>> {
        // A panic leaves nothing half changed: the event is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event that begins at `at`, if it reaches as far as `seen`. Otherwise the one that `encode` makes, which
    /// is kept unless it begins before the one that is here. Meanwhile other followers wait, instead of encoding
    /// it too.
    pub(super) fn take<E>(
        &self,
        at: u64,
        seen: u64,
        encode: impl FnOnce() -> Result<Option<EncodedEvent>, E>,
    ) -> Result<Option<EncodedEvent>, E> {
        let mut latest = self.lock();
        match &*latest {
            Some(event) if event.from == at && (event.full || event.to >= seen) => {
                return Ok(Some(event.clone()));
            }
            // A follower that reads old records displaces nothing, and makes no other one wait.
            Some(event) if at < event.from => {
                drop(latest);
                return encode();
            }
            _ => {}
        }
        let event = encode()?;
        if event.is_some() {
            latest.clone_from(&event);
        }
        Ok(event)
    }

    /// Drops the event: there are no followers any more.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(from: u64, to: u64, full: bool) -> EncodedEvent {
        let bytes = Bytes::from(format!("{from} to {to};"));
        EncodedEvent { from, to, full, control: Control::Closed, data: bytes.len(), bytes }
    }

    fn take(latest: &LatestEvent, at: u64, seen: u64) -> (EncodedEvent, bool) {
        let mut made = false;
        let taken = latest.take::<()>(at, seen, || {
            made = true;
            Ok(Some(event(at, seen, false)))
        });
        (taken.unwrap().unwrap(), made)
    }

    #[test]
    fn followers_at_the_same_position_get_the_same_memory() {
        let latest = LatestEvent::default();
        let (first, made) = take(&latest, 3, 5);
        assert!(made);
        let (second, made) = take(&latest, 3, 5);
        assert!(!made);
        assert_eq!(second.bytes.as_ptr(), first.bytes.as_ptr());
        latest.forget();
        assert!(take(&latest, 3, 5).1);
    }

    #[test]
    fn an_event_is_taken_only_if_a_new_one_would_not_be_longer() {
        let latest = LatestEvent::default();
        take(&latest, 3, 5);
        assert!(!take(&latest, 3, 4).1, "it is longer than it must be");
        let (longer, made) = take(&latest, 3, 6);
        assert!(made && longer.to == 6);
        assert!(!take(&latest, 3, 6).1, "the longer one is kept");
        assert!(take(&latest, 1, 6).1, "an older event is not kept");
        assert!(!take(&latest, 3, 6).1, "and displaces nothing");
        latest.take::<()>(6, 9, || Ok(Some(event(6, 8, true)))).unwrap();
        assert!(!take(&latest, 6, 20).1, "it is as long as it can be");
    }
}
