//! The text and the JSON of retentions and overflow policies, which are types of the log.

use std::fmt;
use std::str::FromStr;

use super::{BadText, Period, Size};
use crate::log::{Overflow, Retention};

/// Written as in the configuration: `nothing`, `everything`, `1000 records`, `64MiB`, `1h`. With the feature `text`, it
/// can be parsed, too.
///
/// ```
/// assert_eq!(psa::Retention::Records(1000).to_string(), "1000 records");
/// # #[cfg(feature = "text")]
/// assert_eq!("64 MiB".parse(), Ok(psa::Retention::Bytes(64 << 20)));
/// ```
impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nothing => f.pad("nothing"),
            Self::Everything => f.pad("everything"),
            Self::Records(1) => f.pad("1 record"),
            Self::Records(count) => f.pad(&format!("{count} records")),
            Self::Bytes(bytes) => Size(bytes).fmt(f),
            Self::Age(age) => Period(age).fmt(f),
        }
    }
}

#[cfg(feature = "text")]
impl FromStr for Retention {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let text = text.trim();
        match text {
            "nothing" => return Ok(Self::Nothing),
            "everything" => return Ok(Self::Everything),
            _ => {}
        }
        let forms = || {
            BadText::new(
                "write nothing, everything, `1000 records`, a size such as 64MiB or an age such as 1h",
            )
        };
        if let Some(count) = text.strip_suffix("records").or_else(|| text.strip_suffix("record")) {
            return count.trim().parse().map(Self::Records).map_err(|_| forms());
        }
        // A bare number would parse as a size, but the user may have meant records.
        if text.is_empty() || text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(forms());
        }
        if let Ok(Size(bytes)) = text.parse() {
            return Ok(Self::Bytes(bytes));
        }
        match text.parse() {
            Ok(Period(age)) if age.as_millis() == 0 => Err(BadText::new("an age is at least 1ms")),
            Ok(Period(age)) => Ok(Self::Age(age)),
            Err(_) => Err(forms()),
        }
    }
}

/// Written as one word: `block`, `reject` or `evict`.
///
/// ```
/// assert_eq!(psa::Overflow::Evict.to_string(), "evict");
/// assert_eq!("reject".parse(), Ok(psa::Overflow::Reject));
/// ```
impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Block => "block",
            Self::Reject => "reject",
            Self::Evict => "evict",
        })
    }
}

impl FromStr for Overflow {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        match text {
            "block" => Ok(Self::Block),
            "reject" => Ok(Self::Reject),
            "evict" => Ok(Self::Evict),
            _ => Err(BadText::new("expected block or reject or evict")),
        }
    }
}

#[cfg(feature = "serde")]
mod json {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Retention;

    /// A retention in JSON: `"nothing"`, `{"records": 1000}`, `{"bytes": 1048576}`, `{"age_ms": 3600000}`. Serde's derive
    /// would have to be on the type itself, and the log does not depend on serde, so this remote definition describes the
    /// type to serde.
    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Retention", rename_all = "snake_case")]
    enum Parts {
        Nothing,
        Records(u64),
        Bytes(u64),
        #[serde(rename = "age_ms", with = "millis")]
        Age(Duration),
        Everything,
    }

    impl Serialize for Retention {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            Parts::serialize(self, serializer)
        }
    }

    impl<'de> Deserialize<'de> for Retention {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Parts::deserialize(deserializer)
        }
    }

    mod millis {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer, Serializer};

        pub(super) fn serialize<S: Serializer>(age: &Duration, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_u64(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Duration, D::Error> {
            u64::deserialize(from).map(Duration::from_millis)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn retentions() -> impl Strategy<Value = Retention> {
        prop_oneof![
            Just(Retention::Nothing),
            Just(Retention::Everything),
            any::<u64>().prop_map(Retention::Records),
            any::<u64>().prop_map(Retention::Bytes),
            (1_000_000..=u64::MAX).prop_map(|nanos| Retention::Age(Duration::from_nanos(nanos))),
        ]
    }

    #[test]
    fn overflows_read_back() {
        for overflow in [Overflow::Block, Overflow::Reject, Overflow::Evict] {
            assert_eq!(overflow.to_string().parse(), Ok(overflow));
        }
        for bad in ["", "Block", "drop", " evict"] {
            assert!(bad.parse::<Overflow>().is_err(), "{bad}");
        }
    }

    #[cfg(feature = "text")]
    proptest! {
        #[test]
        fn a_written_retention_reads_back(retention in retentions()) {
            prop_assert_eq!(retention.to_string().parse(), Ok(retention));
        }

        #[test]
        fn any_text_is_answered(text: String) {
            let _ = text.parse::<Retention>();
        }
    }

    #[cfg(all(feature = "serde", feature = "http"))]
    proptest! {
        #[test]
        fn json_reads_back(retention in retentions()) {
            let json = serde_json::to_string(&retention).unwrap();
            let expected = match retention {
                // The JSON form has whole milliseconds.
                Retention::Age(age) => Retention::Age(Duration::from_millis(age.as_millis() as u64)),
                other => other,
            };
            prop_assert_eq!(serde_json::from_str::<Retention>(&json).unwrap(), expected);
        }
    }
}
