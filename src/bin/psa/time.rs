//! Points in time, as `--from` reads them and JSON output writes them: RFC 3339.
//!
//! A whole date library for two conversions would be the larger evil; the calendar arithmetic is the
//! well-known one of days since 0000-03-01, where leap days fall at the end of the year.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NANOS: u64 = 1_000_000_000;

/// Writes nanoseconds since the Unix epoch as `2026-01-31T12:00:00.123456789Z`, always with nine
/// digits, so that the texts sort as the times do.
pub(crate) fn format_nanos(nanos: u64) -> String {
    let (seconds, fraction) = (nanos / NANOS, nanos % NANOS);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days as i64);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{fraction:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Nanoseconds since the Unix epoch; 0 for times before it.
pub(crate) fn nanos_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads an RFC 3339 time (`2026-01-31T12:00:00Z`, a fraction and an offset such as `+02:00` are
/// fine, and so is a space for the `T`).
///
/// Returns a plain reason on failure. Times before 1970 or after 2554 do not fit and are refused.
pub(crate) fn parse_rfc3339(text: &str) -> Result<SystemTime, String> {
    let wrong = || "a time looks like 2026-01-31T12:00:00Z".to_string();
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 {
        return Err(wrong());
    }
    for (at, expected) in [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")] {
        if bytes[at] != expected[0] {
            return Err(wrong());
        }
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return Err(wrong());
    }
    let number = |from: usize, to: usize| -> Result<i64, String> {
        let part = &text[from..to];
        if part.bytes().all(|b| b.is_ascii_digit()) {
            part.parse().map_err(|_| wrong())
        } else {
            Err(wrong())
        }
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return Err("there is no such time of day".into());
    }
    if !(1..=12).contains(&month)
        || day < 1
        || civil(days_from_civil(year, month, day)) != (year, month, day)
    {
        return Err("there is no such date".into());
    }
    let mut rest = &text[19..];
    let mut fraction = 0u64;
    if let Some(after) = rest.strip_prefix('.') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(wrong());
        }
        // Digits beyond nanoseconds are cut.
        for place in 0..9 {
            let digit =
                after.as_bytes().get(place).filter(|_| place < digits).map_or(0, |d| d - b'0');
            fraction = fraction * 10 + u64::from(digit);
        }
        rest = &after[digits..];
    }
    let offset = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - rest.len();
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return Err(wrong());
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return Err("a time ends with Z or an offset such as +02:00".into()),
    };
    let seconds =
        days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let nanos = u64::try_from(seconds)
        .ok()
        .and_then(|s| s.checked_mul(NANOS))
        .and_then(|n| n.checked_add(fraction))
        .ok_or("times lie between the years 1970 and 2554")?;
    Ok(UNIX_EPOCH + Duration::from_nanos(nanos))
}

/// Days since 1970-01-01 to (year, month, day).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        assert_eq!(format_nanos(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(format_nanos(951_782_400 * NANOS), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(
            parse_rfc3339("2001-09-09T01:46:40Z"),
            Ok(UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        );
        assert_eq!(
            parse_rfc3339("2001-09-09 03:46:40.25+02:00"),
            Ok(UNIX_EPOCH + Duration::from_millis(1_000_000_000_250))
        );
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
            ("1969-12-31T23:59:59Z", "between the years"),
            ("9999-01-01T00:00:00Z", "between the years"),
        ] {
            let error = parse_rfc3339(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_written_time_reads_back(nanos: u64) {
            let time = parse_rfc3339(&format_nanos(nanos)).unwrap();
            prop_assert_eq!(nanos_of(time), nanos);
        }

        #[test]
        fn any_text_is_answered(text in "[-0-9TZ:.+ é]{0,40}") {
            let _ = parse_rfc3339(&text);
        }
    }
}
