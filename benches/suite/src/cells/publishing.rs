//! The publishers of a run: threads that begin together and stay until the subscribers are done.

use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::payload::{Payload, SEQUENCE_BITS};
use crate::rival::Publish;

/// Publishers that are ready to begin.
pub struct Publishing {
    start: Arc<Barrier>,
    stay: Arc<Barrier>,
    /// When the first one began, and when the last one had published everything.
    times: Arc<Mutex<Vec<(Instant, Instant)>>>,
    threads: Vec<JoinHandle<()>>,
}

/// The payloads of one publisher.
pub fn payloads<P: Payload>(publisher: usize, records: u64) -> impl Iterator<Item = P> {
    let base = (publisher as u64) << SEQUENCE_BITS;
    (0..records).map(move |n| P::new(base | n))
}

impl Publishing {
    /// Threads for these publishers, each of which will publish `records` records.
    pub fn prepare<P: Payload, W: Publish<P>>(publishers: Vec<W>, records: u64) -> Self {
        let barrier = || Arc::new(Barrier::new(publishers.len() + 1));
        let (start, stay) = (barrier(), barrier());
        let times = Arc::<Mutex<Vec<_>>>::default();
        let spawn = |(number, mut publisher): (usize, W)| {
            let (start, stay, times) = (start.clone(), stay.clone(), times.clone());
            std::thread::spawn(move || {
                start.wait();
                let begin = Instant::now();
                publisher.publish(payloads(number, records));
                let end = Instant::now();
                times.lock().expect("nobody panics under this lock").push((begin, end));
                stay.wait();
            })
        };
        let threads = publishers.into_iter().enumerate().map(spawn).collect();
        Publishing { start, stay, times, threads }
    }

    /// Lets them begin.
    pub fn start(&self) {
        self.start.wait();
    }

    /// Lets them go when they have published everything; when the first one began and the last one
    /// had done so.
    pub fn end(self) -> (Instant, Instant) {
        self.stay.wait();
        self.threads.into_iter().for_each(|thread| thread.join().expect("publishers do not panic"));
        let times = self.times.lock().expect("nobody panics under this lock");
        let begin = times.iter().map(|(begin, _)| *begin).min().expect("there is a publisher");
        let end = times.iter().map(|(_, end)| *end).max().expect("there is a publisher");
        (begin, end)
    }
}
