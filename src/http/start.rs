//! Where to begin reading, as it stands in an address or in `Last-Event-ID`.

use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};

use crate::{
    broker::Topic,
    log::{Cursor, Start, SubscribeError},
};

/// An epoch as it is shown everywhere: hexadecimal text, since a JSON number of that size would lose
/// digits in many readers.
pub(super) fn epoch_text(epoch: u64) -> String {
    format!("{epoch:#018x}")
}

/// A place in a topic: behind the record before `next`. Written `EPOCH:OFFSET` with the offset of
/// that record, which is -1 in front of the first one.
pub(super) fn position_text(epoch: u64, next: u64) -> String {
    match next.checked_sub(1) {
        Some(last) => format!("{epoch:#018x}:{last}"),
        None => format!("{epoch:#018x}:-1"),
    }
}

/// A place that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// One of the log's own starts.
    Log(Start),
    /// This offset of this epoch.
    At { epoch: u64, offset: u64 },
}

impl Place {
    /// Reads `EPOCH:OFFSET`, the place behind that record; the offset -1 is in front of the first.
    pub(super) fn after(text: &str) -> Result<Self, &'static str> {
        let wrong = "expected EPOCH:OFFSET, such as 0x0123456789abcdef:41";
        let (epoch, offset) = text.split_once(':').ok_or(wrong)?;
        let epoch = parse_epoch(epoch).ok_or(wrong)?;
        if offset == "-1" {
            return Ok(Self::At { epoch, offset: 0 });
        }
        let offset = parse_digits(offset).ok_or(wrong)?;
        Ok(Self::Log(Start::After { epoch, offset }))
    }

    /// Reads what `from=` may be.
    pub(super) fn from(text: &str) -> Result<Self, &'static str> {
        match text {
            "earliest" => return Ok(Self::Log(Start::Earliest)),
            "next" => return Ok(Self::Log(Start::Next)),
            _ => {}
        }
        if let Some(records) = text.strip_prefix("last:") {
            let records =
                parse_digits(records).ok_or("expected a number of records behind last:")?;
            return Ok(Self::Log(Start::Last(records)));
        }
        if let Some(offset) = parse_digits(text) {
            return Ok(Self::Log(Start::At(offset)));
        }
        if let Some((epoch, offset)) = text.split_once(':')
            && let (Some(epoch), Some(offset)) = (parse_epoch(epoch), parse_digits(offset))
        {
            return Ok(Self::At { epoch, offset });
        }
        // A plus sign in a query is a space once it is decoded.
        let time = text.replace(' ', "+").parse::<Timestamp>().ok();
        let time = time.and_then(|time| SystemTime::try_from(time).ok());
        let time = time.or_else(|| SystemTime::now().checked_sub(parse_duration(text)?));
        time.map(|time| Self::Log(Start::Since(time))).ok_or(
            "expected earliest, next, last:N, an offset, EPOCH:OFFSET, a time such as 2026-01-31T12:00:00Z, or a duration ago such as 10m",
        )
    }

    /// A cursor there.
    pub(super) fn subscribe(self, topic: &Topic) -> Result<Cursor<[u8]>, SubscribeError> {
        let log = topic.log();
        match self {
            Self::Log(start) => log.subscribe(start),
            // The topic's epoch never changes, so there is no moment between the look and the start.
            Self::At { epoch, offset } if epoch == log.epoch() => log.subscribe(Start::At(offset)),
            Self::At { epoch: asked, .. } => Err(SubscribeError::WrongEpoch {
                asked,
                epoch: log.epoch(),
                first: log.first_offset(),
                next: log.next_offset(),
            }),
        }
    }

    /// The first offset that is asked for, if it is known.
    pub(super) fn offset(self) -> Option<u64> {
        match self {
            Self::Log(Start::After { offset, .. }) => Some(offset.saturating_add(1)),
            Self::At { offset, .. } | Self::Log(Start::At(offset)) => Some(offset),
            Self::Log(_) => None,
        }
    }
}

/// A duration with its unit: `30s`, `10m`, `1h30m`.
pub(super) fn parse_duration(text: &str) -> Option<std::time::Duration> {
    text.parse::<SignedDuration>().ok()?.try_into().ok()
}

/// Digits alone: `u64::from_str` would take a plus sign.
pub(super) fn parse_digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_epoch(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u64::from_str_radix(hex, 16).ok()
        }
        Some(_) => None,
        None => parse_digits(text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn places_are_read() {
        let log = |start| Ok(Place::Log(start));
        for (text, place) in [
            ("earliest", log(Start::Earliest)),
            ("next", log(Start::Next)),
            ("41", log(Start::At(41))),
            ("last:7", log(Start::Last(7))),
            ("0x0f:3", Ok(Place::At { epoch: 15, offset: 3 })),
            ("15:3", Ok(Place::At { epoch: 15, offset: 3 })),
            ("1970-01-01T00:00:05Z", log(Start::Since(UNIX_EPOCH + Duration::from_secs(5)))),
            ("1970-01-01T02:00:05 02:00", log(Start::Since(UNIX_EPOCH + Duration::from_secs(5)))),
        ] {
            assert_eq!(Place::from(text), place, "{text}");
        }
        let Ok(Place::Log(Start::Since(then))) = Place::from("10m") else { panic!("a time") };
        let ago = then.elapsed().unwrap();
        assert!(ago >= Duration::from_secs(600) && ago < Duration::from_secs(660), "{ago:?}");
        for bad in ["", "+1", "last:", "last:x", "0x:1", "0x+1:1", "first", "1:-1", "-10m"] {
            assert!(Place::from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_position_reads_back() {
        assert_eq!(position_text(255, 0), "0x00000000000000ff:-1");
        assert_eq!(Place::after(&position_text(255, 0)), Ok(Place::At { epoch: 255, offset: 0 }));
        assert_eq!(
            Place::after(&position_text(u64::MAX, 42)),
            Ok(Place::Log(Start::After { epoch: u64::MAX, offset: 41 }))
        );
        for bad in ["", "7", "7:", ":9", "-7:9", "x:y", "7:9:1", "7:-2", "7:+1"] {
            assert!(Place::after(bad).is_err(), "{bad}");
        }
    }
}
