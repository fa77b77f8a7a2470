//! A folder, and brokers over it.

use std::path::Path;
use std::sync::Arc;

use psa::broker::{Broker, BrokerConfig, Topic, TopicCursor, TopicSettings};
use psa::{Packed, ReadError, Start};
use tempfile::TempDir;

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn open(folder: &Path) -> Broker {
    Broker::with_folder(BrokerConfig::default(), folder).unwrap()
}

/// A topic with little memory, so that subscribers fall out of it.
pub(crate) fn small() -> TopicSettings {
    TopicSettings {
        segment_bytes: Some(4 << 10),
        memory_limit: Some(64 << 10),
        ..TopicSettings::default()
    }
}

pub(crate) fn record(n: u64) -> Vec<u8> {
    // Of different lengths, so that nothing fits by chance.
    let mut record = format!("record {n} ").into_bytes();
    record.resize(record.len() + (n % 97) as usize, b'.');
    record
}

/// Appends the records with these numbers, a batch at a time.
pub(crate) fn publish(topic: &Topic, numbers: std::ops::Range<u64>) {
    let all: Vec<_> = numbers.map(record).collect();
    for batch in all.chunks(100) {
        topic.blocking_append_batch(batch).unwrap();
    }
}

/// Begins an append, without waiting for it.
pub(crate) fn begin(topic: &Topic, record: &[u8]) -> psa::broker::Ticket {
    let ends = (record.len() as u32).to_le_bytes();
    topic.try_publish(Packed::new(&ends, record).unwrap()).unwrap()
}

/// The next records, until there are `many`.
pub(crate) async fn read(cursor: &mut TopicCursor, many: usize) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    while all.len() < many {
        let read =
            cursor.next(|batch| batch.iter().map(|(n, r)| (n, r.to_vec())).collect::<Vec<_>>());
        all.extend(read.await.unwrap());
    }
    all
}

/// All records up to the end of a topic that is closed.
pub(crate) async fn read_to_end(cursor: &mut TopicCursor) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let read =
            cursor.next(|batch| batch.iter().map(|(n, r)| (n, r.to_vec())).collect::<Vec<_>>());
        match read.await {
            Ok(read) => all.extend(read),
            Err(ReadError::Closed) => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Checks that these are the records with these numbers, at offsets that are the same.
pub(crate) fn check(read: &[(u64, Vec<u8>)], numbers: std::ops::Range<u64>) {
    assert_eq!(read.len() as u64, numbers.end - numbers.start);
    for (n, (offset, bytes)) in numbers.zip(read) {
        assert_eq!(*offset, n);
        assert!(*bytes == record(n), "record {n} is {:?}", String::from_utf8_lossy(bytes));
    }
}

pub(crate) fn subscribe(topic: &Arc<Topic>, start: Start) -> TopicCursor {
    topic.subscribe(start).unwrap()
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
