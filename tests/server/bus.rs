//! A program that uses the broker itself, beside its listeners.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use psa::broker::{Broker, Purpose, Topic, TopicSettings};
use psa::{Overflow, Packed, Retention, Start};

/// A topic with little memory, at whose limit publishers wait.
pub(crate) fn small_topic(broker: &Broker, name: &str) -> Arc<Topic> {
    let settings = TopicSettings {
        segment_bytes: Some(16 << 10),
        retention: Some(Retention::Nothing),
        overflow: Some(Overflow::Block),
        memory_limit: Some(512 << 10),
        ..TopicSettings::default()
    };
    broker.create(name, &settings).unwrap()
}

/// Appends a record again and again, until the topic is full.
pub(crate) fn fill(topic: &Topic, record: &[u8]) {
    let ends = (record.len() as u32).to_le_bytes();
    let record = Packed::new(&ends, record).unwrap();
    while topic.try_publish(record).is_ok() {}
}

/// The program's own publisher: a thread that does not stop by itself.
pub(crate) struct Bus {
    topic: Arc<Topic>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bus {
    /// Appends `bus` again and again, as fast as it can.
    pub(crate) fn start(topic: &Arc<Topic>) -> Self {
        Self::paced(topic, Duration::ZERO)
    }

    /// With a pause after every hundred records, for subscribers who hold back nothing.
    pub(crate) fn paced(topic: &Arc<Topic>, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (topic.clone(), stop.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for _ in 0..100 {
                    log.blocking_append("bus\n").expect("the bus goes on");
                }
                if !pause.is_zero() {
                    thread::sleep(pause);
                }
            }
        });
        // It runs.
        let before = topic.log().next_offset();
        while topic.log().next_offset() == before {
            thread::yield_now();
        }
        Self { topic: topic.clone(), stop, thread }
    }

    /// Checks that the program's own users go on, and ends them.
    pub(crate) async fn goes_on(self, broker: &Broker, patience: Duration) {
        assert!(!broker.is_shut() && !self.thread.is_finished());
        let mut cursor = self.topic.log().subscribe(Start::Next).unwrap();
        let read = tokio::time::timeout(patience, cursor.next(|batch| batch.len()));
        assert!(read.await.expect("in time").expect("a record") > 0);
        drop(cursor);
        let other = broker.open("made afterwards", Purpose::Publish).unwrap();
        assert_eq!(other.blocking_append("x"), Ok(0));
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}
