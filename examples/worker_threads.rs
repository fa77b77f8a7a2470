//! Fan-out to worker threads without an async runtime: every worker sees every record, in the log's own memory.
//!
//! The log has a memory limit and evicts, so the publisher never waits. Three workers read all the time. The fourth is
//! busy with its first records until the publisher has finished, so it misses most records, and learns exactly which
//! ones. The program prints how many records each worker read and which ones it missed; together these are always all
//! records.
//!
//! ```sh
//! cargo run --release --example worker_threads [RECORDS]
//! ```

use std::env;
use std::error::Error;
use std::ops::Range;
use std::thread;

use psa::{Cursor, Limit, Log, Overflow, ReadError, Start};

/// What a worker read and missed until the log was closed.
#[derive(Default)]
struct Report {
    read: u64,
    sum: u64,
    missed: Vec<Range<u64>>,
}

fn work(mut cursor: Cursor<u64>, mut after_each_batch: impl FnMut()) -> Result<Report, ReadError> {
    let mut report = Report::default();
    loop {
        // Waits for records, and gets all available ones as one slice.
        match cursor.blocking_next_batch(Limit::NONE) {
            Ok(batch) => {
                report.read += batch.len() as u64;
                report.sum += batch.as_slice().iter().sum::<u64>();
                after_each_batch();
            }
            // Returned once for each gap; the next read continues after it.
            Err(ReadError::Lagged(lagged)) => report.missed.push(lagged.offsets()),
            Err(ReadError::Closed) => return Ok(report),
            Err(error) => return Err(error),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let records = env::args().nth(1).map_or(Ok(5_000_000), |records| records.parse::<u64>())?;
    let log = Log::<u64>::builder().memory_limit(16 << 20).overflow(Overflow::Evict).build()?;

    let mut workers = Vec::new();
    for name in ["ann", "bob", "cho", "slow"] {
        // Each cursor is created before the first record, and may move to any thread.
        let (cursor, log) = (log.subscribe(Start::Next)?, log.clone());
        let work = move || match name {
            "slow" => work(cursor, || log.blocking_closed()),
            _ => work(cursor, || ()),
        };
        workers.push((name, thread::spawn(work)));
    }

    for n in 0..records {
        log.blocking_append(n)?;
    }
    // Workers read the remaining records, and then see the end.
    log.close();

    for (name, worker) in workers {
        let report = worker.join().map_err(|_| format!("{name} panicked"))??;
        let missed: u64 = report.missed.iter().map(|gap| gap.end - gap.start).sum();
        assert_eq!(report.read + missed, records, "every record was read or is known as missed");
        println!("{name:<5} read {:>8} (sum {}), missed {missed:>8}", report.read, report.sum);
        for gap in &report.missed {
            println!("      missed {}..{}", gap.start, gap.end);
        }
    }
    let stats = log.stats();
    println!("{records} records through {} KiB of memory", stats.memory_limit.unwrap_or(0) >> 10);
    Ok(())
}
