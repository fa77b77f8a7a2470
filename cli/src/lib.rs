//! `psa`: the server and its tools, on the command line.
//!
//! Each command has a file of its own, except `psa bench`, which is the package [`psa_load`]. `args` is the grammar, and
//! `config` says where settings come from. How a command fails is in [`psa_load::error`]. Everything that a command
//! writes goes through functions that handle a reader that went away: nothing here panics on a broken pipe.
//!
//! This package is a library, of one function, only so that the laboratory, `benches/lab` in the repository, is the
//! server that it measures: `psa-lab serve` is [`main`], built from the same source at the same time. To use psa in a
//! program, use the crate `psa-log`.

#[cfg(not(unix))]
compile_error!(
    "psa needs a Unix system, such as Linux or macOS; on Windows, run it in WSL. The library psa-log works there."
);

mod access;
mod args;
mod backup;
mod config;
mod connect;
mod consumer;
mod demo;
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
mod repair;
mod serve;
mod service;
mod signals;
mod snapshot;
mod split;
mod stats;
mod subscribe;
mod terminal;
mod token;
mod topics;
mod verify;
mod watch;
mod writer;

/// Gives what was freed back to the system, within ten seconds or so. glibc keeps it where a block in use lies behind it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use args::{Cli, Command, Global};
use clap::CommandFactory;
use config::Config;
use config::settings::Key;
use error::Result;
use psa_load::wire::Target;
use psa_load::{error, print, table, units};
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs the command `psa`.
pub fn main() -> ExitCode {
    psa_load::start("psa", run)
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
        Command::Verify(args) => verify::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Stats(args) => stats::run(&client_config(&global)?, args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => psa_load::run(args, named_server(&global)?),
    }
}

/// Says something on standard error, in one line. If this fails, nobody reads it, and nothing else can be done.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "psa: {}", error::one_line(line));
}

/// The configuration of a server, adapted to the available memory.
fn server_config(global: &Global, flags: &[(Key, String)]) -> Result<Config> {
    let mut config = config::load(global.config.as_deref(), flags, true)?;
    config.check_folder()?;
    if let Some(memory) = memory::available() {
        config.fit_memory(memory.bytes, memory);
    }
    Ok(config)
}

/// The configuration that a client needs.
fn client_config(global: &Global) -> Result<Config> {
    let flags = global_flags(global).collect::<Vec<_>>();
    config::load(global.config.as_deref(), &flags, false)
}

/// The server that a benchmark measures, if the flags name one. A variable or the configuration file do not count: without
/// a flag, the benchmark starts a server of its own.
fn named_server(global: &Global) -> Result<Option<Target>> {
    let config = client_config(global)?;
    if global.server.is_none() {
        return Ok(None);
    }
    let token = config.token()?.unwrap_or_default();
    Ok(Some(Target { address: config.text(Key::Server), token }))
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
