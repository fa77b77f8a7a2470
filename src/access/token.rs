//! The one token that all clients may share.

use subtle::ConstantTimeEq;

/// The longest secret in bytes: what fits into a HELLO of the wire protocol.
pub(crate) const MAX_TOKEN: usize = 1024;

/// A shared secret. `{:?}` does not show it, and comparing it takes a time that depends on its length
/// alone.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes the secret. Binding a server fails if no client could present it: see [`check`](Self::check).
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Checks that clients of every kind can present this as their token. It must have 1 to 1,024 bytes, which fit
    /// into a HELLO, of visible ASCII, which an HTTP header can carry. Blanks are allowed inside, but not at either
    /// end.
    ///
    /// # Errors
    ///
    /// The error says what is wrong, and shows nothing of the secret.
    ///
    /// ```
    /// use psa::server::Token;
    ///
    /// assert!(Token::check("s3cret").is_ok());
    /// assert!(Token::check("pässwört").is_err());
    /// ```
    pub fn check(secret: &str) -> Result<(), &'static str> {
        if secret.is_empty() {
            Err("the token is empty; give 1 to 1024 bytes")
        } else if secret.len() > MAX_TOKEN {
            Err("the token is longer than 1024 bytes; give 1 to 1024")
        } else if secret.starts_with('\u{feff}') {
            Err("the token begins with a byte order mark; save its file without one")
        } else if secret.contains(char::is_control) {
            Err("the token contains a control character; no client can send it")
        } else if !secret.is_ascii() {
            Err("the token contains a letter outside of ASCII; no header of HTTP can carry it")
        } else if secret.starts_with(' ') || secret.ends_with(' ') {
            Err("the token begins or ends with a blank; no header of HTTP can carry it")
        } else {
            Ok(())
        }
    }

    /// What is wrong with the token, if anything: see [`check`](Self::check).
    pub(crate) fn validation_error(&self) -> Option<&'static str> {
        Self::check(&self.0).err()
    }

    /// Whether `presented` is the secret. The time this takes reveals at most whether the lengths are equal.
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
    fn a_token_can_be_presented_by_every_client() {
        for good in ["s3cret", "a b", "!~", &"x".repeat(MAX_TOKEN)] {
            assert_eq!(Token::check(good), Ok(()), "{good}");
        }
        let long = "x".repeat(MAX_TOKEN + 1);
        for bad in ["", " lead", "trail ", "pässwört", "\u{feff}s3cret", "a\tb", "a\u{7f}", &long]
        {
            let why = Token::check(bad).unwrap_err();
            assert!(bad.is_empty() || !why.contains(bad), "{why}");
        }
    }

    #[test]
    fn a_token_matches_itself_alone() {
        let token = Token::new("abc");
        assert!(token.matches("abc"));
        for wrong in ["", "ab", "abd", "abcd", "ABC"] {
            assert!(!token.matches(wrong), "{wrong}");
        }
    }
}
