//! Access control: tokens, their rights, and the check that both listeners make.
//!
//! # From a token to a right
//!
//! A client presents one text. The [`Gate`] of its listener determines what it is: the shared [`Token`], which
//! may do everything, or one of the tokens that an [`Access`] knows, which may do what their entries say. The
//! result is a [`Grant`]. Each request checks that the grant has the [`Right`] that it needs. This check uses
//! only the topic's name and comes before the look-up of the topic, so a client that may not see a topic does
//! not learn whether it exists.
//!
//! # What is kept
//!
//! An [`Access`] keeps the SHA-256 of each token, not the token itself. A slow hash protects passwords, which can
//! be guessed. These tokens are 256 random bits (`psa token new` creates them), which cannot be guessed, and a slow
//! hash would only offer a way to keep the server busy. Every presented token is compared with all entries, each in
//! constant time, whatever was found before: the time that takes reveals neither whether an entry matches nor which.
//!
//! # What changes
//!
//! [`Access::replace`] replaces the list that is in force. Connections notice this, and a token's expiry, by
//! [`Access::revision`]. They then [renew](Gate::renew) their grants, or end if they no longer can.

mod grant;
mod known_tokens;
mod pattern;
mod token;

pub use grant::{Right, TokenEntry};
pub use known_tokens::{Access, AccessError, MAX_TOKENS};
pub use pattern::{BadPattern, Pattern};
pub use token::Token;

pub(crate) use grant::{Forbidden, Grant};
#[cfg(feature = "http")]
pub(crate) use known_tokens::AccessChanges;
pub(crate) use known_tokens::Gate;
pub(crate) use token::MAX_TOKEN;
