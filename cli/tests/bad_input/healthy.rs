//! A publisher and a subscriber that do nothing wrong.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::harness::*;

const TOPIC: &str = "healthy";

/// They run from the beginning of a test to its end.
pub(crate) struct Healthy {
    stop: Arc<AtomicBool>,
    /// Gives back the publisher, and what it was given.
    feeder: JoinHandle<(Process, Vec<u8>)>,
    subscriber: Process,
}

impl Healthy {
    /// Starts both, and waits until records flow.
    #[track_caller]
    pub(crate) fn start(server: &Server) -> Healthy {
        let subscriber = server.spawn(&["sub", TOPIC, "--format", "raw"]);
        server.describe_until(TOPIC, "the healthy subscriber", |stats| stats["cursors"] == 1);
        let mut command = server.command(&["pub", "--keep-ends", TOPIC]);
        command.stdin(Stdio::piped());
        let mut publisher = Process::start(server.folder.path(), command);
        let mut stdin = publisher.child().stdin.take().expect("it is a pipe");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let feeder = std::thread::spawn(move || {
            let mut fed = Vec::new();
            for number in 0.. {
                let line = format!("healthy record {number}\r\n");
                if let Err(error) = stdin.write_all(line.as_bytes()) {
                    panic!("the healthy publisher ended: {error}: {}", publisher.stderr());
                }
                fed.extend(line.as_bytes());
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // Not to wait for anything: a stream, not a flood.
                std::thread::sleep(Duration::from_micros(500));
            }
            (publisher, fed)
        });
        let mut healthy = Healthy { stop, feeder, subscriber };
        healthy.goes_on();
        healthy
    }

    /// Waits until records that were published after this call have arrived.
    #[track_caller]
    pub(crate) fn goes_on(&mut self) {
        let before = self.subscriber.stdout().len();
        eventually("the healthy subscriber to receive more", || {
            assert!(self.subscriber.is_running(), "it ended: {}", self.subscriber.stderr());
            // What was on its way before is less than this.
            match self.subscriber.stdout().len() {
                now if now > before + 1000 => Ok(()),
                now => Err(format!("{now} bytes; {}", self.subscriber.stderr())),
            }
        });
    }

    /// Ends both in order, and checks that nothing was lost or came twice.
    #[track_caller]
    pub(crate) fn finish(mut self, server: &Server) {
        self.goes_on();
        self.stop.store(true, Ordering::Relaxed);
        let (publisher, fed) = self.feeder.join().expect("it says why");
        let run = publisher.wait().expect(exit::DONE);
        assert_eq!(run.stderr, "", "the healthy publisher");
        server.run(&["topics", "close", TOPIC]).expect(exit::DONE);
        let run = self.subscriber.wait().expect(exit::DONE);
        assert_eq!(run.stderr, "", "the healthy subscriber");
        assert!(run.stdout == fed, "{} bytes came, {} were sent", run.stdout.len(), fed.len());
    }
}
