//! One chunk of records as it goes over the wire.

use std::io::{self, IoSlice};
use std::time::{Duration, UNIX_EPOCH};

use super::session::End;
use crate::log::{Batch, Limit};
use crate::protocol;

/// The bytes of a chunk's header.
const HEADER: usize = 40;
/// A chunk has one time, that of its first record. This is how much later another one of it may have been appended.
pub(super) const TIME_OF_A_CHUNK: Duration = Duration::from_secs(1);

/// How much a chunk may carry.
#[derive(Clone, Copy)]
pub(super) struct ChunkLimit {
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// The largest frame, which no chunk may exceed.
    pub(super) frame: usize,
}

/// A chunk of which some bytes were written.
pub(super) struct InFlight {
    pub(super) slot: u32,
    pub(super) records: usize,
    pub(super) header: [u8; HEADER],
    pub(super) written: usize,
}

impl InFlight {
    /// The limit with which a read returns the same records again.
    pub(super) fn limit(&self) -> Limit {
        Limit { records: self.records, bytes: usize::MAX }
    }

    /// The chunk as it goes over the wire.
    pub(super) fn slices<'a>(&'a self, batch: &'a Batch<'_, [u8]>) -> [IoSlice<'a>; 3] {
        [IoSlice::new(&self.header), IoSlice::new(batch.ends()), IoSlice::new(batch.payload())]
    }
}

pub(super) fn header(sub: u32, batch: &Batch<'_, [u8]>) -> [u8; HEADER] {
    let time = batch.append_time().duration_since(UNIX_EPOCH);
    // A clock before 1970 or after 2554 is wrong either way.
    let time = time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    // A segment, and so a run in it, has less than 4 GiB.
    let (records, bytes) = (batch.len() as u32, batch.payload().len() as u32);
    protocol::deliver_header(sub, records, batch.first_offset(), time, batch.start(), bytes)
}

pub(super) fn nonzero(wrote: io::Result<usize>) -> Result<usize, End> {
    match wrote {
        Ok(0) => Err(End::Io(io::ErrorKind::WriteZero.into())),
        Ok(wrote) => Ok(wrote),
        Err(error) => Err(End::Io(error)),
    }
}

/// Several slices as one copy.
pub(super) trait ConcatBytes {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl ConcatBytes for [IoSlice<'_>] {
    fn concat_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.iter().map(|slice| slice.len()).sum());
        self.iter().for_each(|slice| bytes.extend_from_slice(slice));
        bytes
    }
}
