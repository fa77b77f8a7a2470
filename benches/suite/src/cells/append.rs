//! Appending alone: nobody reads.
//!
//! Where a rival refuses records without a subscriber, one is attached that does not read. There is
//! nothing received that could be verified; that what these calls publish arrives is what the other
//! cells check.

use std::time::Duration;

use super::publishing::Publishing;
use crate::payload::Payload;
use crate::rival::{Rival, Shape, Trouble};

/// One run: from when the first publisher began until the last one had published its `records`.
///
/// # Errors
///
/// None; as the other cells.
pub fn alone<R: Rival<P>, P: Payload>(shape: &Shape, records: u64) -> Result<Duration, Trouble> {
    let (publishers, subscribers) = R::open(shape);
    let publishing = Publishing::prepare(publishers, records);
    publishing.start();
    let (begin, end) = publishing.end();
    drop(subscribers);
    Ok(end - begin)
}
