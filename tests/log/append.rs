//! Every way to append, and what arrives.

use psa::*;

use crate::tasks::at_once;
use crate::{drain, live, small, split};

#[test]
fn offsets_are_dense_and_batches_contiguous() {
    let log = small::<u64>().build().unwrap();
    assert_eq!(log.blocking_append(10), Ok(0));
    assert_eq!(log.blocking_append_batch([11, 12, 13, 14, 15]), Ok(1..6));
    assert_eq!(log.blocking_append_batch(Copies(&[16, 17])), Ok(6..8));
    assert_eq!(log.blocking_append_batch([]), Ok(8..8));
    assert_eq!(log.next_offset(), 8);
    let mut cursor = log.subscribe(Start::At(6)).unwrap();
    assert_eq!(drain(&mut cursor), [16, 17]);
}

#[test]
fn an_empty_batch_appends_nothing() {
    let log = small::<u64>().build().unwrap();
    assert_eq!(log.blocking_append_batch([]), Ok(0..0));
    assert_eq!(log.blocking_append_batch(Copies(&[])), Ok(0..0));
    let log = small::<[u8]>().build().unwrap();
    assert_eq!(log.blocking_append_batch(&[""; 0]), Ok(0..0));
    assert_eq!(log.blocking_append_batch(Packed::new(&[], b"").unwrap()), Ok(0..0));
    assert_eq!(log.subscribe(Start::Earliest).unwrap().try_next(|_| ()), Ok(None));
    assert!(!log.is_closed());
}

/// Every way to append values, each with the offsets that follow.
#[test]
fn every_way_to_append_values_says_where_they_are() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append(0).unwrap();
    log.blocking_append(1).unwrap();
    assert_eq!(log.try_append(2), Ok(2));
    assert_eq!(at_once(log.append(3)), Ok(3));
    assert_eq!(log.try_append_batch([4, 5]), Ok(4..6));
    assert_eq!(at_once(log.append_batch([6, 7, 8])), Ok(6..9));
    assert_eq!(log.blocking_append_batch(Copies(&[9, 10])), Ok(9..11));
    assert_eq!(log.try_append_batch(Copies(&[11])), Ok(11..12));
    assert_eq!(at_once(log.append_batch(Copies(&[12, 13]))), Ok(12..14));
    assert_eq!(log.blocking_append_batch((14..20).filter(|n| n % 2 == 0)), Ok(14..17));
    assert_eq!(drain(&mut cursor), (0..14).chain([14, 16, 18]).collect::<Vec<_>>());
}

fn read_all(cursor: &mut Cursor<[u8]>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(part) = cursor.try_next(split).unwrap() {
        all.extend(part);
    }
    all
}

const RECORDS: [&[u8]; 18] = [
    b"", b"a", b"bc", b"def", b"", b"ghij", b"k", b"", b"lm", b"n", b"op", b"qrs", b"", b"t", b"u",
    b"vwx", b"y", b"z",
];

/// Every way to append byte records, each with the offsets that follow.
#[test]
fn every_way_to_append_bytes_says_where_they_are() {
    let log = small::<[u8]>().segment_bytes(16).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let ends: Vec<u8> = [1u32, 3].iter().flat_map(|end| end.to_le_bytes()).collect();
    let packed = |records: &'static [u8]| Packed::new(&ends, records).unwrap();
    assert_eq!(log.blocking_append(b""), Ok(0));
    assert_eq!(log.blocking_append(b"a"), Ok(1));
    assert_eq!(log.try_append(b"bc"), Ok(2));
    assert_eq!(at_once(log.append(b"def")), Ok(3));
    assert_eq!(log.blocking_append_batch(&["", "ghij", "k"]), Ok(4..7));
    assert_eq!(log.try_append_batch(&vec!["".to_owned(), "lm".to_owned()]), Ok(7..9));
    assert_eq!(log.blocking_append_batch(packed(b"nop")), Ok(9..11));
    assert_eq!(at_once(log.append_batch([b"qrs".to_vec(), Vec::new()].as_slice())), Ok(11..13));
    assert_eq!(log.blocking_append_batch(&[b"t"]), Ok(13..14));
    assert_eq!(log.blocking_append("u"), Ok(14));
    assert_eq!(log.blocking_append_batch(&[b"vwx".as_slice(), b"y", b"z"]), Ok(15..18));
    assert_eq!(read_all(&mut cursor), RECORDS);
    assert_eq!(log.try_append_batch(packed(b"abc")), Ok(18..20));
    assert_eq!(at_once(log.append_batch(packed(b"abc"))), Ok(20..22));
    assert_eq!(read_all(&mut cursor), [b"a".as_slice(), b"bc", b"a", b"bc"]);
}

