//! The real binary, end to end: processes, sockets, signals, files.
//!
//! One file per scenario. `harness` has the servers, the commands and the waiting; `input` what is
//! published, `feed` how fast, `follower` a subscriber process that is killed and started again.
//!
//! Random moments come from a seed that every test prints; `PSA_TEST_SEED=N` sets it.
#![cfg(unix)]

mod again;
mod feed;
mod follow;
mod follower;
mod harness;
mod input;
mod leases;
mod restart;
mod stop;
