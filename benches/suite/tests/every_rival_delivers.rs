//! Every rival delivers everything, once and in order, in a tiny form of every cell.
//!
//! The benchmark bodies verify what every subscriber receives, so running them is the test; times are
//! not looked at.

use psa_suite::cells::{Kind, all};

/// Few enough for a debug build, and more than a chain's segment, so that all of them roll over.
const RECORDS: u64 = 3_000;

/// Runs all cells whose kind and number of subscribers `fit`.
fn run(fit: impl Fn(Kind, usize) -> bool) {
    let mut runs = 0;
    for cell in all(RECORDS as usize) {
        if !fit(cell.kind, cell.shape.subscribers) {
            continue;
        }
        let records = match cell.kind {
            Kind::Parked => 2,
            Kind::Idle => 300,
            _ => RECORDS,
        };
        for entry in &cell.entries {
            let result = (entry.run)(&cell.shape, records);
            let what = format!("{} [{}], {}", cell.name, cell.payload, entry.rival);
            let measured = result.unwrap_or_else(|trouble| panic!("{what}: {trouble}"));
            assert!(measured.wall.is_some() == (cell.kind == Kind::Parked), "{what}");
            runs += 1;
        }
    }
    assert!(runs > 0, "no cell fits");
}

#[test]
fn on_few_threads() {
    run(|kind, subscribers| kind == Kind::Threads && subscribers < 100);
}

#[test]
fn on_a_hundred_threads() {
    run(|kind, subscribers| kind == Kind::Threads && subscribers >= 100);
}

#[test]
fn on_tasks() {
    run(|kind, _| kind == Kind::Tasks);
}

#[test]
fn in_replay_and_beside_nobody() {
    run(|kind, _| matches!(kind, Kind::Replay | Kind::Append));
}

#[test]
fn beside_idle_subscribers() {
    run(|kind, subscribers| kind == Kind::Idle && subscribers <= 1000);
}

#[test]
fn to_parked_tasks() {
    run(|kind, subscribers| kind == Kind::Parked && subscribers <= 1000);
}
