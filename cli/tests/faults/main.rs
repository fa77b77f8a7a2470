//! Faults, against the real binary: processes that are killed or stand still, peers that say too little or
//! nothing, numbers at their limits, too few descriptors, a flood, clocks that jump. `docs/evidence/faults.md`
//! has the list, and what each test cannot see.
//!
//! Random moments come from a seed that every test prints; `PSA_TEST_SEED=N` sets it. `PSA_TEST_FAULTS=full`
//! makes each of them as large as it is meant to be: minutes instead of seconds.
#![cfg(unix)]

#[path = "../e2e/harness.rs"]
mod harness;
#[path = "../bad_input/healthy.rs"]
mod healthy;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../e2e/preload.rs"]
mod preload;
// Not all of it is used here.
#[allow(dead_code)]
#[path = "../bad_input/raw.rs"]
mod raw;
#[path = "../bad_input/told.rs"]
mod told;

mod clock;
mod crowd;
mod frozen;
mod kill;
mod program;
mod slow;
mod sweep;

/// Whether the long forms were asked for.
fn is_full() -> bool {
    match std::env::var("PSA_TEST_FAULTS").as_deref() {
        Err(_) => false,
        Ok("full") => true,
        Ok(other) => panic!("PSA_TEST_FAULTS={other}: there is only `full`"),
    }
}
