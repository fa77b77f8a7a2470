//! What a log tells about itself.

use super::chain::Chain;
use super::record::Record;

/// A log's figures at one moment. Exact on a log that rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Segments in the chain, the open one included.
    pub live_segments: u64,
    /// Their memory in bytes, with their indexes.
    pub live_bytes: u64,
    /// Segments that were unlinked, and that a guard may still see.
    pub unlinked_segments: u64,
    /// Their memory in bytes.
    pub unlinked_bytes: u64,
    /// Cleared segments that wait for reuse.
    pub pooled_segments: u64,
    /// Their memory in bytes.
    pub pooled_bytes: u64,
}

impl<R: Record + ?Sized> Chain<R> {
    pub(super) fn stats(&self) -> Stats {
        let guard = self.enter();
        // Each is protected by a hazard of its own role until the next load in that role.
        let (head, last) = (self.head(&guard), self.last(&guard));
        let memory = self.memory();
        Stats {
            live_segments: memory.live_segments,
            // The head may have moved past what was the last segment a moment ago.
            live_bytes: (last.memory_before + last.memory).saturating_sub(head.memory_before),
            unlinked_segments: memory.unlinked_segments,
            unlinked_bytes: memory.unlinked_bytes,
            pooled_segments: memory.pooled_segments,
            pooled_bytes: memory.pooled_bytes,
        }
    }
}
