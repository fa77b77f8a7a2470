//! Why a text could not be read.

use std::borrow::Cow;

/// Why a text could not be read, and how to write it. The text itself is not repeated.
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
