//! A bounded queue of log lines, written out by a thread of its own.
//!
//! Writing to standard error can block forever (a pipe that nobody reads, a terminal that was stopped) and
//! can fail (a full disk, a reader that is gone). Neither may affect the code that logs. A line is copied
//! into a buffer under a lock that is held for nothing else; the thread takes the whole buffer and writes
//! it. When the buffer is full, or a write fails, lines are dropped and counted. Once lines can be written
//! again, the log says how many are missing.
//!
//! Memory: at most twice [`CAPACITY`], for one buffer that fills and one that is being written.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The most bytes that may wait to be written: some thousand lines.
const CAPACITY: usize = 1 << 20;

/// The delay before the next attempt when standard error is non-blocking and not ready.
const RETRY: Duration = Duration::from_millis(20);

/// Lines that have been logged and not yet written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    queued: Mutex<Queued>,
    /// Notified when lines are added to an empty buffer.
    filled: Condvar,
    /// Notified when every line has been written or dropped.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queued {
    /// Whole lines, each with its line end.
    waiting: Vec<u8>,
    /// Whether the thread is writing lines that it took from the buffer.
    writing: bool,
}

impl Queue {
    /// Starts the thread, which ends with the process. The thread calls `make_reporter` once; the function
    /// that this returns logs how many lines were dropped since its last call.
    pub(super) fn start<T: FnMut(u64)>(
        out: impl Write + Send + 'static,
        make_reporter: impl FnOnce() -> T + Send + 'static,
    ) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        let writing = queue.clone();
        // Not joined: it may be blocked on a pipe that nobody reads.
        thread::spawn(move || writing.write_all(out, make_reporter()));
        queue
    }

    /// The number of lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        // Relaxed: a statistic.
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, for at most `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut queued = self.lock();
        while queued.writing || !queued.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.emptied.wait_timeout(queued, left);
            queued = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Queues a line, or drops it. Never waits for a write.
    fn push(&self, line: &[u8]) {
        let mut queued = self.lock();
        if queued.waiting.len() + line.len() > CAPACITY {
            drop(queued);
            self.drop_lines(line);
            return;
        }
        let was_empty = queued.waiting.is_empty();
        queued.waiting.extend_from_slice(line);
        drop(queued);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn drop_lines(&self, lines: &[u8]) {
        let ends = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        let unended = u64::from(lines.last().is_some_and(|byte| *byte != b'\n'));
        self.dropped.fetch_add(ends + unended, Ordering::Relaxed);
    }

    fn write_all(&self, mut out: impl Write, mut report: impl FnMut(u64)) {
        let mut lines = Vec::new();
        let mut reported = 0;
        // Whether a write failed in the middle of a line.
        let mut torn = false;
        loop {
            {
                let mut queued = self.lock();
                queued.writing = false;
                while queued.waiting.is_empty() {
                    self.emptied.notify_all();
                    queued = self.filled.wait(queued).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::swap(&mut queued.waiting, &mut lines);
                queued.writing = true;
            }
            // End the torn line, so that the next one starts on a line of its own.
            let whole = !torn || write(&mut out, b"\n") == 1;
            let written = if whole { write(&mut out, &lines) } else { 0 };
            if written > 0 {
                torn = lines[written - 1] != b'\n';
            }
            if written < lines.len() {
                self.drop_lines(&lines[written..]);
            } else if self.dropped() > reported {
                let dropped = self.dropped();
                report(dropped - std::mem::replace(&mut reported, dropped));
            }
            lines.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes as much as possible and returns how many bytes were written.
fn write(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Standard error is shared with other processes, and one of them may have made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(_) => break,
        }
    }
    written
}

/// The writer that the log's formatter is given. Each write consists of whole lines.
#[derive(Debug)]
pub(super) struct QueueWriter(pub(super) Arc<Queue>);

impl Write for QueueWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A writer that fails when it has no room left.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn with_room(bytes: usize) -> Disk {
            Disk(Arc::new(Mutex::new((Vec::new(), bytes))))
        }

        fn free(&self, bytes: usize) {
            self.0.lock().unwrap().1 += bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (content, room) = &mut *self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            content.extend_from_slice(&bytes[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn done(queue: &Queue) {
        queue.flush(Duration::from_secs(60));
        let queued = queue.lock();
        assert!(!queued.writing && queued.waiting.is_empty());
    }

    #[test]
    fn a_full_disk_costs_lines_that_are_counted_and_told() {
        let disk = Disk::with_room(10);
        let (report, reports) = mpsc::channel();
        let queue = Queue::start(disk.clone(), move || move |count| report.send(count).unwrap());
        queue.push(b"one\n");
        done(&queue);
        // Six bytes are left: the second of these lines is torn.
        queue.push(b"two\nthree\nfour\n");
        done(&queue);
        assert_eq!(queue.dropped(), 2);
        queue.push(b"five\n");
        done(&queue);
        assert_eq!(queue.dropped(), 3);
        assert!(reports.try_recv().is_err(), "nothing can be told yet");
        disk.free(1000);
        queue.push(b"six\n");
        done(&queue);
        assert_eq!(disk.text(), "one\ntwo\nth\nsix\n");
        assert_eq!(reports.recv(), Ok(3));
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_no_time() {
        let (reader, writer) = std::io::pipe().unwrap();
        let queue = Queue::start(writer, || |_| ());
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // More than the pipe and both buffers can hold.
        for _ in 0..4096 {
            queue.push(&line);
        }
        let dropped = queue.dropped();
        assert!((1..4096).contains(&dropped), "{dropped}");
        assert!(queue.lock().waiting.len() <= CAPACITY);
        queue.flush(Duration::from_millis(1));
        // Writing continues as soon as the pipe is read.
        let reading = thread::spawn(move || {
            let mut lines = io::BufRead::lines(io::BufReader::new(reader));
            lines.by_ref().take(4096 - dropped as usize).map(Result::unwrap).count() as u64
        });
        assert_eq!(reading.join().unwrap() + dropped, 4096);
    }
}
