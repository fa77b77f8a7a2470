//! Sizes, durations and counts for the command line. `psa::words` parses and writes them; this module adds parsers for
//! flags that take a plain number or duration, and rounded figures for people to compare.

use psa::words::{Period, Size};
use std::time::Duration;

/// Parses a size in bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    text.parse().map(|Size(bytes)| bytes).map_err(|error| error.to_string())
}

/// Parses a duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse().map(|Period(duration)| duration).map_err(|error| error.to_string())
}

/// Writes a size for people to compare, with one decimal: `1.4 MiB`. Not exact.
pub fn human_size(bytes: u64) -> String {
    let units = ["TiB", "GiB", "MiB", "KiB"];
    for (unit, shift) in units.iter().zip([40u32, 30, 20, 10]) {
        if bytes >= 1 << shift {
            return format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64);
        }
    }
    format!("{bytes} B")
}

/// Writes a count with its digits grouped: `1,234,567`.
pub fn human_count(count: u64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        assert_eq!(human_count(0), "0");
        assert_eq!(human_count(999), "999");
        assert_eq!(human_count(1000), "1,000");
        assert_eq!(human_count(1234567), "1,234,567");
    }
}
