//! What has to hold for the configuration, whatever the file, the environment and the flags say.
//!
//! The input is the file's text. What follows a NUL byte is a variable, what follows a second one a
//! flag, and so on in turns: `NAME=value`, and for a flag the number of the setting.

use crate::config::settings::SETTINGS;
use crate::config::{Config, Sources, is_secret, resolve, show};
use crate::error::Error;

/// No panic; an error is one line; a configuration that is printed as TOML means the same when it is
/// read, secrets excepted.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let (mut environment, mut flags) = (Vec::new(), Vec::new());
    for (i, part) in parts.enumerate() {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if i % 2 == 0 {
            environment.push((format!("PSA_{name}"), value.to_string()));
        } else {
            let number = name.bytes().fold(0, |sum, byte| sum + usize::from(byte));
            flags.push((SETTINGS[number % SETTINGS.len()].key, value.to_string()));
        }
    }
    let sources = Sources {
        file: Some(("psa.toml", file)),
        environment: &environment,
        flags: &flags,
        strict: true,
    };
    match resolve(sources) {
        Ok(config) => check_printed(&config),
        Err(error) => {
            let line = Error::from(error).to_string();
            assert_eq!(line.lines().count(), 1, "an error of several lines: {line:?}");
            assert!(!line.chars().any(char::is_control), "control characters: {line:?}");
        }
    }
}

fn check_printed(config: &Config) {
    let printed = show::toml(config);
    let sources =
        Sources { file: Some(("again.toml", &printed)), strict: true, ..Sources::default() };
    // Without its token, an address that others can reach is refused: that one cannot be read back.
    let secret = SETTINGS.iter().any(|s| is_secret(s.kind) && !config.text(s.key).is_empty());
    match resolve(sources) {
        Ok(again) => {
            for setting in SETTINGS.iter().filter(|setting| !is_secret(setting.kind)) {
                let (was, is) = (config.value(setting.key), again.value(setting.key));
                assert_eq!(was, is, "{} reads back as something else:\n{printed}", setting.name);
            }
        }
        Err(error) => assert!(secret, "{}:\n{printed}", Error::from(error)),
    }
    let _ = show::json(config).to_string();
}
