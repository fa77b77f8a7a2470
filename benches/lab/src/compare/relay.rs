//! A bare relay: one thread that reads what a publisher sends and writes it to all sockets, one after the
//! other. No topics, no frames, nothing kept: what a latency can be at best with one thread.
//!
//! A connection says with its first byte whether it subscribes (`s`) or publishes (`p`), and gets a `k`.
//! When the publisher goes, its subscribers are forgotten.

use clap::Args;
use psa_cli::error::{Error, Result, describe_io};
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
        // One that only looked whether somebody listens says nothing.
        let greeted = stream
            .set_nodelay(true)
            .and_then(|()| stream.read_exact(&mut role))
            .and_then(|()| stream.write_all(b"k"));
        match (greeted, role) {
            (Ok(()), [b's']) => subscribers.push(stream),
            (Ok(()), [b'p']) => {
                // A subscriber that went ends a run, and that is told at the other end.
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
