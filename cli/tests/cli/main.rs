//! The real `psa` binary, from outside: what it prints, what it writes, how it ends.
//!
//! Each test starts servers of its own on free ports. Random moments come from a seed that a failing
//! test prints; `PSA_TEST_SEED` replays it.

mod access;
mod backup;
mod config;
mod damage;
mod ends;
mod exactly_once;
mod harness;
mod log;
mod publish;
mod serve;
mod state;
mod subscribe;
mod topics;
mod wrapped;
