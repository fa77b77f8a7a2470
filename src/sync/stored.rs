//! What stored topics (`src/tier`) need from the machine beyond what the log does: threads that block, and how much is
//! taken at a time.
//!
//! As with everything in `sync`, a test crate can put its own in the place of this: `tests/models` has a model checker's
//! threads, and numbers so small that a model reaches them.

pub(crate) use std::sync::Condvar;
pub(crate) use std::thread::JoinHandle;

/// Starts a thread with this name.
pub(crate) fn spawn(
    name: String,
    serve: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(serve)
}

/// Whether this is the calling thread.
pub(crate) fn is_current(thread: &JoinHandle<()>) -> bool {
    thread.thread().id() == std::thread::current().id()
}

/// A topic does not take more bytes than this from publishers before it is written, or one append.
pub(crate) const MOST: usize = 8 << 20;
/// The same of all topics together.
pub(crate) const MOST_OF_ALL: usize = 64 << 20;

/// How many subscribers catch up at a time, in all topics together.
pub(crate) const TURNS: usize = 64;
/// Threads that read for them.
pub(crate) const READERS: usize = 2;
/// The memory of the log of a subscriber that catches up, and one segment of it.
pub(crate) const CATCH_UP_MEMORY: u64 = 1 << 20;
/// As above.
pub(crate) const CATCH_UP_SEGMENT: usize = 128 << 10;
