//! A server started by the benchmark: `psa serve` as a child process on a free port, so that its memory and
//! processor time can be measured separately.

use crate::error::{Error, Result, describe_io};
use crate::facts::{self, Usage};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to exit after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running server, stopped when this is dropped.
#[derive(Debug)]
pub struct OwnServer {
    child: Child,
    address: String,
    /// Kept open so that the server's writes to it do not fail.
    stdout: BufReader<ChildStdout>,
}

impl OwnServer {
    /// Starts a server with these flags of `psa serve` and waits until it listens. Variables that would
    /// configure it are removed from its environment, so only its defaults and `flags` apply.
    pub fn start(flags: &[String]) -> Result<OwnServer> {
        let program = std::env::current_exe().map_err(|error| cannot(&error))?;
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error"]).args(flags);
        without_settings(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| cannot(&error))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(Error::failed("start a server", "it has no output"));
        };
        let stdout = BufReader::new(stdout);
        let mut server = OwnServer { child, address: String::new(), stdout };
        match server.line()?.trim_end().rsplit_once(" listens on ") {
            Some((_, address)) => server.address = address.to_owned(),
            // It has printed the reason to standard error.
            None => return Err(Error::failed("start a server", "it ended before it listened")),
        }
        Ok(server)
    }

    /// The next line of its standard output; empty at the end.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(|error| cannot(&error))?;
        Ok(line)
    }

    /// The address on which it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The ID of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The resources it has used so far; `None` where the system does not report them.
    pub fn usage(&self) -> Option<Usage> {
        facts::exact_usage(self.child.id())
    }

    /// Kills it: it can do nothing more.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // Its number may belong to another process by now.
        if !self.is_alive() {
            return;
        }
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

/// Removes the variables that configure `psa` from a command's environment.
pub fn without_settings(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("PSA_")) {
            command.env_remove(variable);
        }
    }
}

fn cannot(error: &std::io::Error) -> Error {
    Error::failed("start a server", describe_io(error))
}
