//! The list of cells, and who takes part in which.
//!
//! A rival takes part wherever it can: with one publisher or several, with threads or tasks. The
//! entries are plain functions by then, so that whoever runs them needs no type parameters.

use std::time::Duration;

use super::{append, delivery, idle, parked, replay};
use crate::check::{ManyPublishers, OnePublisher};
use crate::payload::Payload;
use crate::rival::{Receive, ReceiveAsync, Rival, Shape, Trouble};
use crate::rivals::async_broadcast::AsyncBroadcast;
use crate::rivals::asyncband::Asyncband;
use crate::rivals::chain::{ArcChain, SilentArcChain};
use crate::rivals::crossbeam::ChannelEach;
use crate::rivals::deque::LockedDeque;
use crate::rivals::list::LockedList;
use crate::rivals::ring::Ring;
use crate::rivals::tokio::Broadcast;
use crate::rivals::{chute, disruptor, psa};
use crate::text::grouped;

/// What kind of measurement a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Publishers and subscribers at work together, subscribers being threads.
    Threads,
    /// The same with tasks.
    Tasks,
    /// Publishers alone.
    Append,
    /// Reading what is stored.
    Replay,
    /// One publish beside subscribers that do nothing.
    Idle,
    /// One publish to parked tasks.
    Parked,
    /// Many records, one after another, to parked tasks; a record's share.
    Burst,
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The time; of one publish where the cell is about that, otherwise of all records.
    pub time: Duration,
    /// Where tasks were parked: until the publish returned, and until the last of them had the record.
    pub wall: Option<(Duration, Duration)>,
}

type Run = fn(&Shape, u64) -> Result<Measured, Trouble>;

/// A rival in a cell.
pub struct Entry {
    /// The rival's name.
    pub rival: &'static str,
    /// Whether it can publish without any subscriber.
    pub alone: bool,
    /// Runs the cell once, with so many records from each publisher.
    pub run: Run,
}

/// A cell.
pub struct Cell {
    /// What `--only` calls it, without the payload.
    pub name: String,
    /// What a reader calls it.
    pub title: String,
    /// Its payload.
    pub payload: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Who takes part.
    pub shape: Shape,
    /// The rivals.
    pub entries: Vec<Entry>,
}

fn time(time: Duration) -> Measured {
    Measured { time, wall: None }
}

/// An entry for threads; the check depends on how many publish.
fn on_threads<R, P>() -> Entry
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: Receive<P>,
{
    Entry {
        rival: R::NAME,
        alone: R::ALONE,
        run: |shape, records| match shape.publishers {
            1 => delivery::threads::<R, P, OnePublisher>(shape, records).map(time),
            _ => delivery::threads::<R, P, ManyPublishers>(shape, records).map(time),
        },
    }
}

fn on_tasks<R, P>() -> Entry
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: ReceiveAsync<P>,
{
    Entry {
        rival: R::NAME,
        alone: R::ALONE,
        run: |shape, records| match shape.publishers {
            1 => delivery::tasks::<R, P, OnePublisher>(shape, records).map(time),
            _ => delivery::tasks::<R, P, ManyPublishers>(shape, records).map(time),
        },
    }
}

fn appending<R: Rival<P>, P: Payload>() -> Entry {
    Entry {
        rival: R::NAME,
        alone: R::ALONE,
        run: |shape, records| append::alone::<R, P>(shape, records).map(time),
    }
}

fn replaying<R, P>() -> Entry
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: Receive<P>,
{
    Entry {
        rival: R::NAME,
        alone: R::ALONE,
        run: |shape, records| replay::replay::<R, P>(shape, records).map(time),
    }
}

fn idling<R, P>() -> Entry
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: Receive<P>,
{
    Entry {
        rival: R::NAME,
        alone: R::ALONE,
        run: |shape, records| idle::idle::<R, P>(shape, records).map(time),
    }
}

