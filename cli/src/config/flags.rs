//! The settings as flags: `clap` arguments made from the table.

use super::settings::{Key, SETTINGS, Setting};
use super::value::Kind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::sync::LazyLock;

/// What the user gave as flags, in the order of the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingFlags(pub(crate) Vec<(Key, String)>);

/// The flags that every command has, which `clap` knows as global arguments.
fn is_global(setting: &Setting) -> bool {
    matches!(setting.key, Key::Server | Key::Token | Key::TokenFile)
        || setting.section() == "connect"
}

fn own() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| !is_global(setting))
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        own().fold(command, |command, setting| {
            let default = if setting.default.is_empty() { "unset" } else { setting.default };
            let arg = Arg::new(setting.name)
                .long(long(setting))
                .value_name(setting.kind.placeholder())
                .help(format!("{}{} [default: {default}]", setting.help, words(setting.kind)))
                .help_heading(heading(setting.section()))
                .action(ArgAction::Set);
            // What everybody types: the HTTP API's address.
            let arg = if setting.key == Key::HttpListen { arg.visible_alias("http") } else { arg };
            // A switch alone means true; its value is given with `=`, so that it takes no word after it.
            command.arg(match setting.kind {
                Kind::Switch => {
                    arg.num_args(0..=1).require_equals(true).default_missing_value("true")
                }
                _ => arg,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flag's name, made once for the life of the process, as `clap` wants it.
fn long(setting: &Setting) -> &'static str {
    static NAMES: LazyLock<Vec<String>> =
        LazyLock::new(|| SETTINGS.iter().map(Setting::flag).collect());
    &NAMES[setting.key as usize]
}

fn words(kind: Kind) -> String {
    match kind {
        Kind::Choice(words) => format!(" [values: {}]", words.join(", ")),
        _ => String::new(),
    }
}

fn heading(section: &str) -> &'static str {
    match section {
        "http" => "The HTTP API",
        "access" => "Access",
        "tls" => "TLS",
        "log" => "Log",
        "topic" => "Topics that are created without settings of their own",
        "limit" => "Limits",
        "timeout" => "Timeouts",
        _ => "Server",
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingFlags, clap::Error> {
        let mut flags = SettingFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = own()
            .filter(|setting| matches.value_source(setting.name) == Some(ValueSource::CommandLine))
            .filter_map(|setting| {
                Some((setting.key, matches.get_one::<String>(setting.name)?.clone()))
            })
            .collect();
        Ok(())
    }
}