/// A record that has just come is shown, whoever has read what lies before it.
#[test]
fn each_byte_record_is_seen_as_it_comes() {
    let log = Log::<[u8]>::builder().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for record in RECORDS {
        log.blocking_append(record).unwrap();
        assert_eq!(read_all(&mut cursor), [record]);
    }
}
#[test]
fn readers_see_every_record_once_across_segments() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..1000 {
        assert_eq!(log.blocking_append(n), Ok(n));
    }
    let mut expected = 0;
    while let Some(()) = cursor
        .try_next(|batch| {
            assert_eq!(batch.first_offset(), expected);
            for (offset, value) in batch.iter() {
                assert_eq!((offset, *value), (expected, expected));
                expected += 1;
            }
            assert_eq!(batch.next_offset(), expected);
        })
        .unwrap()
    {}
    assert_eq!(expected, 1000);
    assert_eq!(cursor.lag(), Lag { records: 0, bytes: 0 });
}

#[test]
fn byte_records_of_every_length_come_back_exactly() {
    let log = Log::<[u8]>::builder().segment_bytes(64).segment_records(8).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let records: Vec<Vec<u8>> = (0..200usize).map(|n| vec![n as u8; n * 7 % 130]).collect();
    for record in &records {
        log.blocking_append(record).unwrap();
    }
    let mut seen = Vec::new();
    while let Some(()) = cursor
        .try_next(|batch| {
            let from_ends = split(batch);
            let one_by_one: Vec<_> = batch.iter().map(|(_, record)| record.to_vec()).collect();
            assert_eq!(from_ends, one_by_one);
            seen.extend(one_by_one);
        })
        .unwrap()
    {}
    assert_eq!(seen, records);
}

#[test]
fn packed_batches_arrive_as_single_records() {
    let log = Log::<[u8]>::builder().segment_bytes(64).segment_records(8).build().unwrap();
    log.blocking_append(b"first").unwrap();
    let ends: Vec<u8> = [0u32, 3, 3, 7].iter().flat_map(|end| end.to_le_bytes()).collect();
    let packed = Packed::new(&ends, b"abcdefg").unwrap();
    assert_eq!(log.blocking_append_batch(packed), Ok(1..5));
    let mut cursor = log.subscribe(Start::At(1)).unwrap();
    let seen = cursor.try_next(split).unwrap().unwrap();
    assert_eq!(seen, [&b""[..], b"abc", b"", b"defg"]);
}

#[test]
fn packed_batches_are_checked() {
    let ends = |ends: &[u32]| ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(Packed::new(&[1, 2, 3], b"").unwrap_err(), PackedError::Ragged(3));
    assert_eq!(Packed::new(&ends(&[2, 1]), b"a").unwrap_err(), PackedError::NotAscending(1));
    let short = Packed::new(&ends(&[1, 2]), b"abc").unwrap_err();
    assert_eq!(short, PackedError::Length { ends: 2, payload: 3 });
    assert!(Packed::new(&[], b"").unwrap().is_empty());
    let ends = ends(&[1, 3]);
    let packed = Packed::new(&ends, b"abc").unwrap();
    assert_eq!((packed.len(), packed.is_empty(), packed.payload()), (2, false, &b"abc"[..]));
}

#[test]
fn a_record_larger_than_a_segment_gets_its_own() {
    let log = Log::<[u8]>::builder().segment_bytes(64).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append(b"small").unwrap();
    log.blocking_append([7; 1000]).unwrap();
    log.blocking_append(b"small again").unwrap();
    let mut lengths = Vec::new();
    while let Some(()) =
        cursor.try_next(|b| lengths.extend(b.iter().map(|(_, r)| r.len()))).unwrap()
    {}
    assert_eq!(lengths, [5, 1000, 11]);
    assert_eq!(live(&log), 1);
    // A segment of its own size is of no use to others.
    assert_eq!(log.stats().pooled_segments, 1);
}

/// Either more records than a segment takes, or more bytes.
#[test]
fn what_is_larger_than_a_segment_in_one_respect_gets_its_own() {
    let builder = Log::<[u8]>::builder().segment_bytes(64).segment_records(8);
    // No record goes, and memory is bounded: whoever looks for room that cannot be is refused.
    let log = builder.overflow(Overflow::Reject).memory_limit(1 << 14).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append(b"small").unwrap();
    assert_eq!(log.blocking_append([7; 100]), Ok(1));
    assert_eq!(log.blocking_append_batch(&[b"".as_slice(); 20]), Ok(2..22));
    let lengths: Vec<_> = read_all(&mut cursor).iter().map(Vec::len).collect();
    assert_eq!(lengths, [&[5, 100][..], &[0; 20]].concat());
}

#[test]
fn zero_sized_values_are_counted() {
    let log = small::<()>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for _ in 0..10 {
        log.blocking_append(()).unwrap();
    }
    let mut count = 0;
    while let Some(n) = cursor.try_next(|batch| batch.as_slice().len()).unwrap() {
        count += n;
    }
    assert_eq!(count, 10);
}
