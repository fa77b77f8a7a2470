//! The configuration file: parses TOML into values with their line numbers.
//!
//! The tables are walked by hand and not through `serde`, because a derived struct lacks three things that are
//! needed here: the line of every value, the nearest name for an unknown key, and the difference between "not
//! in the file" and "the default".

use super::nearest::nearest;
use super::settings::{Key, SETTINGS, Setting};
use super::value::Value;
use super::{ConfigError, Origin};
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Parses the text of a configuration file; `path` is the name that the user gave.
///
/// No file is opened. Parsing stops at the first problem in the file's order of keys.
pub(crate) fn read(path: &str, text: &str) -> Result<Vec<(Key, Value, Origin)>, ConfigError> {
    let root = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        // Only the first line: the rest of the message quotes and underlines the source.
        let message = error.message().lines().next().unwrap_or("not TOML").to_string();
        ConfigError::new(format!("{path}:{line}"), message)
    })?;
    let mut reader = FileReader { path: Arc::from(path), text, out: Vec::new() };
    reader.table("", root.get_ref())?;
    Ok(reader.out)
}

struct FileReader<'a> {
    path: Arc<str>,
    text: &'a str,
    out: Vec<(Key, Value, Origin)>,
}

impl FileReader<'_> {
    /// Reads one table; `prefix` is its dotted name with a final dot, or empty.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        // The parser sorts keys by name; problems are reported in the order of the file.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name = format!("{prefix}{}", key.get_ref());
            let line = line_of(self.text, key.span().start);
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) {
                let line = line_of(self.text, value.span().start);
                let value = read_value(setting, value.get_ref())
                    .map_err(|why| self.error(line, &name, why))?;
                let origin = Origin::File { path: self.path.clone(), line };
                self.out.push((setting.key, value, origin));
            } else if SETTINGS.iter().any(|s| s.section() == name) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.table(&format!("{name}."), inner)?,
                    _ => {
                        return Err(self.error(
                            line,
                            &name,
                            "this is a section: write it as a table".into(),
                        ));
                    }
                }
            } else {
                return Err(self.unknown(
                    line,
                    &name,
                    matches!(value.get_ref(), DeValue::Table(_)),
                ));
            }
        }
        Ok(())
    }

    fn error(&self, line: usize, name: &str, why: String) -> ConfigError {
        ConfigError::new(format!("{}:{line}", self.path), format!("{name}: {why}"))
    }

    fn unknown(&self, line: usize, name: &str, is_table: bool) -> ConfigError {
        let keys = SETTINGS.iter().map(|setting| setting.name);
        let sections = SETTINGS.iter().map(Setting::section).filter(|section| !section.is_empty());
        let (noun, near) = if is_table {
            ("section", nearest(name, sections).or_else(|| nearest(name, keys)))
        } else {
            ("key", nearest(name, keys))
        };
        let error =
            ConfigError::new(format!("{}:{line}", self.path), format!("unknown {noun} `{name}`"));
        match near {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`psa config` lists the settings"),
        }
    }
}

fn read_value(setting: &Setting, value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => setting.kind.parse(text),
        DeValue::Boolean(on) => setting.kind.boolean(*on),
        DeValue::Integer(digits) => match u64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) => setting.kind.number(number),
            Err(_) => Err("the number is negative or too large".into()),
        },
        other => {
            Err(format!("expected {}, not {}", setting.kind.noun(), article(other.type_str())))
        }
    }
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// The 1-based line of a byte position.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}
