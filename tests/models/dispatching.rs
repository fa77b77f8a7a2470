//! The HTTP API's dispatch of event streams: followers against the next record, against followers that leave,
//! and against the end of the log. `dispatch` is the source that ships, over a log whose every step shuttle may
//! interrupt. A stream that is not woken and a dispatcher that does not end show as deadlocks.

use std::future::poll_fn;
use std::task::Poll;

use shuttle::future::{block_on, yield_now};
use shuttle::thread::{self, JoinHandle};

use crate::dispatch::{Dispatch, Follower};
use crate::explore::explore;
use crate::log::{Cursor, Limit, Log, Start};
use crate::support::{Canary, append_all, read_available, tiny};
use crate::sync::Arc;

/// An event stream.
struct Stream {
    cursor: Cursor<Canary>,
    follower: Follower,
    /// The dispatcher, if this stream began it.
    dispatcher: Option<JoinHandle<()>>,
}

impl Stream {
    fn new(dispatch: &Arc<Dispatch>, log: &Log<Canary>) -> Self {
        let cursor = log.subscribe(Start::Next).unwrap();
        let (follower, task) = dispatch.follow(|| log.watch());
        let dispatcher = task.map(|mut task| {
            thread::spawn(move || {
                block_on(async {
                    while task.dispatch_some().await {
                        yield_now().await;
                    }
                });
            })
        });
        Self { cursor, follower, dispatcher }
    }

    /// Reads until it has `records` records, or no more come; in each turn everything, or only `one` record.
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
                    // The record's publisher is about to commit it, and must get to run.
                    thread::yield_now();
                }
            }
            Poll::Ready(())
        })
        .await;
        got
    }

    /// Reads the records, leaves, and returns them with the dispatcher.
    fn run(mut self, records: usize, one: bool) -> (Vec<u64>, Option<JoinHandle<()>>) {
        let got = block_on(self.take(records, one));
        (got, self.dispatcher.take())
    }
}

/// The dispatcher ends when all streams have left.
fn end(dispatchers: impl IntoIterator<Item = Option<JoinHandle<()>>>) {
    dispatchers.into_iter().flatten().for_each(|dispatcher| dispatcher.join().unwrap());
}

#[test]
fn everybody_is_called_for_every_record() {
    explore(|| {
        let (log, dispatch) = (tiny().build().unwrap(), Arc::default());
        let [all, one] = [(3, false), (2, true)].map(|(records, one)| {
            let stream = Stream::new(&dispatch, &log);
            thread::spawn(move || stream.run(records, one))
        });
        append_all(&log, 0..2);
        // A stream that has not read everything gets another turn, though the other stream has, and waits.
        let (got, none) = one.join().unwrap();
        assert_eq!(got, [0, 1]);
        append_all(&log, 2..3);
        let (got, dispatcher) = all.join().unwrap();
        assert_eq!(got, [0, 1, 2]);
        end([dispatcher, none]);
    });
}

#[test]
fn who_leaves_takes_nobody_elses_turn() {
    explore(|| {
        let (log, dispatch) = (tiny().build().unwrap(), Arc::default());
        let leaves = Stream::new(&dispatch, &log);
        let stays = Stream::new(&dispatch, &log);
        let leaves = thread::spawn(move || {
            let mut leaves = leaves;
            let mut take = Box::pin(leaves.take(1, false));
            block_on(poll_fn(|cx| {
                let _ = take.as_mut().poll(cx);
                Poll::Ready(())
            }));
            drop(take);
            leaves.dispatcher.take()
        });
        let stays = thread::spawn(move || stays.run(1, false));
        append_all(&log, 0..1);
        let dispatcher = leaves.join().unwrap();
        let (got, none) = stays.join().unwrap();
        assert_eq!(got, [0]);
        end([dispatcher, none]);
    });
}

/// The dispatcher ends, or continues for the new stream, or another one begins.
#[test]
fn who_comes_when_the_last_one_leaves_is_called() {
    explore(|| {
        let (log, dispatch) = (tiny().build().unwrap(), Arc::default());
        let first = Stream::new(&dispatch, &log);
        let first = thread::spawn(move || {
            let mut first = first;
            first.dispatcher.take()
        });
        let second = Stream::new(&dispatch, &log);
        let second = thread::spawn(move || second.run(1, false));
        append_all(&log, 0..1);
        let (got, dispatcher) = second.join().unwrap();
        assert_eq!(got, [0]);
        end([first.join().unwrap(), dispatcher]);
    });
}

/// A stream that was woken and has read everything waits for the next record.
#[test]
fn a_turn_is_taken_once() {
    explore(|| {
        let (log, dispatch) = (tiny().build().unwrap(), Arc::default());
        let stream = Stream::new(&dispatch, &log);
        let stream = thread::spawn(move || {
            let mut stream = stream;
            let got = block_on(stream.take(1, false));
            let again = poll_fn(|cx| {
                let turn = stream.follower.poll_turn(cx, stream.cursor.offset());
                Poll::Ready(turn.is_ready())
            });
            assert!(!block_on(again), "it is woken, and there is nothing");
            (got, stream.dispatcher.take())
        });
        append_all(&log, 0..1);
        let (got, dispatcher) = stream.join().unwrap();
        assert_eq!(got, [0]);
        end([dispatcher]);
    });
}

/// A drain ends the waits, and nothing comes in the log that would wake anybody.
#[test]
fn a_drain_reaches_everybody() {
    explore(|| {
        let log = tiny().build().unwrap();
        let dispatch = Arc::<Dispatch>::default();
        let streams = [0, 1].map(|_| {
            let stream = Stream::new(&dispatch, &log);
            thread::spawn(move || {
                let Stream { cursor, follower, dispatcher } = stream;
                block_on(poll_fn(|cx| follower.poll_turn(cx, cursor.offset())));
                dispatcher
            })
        });
        dispatch.end();
        end(streams.map(|stream| stream.join().unwrap()));
        // A stream that begins then does not wait at all.
        let late = Stream::new(&dispatch, &log);
        block_on(poll_fn(|cx| late.follower.poll_turn(cx, late.cursor.offset())));
        assert!(late.dispatcher.is_none());
    });
}

#[test]
fn the_end_reaches_everybody() {
    explore(|| {
        let (log, dispatch) = (tiny().build().unwrap(), Arc::default());
        let streams = [0, 1].map(|_| {
            let stream = Stream::new(&dispatch, &log);
            thread::spawn(move || stream.run(9, false))
        });
        append_all(&log, 0..1);
        log.close();
        let dispatchers = streams.map(|stream| {
            let (got, dispatcher) = stream.join().unwrap();
            assert_eq!(got, [0]);
            dispatcher
        });
        end(dispatchers);
    });
}
