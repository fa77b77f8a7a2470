//! The server over real sockets: a client that is nothing but a socket and the codec.

#![cfg(feature = "server")]

mod access;
mod bus;
mod deliver;
mod drain;
mod handshake;
mod leases;
mod limits;
mod overflow;
mod publish;
mod support;
mod topics;
mod versions;

// A lease that could be swapped for another topic's would be counted in the wrong place.
static_assertions::assert_not_impl_any!(psa::broker::TopicLease: std::ops::DerefMut);
