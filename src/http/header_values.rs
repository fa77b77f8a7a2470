//! The values of headers that the API itself understands: as text, and as numbers.

use axum::http::{HeaderMap, HeaderName};

use super::problem::Problem;

/// The longest content type, producer id or sequence that is kept, in bytes. A topic keeps no longer ones either.
const MAX_KEPT: usize = 256;
/// The largest number that every client can represent exactly: 2^53 - 1.
const MAX_NUMBER: u64 = (1 << 53) - 1;
/// A header as text, if it is there.
pub(super) fn text<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::bad_header(name, "given twice; give it once"));
    }
    match value.to_str() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Problem::bad_header(
            name,
            "only visible characters of ASCII, blanks and tabs are understood",
        )),
    }
}

/// Like [`text`], for a value that is kept: it must not be longer than [`MAX_KEPT`].
pub(super) fn short<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Problem> {
    match text(headers, name)? {
        Some(value) if value.len() > MAX_KEPT => {
            Err(Problem::bad_header(name, format!("longer than {MAX_KEPT} bytes")))
        }
        value => Ok(value),
    }
}

/// A number without a sign and without leading zeros.
pub(super) fn number(name: &HeaderName, text: &str) -> Result<u64, Problem> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
        && text.len() <= 16;
    match text.parse() {
        Ok(number) if plain && number <= MAX_NUMBER => Ok(number),
        _ => Err(Problem::bad_header(
            name,
            format!("expected a whole number from 0 to {MAX_NUMBER}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: HeaderName = HeaderName::from_static("stream-ttl");

    #[test]
    fn numbers_are_plain() {
        for (text, value) in [("0", 0), ("10", 10), ("9007199254740991", MAX_NUMBER)] {
            assert_eq!(number(&NAME, text).unwrap(), value);
        }
        for bad in
            ["", "-1", "+1", "01", "1.0", "1e3", " 1", "9007199254740992", "99999999999999999999"]
        {
            assert!(number(&NAME, bad).is_err(), "{bad}");
        }
    }
}