fn parking<R, P>() -> Entry
where
    P: Payload,
    R: Rival<P>,
    R::Subscriber: ReceiveAsync<P>,
{
    let run: Run = |shape, publishes| {
        let medians = parked::parked::<R, P>(shape, publishes)?;
        Ok(Measured { time: medians.own, wall: Some((medians.returned, medians.last)) })
    };
    Entry { rival: R::NAME, alone: R::ALONE, run }
}

/// Entries of all rivals that can read as threads do, by one way of making an entry.
macro_rules! threaded {
    ($entry:ident, $payload:ty, one publisher) => {{
        let mut entries =
            vec![$entry::<psa::Exclusive, $payload>(), $entry::<psa::ExclusiveBatches, $payload>()];
        entries.extend(threaded!($entry, $payload));
        entries.extend([
            $entry::<disruptor::SingleOneByOne, $payload>(),
            $entry::<disruptor::SingleBatches, $payload>(),
            $entry::<chute::Single, $payload>(),
            $entry::<Ring, $payload>(),
        ]);
        entries
    }};
    ($entry:ident, $payload:ty) => {
        vec![
            $entry::<psa::Batches, $payload>(),
            $entry::<psa::OneByOne, $payload>(),
            $entry::<ArcChain, $payload>(),
            $entry::<chute::Multi, $payload>(),
            $entry::<disruptor::MultiOneByOne, $payload>(),
            $entry::<ChannelEach, $payload>(),
            $entry::<Broadcast, $payload>(),
            $entry::<AsyncBroadcast, $payload>(),
            $entry::<Asyncband, $payload>(),
            $entry::<LockedDeque, $payload>(),
            $entry::<LockedList, $payload>(),
        ]
    };
}

/// Entries of the rivals that tasks can wait for, for one publisher.
macro_rules! tasked {
    ($entry:ident, $payload:ty) => {{
        let mut entries = vec![
            $entry::<psa::ExclusiveBatches, $payload>(),
            $entry::<psa::Batches, $payload>(),
        ];
        entries.extend(tasked!($entry, $payload, one record));
        entries.push($entry::<chute::Single, $payload>());
        entries
    }};
    ($entry:ident, $payload:ty, one record) => {
        vec![
            $entry::<psa::Exclusive, $payload>(),
            $entry::<psa::OneByOne, $payload>(),
            $entry::<ArcChain, $payload>(),
            $entry::<Broadcast, $payload>(),
            $entry::<AsyncBroadcast, $payload>(),
            $entry::<Asyncband, $payload>(),
        ]
    };
}

fn shape(publishers: usize, subscribers: usize) -> Shape {
    Shape { publishers, subscribers, stored: 0, burst: 1 }
}

fn cell<P: Payload>(
    name: &str,
    title: &str,
    kind: Kind,
    shape: Shape,
    entries: Vec<Entry>,
) -> Cell {
    let (name, title) = (name.to_owned(), title.to_owned());
    Cell { name, title, payload: P::NAME, kind, shape, entries }
}

