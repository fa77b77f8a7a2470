//! `psa`: the server and its tools, on the command line.
//!
//! Each command has a file of its own. `args` is the grammar, [`error`] says how a command fails, and
//! `config` where settings come from. Everything that a command writes goes through functions that handle
//! a reader that went away: nothing here panics on a broken pipe.
//!
//! This package is a library only so that the laboratory, `benches/lab` in the repository, can measure with
//! the load generator of [`mod@bench`]. Its public items are public for that alone, and change without
//! notice. To use psa in a program, use the crate `psa-log`.

mod access;
mod args;
pub mod bench;
mod config;
pub mod connect;
mod consumer;
mod demo;
pub mod error;
mod format;
mod input;
mod intake;
mod journal;
mod locked;
mod log;
mod memory;
mod progress;
mod publish;
mod reload;
mod serve;
mod service;
mod signals;
mod snapshot;
mod split;
mod stats;
mod subscribe;
mod table;
mod terminal;
mod token;
mod topics;
mod trace;
pub mod units;
mod watch;
mod writer;

pub use args::Global;
pub use config::Config;
pub use serve::raise_descriptor_limit;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use config::settings::Key;
use error::{Error, Exit, Result};
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs the command `psa`.
pub fn main() -> ExitCode {
    start("psa", run)
}

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

fn run(cli: Cli) -> Result {
    let Cli { global, command } = cli;
    match command {
        Command::Config(args) => {
            let flags = global_flags(&global).chain(args.settings.0).collect::<Vec<_>>();
            let config = server_config(&global, &flags)?;
            let text = if args.json {
                format!("{:#}\n", config::show::json(&config))
            } else {
                config::show::toml(&config)
            };
            print(text.as_bytes())
        }
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "psa", &mut script);
            print(&script)
        }
        Command::Serve(args) => {
            let flags = global_flags(&global).chain(args.settings.0).collect::<Vec<_>>();
            serve::run(&server_config(&global, &flags)?)
        }
        Command::Pub(args) => publish::run(&client_config(&global)?, args),
        Command::Sub(args) => subscribe::run(&client_config(&global)?, args),
        Command::Topics(args) => topics::run(&client_config(&global)?, args),
        Command::Token(args) => token::run(&args),
        Command::Stats(args) => stats::run(&client_config(&global)?, args),
        Command::Demo(args) => demo::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Bench(args) => bench::run(&client_config(&global)?, args, global.server.is_some()),
    }
}

/// The configuration of a server, adapted to the available memory.
fn server_config(global: &Global, flags: &[(Key, String)]) -> Result<Config> {
    let mut config = config::load(global.config.as_deref(), flags, true)?;
    if let Some(memory) = memory::available() {
        config.fit_memory(memory.bytes, memory);
    }
    Ok(config)
}

/// The configuration that a client needs.
pub fn client_config(global: &Global) -> Result<Config> {
    let flags = global_flags(global).collect::<Vec<_>>();
    config::load(global.config.as_deref(), &flags, false)
}

/// The global flags as settings.
fn global_flags(global: &Global) -> impl Iterator<Item = (Key, String)> {
    [
        (Key::Server, global.server.clone()),
        (Key::Token, global.token.clone()),
        (Key::TokenFile, global.token_file.clone()),
        (Key::ConnectTls, global.tls.then(|| "true".to_owned())),
        (Key::ConnectCa, global.ca.clone()),
        (Key::ConnectCert, global.cert.clone()),
        (Key::ConnectPrivate, global.key.clone()),
        (Key::ConnectServerName, global.server_name.clone()),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
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
    error::one_line(&format!("{}; `--help` says more", parts.join("; ")))
}
