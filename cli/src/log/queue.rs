//! A bounded queue of log lines with a thread behind it.
//!
//! Writing to standard error can block for ever (a pipe that nobody reads, a terminal that was stopped) and
//! can fail (a full disk, a reader that is gone). Neither may reach whoever logs. A line is copied into a
//! buffer under a lock that is held for nothing else; the thread takes the whole buffer out and writes it.
//! Where the buffer has no room, and where a write fails, lines are dropped and counted. When lines can be
//! written again, the log says how many are missing.
//!
//! Memory: twice [`ROOM`] at most, one buffer that fills and one that is written.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of lines that wait at most: some thousand lines.
const ROOM: usize = 1 << 20;

/// Between two tries, where the file was set to answer "not now".
const RETRY: Duration = Duration::from_millis(20);

/// Lines on their way to the log.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told when lines have come.
    filled: Condvar,
    /// Told when nothing is on its way.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, each with its end.
    waiting: Vec<u8>,
    /// Whether the thread has lines out of the buffer.
    writing: bool,
}

impl Queue {
    /// Starts the thread, which ends with the process. `tell` makes what says in the log how many lines were
    /// dropped since it last did.
    pub(super) fn start<T: FnMut(u64)>(
        out: impl Write + Send + 'static,
        tell: impl FnOnce() -> T + Send + 'static,
    ) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        let writing = queue.clone();
        // Not joined: it may be blocked on a pipe that nobody reads.
        thread::spawn(move || writing.write_all(out, tell()));
        queue
    }

    /// How many lines were dropped.
    pub(super) fn dropped(&self) -> u64 {
        // Relaxed: a statistic.
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, for so long at most.
    pub(super) fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        while state.writing || !state.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a line, or drops it. Never waits for the writing.
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > ROOM {
            drop(state);
            self.drop_lines(line);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn drop_lines(&self, lines: &[u8]) {
        let ends = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        let unended = u64::from(lines.last().is_some_and(|byte| *byte != b'\n'));
        self.dropped.fetch_add(ends + unended, Ordering::Relaxed);
    }

    fn write_all(&self, mut out: impl Write, mut tell: impl FnMut(u64)) {
        let mut lines = Vec::new();
        let mut told = 0;
        // Whether a write failed in the middle of a line.
        let mut torn = false;
        loop {
            {
                let mut state = self.lock();
                state.writing = false;
                while state.waiting.is_empty() {
                    self.emptied.notify_all();
                    state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::swap(&mut state.waiting, &mut lines);
                state.writing = true;
            }
            // What is torn ends here, so that the next line is whole.
            let whole = !torn || write(&mut out, b"\n") == 1;
            let written = if whole { write(&mut out, &lines) } else { 0 };
            if written > 0 {
                torn = lines[written - 1] != b'\n';
            }
            if written < lines.len() {
                self.drop_lines(&lines[written..]);
            } else if self.dropped() > told {
                let dropped = self.dropped();
                tell(dropped - std::mem::replace(&mut told, dropped));
            }
            lines.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes as much as can be written, and says how much that was.
fn write(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Standard error is shared, and whoever has it too may have set it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(_) => break,
        }
    }
    written
}

/// What the log's formatter writes to: each write is whole lines.
#[derive(Debug)]
pub(super) struct Lines(pub(super) Arc<Queue>);

impl Write for Lines {
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

    /// Takes what is written as long as it is allowed to.
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
        let state = queue.lock();
        assert!(!state.writing && state.waiting.is_empty());
    }

    #[test]
    fn a_full_disk_costs_lines_that_are_counted_and_told() {
        let disk = Disk::with_room(10);
        let (told, tellings) = mpsc::channel();
        let queue = Queue::start(disk.clone(), move || move |count| told.send(count).unwrap());
        queue.push(b"one\n");
        done(&queue);
        // Six bytes are left: the second of these lines is torn.
        queue.push(b"two\nthree\nfour\n");
        done(&queue);
        assert_eq!(queue.dropped(), 2);
        queue.push(b"five\n");
        done(&queue);
        assert_eq!(queue.dropped(), 3);
        assert!(tellings.try_recv().is_err(), "nothing can be told yet");
        disk.free(1000);
        queue.push(b"six\n");
        done(&queue);
        assert_eq!(disk.text(), "one\ntwo\nth\nsix\n");
        assert_eq!(tellings.recv(), Ok(3));
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_no_time() {
        let (reader, writer) = std::io::pipe().unwrap();
        let queue = Queue::start(writer, || |_| ());
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // More than the pipe and both buffers hold.
        for _ in 0..4096 {
            queue.push(&line);
        }
        let dropped = queue.dropped();
        assert!((1..4096).contains(&dropped), "{dropped}");
        assert!(queue.lock().waiting.len() <= ROOM);
        queue.flush(Duration::from_millis(1));
        // It goes on as soon as somebody reads.
        let reading = thread::spawn(move || {
            let mut lines = io::BufRead::lines(io::BufReader::new(reader));
            lines.by_ref().take(4096 - dropped as usize).map(Result::unwrap).count() as u64
        });
        assert_eq!(reading.join().unwrap() + dropped, 4096);
    }
}
