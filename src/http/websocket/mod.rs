//! Following a topic over WebSocket (RFC 6455), at the address of its events.
//!
//! # What is said
//!
//! The same as with Server-Sent Events, by the same [`Following`](super::events::Following); only the
//! form is another one, and the client says which by the subprotocol. `psa.json`, and none at all: every
//! message is text, an array of JSON's objects, each of them a record or an event. `psa.binary`: records
//! come as binary messages, events as before. A message holds what there is, as many records as one run
//! has, and is shared like the runs of event streams: what goes out is a header of a few bytes for each
//! client, and then everybody's bytes.
//!
//! # What is heard
//!
//! Nothing but the protocol's own frames: pings are answered, a close is answered, and anything else
//! ends the connection. So nothing is read while something is still to be written, and a client that
//! asks much and takes nothing cannot make the server gather answers.
//!
//! # Who may
//!
//! A page can set no header on a handshake, so its token comes as one more subprotocol that it offers
//! and the server never chooses ([`handshake`]). Its origin is checked like that of every request, by
//! [`gate`](super::gate), and its right again whenever rights change ([`guarded`](super::guarded)).

mod handshake;
mod socket;

pub(super) use handshake::{Handshake, offered_token};
