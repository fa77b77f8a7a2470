//! Where to begin reading, as a query or `Last-Event-ID` says it.

use crate::log::{Position, Start};
use crate::words::BadText;

/// An epoch as every response shows it: hexadecimal text, since many readers would lose digits of a JSON number
/// of that size.
pub(super) fn epoch_text(epoch: u64) -> String {
    format!("{epoch:#018x}")
}

/// Reads `from=`, in which decoding has turned a plus sign into a space. A plus sign can only precede the zone of
/// a time, so no other space stands for one.
pub(super) fn from(text: &str) -> Result<Start, BadText> {
    text.parse().or_else(|error| match text.rsplit_once(' ') {
        Some((time, zone)) => format!("{time}+{zone}").parse().map_err(|_| error),
        None => Err(error),
    })
}

/// Reads `after=`, and the ids of events.
pub(super) fn after(text: &str) -> Result<Start, BadText> {
    text.parse().map(Start::Resume)
}

/// The first offset that is asked for, if it is known.
pub(super) fn offset(start: Start) -> Option<u64> {
    match start {
        Start::Resume(Position { next, .. }) | Start::At(next) => Some(next),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn places_are_read() {
        let log = Ok;
        for (text, place) in [
            ("earliest", log(Start::Earliest)),
            ("next", log(Start::Next)),
            ("41", log(Start::At(41))),
            ("last:7", log(Start::Last(7))),
            ("0x0f:3", log(Start::Resume(Position { epoch: 15, next: 3 }))),
            ("15:3", log(Start::Resume(Position { epoch: 15, next: 3 }))),
            ("1970-01-01T00:00:05Z", log(Start::Since(UNIX_EPOCH + Duration::from_secs(5)))),
            ("1970-01-01T02:00:05 02:00", log(Start::Since(UNIX_EPOCH + Duration::from_secs(5)))),
            ("1970-01-01 00:00:05Z", log(Start::Since(UNIX_EPOCH + Duration::from_secs(5)))),
            ("1970-01-01 02:00:05+02:00", log(Start::Since(UNIX_EPOCH + Duration::from_secs(5)))),
            ("1970-01-01 02:00:05 02:00", log(Start::Since(UNIX_EPOCH + Duration::from_secs(5)))),
        ] {
            assert_eq!(from(text), place, "{text}");
        }
        let Ok(Start::Since(then)) = from("10m") else { panic!("a time") };
        let ago = then.elapsed().unwrap();
        assert!(ago >= Duration::from_secs(600) && ago < Duration::from_secs(660), "{ago:?}");
        for bad in ["", "+1", "last:", "last:x", "0x:1", "0x+1:1", "first", "1:-1", "-10m"] {
            assert!(from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_position_reads_back() {
        assert_eq!(Position { epoch: 255, next: 0 }.to_string(), "0x00000000000000ff:-1");
        assert_eq!(
            after(&Position { epoch: 255, next: 0 }.to_string()),
            Ok(Start::Resume(Position { epoch: 255, next: 0 }))
        );
        assert_eq!(
            after(&Position { epoch: u64::MAX, next: 42 }.to_string()),
            Ok(Start::Resume(Position { epoch: u64::MAX, next: 42 }))
        );
        for bad in ["", "7", "7:", ":9", "-7:9", "x:y", "7:9:1", "7:-2", "7:+1"] {
            assert!(after(bad).is_err(), "{bad}");
        }
    }
}
