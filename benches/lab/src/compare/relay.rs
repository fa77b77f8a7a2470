//! A bare relay: one thread that reads what a publisher sends and writes it to all sockets, one after the
//! other. It has no topics and no frames and stores nothing, so its latency is the best that one thread can reach.
//!
//! The first byte of a connection says whether it subscribes (`s`) or publishes (`p`); the relay replies with
//! `k`. When the publisher disconnects, its subscribers are dropped.

use clap::Args;
use psa_load::error::{Error, Result, describe_io};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    #[arg(long)]
    pub(crate) port: u16,
}

/// Relays until it is killed.
pub(crate) fn relay(args: &RelayArgs) -> Result {
    let fail = |error: &io::Error| Error::failed("relay", describe_io(error));
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).map_err(|error| fail(&error))?;
    let mut subscribers = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().map_err(|error| fail(&error))?;
        let mut role = [0];
        // A connection that only tested whether the relay listens sends nothing.
        let greeted = stream
            .set_nodelay(true)
            .and_then(|()| stream.read_exact(&mut role))
            .and_then(|()| stream.write_all(b"k"));
        match (greeted, role) {
            (Ok(()), [b's']) => subscribers.push(stream),
            (Ok(()), [b'p']) => {
                // A subscriber that disconnects ends the run; the other side reports it.
                let _ = pass_on(stream, &mut subscribers);
                subscribers.clear();
            }
            _ => {}
        }
    }
}

fn pass_on(mut publisher: TcpStream, subscribers: &mut [TcpStream]) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = publisher.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        for subscriber in &mut *subscribers {
            subscriber.write_all(&buffer[..read])?;
        }
    }
}
