//! The stand-in for `src/sync`: the very files that ship, but for memory reclamation, which is the
//! crate's own.

#[path = "../../../src/sync/barrier.rs"]
pub(crate) mod barrier;
#[path = "../../../src/sync/machine.rs"]
mod machine;

pub(crate) use crate::reclaim;
pub(crate) use machine::*;
