//! Who is woken, by whom, how often; and what a wait that is given up leaves behind.

use std::pin::Pin;
use std::task::Poll;

use psa::*;

use crate::tasks::Task;

/// A task that waits for what its cursor reads next.
struct Reader {
    task: Task,
    cursor: Cursor<u64>,
}

impl Reader {
    fn new(log: &Log<u64>) -> Self {
        let mut reader = Reader { task: Task::new(), cursor: log.subscribe(Start::Next).unwrap() };
        assert!(!reader.is_ready());
        reader
    }

    fn is_ready(&mut self) -> bool {
        self.cursor.poll_ready(&mut self.task.context()).is_ready()
    }
}

fn readers(log: &Log<u64>, many: usize) -> Vec<Reader> {
    (0..many).map(|_| Reader::new(log)).collect()
}

fn woken(readers: &[Reader]) -> usize {
    readers.iter().filter(|reader| reader.task.woken() > 0).count()
}

// ---- notifying ----
// (How a cascade goes on is in `tests/models`, where no rescuer meddles: `cascade.rs`.)

/// Up to eight are woken by the publisher itself.
#[test]
fn a_few_are_woken_at_once() {
    for few in 1..=8 {
        let log = Log::<u64>::builder().build().unwrap();
        let mut waiting = readers(&log, few);
        log.blocking_append(7).unwrap();
        assert!(waiting.iter().all(|reader| reader.task.woken() == 1));
        assert!(waiting.iter_mut().all(Reader::is_ready));
    }
}

/// Nobody of them is run, and nothing is appended: all are woken, each of them once.
#[test]
fn many_are_woken_though_nobody_runs() {
    let log = Log::<u64>::builder().build().unwrap();
    let mut waiting = readers(&log, 1000);
    log.blocking_append(7).unwrap();
    while woken(&waiting) < waiting.len() {
        std::thread::yield_now();
    }
    assert!(waiting.iter_mut().all(Reader::is_ready));
    assert!(waiting.iter().all(|reader| reader.task.woken() == 1));
}

#[test]
fn an_exclusive_publisher_wakes_its_readers() {
    let (mut publisher, log) = Log::<u64>::builder().build_exclusive().unwrap();
    let (task, mut cursor) = (Task::new(), log.subscribe(Start::Next).unwrap());
    assert!(cursor.poll_ready(&mut task.context()).is_pending());
    publisher.blocking_append(7).unwrap();
    assert_eq!(task.woken(), 1);
}

#[test]
fn the_end_of_a_log_wakes_everybody_at_once() {
    let log = Log::<u64>::builder().build().unwrap();
    let mut waiting = readers(&log, 100);
    log.close();
    assert!(waiting.iter().all(|reader| reader.task.woken() == 1));
    assert!(waiting.iter_mut().all(Reader::is_ready));
}

#[test]
fn a_wait_that_moves_to_another_task_is_woken_there() {
    let log = Log::<u64>::builder().build().unwrap();
    let mut reader = Reader::new(&log);
    let before = std::mem::replace(&mut reader.task, Task::new());
    assert!(!reader.is_ready());
    assert!(!before.is_known());
    log.blocking_append(7).unwrap();
    assert_eq!((before.woken(), reader.task.woken()), (0, 1));
}

#[test]
fn every_wait_is_counted_once() {
    let log = Log::<u64>::builder().build().unwrap();
    let waits = || log.stats().reader_waits;
    assert_eq!(waits(), 0);
    let mut reader = Reader::new(&log);
    assert_eq!(waits(), 1);
    assert!(!reader.is_ready());
    assert_eq!(waits(), 1, "it is the same wait");
    let _another = Reader::new(&log);
    assert_eq!(waits(), 2);
    reader.cursor.stop_waiting();
    assert!(!reader.is_ready());
    assert_eq!(waits(), 3);
    log.blocking_append(7).unwrap();
    reader.cursor.try_next(|_| ()).unwrap();
    assert_eq!(waits(), 3);
    assert!(!reader.is_ready());
    assert_eq!(waits(), 4);
}

