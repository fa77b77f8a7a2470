//! Sizes and durations as people write them.
//!
//! A size is a whole number with a unit: `64MiB` (powers of 1024) or `64MB` (powers of 1000), and a
//! bare number is bytes. `64M` is refused: it means either of the two, depending on whom one asks.
//! A duration always has a unit, and may have several: `250ms`, `5s`, `1h30m`.
//!
//! Writing is exact: [`format_size`] picks the largest unit that divides the value, and a duration is
//! split into its parts, so that what is printed reads back as the same value. A property test holds
//! both to it.

use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

const DURATION_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a size in bytes: `65536`, `64KiB`, `10 MB`. The unit's case does not matter, except that a
/// unit must be complete.
///
/// The error says what is wrong and how to write it, without repeating the input.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("a size begins with a number, for example 64MiB".into());
    }
    let number: u64 = number.parse().map_err(|_| "the number is too large".to_string())?;
    let unit = unit.trim();
    if unit.is_empty() {
        return Ok(number);
    }
    let factor = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .map(|(_, factor)| *factor)
        .ok_or_else(|| size_unit_hint(number, unit))?;
    number.checked_mul(factor).ok_or_else(|| "the size is larger than 2^64 bytes".to_string())
}

fn size_unit_hint(number: u64, unit: &str) -> String {
    if unit.starts_with('.') {
        return "a size is a whole number: write 1536MiB, not 1.5GiB".into();
    }
    match unit.to_ascii_uppercase().as_str() {
        short @ ("K" | "M" | "G" | "T") => {
            format!("`{short}` can mean two units: write {number}{short}iB or {number}{short}B")
        }
        _ => "units are B, KiB, MiB, GiB, TiB and KB, MB, GB, TB".into(),
    }
}

/// Writes a size with the largest unit that divides it: `64MiB`, `1500B`. Powers of 1024 win over
/// powers of 1000, because that is what the settings are made of.
pub(crate) fn format_size(bytes: u64) -> String {
    let (name, factor) = SIZE_UNITS
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .copied()
        .unwrap_or(("B", 1));
    format!("{}{}", bytes / factor, name)
}

/// Writes a size for a person to compare, with one decimal: `1.4 MiB`. Not exact.
pub(crate) fn human_size(bytes: u64) -> String {
    let units = ["TiB", "GiB", "MiB", "KiB"];
    for (unit, shift) in units.iter().zip([40u32, 30, 20, 10]) {
        if bytes >= 1 << shift {
            return format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64);
        }
    }
    format!("{bytes} B")
}

/// Writes a count with thin grouping: `1,234,567`.
pub(crate) fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Reads a duration: `5s`, `250ms`, `1h30m`, `0s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("a duration begins with a number, for example 5s".into());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err("a duration is numbers with units, for example 5s, 250ms or 1h30m".into());
        }
        let number: u64 = number.parse().map_err(|_| "the number is too large".to_string())?;
        let after = after.trim_start();
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, f)| *f);
        let Some(factor) = factor else {
            return Err(if unit.is_empty() && after.starts_with('.') {
                "a duration is whole numbers: write 1500ms, not 1.5s".into()
            } else if unit.is_empty() {
                format!("a duration needs a unit: write {number}s or {number}ms")
            } else {
                "units are ns, us, ms, s, m, h and d".into()
            });
        };
        // A sum of 64-bit products: it cannot overflow 128 bits for any text that fits in memory.
        total += u128::from(number) * u128::from(factor);
        rest = after.trim_start();
    }
    let nanos = u64::try_from(total).map_err(|_| "longer than 584 years".to_string())?;
    Ok(Duration::from_nanos(nanos))
}

/// Writes a duration exactly: `1h30m`, `250ms`, `0s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (name, factor) in DURATION_UNITS {
        if rest >= factor {
            out.push_str(&format!("{}{}", rest / factor, name));
            rest %= factor;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("65536"), Ok(65536));
        assert_eq!(parse_size("64KiB"), Ok(65536));
        assert_eq!(parse_size(" 64 kib "), Ok(65536));
        assert_eq!(parse_size("3MB"), Ok(3_000_000));
        assert_eq!(parse_size("16777215TiB"), Ok(16_777_215 << 40));
    }

    #[test]
    fn wrong_sizes_say_how_to_write_them() {
        for (text, part) in [
            ("", "begins with a number"),
            ("MiB", "begins with a number"),
            ("-1", "begins with a number"),
            ("64M", "write 64MiB or 64MB"),
            ("1.5GiB", "whole number"),
            ("64 parsecs", "units are"),
            ("16777216TiB", "larger than 2^64"),
            ("99999999999999999999", "too large"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1 h 30 m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(format_duration(Duration::from_secs(5400)), "1h30m");
        assert_eq!(format_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn wrong_durations_say_how_to_write_them() {
        for (text, part) in [
            ("", "begins with a number"),
            ("s", "numbers with units"),
            ("5", "write 5s or 5ms"),
            ("1.5s", "whole numbers"),
            ("5 fortnights", "units are"),
            ("300000d", "longer than"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(human_count(0), "0");
        assert_eq!(human_count(999), "999");
        assert_eq!(human_count(1000), "1,000");
        assert_eq!(human_count(1234567), "1,234,567");
    }

    proptest! {
        #[test]
        fn a_written_size_reads_back(bytes: u64) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn a_written_duration_reads_back(nanos: u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_answered(text: String) {
            let _ = parse_size(&text);
            let _ = parse_duration(&text);
        }
    }
}
