//! Server and clients over a simulated network: delay, loss, reordered arrival, partitions in one direction
//! or both, hosts that crash, peers that are gone without a word.
//!
//! What runs is the source in `src`, put together by `tests/simulated` over turmoil's sockets and tokio's
//! clock. Everything random, in the network, in the faults and in the code itself, comes from one seed that
//! is printed, so the same seed is the same run, record for record and millisecond for millisecond; `same`
//! tests that. `PSA_TEST_SEED=N` sets the first seed, `PSA_TEST_SEEDS=N` how many runs there are.
//!
//! Time is simulated, so the tests here may ask when something happens.

mod actors;
mod alone;
mod deadlines;
mod faults;
mod random;
mod same;
mod world;

/// The first seed, which is printed.
fn seed(name: &str) -> u64 {
    let seed = match std::env::var("PSA_TEST_SEED") {
        Ok(text) => text.parse().expect("PSA_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 48),
    };
    eprintln!("{name}: PSA_TEST_SEED={seed}");
    seed
}

/// How many seeds to run.
fn seeds(usual: u64) -> u64 {
    let given = std::env::var("PSA_TEST_SEEDS");
    given.map_or(usual, |text| text.parse().expect("PSA_TEST_SEEDS is a number"))
}
