//! Processes that fork, in a process of their own: what a child does after `fork` is not for the tests beside it.

use std::process::Command;

use psa::*;

/// Set for the process that forks.
const FORKS: &str = "PSA_TEST_FORKS";

/// Runs a test of this file once more, in a process of its own with one thread, and says what it printed.
fn alone(test: &str) -> String {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FORKS, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{err}");
    out.into_owned()
}

/// Runs `child` in a child, and waits until it has ended well.
fn in_a_child(child: impl FnOnce()) {
    // SAFETY: this process has no other thread that could hold a lock; see `alone`.
    let process = unsafe { libc::fork() };
    assert!(process >= 0, "{}", std::io::Error::last_os_error());
    if process == 0 {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the process at once. Nothing of the test's harness runs in it.
        unsafe { libc::_exit(i32::from(ran.is_err())) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    let ended = unsafe { libc::waitpid(process, &mut status, 0) };
    assert_eq!((ended, status), (process, 0));
}

#[test]
fn a_child_uses_the_log_that_it_was_born_with() {
    if std::env::var_os(FORKS).is_none() {
        alone("cases::forked::a_child_uses_the_log_that_it_was_born_with");
        return;
    }
    // ThreadSanitizer ends a child that begins a thread.
    if std::env::var_os("TSAN_OPTIONS").is_some() {
        return;
    }
    let log = Log::<u64>::builder().segment_records(4).build().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    (0..10).for_each(|n| drop(log.blocking_append(n)));
    let follow = |cursor: &mut Cursor<u64>| {
        std::thread::scope(|scope| {
            scope.spawn(|| (10..50).for_each(|n| drop(log.blocking_append(n))));
            let mut read = 0;
            while read < 50 {
                cursor
                    .blocking_next(|batch| {
                        batch.iter().for_each(|(offset, n)| assert_eq!(offset, *n));
                        read += batch.len();
                    })
                    .unwrap();
            }
        });
        assert_eq!(log.stats().live_segments, 1);
        assert_eq!(log.stats().unlinked_segments, 0);
    };
    in_a_child(|| follow(&mut cursor));
    follow(&mut cursor);
}

#[test]
fn a_child_draws_other_epochs_than_its_parent() {
    if std::env::var_os(FORKS).is_none() {
        let said = alone("cases::forked::a_child_draws_other_epochs_than_its_parent");
        let epochs: Vec<_> = said.lines().filter_map(|line| line.split("epoch ").nth(1)).collect();
        assert_eq!(epochs.len(), 6, "{said}");
        let mut different = epochs.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), epochs.len(), "{epochs:?}");
        return;
    }
    let draw = || {
        for _ in 0..3 {
            let line = format!("\nepoch {:#x}\n", Log::<u64>::builder().build().unwrap().epoch());
            // SAFETY: the bytes are there. In one piece, and past all buffers.
            unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
        }
    };
    // Whatever is seeded once is seeded.
    drop(Log::<u64>::builder().build());
    in_a_child(draw);
    draw();
}
