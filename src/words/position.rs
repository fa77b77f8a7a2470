//! The text of positions and starts, which are types of the log.

use std::fmt;
use std::str::FromStr;

use super::BadText;
use crate::log::Position;
#[cfg(feature = "text")]
use crate::log::Start;

/// Written as `EPOCH:OFFSET`, with the offset of the record just before the position, or -1 at the beginning.
///
/// ```
/// use psa::Position;
///
/// let position = Position { epoch: 255, next: 42 };
/// assert_eq!(position.to_string(), "0x00000000000000ff:41");
/// assert_eq!("0xff:41".parse(), Ok(position));
/// assert_eq!("255:-1".parse(), Ok(Position { next: 0, ..position }));
/// ```
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.next.checked_sub(1) {
            Some(last) => write!(f, "{:#018x}:{last}", self.epoch),
            None => write!(f, "{:#018x}:-1", self.epoch),
        }
    }
}

impl FromStr for Position {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let wrong = || BadText::new("expected EPOCH:OFFSET, such as 0x0123456789abcdef:41");
        let (epoch, offset) = text.split_once(':').ok_or_else(wrong)?;
        let epoch = parse_epoch(epoch).ok_or_else(wrong)?;
        let next = match offset {
            "-1" => 0,
            // The largest offset has no successor; no record ever has it.
            _ => parse_digits(offset).ok_or_else(wrong)?.saturating_add(1),
        };
        Ok(Self { epoch, next })
    }
}

/// Parses `earliest`, `next`, `last:N`, an offset, `EPOCH:OFFSET`, a point in time, or a duration ago.
///
/// In `EPOCH:OFFSET`, the offset is that of the first record wanted: one more than in the text of a [`Position`].
///
/// ```
/// use psa::{Position, Start};
///
/// assert_eq!("last:7".parse(), Ok(Start::Last(7)));
/// assert_eq!("0xff:41".parse(), Ok(Start::Resume(Position { epoch: 255, next: 41 })));
/// assert!(matches!("10m".parse(), Ok(Start::Since(_))));
/// ```
#[cfg(feature = "text")]
impl FromStr for Start {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        use super::{Period, Time};

        match text {
            "earliest" => return Ok(Self::Earliest),
            "next" => return Ok(Self::Next),
            _ => {}
        }
        if let Some(records) = text.strip_prefix("last:") {
            let wrong = || BadText::new("expected a number of records after last:");
            return parse_digits(records).map(Self::Last).ok_or_else(wrong);
        }
        if let Some(offset) = parse_digits(text) {
            return Ok(Self::At(offset));
        }
        if let Some((epoch, next)) = text.split_once(':')
            && let (Some(epoch), Some(next)) = (parse_epoch(epoch), parse_digits(next))
        {
            return Ok(Self::Resume(Position { epoch, next }));
        }
        if let Ok(Period(ago)) = text.parse() {
            let now = std::time::SystemTime::now();
            // A time before the clock's range means from the beginning.
            return Ok(Self::Since(now.checked_sub(ago).unwrap_or(std::time::UNIX_EPOCH)));
        }
        match text.parse() {
            Ok(Time(time)) => Ok(Self::Since(time)),
            // A text that looks like a time gets the specific reason; any other text gets the list of forms.
            Err(why) if text.contains('-') && text.contains(':') => Err(why),
            Err(_) => Err(BadText::new(
                "expected earliest, next, last:N, an offset, EPOCH:OFFSET, a time such as 2026-01-31T12:00:00Z, or a duration ago such as 10m",
            )),
        }
    }
}

/// Parses digits only: `u64::from_str` would also accept a plus sign.
pub(crate) fn parse_digits(text: &str) -> Option<u64> {
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_of_one_epoch_have_an_order() {
        let at = |epoch, next| Position { epoch, next };
        assert!(at(1, 2) < at(1, 3));
        assert_eq!(at(1, 2).partial_cmp(&at(2, 3)), None);
    }

    proptest! {
        #[test]
        fn a_written_position_reads_back(epoch: u64, next: u64) {
            let position = Position { epoch, next };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn any_text_is_answered(text in "[-+0-9a-fx:]{0,20}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string().parse(), Ok(position));
            }
        }
    }
}
