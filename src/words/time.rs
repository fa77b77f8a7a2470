//! Points in time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use super::BadText;

/// A point in time, as people and other programs write it.
///
/// It is written in the format of RFC 3339, in UTC and always with nine digits of a second, so the texts sort in the order
/// of the times. It is parsed with a `T` or a space between date and time, with or without seconds, and with `Z` or an
/// offset such as `+02:00`, which may be followed by a zone as in RFC 9557. The basic form of ISO 8601,
/// `20260131T120000Z`, is accepted, too. A time without `Z` or an offset is refused, because its meaning depends on where
/// it is read. Digits beyond nanoseconds are dropped.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// use psa::words::Time;
///
/// let time: Time = "1970-01-01 01:00:05+01:00".parse()?;
/// assert_eq!(time, Time(UNIX_EPOCH + Duration::from_secs(5)));
/// assert_eq!(time.to_string(), "1970-01-01T00:00:05.000000000Z");
/// assert!("1970-01-01T00:00:05".parse::<Time>().is_err());
/// # Ok::<(), psa::words::BadText>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub SystemTime);

impl Time {
    /// The time that is this many nanoseconds after the beginning of 1970, as in the TCP protocol.
    ///
    /// ```
    /// assert_eq!(psa::words::Time::from_nanos(1).to_string(), "1970-01-01T00:00:00.000000001Z");
    /// ```
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        Self(UNIX_EPOCH + Duration::from_nanos(nanos))
    }

    /// Nanoseconds since the beginning of 1970; 0 for times before it, and `u64::MAX` for times after 2554.
    ///
    /// ```
    /// # use psa::words::Time;
    /// assert_eq!(Time::from_nanos(7).nanos(), 7);
    /// assert_eq!("1969-12-31T00:00:00Z".parse::<Time>()?.nanos(), 0);
    /// # Ok::<(), psa::words::BadText>(())
    /// ```
    #[must_use]
    pub fn nanos(self) -> u64 {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Time {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let text = text.trim();
        let time = text.parse::<Timestamp>().or_else(|error| match cut(text) {
            Some(cut) => cut.parse(),
            None => Err(error),
        });
        let time = time.map_err(|_| why(text))?;
        SystemTime::try_from(time)
            .map(Self)
            .map_err(|_| BadText::new("this machine's clock does not go as far as that"))
    }
}

/// The text without the digits beyond nanoseconds, which jiff does not accept.
fn cut(text: &str) -> Option<String> {
    let (seconds, fraction) = text.split_once(['.', ','])?;
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, zone) = fraction.split_at(digits);
    Some(format!("{seconds}.{}{zone}", fraction.get(..9)?))
}

/// The error for a text that is not a time.
fn why(text: &str) -> BadText {
    let begins = text.as_bytes().first_chunk::<5>();
    if !begins.is_some_and(|b| b[4] == b'-' && b[..4].iter().all(u8::is_ascii_digit)) {
        return BadText::new("a time looks like 2026-01-31T12:00:00Z");
    }
    let of_day = text.split_once(['T', 't', ' ']).map_or("", |(_, of_day)| of_day);
    if !of_day.ends_with(['Z', 'z', ']']) && !of_day.contains(['+', '-']) {
        return BadText::new("a time ends with Z or an offset such as +02:00");
    }
    BadText::new("there is no such date, or no such time of day")
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.0 < UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
        write!(f, "{:.9}", Timestamp::try_from(self.0).unwrap_or(end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NANOS: u64 = 1_000_000_000;

    fn parse(text: &str) -> Result<SystemTime, BadText> {
        text.parse().map(|Time(time)| time)
    }

    #[test]
    fn known_times() {
        assert_eq!(Time::from_nanos(0).to_string(), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(
            Time::from_nanos(951_782_400 * NANOS).to_string(),
            "2000-02-29T00:00:00.000000000Z"
        );
        assert_eq!(
            parse("2001-09-09T01:46:40Z"),
            Ok(UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        );
        assert_eq!(
            parse("2001-09-09 03:46:40.25+02:00"),
            Ok(UNIX_EPOCH + Duration::from_millis(1_000_000_000_250))
        );
    }

    /// Spellings that once only the command line accepted, that once only HTTP accepted, and that both accepted.
    #[test]
    fn every_spelling_is_accepted_everywhere() {
        let then = parse("2001-09-09T01:46:40Z");
        for text in [
            "2001-09-09 01:46:40Z",
            "2001-09-09t01:46:40z",
            "20010909T014640Z",
            "2001-09-09T03:46:40+02:00[Europe/Berlin]",
            "2001-09-09T03:46:40+0200",
            "2001-09-09T03:46:40+02",
            "2001-09-09T01:46:40,000Z",
            "2001-09-09T01:46:40.0000000000001Z",
            " 2001-09-09T01:46:40Z ",
        ] {
            assert_eq!(parse(text), then, "{text}");
        }
        assert_eq!(parse("2001-09-09T01:46Z"), parse("2001-09-09T01:46:00Z"));
        assert_eq!(Time(parse("1969-12-31T23:59:59Z").unwrap()).nanos(), 0);
        assert_eq!(Time(parse("9999-01-01T00:00:00Z").unwrap()).nanos(), u64::MAX);
    }

    #[test]
    fn wrong_times_say_why() {
        for (text, part) in [
            ("", "looks like"),
            ("yesterday at noon, please", "looks like"),
            ("2026-02-30T00:00:00Z", "no such date"),
            ("2026-13-01T00:00:00Z", "no such date"),
            ("2026-01-01T24:00:00Z", "no such time"),
            ("2026-01-01T00:00:00 ", "ends with Z"),
            ("2026-01-01", "ends with Z"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_written_time_reads_back(nanos: u64) {
            let time: Time = Time::from_nanos(nanos).to_string().parse().unwrap();
            prop_assert_eq!(time.nanos(), nanos);
        }

        #[test]
        fn any_text_is_answered(text in "[-0-9TZ:.,+ é]{0,40}") {
            let _ = parse(&text);
        }
    }
}
