//! `curl`, a client that shares nothing with ours. The project builds and is tested without it; where it is there (and
//! `.ci/run` sees to it that it is), it asks what only a stranger can.

use std::process::{Command, Stdio};

/// Whether it is there. Says so if it is not, and what is not tested then.
pub(crate) fn is_there(what: &str) -> bool {
    let version = Command::new("curl").arg("--version").stdout(Stdio::null()).status();
    let there = version.is_ok_and(|status| status.success());
    if !there {
        eprintln!("curl is missing, and {what} is not tested; install it (apt-get install curl)");
    }
    there
}

/// The command, with nothing of the caller's configuration in it, neither a file of theirs nor a proxy.
pub(crate) fn curl() -> Command {
    let mut command = Command::new("curl");
    command.args(["--disable", "--noproxy", "*"]);
    command
}
