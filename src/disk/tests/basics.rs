//! What is appended is read, files come and go.

use super::*;

fn numbered(range: Range<u64>) -> Vec<Vec<u8>> {
    range.map(|n| format!("record {n}").into_bytes()).collect()
}

#[test]
fn what_is_appended_is_read_once_it_is_durable() {
    let sim = Sim::new(1);
    let (mut log, recovered) = open(&sim).unwrap();
    assert!(recovered.is_new);
    assert_eq!(append(&mut log, &numbered(0..3)).unwrap(), 0..3);
    assert_eq!(append(&mut log, &[]).unwrap(), 3..3);
    assert_eq!(append(&mut log, &numbered(3..5)).unwrap(), 3..5);
    let mut reader = log.reader();
    assert!(matches!(reader.read(0, 100), Err(ReadError::Beyond { next: 0 })));
    log.write().unwrap();
    assert!(matches!(reader.read(0, 100), Err(ReadError::Beyond { next: 0 })));
    log.sync().unwrap();
    assert_eq!((log.next(), log.durable()), (5, 5));
    assert_eq!(read_all(&mut reader, 0).0, numbered(0..5));
    assert_eq!(read_all(&mut reader, 4).0, numbered(4..5));
    let one = reader.read(0, 0).unwrap();
    assert_eq!((one.iter().count(), one.epoch()), (1, 1));
    assert_eq!(reader.read(0, 1000).unwrap().iter().count(), 2);
}

#[test]
fn what_was_written_may_be_shown() {
    let options = DiskOptions { shows_written: true, ..small() };
    let (mut log, _) = DiskLog::open(Sim::new(1), options, TOPIC, 1).unwrap();
    append(&mut log, &numbered(0..2)).unwrap();
    log.write().unwrap();
    assert_eq!((log.reader().next(), log.durable()), (2, 0));
}

#[test]
fn files_fill_and_are_used_again() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim).unwrap();
    for n in 0..400 {
        append(&mut log, &numbered(n * 10..n * 10 + 10)).unwrap();
        log.sync().unwrap();
        if n % 50 == 49 {
            log.trim(n * 10 - 100).unwrap();
            assert!(log.first() <= n * 10 - 100);
            assert!(log.size() <= 9 * (16 << 10), "{}", log.size());
        }
    }
    let first = log.first();
    let mut reader = log.reader();
    assert!(
        matches!(reader.read(first - 1, 1), Err(ReadError::Trimmed { first: f }) if f == first)
    );
    assert_eq!(read_all(&mut reader, first).0, numbered(first..4000));
    drop(log);
    let (log, recovered) = open(&sim).unwrap();
    assert_eq!((log.first(), log.next()), (first, 4000));
    assert_eq!((recovered.records, recovered.cut), (4000 - first, 0));
    assert_eq!(read_all(&mut log.reader(), first).0, numbered(first..4000));
    let verified = verify(&sim, |_, _| ()).unwrap();
    assert_eq!((verified.records, verified.problems), (4000 - first, vec![]));
}

#[test]
fn a_record_that_is_larger_than_a_file_gets_one_of_its_own() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim).unwrap();
    let large = vec![vec![7; 100_000], vec![8; 3]];
    append(&mut log, &numbered(0..2)).unwrap();
    append(&mut log, &large).unwrap();
    append(&mut log, &numbered(4..5)).unwrap();
    log.sync().unwrap();
    let all = [numbered(0..2), large, numbered(4..5)].concat();
    assert_eq!(read_all(&mut log.reader(), 0).0, all);
    let (log, _) = open(&sim.killed()).unwrap();
    assert_eq!(read_all(&mut log.reader(), 0).0, all);
}

#[test]
fn a_reader_follows_a_writer_into_the_next_files() {
    let (mut log, _) = open(&Sim::new(1)).unwrap();
    let mut reader = log.reader();
    let mut next = 0;
    for n in 0..300 {
        append(&mut log, &numbered(n * 5..n * 5 + 5)).unwrap();
        log.sync().unwrap();
        let (records, error) = read_all(&mut reader, next);
        assert!(error.is_none() && records == numbered(next..n * 5 + 5), "{error:?}");
        next = n * 5 + 5;
    }
}

