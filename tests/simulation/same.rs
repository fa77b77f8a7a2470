//! The same seed is the same run.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;

use super::random::{Plan, run};

fn trace(seed: u64) -> Vec<String> {
    let world = run(Plan { seed, records: 300, keeps_all: seed.is_multiple_of(2) });
    let trace = world.borrow_mut().trace.split_off(0);
    assert!(trace.len() > 1000, "{} lines", trace.len());
    trace
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    let seed = super::seed("same seed, same run");
    for seed in [seed, seed + 1] {
        let (first, second) = (trace(seed), trace(seed));
        let same = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
        assert!(
            first == second,
            "seed {seed}: {} and {} lines, apart from line {same} on:\n{:#?}\n{:#?}",
            first.len(),
            second.len(),
            &first[same.saturating_sub(3)..first.len().min(same + 3)],
            &second[same.saturating_sub(3)..second.len().min(same + 3)],
        );
    }
    // With two seeds of the same kind of topic.
    assert_ne!(trace(seed), trace(seed + 2));
}

/// Says which seed the process is to run whose trace is compared.
const CHILD: &str = "SIMULATED_SEED";
const SAYS: &str = "the trace is ";

fn fingerprint(seed: u64) -> String {
    // Hashed with fixed keys.
    let mut hasher = DefaultHasher::new();
    trace(seed).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Addresses, hash maps' keys and the system's random numbers are others in another process.
#[test]
fn the_same_seed_is_the_same_run_in_another_process() {
    if let Ok(seed) = std::env::var(CHILD) {
        let fingerprint = fingerprint(seed.parse().expect("a number"));
        return println!("{SAYS}{fingerprint}");
    }
    let seed = super::seed("same seed in another process");
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "same::the_same_seed_is_the_same_run_in_another_process"]);
    let output = command.arg("--nocapture").env(CHILD, seed.to_string()).output();
    let output = output.expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    let (_, there) = said
        .split_once(SAYS)
        .unwrap_or_else(|| panic!("it says {said} {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(there.get(..16), Some(fingerprint(seed).as_str()));
}
