//! Where a cursor can start, and seeking.

use std::time::{Duration, SystemTime};

use psa::*;

use crate::{drain, limited, live, small};

// ---- starts ----

#[test]
fn every_kind_of_start() {
    let log = small::<u64>().stamp_every(1).retention(Retention::Everything).build().unwrap();
    log.blocking_append_batch(0..10).unwrap();
    let first = |start| log.subscribe(start).unwrap().offset();
    assert_eq!(first(Start::Earliest), 0);
    assert_eq!(first(Start::Next), 10);
    assert_eq!(first(Start::At(3)), 3);
    assert_eq!(first(Start::At(10)), 10);
    assert_eq!(first(Start::After { epoch: log.epoch(), offset: 6 }), 7);
    assert_eq!(first(Start::After { epoch: log.epoch(), offset: 9 }), 10);
    assert_eq!(first(Start::Last(4)), 6);
    assert_eq!(first(Start::Last(0)), 10);
    assert_eq!(first(Start::Last(1000)), 0);
    assert_eq!(first(Start::Since(SystemTime::UNIX_EPOCH)), 0);
    assert_eq!(first(Start::Since(SystemTime::now() + Duration::from_secs(60))), 10);
}

#[test]
fn impossible_starts_carry_the_facts() {
    let log = small::<u64>().build().unwrap();
    for n in 0..10 {
        log.blocking_append(n).unwrap();
    }
    let epoch = log.epoch();
    let collected = SubscribeError::Collected { asked: 3, first: 8, epoch };
    assert_eq!(log.subscribe(Start::At(3)).unwrap_err(), collected);
    let future = SubscribeError::Future { asked: 11, next: 10, epoch };
    assert_eq!(log.subscribe(Start::At(11)).unwrap_err(), future);
    let other = epoch.wrapping_add(1);
    let foreign = SubscribeError::WrongEpoch { asked: other, epoch, first: 8, next: 10 };
    assert_eq!(log.subscribe(Start::After { epoch: other, offset: 8 }).unwrap_err(), foreign);
    let last = Start::After { epoch, offset: u64::MAX };
    assert!(matches!(log.subscribe(last), Err(SubscribeError::Future { .. })));
}

/// A position of an empty log says "this epoch, nothing received yet", which an offset alone cannot.
#[test]
fn a_position_is_where_a_cursor_goes_on() {
    let log = small::<u64>().retention(Retention::Everything).build().unwrap();
    let epoch = log.epoch();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let nothing_yet = cursor.position();
    assert_eq!(nothing_yet, Position { epoch, next: 0 });
    log.blocking_append_batch(0..3).unwrap();
    assert_eq!(drain(&mut cursor), [0, 1, 2]);
    assert_eq!(cursor.position(), Position { epoch, next: 3 });
    assert!(nothing_yet < cursor.position());
    assert_eq!(drain(&mut log.subscribe(Start::Resume(nothing_yet)).unwrap()), [0, 1, 2]);
    assert_eq!(log.subscribe(cursor.position().into()).unwrap().offset(), 3);

    // After a restart it is another log, even where nothing had been received.
    let other = small::<u64>().build().unwrap();
    let foreign =
        SubscribeError::WrongEpoch { asked: epoch, epoch: other.epoch(), first: 0, next: 0 };
    assert_eq!(other.subscribe(Start::Resume(nothing_yet)).unwrap_err(), foreign);
    assert_eq!(nothing_yet.partial_cmp(&other.subscribe(Start::Next).unwrap().position()), None);
}

/// Whoever comes back too late goes on with what there is, and learns what it missed, once.
#[test]
fn a_position_that_was_collected_is_a_loss_that_is_told() {
    for overflow in [Overflow::Block, Overflow::Evict] {
        let log = limited(8, overflow);
        let early = log.subscribe(Start::Next).unwrap().position();
        (0..10).for_each(|n| assert_eq!(log.try_append(n), Ok(n)));
        assert!(matches!(log.subscribe(early.into()), Err(SubscribeError::Collected { .. })));
        let mut cursor = log.subscribe(Start::ResumeOrLag(early)).unwrap();
        assert_eq!((cursor.offset(), cursor.position()), (0, early));
        let mut also = cursor.clone();
        for cursor in [&mut cursor, &mut also] {
            let lagged = cursor.try_next(|_| ()).unwrap_err();
            assert_eq!(lagged, ReadError::Lagged(Lagged { first_missed: 0, missed: 8 }));
            assert_eq!(drain(cursor), [8, 9]);
        }
        // In every way to read, and whatever comes in between.
        let mut cursor = log.subscribe(Start::ResumeOrLag(early)).unwrap();
        (10..12).for_each(|n| assert_eq!(log.try_append(n), Ok(n)));
        assert!(matches!(cursor.try_next_batch(Limit::NONE), Err(ReadError::Lagged(_))));
        assert_eq!(cursor.try_recv(), Ok(Some((8, 8))));
        // What is kept is not missed, and the rest is refused as ever.
        let kept = Position { next: 9, ..early };
        assert_eq!(log.subscribe(Start::ResumeOrLag(kept)).unwrap().try_recv(), Ok(Some((9, 9))));
        let future = Position { next: 14, ..early };
        let refused = log.subscribe(Start::ResumeOrLag(future)).unwrap_err();
        assert!(matches!(refused, SubscribeError::Future { .. }));
        let foreign = Position { epoch: early.epoch ^ 1, ..early };
        let refused = log.subscribe(Start::ResumeOrLag(foreign)).unwrap_err();
        assert!(matches!(refused, SubscribeError::WrongEpoch { .. }));
    }
}

