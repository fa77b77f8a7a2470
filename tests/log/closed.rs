//! Waiting for the end of a log.

use std::future::Future as _;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use psa::*;

use crate::small;
use crate::tasks::{Task, at_once};

#[test]
fn whoever_waits_for_the_end_hears_of_nothing_else() {
    let log: Log<u64> = small().build().unwrap();
    let (task, mut closed) = (Task::new(), pin!(log.closed()));
    assert!(closed.as_mut().poll(&mut task.context()).is_pending());
    (0..20).for_each(|n| assert_eq!(log.try_append(n), Ok(n)));
    assert_eq!(task.woken(), 0);
    log.close();
    assert_eq!(task.woken(), 1);
    assert!(closed.as_mut().poll(&mut task.context()).is_ready());
    at_once(log.closed());
}

#[test]
fn it_is_no_handle() {
    let (publisher, log) = small::<u64>().build_exclusive().unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| (Task::new(), log.closed())).collect();
    for (task, closed) in &mut waiting {
        assert!(pin!(closed).poll(&mut task.context()).is_pending());
    }
    // One that is dropped keeps nobody from hearing.
    drop(waiting.remove(0));
    drop((publisher, log));
    for (task, closed) in &mut waiting {
        assert_eq!(task.woken(), 1);
        assert!(pin!(closed).poll(&mut task.context()).is_ready());
    }
}

#[test]
fn threads_wait_for_the_end() {
    let log: Log<u64> = small().build().unwrap();
    let (publisher, exclusive) = small::<u64>().build_exclusive().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| log.blocking_closed());
        }
        scope.spawn(|| exclusive.blocking_closed());
        // Long enough that they sleep: they only look for a short while.
        thread::sleep(Duration::from_millis(20));
        (0..20).for_each(|n| assert_eq!(log.try_append(n), Ok(n)));
        log.close();
        drop(publisher);
    });
    log.blocking_closed();
}
