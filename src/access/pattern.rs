//! Patterns: which topics a right applies to.

use std::fmt;
use std::str::FromStr;

use wildmatch::WildMatchPattern;

/// The longest pattern in bytes: as long as the longest topic name.
const LONGEST: usize = 255;

/// The single-character wildcard. Patterns and topic names cannot contain this character, so there is no such wildcard.
const NONE: char = '\0';

/// A pattern for topic names: `*` matches any sequence of characters, including the empty one and `/`. Every
/// other character matches itself. There is no other syntax.
///
/// ```
/// use psa::server::Pattern;
///
/// let pattern: Pattern = "orders/*".parse()?;
/// assert!(pattern.matches("orders/eu/7") && pattern.matches("orders/"));
/// assert!(!pattern.matches("orders") && !pattern.matches("Orders/1"));
/// # Ok::<(), psa::server::BadPattern>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Pattern(WildMatchPattern<'*', NONE>);

/// The error for a text that is not a valid pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to {LONGEST} bytes and no control character; `*` is every topic")]
pub struct BadPattern(());

impl Pattern {
    /// Whether the pattern matches the name `topic`.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        self.0.matches(topic)
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        if text.is_empty() || text.len() > LONGEST || text.contains(char::is_control) {
            return Err(BadPattern(()));
        }
        Ok(Self(WildMatchPattern::new(text)))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(topic)
    }

    /// The definition in the documentation, implemented in the simplest and slowest way.
    fn by_definition(pattern: &[char], topic: &[char]) -> bool {
        match pattern.split_first() {
            None => topic.is_empty(),
            Some((&'*', rest)) => (0..=topic.len()).any(|at| by_definition(rest, &topic[at..])),
            Some((first, rest)) => topic.first() == Some(first) && by_definition(rest, &topic[1..]),
        }
    }

    #[test]
    fn every_short_pattern_means_what_the_documentation_says() {
        // All words of up to five of these three letters, as patterns and as names.
        let letters = ['a', 'b', '*'];
        let mut words: Vec<Vec<char>> = vec![Vec::new()];
        for length in 0..5 {
            let longer = words.iter().filter(|word| word.len() == length).flat_map(|word| {
                letters.iter().map(|letter| [word.as_slice(), &[*letter]].concat())
            });
            let longer: Vec<_> = longer.collect();
            words.extend(longer);
        }
        for pattern in words.iter().filter(|word| !word.is_empty()) {
            let text: String = pattern.iter().collect();
            let known: Pattern = text.parse().unwrap();
            for topic in &words {
                let name: String = topic.iter().collect();
                assert_eq!(known.matches(&name), by_definition(pattern, topic), "{text} {name}");
            }
        }
    }

    #[test]
    fn nothing_but_the_star_is_special() {
        for special in ["?", "[a]", "a+", ".", "\\", "{a,b}", "**/"] {
            let expected = special.contains('*');
            assert_eq!(matches(special, "a"), expected && special == "**", "{special}");
        }
        assert!(matches("?", "?") && !matches("?", "a"));
        assert!(matches("ä*ß", "äöüß") && !matches("ä*ß", "aöüß"));
        for bad in ["", "a\nb", "\0", &"x".repeat(256)] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }
}
