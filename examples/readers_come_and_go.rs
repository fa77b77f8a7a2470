//! One writer, and readers that come and go: the log keeps only records that a reader has not read yet.
//!
//! There is only one writer, so the log is exclusive: its `Publisher` appends without a locked instruction. The program
//! prints a table with a line for each step: how many records are kept, in how much memory, and how much of it the
//! slowest reader holds back. Memory grows while a reader does not read, and shrinks as it continues or leaves.
//!
//! ```sh
//! cargo run --release --example readers_come_and_go
//! ```

use std::error::Error;

use psa::{Cursor, Exclusive, Log, Publisher, Start};

const ROUND: u64 = 200_000;

fn write(publisher: &mut Publisher<u64>) -> Result<(), Box<dyn Error>> {
    for _ in 0..ROUND {
        publisher.blocking_append(publisher.next_offset())?;
    }
    Ok(())
}

/// Reads until `end`.
fn read(cursor: &mut Cursor<u64>, end: u64) -> Result<(), Box<dyn Error>> {
    while cursor.offset() < end {
        let (offset, record) = cursor.blocking_recv()?;
        assert_eq!(record, offset, "every record is there, in order");
    }
    Ok(())
}

fn show(what: &str, log: &Log<u64, Exclusive>) {
    let stats = log.stats();
    let kept = stats.next_offset - stats.first_offset;
    let memory = stats.memory() >> 10;
    let held = stats.slowest.map_or(0, |slowest| slowest.bytes >> 10);
    println!("{what:<43}{:>7}{kept:>9}{memory:>12}{held:>12}", stats.cursors);
}

// Readers usually run in threads or tasks of their own. Here they take turns with the writer, so that the table is the
// same in every run.
fn main() -> Result<(), Box<dyn Error>> {
    let (mut publisher, log) = Log::<u64>::builder().build_exclusive()?;
    println!("{:<43}{:>7}{:>9}{:>12}{:>12}", "", "readers", "kept", "memory KiB", "held KiB");

    write(&mut publisher)?;
    show("nobody reads", &log);

    let mut dashboard = log.subscribe(Start::Next)?;
    write(&mut publisher)?;
    read(&mut dashboard, log.next_offset())?;
    show("a dashboard comes, and keeps up", &log);

    let mut audit = log.subscribe(Start::Next)?;
    write(&mut publisher)?;
    read(&mut dashboard, log.next_offset())?;
    show("an audit comes, and stands still", &log);

    let first = audit.offset();
    read(&mut audit, first + ROUND / 2)?;
    show("the audit has read half", &log);

    read(&mut audit, log.next_offset())?;
    show("the audit has read all", &log);

    let backup = log.subscribe(Start::Next)?;
    write(&mut publisher)?;
    read(&mut dashboard, log.next_offset())?;
    read(&mut audit, log.next_offset())?;
    show("a backup comes, and stands still", &log);

    // To release what the backup did not read, it is enough to drop its cursor.
    drop(backup);
    show("the backup leaves", &log);

    // Dropping the only publisher closes the log, and readers see its end.
    drop(publisher);
    assert_eq!(audit.try_next(|_| ()), Err(psa::ReadError::Closed));
    drop((dashboard, audit));
    show("the writer and all readers have gone", &log);
    Ok(())
}
