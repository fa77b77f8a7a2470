//! The HTTP API's turns: those who follow against the record that comes, against each other's leaving, and
//! against the end of the log. `turns` is the source that ships, over a log whose every step shuttle may
//! interrupt. A stream that is not called, and a caller that does not end, show as deadlocks.

use std::future::poll_fn;
use std::task::Poll;

use shuttle::future::{block_on, yield_now};
use shuttle::thread::{self, JoinHandle};

use crate::explore::explore;
use crate::log::{Cursor, Limit, Log, Start};
use crate::support::{Canary, append_all, read_available, tiny};
use crate::sync::Arc;
use crate::turns::{Follower, Turns};

/// An event stream.
struct Stream {
    cursor: Cursor<Canary>,
    follower: Follower,
    /// The task that calls, if there was none before it came.
    caller: Option<JoinHandle<()>>,
}

impl Stream {
    fn new(turns: &Arc<Turns>, log: &Log<Canary>) -> Self {
        let cursor = log.subscribe(Start::Next).unwrap();
        let (follower, calling) = turns.follow(|| log.watch());
        let caller = calling.map(|mut calling| {
            thread::spawn(move || {
                block_on(async {
                    while calling.call_some().await {
                        yield_now().await;
                    }
                });
            })
        });
        Self { cursor, follower, caller }
    }

    /// Reads until there have been so many records, or no more come; in each turn all, or `one` and no more.
    async fn take(&mut self, records: usize, one: bool) -> Vec<u64> {
        let mut got = Vec::new();
        poll_fn(|cx| {
            while got.len() < records {
                if self.follower.poll_turn(cx, self.cursor.offset()).is_pending() {
                    return Poll::Pending;
                }
                let before = got.len();
                if one {
                    let limit = Limit { records: 1, ..Limit::NONE };
                    let value = self
                        .cursor
                        .peek(limit, |batch| batch.iter().map(|(_, value)| value.read()).next());
                    if let Ok(Some(Some(value))) = value {
                        self.cursor.advance(1);
                        got.push(value);
                    }
                } else {
                    got.extend(read_available(&mut self.cursor));
                }
                if got.len() == before && self.cursor.peek(Limit::NONE, |_| ()).is_err() {
                    break;
                }
                if got.len() == before {
                    // Its publisher is about to commit it, and has to come to that.
                    thread::yield_now();
                }
            }
            Poll::Ready(())
        })
        .await;
        got
    }

    /// Takes them, leaves, and says who called.
    fn run(mut self, records: usize, one: bool) -> (Vec<u64>, Option<JoinHandle<()>>) {
        let got = block_on(self.take(records, one));
        (got, self.caller.take())
    }
}

/// The caller ends when all have left.
fn end(callers: impl IntoIterator<Item = Option<JoinHandle<()>>>) {
    callers.into_iter().flatten().for_each(|caller| caller.join().unwrap());
}

#[test]
fn everybody_is_called_for_every_record() {
    explore(|| {
        let (log, turns) = (tiny().build().unwrap(), Arc::default());
        let [all, one] = [(3, false), (2, true)].map(|(records, one)| {
            let stream = Stream::new(&turns, &log);
            thread::spawn(move || stream.run(records, one))
        });
        append_all(&log, 0..2);
        // Who has not read all of it has another turn, though the other one has, and waits for more.
        let (got, none) = one.join().unwrap();
        assert_eq!(got, [0, 1]);
        append_all(&log, 2..3);
        let (got, caller) = all.join().unwrap();
        assert_eq!(got, [0, 1, 2]);
        end([caller, none]);
    });
}

#[test]
fn who_leaves_takes_nobody_elses_turn() {
    explore(|| {
        let (log, turns) = (tiny().build().unwrap(), Arc::default());
        let leaves = Stream::new(&turns, &log);
        let stays = Stream::new(&turns, &log);
        let leaves = thread::spawn(move || {
            let mut leaves = leaves;
            let mut take = Box::pin(leaves.take(1, false));
            block_on(poll_fn(|cx| {
                let _ = take.as_mut().poll(cx);
                Poll::Ready(())
            }));
            drop(take);
            leaves.caller.take()
        });
        let stays = thread::spawn(move || stays.run(1, false));
        append_all(&log, 0..1);
        let caller = leaves.join().unwrap();
        let (got, none) = stays.join().unwrap();
        assert_eq!(got, [0]);
        end([caller, none]);
    });
}

/// The caller ends, or goes on for the one who comes, or another one begins.
#[test]
fn who_comes_when_the_last_one_leaves_is_called() {
    explore(|| {
        let (log, turns) = (tiny().build().unwrap(), Arc::default());
        let first = Stream::new(&turns, &log);
        let first = thread::spawn(move || {
            let mut first = first;
            first.caller.take()
        });
        let second = Stream::new(&turns, &log);
        let second = thread::spawn(move || second.run(1, false));
        append_all(&log, 0..1);
        let (got, caller) = second.join().unwrap();
        assert_eq!(got, [0]);
        end([first.join().unwrap(), caller]);
    });
}

/// Who was called and has taken all that there is waits for what comes.
#[test]
fn a_turn_is_taken_once() {
    explore(|| {
        let (log, turns) = (tiny().build().unwrap(), Arc::default());
        let stream = Stream::new(&turns, &log);
        let stream = thread::spawn(move || {
            let mut stream = stream;
            let got = block_on(stream.take(1, false));
            let again = poll_fn(|cx| {
                let turn = stream.follower.poll_turn(cx, stream.cursor.offset());
                Poll::Ready(turn.is_ready())
            });
            assert!(!block_on(again), "it is called, and there is nothing");
            (got, stream.caller.take())
        });
        append_all(&log, 0..1);
        let (got, caller) = stream.join().unwrap();
        assert_eq!(got, [0]);
        end([caller]);
    });
}

#[test]
fn the_end_reaches_everybody() {
    explore(|| {
        let (log, turns) = (tiny().build().unwrap(), Arc::default());
        let streams = [0, 1].map(|_| {
            let stream = Stream::new(&turns, &log);
            thread::spawn(move || stream.run(9, false))
        });
        append_all(&log, 0..1);
        log.close();
        let callers = streams.map(|stream| {
            let (got, caller) = stream.join().unwrap();
            assert_eq!(got, [0]);
            caller
        });
        end(callers);
    });
}
