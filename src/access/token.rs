//! The one token that all may share.

use subtle::ConstantTimeEq;

/// The longest secret in bytes: what fits a HELLO of the wire protocol.
pub(crate) const MAX_TOKEN: usize = 1024;

/// A shared secret. It is not shown by `{:?}`, and compared in a time that depends on its length
/// alone.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes the secret. An empty one is a mistake that binding refuses; one of more than 1,024 bytes
    /// fits no HELLO and is refused likewise.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `presented` is the secret. The time tells at most whether the lengths agree.
    #[must_use]
    pub fn matches(&self, presented: &str) -> bool {
        self.0.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_itself_alone() {
        let token = Token::new("abc");
        assert!(token.matches("abc"));
        for wrong in ["", "ab", "abd", "abcd", "ABC"] {
            assert!(!token.matches(wrong), "{wrong}");
        }
    }
}
