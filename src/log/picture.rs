//! A picture of the chain: its segments from the oldest kept to the open one, how full they are, and how many
//! positions stand in each.
//!
//! # Cost
//!
//! A walk of loads, without a lock, and a store for each segment into a word of this thread's own, so that neither
//! publishers nor readers notice. The walk begins at the head and covers at most [`WALKED`] segments, even if a log
//! keeps a million of them. The rest is reported as one block, from what the last segment knows of all segments
//! before it.
//!
//! # Where the cursors are
//!
//! A log does not know the offsets of its cursors: each offset belongs to its cursor, and moves without telling the
//! log. What the log does know, and what collection depends on, is the segment in which each one stands.

use super::chain::Chain;
use super::cover::{Cover, Gone};
use super::record::Record;
use super::segment::Segment;

/// The most segments that a picture looks at one by one.
const WALKED: u64 = 4_096;

/// A picture of a log's chain at one moment; see [`Log::picture`](super::Log::picture).
///
/// The blocks follow one another without a gap. They are looked at one after another while the log is in use: a
/// cursor that moves meanwhile can be seen twice or not at all. On an idle log, everything is exact.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Picture {
    /// The log's epoch.
    pub epoch: u64,
    /// How many segments share a block: a power of two, 1 if there is a block for each segment. Blocks are divided at
    /// multiples of it, so that a block keeps its segments while others come and go.
    pub fold: u64,
    /// The blocks, from the oldest on; at least one. The last one has the open segment.
    pub blocks: Vec<Block>,
}

/// Some consecutive segments of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Block {
    /// Number of the first segment: how many the log had before it.
    pub segment: u64,
    /// How many segments.
    pub segments: u64,
    /// Offset of the first record.
    pub first_offset: u64,
    /// Offset after the last record.
    pub next_offset: u64,
    /// Payload in bytes.
    pub payload_bytes: u64,
    /// Payload in bytes that there is room for; what a sealed segment has left over stays empty. In a block that was
    /// not looked into, the same as `payload_bytes`.
    pub room_bytes: u64,
    /// Memory in bytes, with the indexes.
    pub bytes: u64,
    /// How many cursors and committed lease positions stand in it. `None`: this is the rest of a chain of more than
    /// 4,096 segments, and was not looked into.
    pub pins: Option<u64>,
}

impl Block {
    fn of<R: Record + ?Sized>(segment: &Segment<R>) -> Self {
        // Loaded once. Where a segment follows, it is sealed, and this is final.
        let word = segment.word();
        Block {
            segment: segment.number,
            segments: 1,
            first_offset: segment.base,
            next_offset: segment.base + u64::from(word.records()),
            payload_bytes: bytes::<R>(word.slots().into()),
            room_bytes: bytes::<R>(segment.layout.slots.into()),
            bytes: segment.memory,
            pins: Some(segment.pinned().into()),
        }
    }

    /// From `first` up to `last`, without looking at the segments in between.
    fn between<R: Record + ?Sized>(first: &Segment<R>, last: &Segment<R>) -> Self {
        let word = last.word();
        let slots = last.slots_before + u64::from(word.slots()) - first.slots_before;
        Block {
            segment: first.number,
            segments: last.number + 1 - first.number,
            first_offset: first.base,
            next_offset: last.base + u64::from(word.records()),
            payload_bytes: bytes::<R>(slots),
            room_bytes: bytes::<R>(slots),
            bytes: last.memory_before + last.memory - first.memory_before,
            pins: None,
        }
    }

    fn join(&mut self, next: Block) {
        self.segments += next.segments;
        self.next_offset = next.next_offset;
        self.payload_bytes += next.payload_bytes;
        self.room_bytes += next.room_bytes;
        self.bytes += next.bytes;
        self.pins = self.pins.zip(next.pins).map(|(here, there)| here + there);
    }
}

fn bytes<R: Record + ?Sized>(slots: u64) -> u64 {
    slots * size_of::<R::Slot>() as u64
}

/// How many segments must share a block for there to be at most `most` (at least 2) blocks.
fn fold(first: u64, last: u64, most: u64) -> u64 {
    let mut shift = 0;
    while (last >> shift) - (first >> shift) >= most {
        shift += 1;
    }
    1 << shift
}

impl<R: Record + ?Sized> Chain<R> {
    pub(super) fn picture(&self, most: usize) -> Picture {
        // One less than asked for: the rest that is not looked into may need a block of its own.
        let most = (most as u64).max(3) - 1;
        let mut walked = WALKED;
        loop {
            if let Ok(picture) = self.try_picture(most, walked) {
                return picture;
            }
            // The head has overtaken the walk. A shorter walk has a better chance.
            walked = (walked / 2).max(1);
        }
    }

    fn try_picture(&self, most: u64, walked: u64) -> Result<Picture, Gone> {
        let mut at = Cover::head(self);
        let last = self.last();
        // The head that was loaded first cannot lie after the last segment.
        let walked_to = last.number.min(at.number.saturating_add(walked - 1));
        let fold = fold(at.number, walked_to, most);
        let mut blocks: Vec<Block> = Vec::new();
        loop {
            let block = Block::of(&at);
            match blocks.last_mut() {
                Some(before) if before.segment / fold == at.number / fold => before.join(block),
                _ => blocks.push(block),
            }
            if at.number >= last.number {
                break;
            }
            let Some(next) = at.next()? else { break };
            if next.number > walked_to {
                blocks.push(Block::between(&next, &last));
                break;
            }
            at = next;
        }
        Ok(Picture { epoch: self.epoch, fold, blocks })
    }
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn as_few_as_possible_share_a_block() {
        assert_eq!(fold(0, 0, 2), 1);
        assert_eq!(fold(7, 8, 2), 1);
        // 3 | 4 5 6 7 | 8: the ends are divided where the multiples are.
        assert_eq!((fold(3, 8, 6), fold(3, 8, 5), fold(3, 8, 3)), (1, 2, 4));
        assert_eq!(fold(0, u64::MAX, 2), 1 << 63);
    }
}
