//! Catching up from files, to delivery from memory.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use psa::broker::{Durability, Topic};
use psa::{ReadError, Start};
use psa_load::error::{Error, Result};

use super::table::{Bar, Cell, Unit};
use super::{Plan, fail, fill, keeping, open};

/// One subscriber reads all there is, and hands it on: bytes a second.
fn read(topic: &Arc<Topic>, mut hand_on: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<f64> {
    let built = tokio::runtime::Builder::new_current_thread().build();
    let runtime = built.map_err(|error| fail("start a runtime", error))?;
    let end = topic.log().next_offset();
    let began = Instant::now();
    let mut cursor = topic.subscribe(Start::Earliest).map_err(|error| fail("subscribe", error))?;
    let mut bytes = 0;
    runtime.block_on(async {
        while cursor.offset() < end {
            let read = cursor.next(|batch| {
                bytes += batch.payload().len();
                hand_on(batch.payload())
            });
            let handed = read.await.map_err(|error: ReadError| fail("read", error))?;
            handed.map_err(|error| fail("hand on", error))?;
        }
        Ok::<_, Error>(())
    })?;
    Ok(bytes as f64 / began.elapsed().as_secs_f64())
}

/// A connection over loopback, whose other end reads whatever comes.
fn socket() -> std::io::Result<TcpStream> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while far.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    Ok(near)
}

pub(super) fn catch_up(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let broker = open(&place.join("data"))?;
    let stored = keeping(&broker, Durability::Written, 8 << 20)?;
    let memory = keeping(&broker, Durability::Memory, (plan.backlog * 3 / 2).max(8 << 20))?;
    for topic in [&stored, &memory] {
        fill(topic, plan.backlog)?;
    }
    let mut buffer = Vec::new();
    let mut copied = |topic| {
        read(topic, |payload| {
            buffer.clear();
            buffer.extend_from_slice(payload);
            std::hint::black_box(&buffer);
            Ok(())
        })
    };
    let sent = |topic| {
        let mut near = socket().map_err(|error| fail("loopback", error))?;
        read(topic, |payload| near.write_all(payload))
    };
    // Warm: everything was read once.
    for topic in [&stored, &memory] {
        copied(topic)?;
    }
    let (mut copies, mut sends) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let [mut rates, mut sent_rates] = [[0.0; 2]; 2];
        for at in [0, 1] {
            let at = (at + round as usize) % 2;
            let topic = [&stored, &memory][at];
            rates[at] = copied(topic)?;
            sent_rates[at] = sent(topic)?;
        }
        copies.push((rates[0], rates[1]));
        sends.push((sent_rates[0], sent_rates[1]));
    }
    let cell = |how: &str, bar, rounds| Cell {
        what: format!("catching up from the disk, warm, {how}"),
        reference: "from memory",
        unit: Unit::Bytes,
        bar,
        rounds,
    };
    Ok(vec![
        cell("to a socket", Bar::Ratio(0.8), sends),
        cell("copied once within the process", Bar::None, copies),
    ])
}
