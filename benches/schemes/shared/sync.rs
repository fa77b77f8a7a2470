//! What the log takes from the machine. All of it is the same for every scheme, but for reclamation, which
//! is the crate's own.

#[path = "barrier.rs"]
pub(crate) mod barrier;
#[path = "machine.rs"]
mod machine;
#[path = "roles.rs"]
pub(crate) mod roles;

pub(crate) use crate::reclaim;
pub(crate) use machine::*;
