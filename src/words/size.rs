//! Sizes in bytes.

use std::fmt;
use std::str::FromStr;

use super::BadText;

const UNITS: [(&str, u64); 9] = [
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

/// A number of bytes.
///
/// It is written with the largest unit that divides it, so it parses back to the same number. It is parsed from a whole
/// number with a unit, `64MiB` (powers of 1024) or `64MB` (powers of 1000), in upper or lower case and with or without
/// blanks in between. A bare number is bytes. `64M` is refused, because it can mean either unit.
///
/// ```
/// use psa::words::Size;
///
/// assert_eq!("64 mib".parse(), Ok(Size(64 << 20)));
/// assert_eq!("65536".parse(), Ok(Size(64 << 10)));
/// assert_eq!(Size(3_000_000).to_string(), "3MB");
/// assert!("64M".parse::<Size>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(BadText::new("a size begins with a number, for example 64MiB"));
        }
        let number: u64 = number.parse().map_err(|_| BadText::new("the number is too large"))?;
        let unit = unit.trim();
        if unit.is_empty() {
            return Ok(Self(number));
        }
        let factor = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, factor)| *factor)
            .ok_or_else(|| hint(number, unit))?;
        let bytes = number.checked_mul(factor);
        bytes.map(Self).ok_or_else(|| BadText::new("the size is larger than 2^64 bytes"))
    }
}

fn hint(number: u64, unit: &str) -> BadText {
    if unit.starts_with('.') {
        return BadText::new("a size is a whole number: write 1536MiB, not 1.5GiB");
    }
    match unit.to_ascii_uppercase().as_str() {
        short @ ("K" | "M" | "G" | "T") => BadText::new(format!(
            "`{short}` can mean two units: write {number}{short}iB or {number}{short}B"
        )),
        _ => BadText::new("units are B, KiB, MiB, GiB, TiB and KB, MB, GB, TB"),
    }
}

impl fmt::Display for Size {
    // Powers of 1024 are tried first, because settings usually are multiples of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .copied()
            .unwrap_or(("B", 1));
        f.pad(&format!("{}{name}", self.0 / factor))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_size(text: &str) -> Result<u64, BadText> {
        text.parse().map(|Size(bytes)| bytes)
    }

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
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_written_size_reads_back(bytes: u64) {
            prop_assert_eq!(parse_size(&Size(bytes).to_string()), Ok(bytes));
        }

        #[test]
        fn any_text_is_answered(text: String) {
            let _ = parse_size(&text);
        }
    }
}
