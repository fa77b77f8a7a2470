//! A server of our own: `psa serve` as a child process on a free port, so that its memory and its
//! processor time are the server's alone.

use crate::bench::facts::{self, Usage};
use crate::error::{Error, Result, describe_io};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running server, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnServer {
    child: Child,
    address: String,
    /// Kept open: the server must not find its output gone.
    stdout: BufReader<ChildStdout>,
}

impl OwnServer {
    /// Starts one with these flags of `psa serve` and waits until it listens. Variables that would
    /// configure it are taken out of its environment: it is set by its defaults and `flags` alone.
    pub(crate) fn start(flags: &[String]) -> Result<OwnServer> {
        let program = std::env::current_exe().map_err(|error| cannot(&error))?;
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error"]).args(flags);
        for (variable, _) in std::env::vars_os() {
            if is_ours(&variable) {
                command.env_remove(variable);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| cannot(&error))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(Error::failed("start a server", "it has no output"));
        };
        let mut stdout = BufReader::new(stdout);
        let mut hello = String::new();
        let read = stdout.read_line(&mut hello);
        let address = hello.trim_end().rsplit_once(" listens on ").map(|(_, address)| address);
        let Some(address) = address.map(str::to_owned) else {
            // It said why on standard error.
            let _ = child.kill();
            let _ = child.wait();
            return Err(match read {
                Err(error) => cannot(&error),
                Ok(_) => Error::failed("start a server", "it ended before it listened"),
            });
        };
        Ok(OwnServer { child, address, stdout })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where its HTTP door listens, if the flags asked for one. To be asked once, and before anything
    /// else it says is of interest.
    pub(crate) fn http_address(&mut self) -> Result<String> {
        loop {
            let mut line = String::new();
            match self.stdout.read_line(&mut line) {
                Err(error) => return Err(cannot(&error)),
                Ok(0) => return Err(Error::failed("start a server", "it has no HTTP door")),
                Ok(_) => {}
            }
            let address = line.split_once("curl -N http://").map(|(_, behind)| behind);
            if let Some((address, _)) = address.and_then(|address| address.split_once('/')) {
                return Ok(address.to_owned());
            }
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has used so far; `None` where the system does not say.
    pub(crate) fn usage(&self) -> Option<Usage> {
        facts::exact_usage(self.child.id())
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.map(|pid| kill_process(pid, Signal::TERM));
        let began = Instant::now();
        while matches!(asked, Some(Ok(()))) && began.elapsed() < PATIENCE && self.is_alive() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ours(variable: &OsString) -> bool {
    variable.to_str().is_some_and(|name| name.starts_with("PSA_"))
}

fn cannot(error: &std::io::Error) -> Error {
    Error::failed("start a server", describe_io(error))
}
