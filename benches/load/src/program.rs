//! What every program of ours does at its start and at its end: it parses its command line, gets all the descriptors that
//! it may have, prints, and says in one line why it failed. Nothing here panics on a broken pipe.

use crate::error::{Error, Exit, Result, one_line};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Write};
use std::process::ExitCode;

/// Parses the command line of `program`, and runs it with `run`.
pub fn start<C: Parser>(program: &str, run: impl FnOnce(C) -> Result) -> ExitCode {
    match C::try_parse() {
        Ok(command) => end(program, run(command)),
        Err(error) => usage(program, &error),
    }
}

/// Prints the error, if there is one, and returns the exit code.
fn end(program: &str, outcome: Result) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_quiet() {
                // If this fails, nobody reads it, and nothing else can be done.
                let _ = writeln!(io::stderr(), "{program}: {error}");
            }
            ExitCode::from(error.exit().code())
        }
    }
}

/// Raises the soft limit on file descriptors to the hard limit. Each connection needs a descriptor, and the usual soft
/// limit of 1,024 exists for programs that use `select`. Failing to raise it is not fatal: a server without free
/// descriptors waits.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Writes all of `bytes` to standard output.
pub fn print(bytes: &[u8]) -> Result {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Error::stdout(&error))
}

/// Prints `clap`'s message: help and version on standard output, a usage error as one line on standard error.
fn usage(program: &str, error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let printed = error.print().and_then(|()| io::stdout().flush());
        // Help that was not requested goes to standard error, with the exit code of a usage error.
        if error.use_stderr() {
            return ExitCode::from(Exit::Usage.code());
        }
        return end(program, printed.map_err(|error| Error::stdout(&error)));
    }
    let _ = writeln!(io::stderr(), "{program}: {}", usage_line(&error.to_string()));
    ExitCode::from(Exit::Usage.code())
}

/// Turns `clap`'s paragraph into one line: the message, its tip, and where to read more.
fn usage_line(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("Usage:") || line.starts_with("For more information")
        {
            continue;
        }
        let line =
            line.strip_prefix("error: ").or_else(|| line.strip_prefix("tip: ")).unwrap_or(line);
        // A line after a colon (an item of a list of missing arguments, for example) belongs to the line before.
        match parts.last_mut().filter(|last| last.ends_with(':')) {
            Some(last) => {
                last.push(' ');
                last.push_str(line);
            }
            None => parts.push(line.to_string()),
        }
    }
    one_line(&format!("{}; `--help` says more", parts.join("; ")))
}
