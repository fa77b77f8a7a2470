//! The settings as flags: `clap` arguments generated from the table of settings.

use super::settings::{Key, SETTINGS, Setting};
use super::value::Kind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::sync::LazyLock;

/// The settings that the user gave as flags, in the order of the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingFlags(pub(crate) Vec<(Key, String)>);

/// Whether every command has the flag. Those are global arguments of `clap` and not generated here.
fn is_global(setting: &Setting) -> bool {
    matches!(setting.key, Key::Server | Key::Token | Key::TokenFile)
        || setting.section() == "connect"
}

fn server_settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| !is_global(setting))
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        server_settings().fold(command, |command, setting| {
            let default = if setting.default.is_empty() { "unset" } else { setting.default };
            let arg = Arg::new(setting.name)
                .long(long(setting))
                .value_name(setting.kind.placeholder())
                .help(format!("{}{} [default: {default}]", setting.help, words(setting.kind)))
                .help_heading(heading(setting.section()))
                .action(ArgAction::Set);
            // A short name for the flag that is typed most often.
            let arg = if setting.key == Key::HttpListen { arg.visible_alias("http") } else { arg };
            // A switch alone means true. A value must follow an `=`, so that the switch does not take the next word.
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

/// The flag's name, built once: `clap` wants names that live as long as the process.
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
        self.0 = server_settings()
            .filter(|setting| matches.value_source(setting.name) == Some(ValueSource::CommandLine))
            .filter_map(|setting| {
                Some((setting.key, matches.get_one::<String>(setting.name)?.clone()))
            })
            .collect();
        Ok(())
    }
}
