//! The error for a text that could not be parsed.

use std::borrow::Cow;

/// Why a text could not be parsed, and how to write it. The message does not repeat the text.
///
/// ```
/// let error = "64M".parse::<psa::words::Size>().unwrap_err();
/// assert_eq!(error.to_string(), "`M` can mean two units: write 64MiB or 64MB");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadText(Cow<'static, str>);

impl BadText {
    pub(crate) fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}
