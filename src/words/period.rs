//! Durations.

use std::fmt;
use std::time::Duration;

const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A duration, as people write it.
///
/// It is written exactly, and parses back to the same duration: `1h30m`, `250ms`, `0s`. With the feature `text`, it can be
/// parsed from numbers with units, `1h30m`, `1.5h`, `90 minutes`, `1 day, 2 hours`, or from the ISO 8601 form,
/// `PT1H30M`. A day has 24 hours and a week seven days. Months and years are refused, because their lengths vary, and so
/// is a number without a unit. The longest duration is 584 years, 2⁶⁴ ns.
///
/// ```
/// use std::time::Duration;
///
/// use psa::words::Period;
///
/// assert_eq!(Period(Duration::from_millis(5_400_250)).to_string(), "1h30m250ms");
/// # #[cfg(feature = "text")] {
/// assert_eq!("1h30m".parse(), Ok(Period(Duration::from_secs(5400))));
/// assert_eq!("1.5 hours".parse(), Ok(Period(Duration::from_secs(5400))));
/// assert!("90".parse::<Period>().is_err());
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.pad("0s");
        }
        let mut text = String::new();
        for (name, factor) in UNITS {
            if rest >= factor {
                text.push_str(&format!("{}{name}", rest / factor));
                rest %= factor;
            }
        }
        f.pad(&text)
    }
}

#[cfg(feature = "text")]
mod reading {
    use std::str::FromStr;
    use std::time::Duration;

    use jiff::{Span, SpanRelativeTo};

    use super::{Period, UNITS};
    use crate::words::BadText;

    const TOO_LONG: &str = "longer than 584 years";

    impl FromStr for Period {
        type Err = BadText;

        fn from_str(text: &str) -> Result<Self, BadText> {
            let text = text.trim();
            // Whole numbers with short units are tried first. So everything that is written here parses back, even 584
            // years of nanoseconds, which jiff's spans cannot hold; and the parts may come in any order.
            let why = match sum(text) {
                Ok(period) => return Ok(period),
                Err(why) => why,
            };
            let Ok(span) = text.parse::<Span>() else { return Err(why) };
            let duration = span
                .to_duration(SpanRelativeTo::days_are_24_hours())
                .map_err(|_| BadText::new("months and years differ in length: write it in days"))?;
            let duration = Duration::try_from(duration)
                .map_err(|_| BadText::new("a duration is not negative"))?;
            u64::try_from(duration.as_nanos())
                .map(|_| Self(duration))
                .map_err(|_| BadText::new(TOO_LONG))
        }
    }

    /// Parses a sequence of numbers with short units.
    fn sum(text: &str) -> Result<Period, BadText> {
        let mut rest = text;
        if rest.is_empty() {
            return Err(BadText::new("a duration begins with a number, for example 5s"));
        }
        let mut total: u128 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            if number.is_empty() {
                return Err(BadText::new(
                    "a duration is numbers with units, for example 5s, 250ms or 1h30m",
                ));
            }
            let number: u64 =
                number.parse().map_err(|_| BadText::new("the number is too large"))?;
            let after = after.trim_start();
            let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, after) = after.split_at(letters);
            let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, f)| *f);
            let Some(factor) = factor else {
                return Err(if unit.is_empty() && after.is_empty() {
                    BadText::new(format!("a duration needs a unit: write {number}s or {number}ms"))
                } else {
                    BadText::new("units are ns, us, ms, s, m, h, d and w")
                });
            };
            // A sum of 64-bit products: it cannot overflow 128 bits for any text that fits in memory.
            total += u128::from(number) * u128::from(factor);
            rest = after.trim_start();
        }
        let nanos = u64::try_from(total).map_err(|_| BadText::new(TOO_LONG))?;
        Ok(Period(Duration::from_nanos(nanos)))
    }

    #[cfg(test)]
    mod tests {
        use proptest::prelude::*;

        use super::*;

        fn parse_duration(text: &str) -> Result<Duration, BadText> {
            text.parse().map(|Period(duration)| duration)
        }

        #[test]
        fn durations() {
            assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
            assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
            assert_eq!(parse_duration("1 h 30 m"), Ok(Duration::from_secs(5400)));
            assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
            assert_eq!(Period(Duration::from_secs(5400)).to_string(), "1h30m");
            assert_eq!(Period(Duration::ZERO).to_string(), "0s");
        }

        /// Spellings that once only the command line accepted, that once only HTTP accepted, and combinations of both.
        #[test]
        fn every_spelling_is_accepted_everywhere() {
            let day = 86_400;
            for (text, seconds) in [
                ("1d", day),
                ("30m1h", 5400),
                ("1s 1s", 2),
                (" 5s ", 5),
                ("1.5h", 5400),
                ("1,5h", 5400),
                ("1 hour", 3600),
                ("1 hour, 30 minutes", 5400),
                ("1hr 30mins", 5400),
                ("01:30:00", 5400),
                ("+10m", 600),
                ("PT5S", 5),
                ("pt1h30m", 5400),
                ("P1D", day),
                ("1 day, 2 hours", day + 7200),
                ("1w", 7 * day),
                ("1000000µs", 1),
            ] {
                assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
            }
        }

        #[test]
        fn wrong_durations_say_how_to_write_them() {
            for (text, part) in [
                ("", "begins with a number"),
                ("s", "numbers with units"),
                ("5", "write 5s or 5ms"),
                ("5 fortnights", "units are"),
                ("300000d", "longer than"),
                ("6000000 hours", "longer than"),
                ("1 month", "differ in length"),
                ("1y", "differ in length"),
                ("-10m", "not negative"),
                ("10m ago", "not negative"),
            ] {
                let error = parse_duration(text).unwrap_err().to_string();
                assert!(error.contains(part), "{text}: {error}");
            }
        }

        proptest! {
            #[test]
            fn a_written_duration_reads_back(nanos: u64) {
                let duration = Duration::from_nanos(nanos);
                prop_assert_eq!(parse_duration(&Period(duration).to_string()), Ok(duration));
            }

            /// Both forms that jiff writes parse to the same duration.
            #[test]
            fn the_forms_of_jiff_read_back(nanos in 0..u64::MAX / 2) {
                let duration = Duration::from_nanos(nanos);
                let of_jiff = jiff::SignedDuration::try_from(duration).unwrap();
                prop_assert_eq!(parse_duration(&format!("{of_jiff}")), Ok(duration));
                prop_assert_eq!(parse_duration(&format!("{of_jiff:#}")), Ok(duration));
            }

            #[test]
            fn any_text_is_answered(text: String) {
                let _ = parse_duration(&text);
            }
        }
    }
}
