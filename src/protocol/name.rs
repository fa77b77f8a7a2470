//! The names of topics and leases.

use std::fmt;

/// The longest name, in bytes.
pub const MAX_NAME: usize = 255;

/// A checked topic name: 1 to 255 bytes of UTF-8 without control characters.
///
/// The same rules apply to the names of leases, so the codec uses this type for both. It borrows and
/// is `Copy`; use [`as_str`](Self::as_str) to make an owned copy.
///
/// Names are compared byte for byte: no case folding, no Unicode normalisation.
///
/// ```
/// use psa::protocol::TopicName;
///
/// let name = TopicName::new("orders/eu")?;
/// assert_eq!(name.as_str(), "orders/eu");
/// assert!(TopicName::new("").is_err());
/// assert!(TopicName::new("a\nb").is_err());
/// # Ok::<(), psa::protocol::NameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks `name`. Costs one pass over at most 255 bytes.
    ///
    /// # Errors
    ///
    /// Reports which rule the name breaks.
    pub fn new(name: &'a str) -> Result<Self, NameError> {
        // The length first: a name of one megabyte is refused without being read.
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(NameError::TooLong { bytes: name.len() });
        }
        match name.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, found)) => Err(NameError::Control { at, found }),
            None => Ok(Self(name)),
        }
    }

    /// Checks bytes that came from outside.
    ///
    /// # Errors
    ///
    /// Reports which rule the name breaks.
    pub fn from_bytes(name: &'a [u8]) -> Result<Self, NameError> {
        if name.len() > MAX_NAME {
            return Err(NameError::TooLong { bytes: name.len() });
        }
        match std::str::from_utf8(name) {
            Ok(name) => Self::new(name),
            Err(error) => Err(NameError::NotUtf8 { at: error.valid_up_to() }),
        }
    }

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The name's bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

impl AsRef<str> for TopicName<'_> {
    fn as_ref(&self) -> &str {
        self.0
    }
}

impl<'a> TryFrom<&'a str> for TopicName<'a> {
    type Error = NameError;

    fn try_from(name: &'a str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("the name is empty; give 1 to {MAX_NAME} bytes")]
    Empty,
    /// The name is longer than [`MAX_NAME`].
    #[error("the name has {bytes} bytes; give 1 to {MAX_NAME}")]
    TooLong {
        /// The name's length in bytes.
        bytes: usize,
    },
    /// The name is not UTF-8.
    #[error("the name is not UTF-8 from byte {at} on; encode it as UTF-8")]
    NotUtf8 {
        /// The position of the first invalid byte.
        at: usize,
    },
    /// The name has a control character (Unicode category Cc).
    #[error("the name has the control character {found:?} at byte {at}; leave it out")]
    Control {
        /// Its position in bytes.
        at: usize,
        /// The character.
        found: char,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_exact() {
        let longest = "x".repeat(255);
        assert_eq!(TopicName::new(&longest).unwrap().as_str(), longest);
        let over = "x".repeat(256);
        assert_eq!(TopicName::new(&over), Err(NameError::TooLong { bytes: 256 }));
        assert_eq!(TopicName::new(""), Err(NameError::Empty));
        assert_eq!(TopicName::from_bytes(b""), Err(NameError::Empty));
    }

    #[test]
    fn every_control_character_is_refused() {
        for c in (0..=0xff_u8).map(char::from) {
            let name = format!("é{c}");
            let refused = matches!(
                TopicName::new(&name),
                Err(NameError::Control { at: 2, found }) if found == c
            );
            assert_eq!(refused, c.is_control(), "{c:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_say_where() {
        assert_eq!(TopicName::from_bytes(b"ab\xff"), Err(NameError::NotUtf8 { at: 2 }));
    }
}
