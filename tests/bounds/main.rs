//! What a log takes, counted: memory, calls of the allocator, and segments collected by a single append.
//!
//! The allocator counts for the whole process, so nothing else may run in it: no test that leaves a thread behind, no
//! other test at the same time, and no test harness that writes down results meanwhile. Hence a `main` of its own, which
//! runs one test after another: all, or those whose names contain one of the arguments.

#[path = "../adversary/allocator.rs"]
mod allocator;
mod bounds;
#[expect(dead_code, reason = "the adversary's tests need more of it")]
#[path = "../adversary/watchdog.rs"]
mod watchdog;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let tests = [
        (
            "a_small_log_owns_four_kib_whatever_threads_used_it",
            bounds::a_small_log_owns_four_kib_whatever_threads_used_it as fn(),
        ),
        (
            "the_peak_at_a_limit_is_the_limit_and_little_more",
            bounds::the_peak_at_a_limit_is_the_limit_and_little_more as fn(),
        ),
        (
            "an_append_that_evicts_collects_a_few_segments_whatever_the_backlog",
            bounds::an_append_that_evicts_collects_a_few_segments_whatever_the_backlog as fn(),
        ),
        (
            "an_append_that_lets_leases_expire_collects_a_few_segments",
            bounds::an_append_that_lets_leases_expire_collects_a_few_segments as fn(),
        ),
        (
            "a_slow_closure_holds_one_segment_and_stops_nobody",
            bounds::a_slow_closure_holds_one_segment_and_stops_nobody as fn(),
        ),
        ("leases_cost_an_append_nothing_each", bounds::leases_cost_an_append_nothing_each as fn()),
    ];
    let (mut passed, mut filtered) = (0, 0);
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            filtered += 1;
            continue;
        }
        // A panic ends the process, and says why.
        test();
        println!("test {name} ... ok");
        passed += 1;
    }
    println!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {filtered} filtered out"
    );
}
