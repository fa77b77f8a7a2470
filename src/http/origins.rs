//! The origins whose pages may use the server.

use crate::words::{BadOrigin, Origin};

/// Origins whose pages may use the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origins {
    every: bool,
    named: Vec<Origin>,
}

impl Origins {
    pub(super) fn read(texts: &[String]) -> Result<Self, BadOrigin> {
        let mut all = Self::default();
        for text in texts {
            match text.as_str() {
                "*" => all.every = true,
                text => all.named.push(text.parse()?),
            }
        }
        Ok(all)
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.every && self.named.is_empty()
    }

    /// Whether pages of every origin may use the server.
    pub(super) fn allows_all(&self) -> bool {
        self.every
    }

    /// Whether pages of the origin that a request names may use the server.
    pub(super) fn allows(&self, sent: &str) -> bool {
        self.every || sent.parse().is_ok_and(|origin| self.named.contains(&origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_found_however_it_is_written() {
        let named = ["https://App.Example:443".to_owned(), "http://x:3000".to_owned()];
        let origins = Origins::read(&named).unwrap();
        for sent in ["https://app.example", "https://APP.example", "http://x:3000"] {
            assert!(origins.allows(sent), "{sent}");
        }
        for other in ["http://app.example", "http://x", "null", "", "https://app.example.evil"] {
            assert!(!origins.allows(other), "{other}");
        }
        assert!(!origins.is_empty() && !origins.allows_all());
        let every = Origins::read(&["*".to_owned()]).unwrap();
        assert!(every.allows("null") && every.allows_all() && !every.is_empty());
        assert!(Origins::read(&["null".to_owned()]).is_err());
        assert!(Origins::default().is_empty());
    }
}
