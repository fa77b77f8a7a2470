//! How a reader paces itself: the log's own source for it, on a machine that counts (`sync` here).

#[path = "../../src/log/pace.rs"]
mod pace;

use crate::sync::{LONGEST_LULL, TASK_TURN, THREAD_TURN, counted};
use pace::Pace;

/// How long the pace lulls, in spins, after looks that have each brought so many records.
fn lulls(pace: &mut Pace, found: usize, looks: usize) -> Vec<u32> {
    let lull = |_| {
        pace.found(found);
        pace.hold_thread();
        counted().0
    };
    (0..looks).map(lull).collect()
}

#[test]
fn a_reader_that_gets_few_records_lulls_longer_and_longer() {
    let mut pace = Pace::default();
    pace.hold_thread();
    assert_eq!(counted(), (0, 0), "a reader that has found nothing yet does not hesitate");
    assert_eq!(lulls(&mut pace, 255, 7), [1, 3, 7, 15, 31, 31, 31]);
    assert_eq!(LONGEST_LULL, 31);
}

#[test]
fn a_reader_that_gets_many_records_lulls_less_and_less() {
    let mut pace = Pace::default();
    lulls(&mut pace, 1, 2);
    assert_eq!(lulls(&mut pace, 256, 2), [3, 3], "neither few nor many");
    assert_eq!(lulls(&mut pace, 2048, 2), [3, 3], "neither few nor many");
    lulls(&mut pace, 1, 3);
    assert_eq!(lulls(&mut pace, 2049, 6), [15, 7, 3, 1, 0, 0]);
}

#[test]
fn a_thread_lets_others_go_first_once_in_a_turn() {
    let mut pace = Pace::default();
    let mut yields = |bytes| {
        pace.took(bytes);
        pace.hold_thread();
        counted().1
    };
    assert_eq!([yields(THREAD_TURN - 1), yields(1), yields(0)], [0, 1, 0]);
    assert_eq!([yields(THREAD_TURN - 1), yields(usize::MAX), yields(1)], [0, 1, 0]);
}

#[test]
fn a_task_that_has_to_wait_begins_its_turn_anew() {
    let mut pace = Pace::default();
    pace.took(TASK_TURN);
    assert!(pace.ends_tasks_turn());
    pace.took(TASK_TURN - 1);
    assert!(!pace.ends_tasks_turn());
    pace.pauses();
    pace.took(TASK_TURN - 1);
    assert!(!pace.ends_tasks_turn());
    pace.took(1);
    assert!(pace.ends_tasks_turn());
}
