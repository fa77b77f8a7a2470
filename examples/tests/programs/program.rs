//! A running example.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// Far more than anything here takes: what has not happened by then never will.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process and its output. It is killed when this is dropped.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
    /// The lines that were read so far.
    pub(crate) seen: Vec<String>,
}

impl Program {
    pub(crate) fn start<A: AsRef<OsStr>>(
        name: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut child = Command::new(executable(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines() {
                // The output is UTF-8. The receiver may be gone.
                if sender.send(line.expect("a line of text")).is_err() {
                    return;
                }
            }
        });
        Self { name, child, lines, seen: Vec::new() }
    }

    /// Waits for a line that begins with `start`, and returns the rest of that line.
    pub(crate) fn expect(&mut self, start: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("{} never said {start:?}: {:#?}", self.name, self.seen);
            };
            self.seen.push(line);
            let line = self.seen.last().expect("it was pushed");
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    /// The lines read so far that begin with `start`, without that beginning.
    pub(crate) fn said(&self, start: &str) -> Vec<&str> {
        self.seen.iter().filter_map(|line| line.strip_prefix(start)).map(str::trim).collect()
    }

    /// Kills the process so that it cannot react: with SIGKILL, where there are signals.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.seen.extend(self.lines.iter());
        std::mem::take(&mut self.seen)
    }

    /// Interrupts the process, like Ctrl-C.
    #[cfg(unix)]
    pub(crate) fn interrupt(&self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::INT).expect("it runs");
    }

    /// Waits until the process has exited.
    pub(crate) fn end(&mut self) -> ExitStatus {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                // It has closed its output.
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("{} does not end: {:#?}", self.name, self.seen)
                }
            }
        }
        self.child.wait().expect("it ends")
    }

    /// Waits until the process has exited, and checks that it succeeded.
    pub(crate) fn succeed(&mut self) {
        let status = self.end();
        assert!(status.success(), "{} failed ({status}): {:#?}", self.name, self.seen);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo tells a test where binaries are, but not where examples are: they are next to the folder of this test. Cargo
/// builds the examples for a test unless a target is named (`--test`); then `--examples` must be named, too.
fn executable(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("it lies in a profile's folder");
    let path = profile.join("examples").join(name).with_extension(env::consts::EXE_EXTENSION);
    assert!(path.exists(), "{} is not built: cargo build --examples", path.display());
    path
}
