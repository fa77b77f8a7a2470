//! A log on a simulated disk: crashes at every call, failing calls, damage.

mod basics;
#[cfg(any(feature = "server", feature = "http"))]
mod copy;
mod crash;
mod damage;
mod repair;
pub(crate) mod sim;

use std::ops::Range;

use self::sim::Sim;
use super::*;
use crate::log::Packed;

const TOPIC: u64 = 0x5eed;

/// Files so small that a few records fill one.
fn small() -> DiskOptions {
    DiskOptions { first_file: 8 << 10, largest_file: 16 << 10, ..DiskOptions::default() }
}

fn open(sim: &Sim) -> Result<(DiskLog<Sim>, Recovered), OpenError> {
    DiskLog::open(sim.clone(), small(), TOPIC, 1)
}

fn append(log: &mut DiskLog<Sim>, records: &[Vec<u8>]) -> Result<Range<u64>, AppendError> {
    let (mut ends, mut payload) = (Vec::new(), Vec::new());
    for record in records {
        payload.extend_from_slice(record);
        ends.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    }
    log.append(7, b"notes", Packed::new(&ends, &payload).unwrap())
}

/// The records of a frame, one by one.
fn records(frame: &Frame<'_>) -> Vec<Vec<u8>> {
    let mut begin = 0;
    let ends = frame.records.ends().as_chunks::<4>().0;
    ends.iter()
        .map(|end| {
            let end = u32::from_le_bytes(*end) as usize;
            let record = frame.records.payload()[begin..end].to_vec();
            begin = end;
            record
        })
        .collect()
}

/// All that a reader finds from here on, up to the end or to what cannot be read.
fn read_all(reader: &mut Reader<Sim>, from: u64) -> (Vec<Vec<u8>>, Option<ReadError>) {
    let (mut all, mut next) = (Vec::new(), from);
    loop {
        match reader.read(next, 4000) {
            Ok(frames) => {
                for frame in frames.iter() {
                    assert_eq!(frame.notes, b"notes");
                    assert!(frame.first <= next && frame.next() > next, "{frame:?} at {next}");
                    all.extend(records(&frame).into_iter().skip((next - frame.first) as usize));
                    next = frame.next();
                }
            }
            Err(ReadError::Beyond { .. }) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}
