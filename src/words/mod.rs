//! Sizes, durations, points in time, positions, starts, retentions, overflow policies and durabilities as text: how each
//! is written, and how it is parsed.
//!
//! The configuration, the command line and the HTTP API all use this module, so a text that one of them accepts is
//! accepted by all of them. The [table](https://github.com/psa-log/psa/blob/main/docs/configuration.md#value-syntax)
//! in the book has examples of each.
//!
//! | type | what is written | what is also accepted |
//! | --- | --- | --- |
//! | [`Size`] | `64MiB`, `1500B` | `64 MB`, `65536` |
//! | [`Period`] | `1h30m`, `250ms`, `0s` | `1.5h`, `90 minutes`, `1 day, 2 hours`, `PT90M` |
//! | `Time` | `2026-01-31T12:00:00.000000000Z` | `2026-01-31 12:00:00+01:00`, `2026-01-31T12:00Z` |
//! | [`Retention`](crate::Retention) | `nothing`, `everything`, `1000 records`, `64MiB`, `1h` | |
//! | [`Overflow`](crate::Overflow) | `block`, `reject`, `evict` | |
//! | `Durability` | `memory`, `written`, `synced` | |
//! | `Origin` | `https://app.example`, as browsers send it | `HTTPS://App.Example:443` |
//! | `HostName` | `psa.example.org` | `PSA.Example.org.` |
//! | [`Position`](crate::Position) | `0x0123456789abcdef:41`, the point after that record | the epoch in decimal digits |
//! | [`Start`](crate::Start) | | `earliest`, `next`, `last:7`, `41`, `EPOCH:OFFSET`, a time, `10m` |
//!
//! Parsing a [`Period`], a [`Retention`](crate::Retention) or a [`Start`](crate::Start), and all of `Time`, `Origin` and
//! `HostName`, need the feature `text`, which adds a calendar library. With the feature `serde`, each of these types but
//! `Start`, `Origin`, `HostName` and `Retention` is serialized as its text. `Retention` is serialized as in the HTTP API: `"nothing"`, `{"records": 1000}`,
//! `{"age_ms": 3600000}`.

#[cfg(any(feature = "protocol", feature = "http"))]
mod durability;
mod error;
#[cfg(feature = "text")]
mod origin;
mod period;
mod position;
mod retention;
mod size;
#[cfg(feature = "text")]
mod time;

pub use error::BadText;
#[cfg(feature = "text")]
pub use origin::{BadOrigin, HostName, Origin};
pub use period::Period;
#[cfg(feature = "http")]
pub(crate) use position::parse_digits;
pub use size::Size;
#[cfg(feature = "text")]
pub use time::Time;

/// Implements serde for a type by its text: what `Display` writes and `FromStr` parses.
#[cfg(feature = "serde")]
macro_rules! serde_as_text {
    ($word:ty) => {
        impl serde::Serialize for $word {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $word {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

#[cfg(feature = "serde")]
serde_as_text!(Size);
#[cfg(feature = "serde")]
serde_as_text!(crate::log::Overflow);
#[cfg(feature = "serde")]
serde_as_text!(crate::log::Position);
#[cfg(all(feature = "serde", any(feature = "protocol", feature = "http")))]
serde_as_text!(crate::durability::Durability);
#[cfg(all(feature = "serde", feature = "text"))]
serde_as_text!(Period);
#[cfg(all(feature = "serde", feature = "text"))]
serde_as_text!(Time);
