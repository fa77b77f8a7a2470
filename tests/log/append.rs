//! Every way to append, and what arrives.

use psa::*;

use crate::split;

use crate::{live, small};

#[test]
fn offsets_are_dense_and_batches_contiguous() {
    let log = small::<u64>().build().unwrap();
    assert_eq!(log.append(10), Ok(0));
    assert_eq!(log.append_batch([11, 12, 13, 14, 15]), Ok(1..6));
    assert_eq!(log.append_slice(&[16, 17]), Ok(6..8));
    assert_eq!(log.append_batch([]), Ok(8..8));
    assert_eq!(log.next_offset(), 8);
}

#[test]
fn readers_see_every_record_once_across_segments() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..1000 {
        assert_eq!(log.append(n), Ok(n));
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
        log.append(record).unwrap();
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
    log.append(b"first").unwrap();
    let ends: Vec<u8> = [0u32, 3, 3, 7].iter().flat_map(|end| end.to_le_bytes()).collect();
    let packed = Packed::new(&ends, b"abcdefg").unwrap();
    assert_eq!(log.append_packed(packed), Ok(1..5));
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
}

#[test]
fn a_record_larger_than_a_segment_gets_its_own() {
    let log = Log::<[u8]>::builder().segment_bytes(64).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.append(b"small").unwrap();
    log.append(&[7; 1000]).unwrap();
    log.append(b"small again").unwrap();
    let mut lengths = Vec::new();
    while let Some(()) =
        cursor.try_next(|b| lengths.extend(b.iter().map(|(_, r)| r.len()))).unwrap()
    {}
    assert_eq!(lengths, [5, 1000, 11]);
    assert_eq!(live(&log), 1);
}

#[test]
fn zero_sized_values_are_counted() {
    let log = small::<()>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for _ in 0..10 {
        log.append(()).unwrap();
    }
    let mut count = 0;
    while let Some(n) = cursor.try_next(|batch| batch.as_slice().len()).unwrap() {
        count += n;
    }
    assert_eq!(count, 10);
}
