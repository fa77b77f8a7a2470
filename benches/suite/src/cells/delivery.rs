//! Publishers and subscribers at work together: from the first publish until the last subscriber has
//! everything.
//!
//! Publishers are threads, subscribers threads or tasks of a tokio runtime with a worker for every
//! core. All are there before the first record is.

use std::time::Duration;

use super::finish::Finish;
use super::publishing::Publishing;
use crate::check::Check;
use crate::payload::Payload;
use crate::rival::{Receive, ReceiveAsync, Rival, Shape, Trouble};

/// One run with threads: the time it took to deliver `records` records of every publisher.
///
/// # Errors
///
/// [`Trouble`] when a subscriber did not get everything once and in order.
pub fn threads<R, P, C>(shape: &Shape, records: u64) -> Result<Duration, Trouble>
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: Receive<P>,
    C: Check,
{
    let expected = records * shape.publishers as u64;
    let (publishers, subscribers) = R::open(shape);
    let publishing = Publishing::prepare(publishers, records);
    let (finish, finished) = Finish::of(subscribers.len());
    let spawn = |mut subscriber: R::Subscriber| {
        let finish = finish.clone();
        std::thread::spawn(move || {
            finish.begins();
            finish.ends(collect::<P, C>(&mut subscriber, expected));
        })
    };
    let threads: Vec<_> = subscribers.into_iter().map(spawn).collect();
    drop(finish);
    finished.all_begin();
    publishing.start();
    // In trouble the threads stay behind: the run has failed, and the program ends.
    let end = finished.wait()?;
    let (begin, _) = publishing.end();
    threads.into_iter().for_each(|thread| thread.join().expect("subscribers do not panic"));
    Ok(end - begin)
}

/// Receives all records and checks them.
///
/// # Errors
///
/// [`Trouble`] when they do not all come once and in order.
pub fn collect<P, C: Check>(subscriber: &mut impl Receive<P>, expected: u64) -> Result<(), Trouble>
where
    P: Payload,
{
    let mut check = C::default();
    while check.received() < expected {
        subscriber.receive(&mut |payload: &P| check.take(payload.number()))?;
    }
    check.verdict(expected)
}

/// A runtime with a worker for every core.
pub fn runtime() -> tokio::runtime::Runtime {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).build();
    runtime.expect("the system has threads for a runtime")
}

/// One run with tasks.
///
/// # Errors
///
/// [`Trouble`] when a subscriber did not get everything once and in order.
pub fn tasks<R, P, C>(shape: &Shape, records: u64) -> Result<Duration, Trouble>
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: ReceiveAsync<P>,
    C: Check,
{
    let expected = records * shape.publishers as u64;
    let (publishers, subscribers) = R::open(shape);
    let publishing = Publishing::prepare(publishers, records);
    let (finish, finished) = Finish::of(subscribers.len());
    let runtime = runtime();
    for mut subscriber in subscribers {
        let finish = finish.clone();
        runtime.spawn(async move {
            finish.begins();
            let mut check = C::default();
            let mut result = Ok(());
            while result.is_ok() && check.received() < expected {
                let take = &mut |payload: &P| check.take(payload.number());
                result = subscriber.receive_async(take).await;
            }
            finish.ends(result.and_then(|()| check.verdict(expected)));
        });
    }
    drop(finish);
    finished.all_begin();
    publishing.start();
    let end = finished.wait()?;
    let (begin, _) = publishing.end();
    Ok(end - begin)
}