// ---- waits that are given up ----

#[test]
fn a_wait_that_is_over_keeps_no_waker() {
    let log = Log::<u64>::builder().build().unwrap();
    let mut reader = Reader::new(&log);
    assert!(reader.task.is_known());
    reader.cursor.stop_waiting();
    assert!(!reader.task.is_known());

    let mut next = reader.cursor.next(|_| ());
    assert!(reader.task.poll(Pin::new(&mut next)).is_pending());
    assert!(reader.task.is_known());
    drop(next);
    assert!(!reader.task.is_known());

    assert!(!reader.is_ready());
    drop(reader.cursor);
    assert!(!reader.task.is_known());
}

// ---- what waits cost in memory ----

/// How many waiting cursors have to be dropped before their nodes are swept out. Then those that still
/// wait are told to look again.
fn dropped_before_a_sweep(log: &Log<u64>, keepers: &mut [Reader]) -> usize {
    let before: Vec<_> = keepers.iter().map(|keeper| keeper.task.woken()).collect();
    let mut dropped = 0;
    while keepers[0].task.woken() == before[0] {
        assert!(dropped < 1000, "nothing is ever swept out");
        drop(Reader::new(log));
        dropped += 1;
    }
    assert!(keepers.iter().zip(before).all(|(keeper, before)| keeper.task.woken() == before + 1));
    assert!(!keepers.iter_mut().any(Reader::is_ready));
    dropped
}

#[test]
fn nodes_of_those_who_are_gone_do_not_pile_up() {
    // At least 64, and at least as many as still wait.
    for (keepers, dropped) in [(1, 64), (36, 64), (64, 64), (65, 65), (100, 100)] {
        let log = Log::<u64>::builder().build().unwrap();
        let mut keepers = readers(&log, keepers);
        assert_eq!(dropped_before_a_sweep(&log, &mut keepers), dropped);
        assert_eq!(dropped_before_a_sweep(&log, &mut keepers), dropped);
    }
}

/// Wakes two of these, so that the others are on their way.
fn log_that_ends_while_many_wait() {
    let log = Log::<u64>::builder().build().unwrap();
    let waiting = readers(&log, 10);
    log.blocking_append(7).unwrap();
    // Wait on top of those who are being woken.
    let more = readers(&log, 10);
    drop(log);
    drop((waiting, more));
}

fn cursors_that_end_while_they_wait() {
    let log = Log::<u64>::builder().build().unwrap();
    drop(readers(&log, 10));
}

#[test]
fn what_waits_needs_is_freed_with_the_log() {
    for ending in [log_that_ends_while_many_wait, cursors_that_end_while_they_wait] {
        // The first time, the thread itself needs some memory.
        ending();
        let allocated = allocation_counter::measure(ending);
        assert!(allocated.count_total > 0);
        assert_eq!((allocated.count_current, allocated.bytes_current), (0, 0));
    }
}

#[test]
fn who_waits_again_and_again_allocates_once() {
    let log = Log::<u64>::builder().build().unwrap();
    let mut reader = Reader::new(&log);
    let mut wait = |gives_up: bool| {
        assert!(!reader.is_ready());
        if gives_up {
            reader.cursor.stop_waiting();
        }
        log.blocking_append(7).unwrap();
        assert!(matches!(reader.cursor.try_next(|batch| batch.len()), Ok(Some(1))));
    };
    [true, false].into_iter().for_each(&mut wait);
    let allocated = allocation_counter::measure(|| {
        (0..100).for_each(|n| wait(n % 3 == 0));
    });
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn a_poll_that_is_ready_leaves_nothing_registered() {
    let log = Log::<u64>::builder().build().unwrap();
    let (task, mut cursor) = (Task::new(), log.subscribe(Start::Next).unwrap());
    log.blocking_append(7).unwrap();
    assert_eq!(task.poll(Pin::new(&mut cursor.next(|batch| batch.len()))), Poll::Ready(Ok(1)));
    assert!(!task.is_known());
    assert_eq!(log.stats().reader_waits, 0);
}
