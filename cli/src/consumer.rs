//! Noticing that nobody reads our output any more, without writing to it.
//!
//! A write to a pipe whose reader is gone fails. But whoever waits for records on a quiet topic writes
//! nothing, and would wait for ever after `psa sub t | head -3`. The system tells it without a write: the pipe
//! has an error, a socket a hang-up.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use std::os::fd::OwnedFd;
use std::thread;
use tokio::sync::oneshot;

/// Whoever reads an output.
#[derive(Debug)]
pub(crate) struct Consumer(Option<oneshot::Receiver<()>>);

impl Consumer {
    /// One that cannot go away: that of a file, or of a terminal, whose end a signal tells.
    pub(crate) fn lasting() -> Consumer {
        Consumer(None)
    }

    /// Whoever reads this output, if it is a pipe or a socket. Costs a thread, which sleeps and ends with the
    /// process: the runtime could wait for it as well, but tells too little about sockets.
    pub(crate) fn of(output: OwnedFd) -> Consumer {
        let kind = rustix::fs::fstat(&output).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if !matches!(kind, Ok(FileType::Fifo | FileType::Socket)) {
            return Consumer::lasting();
        }
        let (tell, gone) = oneshot::channel();
        thread::spawn(move || {
            // Asked for nothing: what the system tells unasked is an error or a hang-up.
            let mut output = [PollFd::new(&output, PollFlags::empty())];
            loop {
                match poll(&mut output, None) {
                    Ok(0) | Err(rustix::io::Errno::INTR) => {}
                    Ok(_) => {
                        // Nobody may wait for it any more.
                        let _ = tell.send(());
                        break;
                    }
                    // Then a write tells, as it always does.
                    Err(_) => break,
                }
            }
        });
        Consumer(Some(gone))
    }

    /// Waits until it is gone. Can be dropped and called again.
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

        // A socket's other side may say that it sends nothing more, and still read.
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