/// A lease that begins too late has the loss before it, and can commit over it.
#[test]
fn a_lease_that_begins_too_late_is_told() {
    let log: Log<u64> = small().build().unwrap();
    let early = log.subscribe(Start::Next).unwrap().position();
    (0..6).for_each(|n| assert_eq!(log.try_append(n), Ok(n)));
    let start = Start::ResumeOrLag(early);
    let mut lease = log.lease("a", LeaseOptions { start, ..LeaseOptions::default() }).unwrap();
    let Err(ReadError::Lagged(lagged)) = lease.try_recv() else { panic!("it missed some") };
    assert_eq!((lagged.first_missed, lagged.missed), (0, 4));
    assert_eq!(lease.try_recv(), Ok(Some((4, 4))));
    lease.commit(..5).unwrap();
    assert_eq!(lease.committed(), Some(5));
}

/// As after a restart, with records that were kept elsewhere.
#[test]
fn a_log_goes_on_with_the_offsets_of_another_one() {
    let before: Log<u64> = small().build().unwrap();
    before.blocking_append_batch(0..5).unwrap();
    let place = before.subscribe(Start::Next).unwrap().position();
    let log = small::<u64>().begin_at(place).build().unwrap();
    assert_eq!((log.epoch(), log.first_offset(), log.next_offset()), (before.epoch(), 5, 5));
    let mut cursor = log.subscribe(Start::Resume(place)).unwrap();
    for n in 5..30 {
        assert_eq!(log.try_append(n), Ok(n));
    }
    assert_eq!(drain(&mut cursor), (5..30).collect::<Vec<_>>());
    let too_early = log.subscribe(Start::Resume(Position { next: 4, ..place })).unwrap_err();
    assert!(matches!(too_early, SubscribeError::Collected { asked: 4, .. }));
    let stats = log.stats();
    assert_eq!((stats.next_offset, stats.appended_bytes), (30, 25 * 8));
    let empty = small::<u64>().begin_at(place).build().unwrap();
    assert_eq!(empty.subscribe(Start::Earliest).unwrap().lag().records, 0);
    assert_eq!(empty.subscribe(Start::Last(10)).unwrap().offset(), 5);
    assert_eq!(empty.subscribe(Start::Since(SystemTime::UNIX_EPOCH)).unwrap().offset(), 5);
    let (mut publisher, log) = small::<u64>().begin_at(place).build_exclusive().unwrap();
    assert_eq!((publisher.next_offset(), publisher.blocking_append(5)), (5, Ok(5)));
    assert_eq!(log.picture(3).blocks[0].first_offset, 5);
    for next in [1 << 63, (1 << 63) + 1] {
        let built = small::<u64>().begin_at(Position { next, ..place }).build();
        assert_eq!(built.is_ok(), next == 1 << 63);
        assert!(built.err().is_none_or(|error| error.to_string().starts_with("begin_at")));
    }
}

#[test]
fn since_finds_the_first_record_that_is_not_older() {
    let log = small::<u64>().stamp_every(1).retention(Retention::Everything).build().unwrap();
    log.blocking_append_batch(0..6).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let between = SystemTime::now();
    std::thread::sleep(Duration::from_millis(5));
    log.blocking_append_batch(6..9).unwrap();
    assert_eq!(log.subscribe(Start::Since(between)).unwrap().offset(), 6);
    // With one stamp for 64 records it may begin too early, never too late.
    let coarse = Log::<u64>::builder().build().unwrap();
    coarse.blocking_append_batch(0..100).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let between = SystemTime::now();
    coarse.blocking_append_batch(100..130).unwrap();
    let start = coarse.subscribe(Start::Since(between)).unwrap().offset();
    assert!((64..=100).contains(&start), "started at {start}");
}

#[test]
fn seeking_moves_the_pin() {
    let log = small::<u64>().build().unwrap();
    let mut keeper = log.subscribe(Start::Earliest).unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    log.blocking_append_batch(4..8).unwrap();
    log.blocking_append_batch(8..12).unwrap();
    cursor.seek(Start::At(9)).unwrap();
    assert_eq!(drain(&mut cursor), [9, 10, 11]);
    cursor.seek(Start::Earliest).unwrap();
    assert_eq!(cursor.offset(), 0);
    assert!(cursor.seek(Start::At(13)).is_err());
    assert_eq!(cursor.offset(), 0, "a failed seek does not move");
    assert_eq!(live(&log), 3);
    keeper.seek(Start::Next).unwrap();
    cursor.seek(Start::Next).unwrap();
    assert_eq!(live(&log), 1);
}
