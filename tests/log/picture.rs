//! What the chain looks like.

use std::sync::atomic::{AtomicBool, Ordering};

use psa::*;

use crate::small;

/// Blocks follow one another without a hole, from the first offset kept to the next one.
fn follow(picture: &Picture) {
    for pair in picture.blocks.windows(2) {
        assert_eq!(pair[0].segment + pair[0].segments, pair[1].segment, "{picture:?}");
        assert_eq!(pair[0].next_offset, pair[1].first_offset, "{picture:?}");
    }
}

fn pins(picture: &Picture) -> Vec<u64> {
    picture.blocks.iter().map(|block| block.pins.unwrap()).collect()
}

/// One by one: a batch stays in one segment.
fn append(log: &Log<u64>, records: u64) {
    for n in 0..records {
        log.blocking_append(n).unwrap();
    }
}

#[test]
fn segments_are_shown_with_what_they_hold_and_who_stands_in_them() {
    let log = small::<u64>().build().unwrap();
    let first = log.picture(64);
    assert_eq!((first.epoch, first.fold, first.blocks.len()), (log.epoch(), 1, 1));
    assert_eq!((first.blocks[0].payload_bytes, first.blocks[0].room_bytes), (0, 32));

    let mut reading = log.subscribe(Start::Earliest).unwrap();
    let _lease = log.lease("lease", LeaseOptions { start: Start::Earliest, ..Default::default() });
    append(&log, 10);
    let picture = log.picture(64);
    follow(&picture);
    let filled: Vec<_> = picture.blocks.iter().map(|block| block.payload_bytes / 8).collect();
    assert_eq!(filled, [4, 4, 2]);
    // The cursor, the lease's own place, and where its holder reads.
    assert_eq!(pins(&picture), [3, 0, 0]);
    let stats = log.stats();
    assert_eq!(picture.blocks.iter().map(|block| block.bytes).sum::<u64>(), stats.live_bytes);

    reading.try_next(|_| ()).unwrap();
    assert_eq!(pins(&log.picture(64)), [2, 1, 0]);
    log.end_lease("lease");
    drop(_lease);
    // What everybody has passed is gone; the block's number says that there was one before it.
    let picture = log.picture(64);
    assert_eq!((pins(&picture), picture.blocks[0].segment), (vec![1, 0], 1));
}

#[test]
fn neighbours_share_a_block_and_keep_it_when_others_go() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    append(&log, 4 * 101);
    let whole = log.picture(20);
    follow(&whole);
    assert_eq!(whole.fold, 8);
    assert!(whole.blocks.len() <= 20);
    assert_eq!(
        whole.blocks.iter().map(|block| block.segments).sum::<u64>(),
        log.stats().live_segments
    );
    assert_eq!(whole.blocks.iter().map(|block| block.bytes).sum::<u64>(), log.stats().live_bytes);

    for _ in 0..3 {
        cursor.try_next(|_| ()).unwrap();
    }
    let later = log.picture(20);
    follow(&later);
    assert_eq!(later.fold, 8);
    // The first block has lost three of its segments, the others are as they were.
    assert_eq!(later.blocks[0].segment, 3);
    assert_eq!(later.blocks[1..], whole.blocks[1..]);
}

#[test]
fn the_rest_of_a_very_long_chain_is_told_without_being_looked_into() {
    let log = Log::<u64>::builder().segment_records(1).build().unwrap();
    let _cursor = log.subscribe(Start::Earliest).unwrap();
    append(&log, 5_000);
    let late = log.subscribe(Start::Next).unwrap();
    let picture = log.picture(64);
    follow(&picture);
    assert!(picture.blocks.len() <= 64);
    let stats = log.stats();
    assert_eq!(picture.blocks.iter().map(|block| block.segments).sum::<u64>(), stats.live_segments);
    assert_eq!(picture.blocks.iter().map(|block| block.bytes).sum::<u64>(), stats.live_bytes);
    assert_eq!(picture.blocks.iter().map(|block| block.payload_bytes).sum::<u64>(), 8 * 5_000);
    let (rest, seen) = picture.blocks.split_last().unwrap();
    assert_eq!((rest.segment, rest.next_offset, rest.pins), (4_096, 5_000, None));
    assert_eq!(seen.iter().map(|block| block.pins.unwrap()).sum::<u64>(), 1);
    drop(late);
}

#[test]
fn a_picture_is_whole_while_everything_moves() {
    let log = small::<u64>().build().unwrap();
    let done = AtomicBool::new(false);
    let mut taken = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            scope.spawn(move || {
                let mut next = 0;
                while next < 100_000 {
                    cursor
                        .blocking_next(|batch| next = *batch.as_slice().last().unwrap() + 1)
                        .unwrap();
                }
            });
        }
        scope.spawn(|| {
            append(&log, 100_000);
            done.store(true, Ordering::Release);
        });
        let mut before = 0;
        while !done.load(Ordering::Acquire) || taken == 0 {
            let picture = log.picture(16);
            follow(&picture);
            let last = picture.blocks.last().unwrap();
            assert!(picture.blocks.len() <= 16 && last.next_offset >= before, "{picture:?}");
            before = last.next_offset;
            taken += 1;
        }
    });
    assert_eq!(log.picture(16).blocks.last().unwrap().next_offset, 100_000);
}
