//! Who may do what: tokens, their rights, and the check that both listeners make.
//!
//! # From a token to a right
//!
//! A client presents one text. The [`Gate`] of its listener finds out what it is: the one shared [`Token`], which
//! may do everything, or one of the tokens that an [`Access`] knows, which may do what their entry says. What
//! comes out is a [`Grant`], and each request asks the grant whether it has the [`Right`] that it needs, by
//! the topic's name and before it is looked whether that topic exists: who may not see a topic does not learn
//! that it is there.
//!
//! # What is kept
//!
//! An [`Access`] keeps no token, but the SHA-256 of each. A slow hash protects passwords, which can be guessed;
//! these tokens are 256 random bits (`psa token new` makes them), which no amount of guessing finds, and a
//! slow hash would only be a way to keep the server busy. All entries are compared, each in constant time,
//! whatever was found before: how long that takes tells neither whether one fits nor which.
//!
//! # What changes
//!
//! [`Access::replace`] puts another list in the place of the one that is in force. Whoever is inside learns of
//! it by [`Access::revision`], and of an expired token likewise, and has its grant [renewed](Gate::renew) or ends.

mod book;
mod grant;
mod pattern;
mod token;

pub use book::{Access, AccessError, MAX_TOKENS};
pub use grant::{Right, TokenEntry};
pub use pattern::{BadPattern, Pattern};
pub use token::Token;

pub(crate) use book::Gate;
#[cfg(feature = "http")]
pub(crate) use book::News;
pub(crate) use grant::{Forbidden, Grant};
pub(crate) use token::MAX_TOKEN;
