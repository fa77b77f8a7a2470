//! Following a topic over WebSocket (RFC 6455), at the path of its events.
//!
//! # What the server sends
//!
//! The same as with Server-Sent Events, through the same [`Following`](super::events::Following), but in another
//! form, which the client chooses by subprotocol. With `psa.json`, or none: every message is text, a JSON array
//! of objects, each of which is a record or an event. With `psa.binary`: records come as binary messages, and
//! events as text. A message holds the records that are there, at most those of one run, and is shared as runs of
//! event streams are: each client gets a header of a few bytes of its own, and then bytes that all share.
//!
//! # What the server accepts
//!
//! Only the protocol's own frames: it answers pings and a close, and anything else ends the connection. It reads
//! nothing while something is still to be written, so a client that asks much and takes nothing cannot make the
//! server pile up answers.
//!
//! # Who may connect
//!
//! A page cannot set headers on a handshake, so it passes its token as one more subprotocol, which the server
//! never chooses ([`handshake`]). Its origin is checked by [`gate`](super::gate), like that of every request, and
//! its right again whenever rights change ([`authorized_body`](super::authorized_body)).

mod handshake;
mod socket;

pub(super) use handshake::{Handshake, offered_token};
