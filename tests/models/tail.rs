//! A tail that lags behind a head which goes.

use shuttle::thread;

use crate::explore::explore;
use crate::log::{Log, Start};

/// One publisher links a segment and has not yet moved the tail on, a cursor that goes away lets the
/// segment before it be collected, and others append: they must not come to the collected one.
#[test]
fn nobody_appends_to_a_segment_that_was_collected() {
    explore(|| {
        let log = Log::<u64>::builder().segment_records(2).pool_segments(2).build().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        log.blocking_append_batch([0, 1]).unwrap();
        let publishers = [2, 3, 4].map(|n| {
            let log = log.clone();
            thread::spawn(move || log.blocking_append(n).unwrap())
        });
        drop(cursor);
        let mut offsets = publishers.map(|publisher| publisher.join().unwrap());
        offsets.sort_unstable();
        assert_eq!(offsets, [2, 3, 4]);
        assert_eq!(log.next_offset(), 5);
    });
}
