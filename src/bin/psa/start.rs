//! Where a subscription begins, as users write it.

use crate::time::{nanos_of, parse_rfc3339};
use crate::units::parse_duration;
use std::str::FromStr;
use std::time::SystemTime;

/// The value of `--from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartArg {
    /// The oldest record that is still there.
    Earliest,
    /// Only what comes.
    Next,
    /// The record with this offset.
    Offset(u64),
    /// The first record not older than this, in nanoseconds since the Unix epoch.
    Since(u64),
}

impl FromStr for StartArg {
    type Err = String;

    fn from_str(text: &str) -> Result<StartArg, String> {
        match text {
            "earliest" => return Ok(StartArg::Earliest),
            "next" => return Ok(StartArg::Next),
            _ => {}
        }
        if let Ok(offset) = text.parse() {
            return Ok(StartArg::Offset(offset));
        }
        if let Ok(ago) = parse_duration(text) {
            return Ok(StartArg::Since(nanos_of(
                SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
            )));
        }
        match parse_rfc3339(text) {
            Ok(time) => Ok(StartArg::Since(nanos_of(time))),
            // Something that looks like a time deserves the reason; the rest deserves the list.
            Err(why) if text.contains('-') && text.contains(':') => Err(why),
            Err(_) => {
                Err("expected earliest, next, an offset, a time or a duration ago such as 10m"
                    .into())
            }
        }
    }
}

/// Reads `EPOCH:OFFSET`; the epoch is decimal or hexadecimal with `0x`, as `psa topics` prints it.
pub(crate) fn parse_after(text: &str) -> Result<(u64, u64), String> {
    let parse = || {
        let (epoch, offset) = text.split_once(':')?;
        let epoch = match epoch.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            None => epoch.parse().ok()?,
        };
        Some((epoch, offset.parse().ok()?))
    };
    parse()
        .ok_or_else(|| "expected EPOCH:OFFSET, as `psa sub --format json` shows them".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts() {
        assert_eq!("earliest".parse(), Ok(StartArg::Earliest));
        assert_eq!("next".parse(), Ok(StartArg::Next));
        assert_eq!("17".parse(), Ok(StartArg::Offset(17)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(StartArg::Since(1_000_000_000)));
        let Ok(StartArg::Since(then)) = "10m".parse() else { panic!("a duration ago") };
        let now = nanos_of(SystemTime::now());
        assert!(now - then >= 600_000_000_000 && now - then < 660_000_000_000);
        assert!("first".parse::<StartArg>().unwrap_err().contains("expected earliest"));
        assert!("2026-02-30T00:00:00Z".parse::<StartArg>().unwrap_err().contains("no such date"));
    }

    #[test]
    fn after() {
        assert_eq!(parse_after("7:9"), Ok((7, 9)));
        assert_eq!(parse_after("0xff:9"), Ok((255, 9)));
        for bad in ["", "7", "7:", ":9", "-7:9", "x:y", "7:9:1"] {
            assert!(parse_after(bad).is_err(), "{bad}");
        }
    }
}