#[test]
fn epochs_are_known_after_all() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim).unwrap();
    append(&mut log, &numbered(0..3)).unwrap();
    log.begin_epoch(2).unwrap();
    log.begin_epoch(3).unwrap();
    append(&mut log, &numbered(3..4)).unwrap();
    log.sync().unwrap();
    let history =
        |log: &DiskLog<Sim>| log.history().map(|b| (b.epoch, b.first)).collect::<Vec<_>>();
    assert_eq!(history(&log), [(1, 0), (2, 3), (3, 3)]);
    log.trim(3).unwrap();
    drop(log);
    let (log, _) = open(&sim).unwrap();
    assert_eq!((history(&log), log.epoch()), (vec![(1, 0), (2, 3), (3, 3)], 3));
    assert_eq!(log.reader().read(3, 100).unwrap().epoch(), 3);
    assert_eq!(log.first(), 3);
}

#[test]
fn a_full_disk_refuses_the_next_file_and_loses_nothing() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim).unwrap();
    let mut n = 0;
    let refused = loop {
        if log.room() < 100 {
            sim.fault(3, sim::Fault::Fails(std::io::ErrorKind::StorageFull));
        }
        match append(&mut log, &numbered(n..n + 1)) {
            Ok(_) => n += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, AppendError::Full(_)), "{refused:?}");
    assert_eq!(log.next(), n);
    // There is room again.
    append(&mut log, &numbered(n..n + 1)).unwrap();
    log.sync().unwrap();
    assert_eq!(read_all(&mut log.reader(), 0).0, numbered(0..n + 1));
}

#[test]
fn a_failed_sync_is_the_last_one() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim).unwrap();
    append(&mut log, &numbered(0..1)).unwrap();
    log.sync().unwrap();
    append(&mut log, &numbered(1..2)).unwrap();
    sim.fault(2, sim::Fault::Fails(std::io::ErrorKind::Other));
    assert!(matches!(log.sync(), Err(AppendError::Failed(_))));
    let calls = sim.calls();
    for _ in 0..2 {
        assert!(matches!(log.sync(), Err(AppendError::Failed(_))));
        assert!(matches!(append(&mut log, &numbered(1..2)), Err(AppendError::Failed(_))));
    }
    assert_eq!((sim.calls(), log.durable()), (calls, 1));
    // Reading goes on.
    assert_eq!(read_all(&mut log.reader(), 0).0, numbered(0..1));
}

/// The disk lost the first of two frames and kept the second one. A new first frame of the same size does not make the
/// second one valid again.
#[test]
fn what_came_after_a_torn_frame_does_not_come_back() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim).unwrap();
    append(&mut log, &[b"first".to_vec()]).unwrap();
    append(&mut log, &[b"second".to_vec()]).unwrap();
    log.write().unwrap();
    drop(log);
    let name = &sim.names()[0];
    sim.change(name, |bytes| bytes[4096 + 48 + 10] ^= 1);
    let (mut log, recovered) = open(&sim).unwrap();
    assert_eq!((log.next(), recovered.cut), (0, 2 * 64));
    append(&mut log, &[b"other".to_vec()]).unwrap();
    log.sync().unwrap();
    drop(log);
    let (log, recovered) = open(&sim).unwrap();
    assert_eq!((log.next(), recovered.records, recovered.cut), (1, 1, 0));
    assert_eq!(read_all(&mut log.reader(), 0).0, [b"other".to_vec()]);
}

#[test]
fn the_folder_of_an_operating_system_does_the_same() {
    let place = tempfile::tempdir().unwrap();
    let folder = || OsFolder::new(place.path());
    let (mut log, _) = DiskLog::open(folder(), small(), TOPIC, 1).unwrap();
    let packed = |text: &'static [u8], end: &'static [u8; 4]| Packed::new(end, text).unwrap();
    for _ in 0..1000 {
        log.append(7, b"", packed(b"hello", &[5, 0, 0, 0])).unwrap();
    }
    log.mark(8).unwrap();
    log.trim(500).unwrap();
    let first = log.first();
    assert!(first > 0);
    drop(log);
    let (log, recovered) = DiskLog::open(folder(), small(), TOPIC, 1).unwrap();
    assert_eq!((log.next(), recovered.records, recovered.cut), (1000, 1000 - first, 0));
    let frames = log.reader().read(first, usize::MAX).unwrap();
    assert!(frames.iter().all(|frame| frame.records.payload() == b"hello"));
    assert_eq!(verify(&folder(), |_, _| ()).unwrap().problems, []);
}