/// The cells of one payload. `bytes` are further entries, for byte records, by kind of waiting.
fn deliveries<P: Payload>(
    on_thread: impl Fn(bool) -> Vec<Entry>,
    on_task: impl Fn() -> Vec<Entry>,
) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (publishers, subscribers) in [(1, 1), (1, 2), (1, 8), (2, 2), (1, 100)] {
        let is_one = publishers == 1;
        let mut entries = match is_one {
            true => threaded!(on_threads, P, one publisher),
            false => threaded!(on_threads, P),
        };
        if is_one {
            entries.push(on_threads::<psa::ExclusiveBounded, P>());
            entries.push(on_threads::<psa::ExclusiveBoundedPolled, P>());
        }
        entries.extend(on_thread(is_one));
        let name = format!("{publishers}x{subscribers}");
        let title = match (publishers, subscribers) {
            (1, 1) => "1 publisher, 1 subscriber, threads".to_owned(),
            (1, n) => format!("1 publisher, {n} subscribers, threads"),
            (p, n) => format!("{p} publishers, {n} subscribers, threads"),
        };
        cells.push(cell::<P>(
            &name,
            &title,
            Kind::Threads,
            shape(publishers, subscribers),
            entries,
        ));
    }
    for subscribers in [100, 1000] {
        let mut entries = tasked!(on_tasks, P);
        entries.push(on_tasks::<psa::ExclusiveBounded, P>());
        entries.extend(on_task());
        let name = format!("1x{subscribers}-tasks");
        let title = format!("1 publisher, {} tokio tasks", grouped(subscribers as u64));
        cells.push(cell::<P>(&name, &title, Kind::Tasks, shape(1, subscribers), entries));
    }
    for publishers in [1, 2] {
        let mut entries = Vec::new();
        if publishers == 1 {
            entries.extend([
                appending::<psa::Exclusive, P>(),
                appending::<psa::ExclusiveBatches, P>(),
                appending::<chute::Single, P>(),
                appending::<Ring, P>(),
            ]);
        }
        entries.extend([
            appending::<psa::Batches, P>(),
            appending::<psa::OneByOne, P>(),
            appending::<ArcChain, P>(),
            appending::<SilentArcChain, P>(),
            appending::<chute::Multi, P>(),
            appending::<Broadcast, P>(),
            appending::<LockedList, P>(),
            appending::<LockedDeque, P>(),
        ]);
        let name = format!("append-{publishers}");
        let title = match publishers {
            1 => "1 publisher alone".to_owned(),
            n => format!("{n} publishers alone"),
        };
        cells.push(cell::<P>(&name, &title, Kind::Append, shape(publishers, 0), entries));
    }
    cells
}

/// Numbers of subscribers in the cells about one publish.
const BESIDE: [usize; 5] = [0, 1, 100, 1_000, 10_000];

/// All cells, in the order in which they run.
pub fn all(replayed: usize) -> Vec<Cell> {
    type P = u64;
    let mut cells = deliveries::<u64>(|_| Vec::new(), Vec::new);
    let stored = Shape { stored: replayed, ..shape(1, 1) };
    let entries = threaded!(replaying, P, one publisher);
    let title = format!("replay of {} records", grouped(replayed as u64));
    cells.push(cell::<u64>("replay", &title, Kind::Replay, stored, entries));
    for subscribers in BESIDE {
        let mut entries = threaded!(idling, P, one publisher);
        entries.retain(|entry| subscribers > 0 || entry.alone);
        let name = format!("idle-{subscribers}");
        let title = format!("one publish, {} idle subscribers", grouped(subscribers as u64));
        cells.push(cell::<u64>(&name, &title, Kind::Idle, shape(1, subscribers), entries));
    }
    for subscribers in BESIDE {
        let mut entries = tasked!(parking, P, one record);
        entries.retain(|entry| subscribers > 0 || entry.alone);
        let name = format!("parked-{subscribers}");
        let title = format!("one publish, {} parked tasks", grouped(subscribers as u64));
        cells.push(cell::<u64>(&name, &title, Kind::Parked, shape(1, subscribers), entries));
    }
    for subscribers in BESIDE {
        let mut entries = tasked!(parking, P);
        // Its tasks yield instead of parking.
        entries.retain(|entry| entry.rival != <chute::Single as Rival<P>>::NAME);
        entries.retain(|entry| subscribers > 0 || entry.alone);
        let name = format!("burst-{subscribers}");
        let title = format!("a burst, {} parked tasks", grouped(subscribers as u64));
        let shape = Shape { burst: parked::BURST, ..shape(1, subscribers) };
        cells.push(cell::<u64>(&name, &title, Kind::Burst, shape, entries));
    }
    cells.extend(deliveries::<[u8; 64]>(
        |is_one| {
            let mut entries = vec![on_threads::<psa::BytesBatches, [u8; 64]>()];
            if is_one {
                entries.push(on_threads::<psa::BytesExclusive, [u8; 64]>());
            }
            entries
        },
        || {
            vec![
                on_tasks::<psa::BytesExclusive, [u8; 64]>(),
                on_tasks::<psa::BytesBatches, [u8; 64]>(),
            ]
        },
    ));
    cells.extend(deliveries::<std::sync::Arc<[u8]>>(|_| Vec::new(), Vec::new));
    cells
}
