//! Notices, without writing to it, that nobody reads the output any more.
//!
//! A write to a pipe whose reader is gone fails. But a subscriber of a quiet topic writes nothing, and would wait
//! for ever after `psa sub t | head -3`. The system reports the missing reader without a write, too: as an error on a
//! pipe, and as a hang-up on a socket.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use std::os::fd::OwnedFd;
use std::thread;
use tokio::sync::oneshot;

/// The reader of an output.
#[derive(Debug)]
pub(crate) struct Consumer(Option<oneshot::Receiver<()>>);

impl Consumer {
    /// A reader that cannot go away: for a file, or for a terminal, whose closing is reported by a signal.
    pub(crate) fn lasting() -> Consumer {
        Consumer(None)
    }

    /// The reader of this output; only that of a pipe or a socket can go away. Costs a thread, which sleeps and ends
    /// with the process. The runtime could wait for the reader, too, but reports too little about sockets.
    pub(crate) fn of(output: OwnedFd) -> Consumer {
        let kind = rustix::fs::fstat(&output).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if !matches!(kind, Ok(FileType::Fifo | FileType::Socket)) {
            return Consumer::lasting();
        }
        let (tell, gone) = oneshot::channel();
        thread::spawn(move || {
            // No events are requested: the system always reports errors and hang-ups.
            let mut output = [PollFd::new(&output, PollFlags::empty())];
            loop {
                match poll(&mut output, None) {
                    Ok(0) | Err(rustix::io::Errno::INTR) => {}
                    Ok(_) => {
                        // This fails if nobody waits any more.
                        let _ = tell.send(());
                        break;
                    }
                    // A write will still notice, as always.
                    Err(_) => break,
                }
            }
        });
        Consumer(Some(gone))
    }

    /// Waits until the reader is gone. Cancel safe.
    pub(crate) async fn gone(&mut self) {
        let gone = match &mut self.0 {
            Some(gone) => gone.await.is_ok(),
            None => false,
        };
        self.0 = None;
        if !gone {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn it_is_noticed_and_nothing_else_is() {
        let wait = Duration::from_millis(50);
        let (reader, writer) = std::io::pipe().unwrap();
        let mut consumer = Consumer::of(writer.into());
        assert!(tokio::time::timeout(wait, consumer.gone()).await.is_err(), "it is there");
        drop(reader);
        consumer.gone().await;

        // The other side of a socket may announce that it sends nothing more, and still read.
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut consumer = Consumer::of(near.into());
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(tokio::time::timeout(wait, consumer.gone()).await.is_err(), "it still reads");
        drop(far);
        consumer.gone().await;

        let file = tempfile::tempfile().unwrap();
        let mut consumer = Consumer::of(file.into());
        assert!(tokio::time::timeout(wait, consumer.gone()).await.is_err(), "a file has no end");
    }
}
