//! The text of durabilities.

use std::fmt;
use std::str::FromStr;

use super::BadText;
use crate::durability::Durability;

/// Written as one word: `memory`, `written` or `synced`.
///
/// ```
/// assert_eq!(psa::Durability::Synced.to_string(), "synced");
/// assert_eq!("written".parse(), Ok(psa::Durability::Written));
/// ```
impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Durability {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        Self::ALL
            .into_iter()
            .find(|durability| durability.word() == text)
            .ok_or_else(|| BadText::new("expected memory or written or synced"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durabilities_read_back() {
        for durability in Durability::ALL {
            assert_eq!(durability.to_string().parse(), Ok(durability));
        }
        for bad in ["", "Synced", "disk", " memory"] {
            let error = bad.parse::<Durability>().unwrap_err().to_string();
            for durability in Durability::ALL {
                assert!(error.contains(durability.word()), "{bad:?}: {error}");
            }
        }
    }

    #[cfg(all(feature = "serde", feature = "http"))]
    #[test]
    fn json_is_the_word() {
        for durability in Durability::ALL {
            let json = serde_json::to_string(&durability).unwrap();
            assert_eq!(json, format!("\"{durability}\""));
            assert_eq!(serde_json::from_str::<Durability>(&json).unwrap(), durability);
        }
        assert!(serde_json::from_str::<Durability>("\"disk\"").is_err());
    }
}
