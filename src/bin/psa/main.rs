//! `psa`: the server and its tools, on the command line.
//!
//! One file per command; [`args`] is the grammar, [`error`] how a command fails, [`config`] where
//! settings come from. Everything a command writes goes through functions that see a reader which
//! went away: nothing here panics on a broken pipe.

mod access;
mod args;
mod bench;
mod config;
mod connect;
mod demo;
mod error;
mod format;
mod input;
mod intake;
mod journal;
mod progress;
mod publish;
mod reload;
mod serve;
mod signals;
mod snapshot;
mod split;
mod start;
mod stats;
mod subscribe;
mod table;
mod time;
mod token;
mod topics;
mod trace;
mod units;
mod watch;
mod writer;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use config::settings::Key;
use error::{Error, Exit, Result};
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_quiet() {
                // Nobody may be there to read it; there is nothing left to do about that.
                let _ = writeln!(io::stderr(), "psa: {error}");
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
            let config = config::load(global.config.as_deref(), &flags, true)?;
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
            serve::run(&config::load(global.config.as_deref(), &flags, true)?)
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

/// The configuration as far as a client needs it.
fn client_config(global: &args::Global) -> Result<config::Config> {
    let flags = global_flags(global).collect::<Vec<_>>();
    config::load(global.config.as_deref(), &flags, false)
}

/// The global flags as settings.
fn global_flags(global: &args::Global) -> impl Iterator<Item = (Key, String)> {
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

/// Writes to standard output, all of it.
pub(crate) fn print(bytes: &[u8]) -> Result {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Error::stdout(&error))
}

/// What `clap` has to say: help and version on standard output, a wrong use as one line.
fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let asked = error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let _ = error.print();
        return if asked { ExitCode::SUCCESS } else { ExitCode::from(Exit::Usage.code()) };
    }
    let _ = writeln!(io::stderr(), "psa: {}", usage_line(&error.to_string()));
    ExitCode::from(Exit::Usage.code())
}

/// Makes one line of `clap`'s paragraph: the message, its tip, and where to read more.
fn usage_line(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("Usage:") || line.starts_with("For more information")
        {
            continue;
        }
        let line =
            line.strip_prefix("error: ").or_else(|| line.strip_prefix("tip: ")).unwrap_or(line);
        // What follows a colon (a list of missing arguments, say) belongs to it.
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
