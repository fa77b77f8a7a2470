//! The configuration file: TOML in, values with their line numbers out.
//!
//! The file's tables are walked by hand instead of through `serde`, because three things matter here
//! that a derived struct does not give: the line of every value, the nearest name for an unknown key,
//! and "not in the file" as something different from "the default".

use super::nearest::nearest;
use super::settings::{Key, SETTINGS, Setting};
use super::value::Value;
use super::{ConfigError, Origin};
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Reads the text of a configuration file; `path` is what the user calls it.
///
/// Pure: no file is opened. The first problem in the file's order of keys ends it.
pub(crate) fn read(path: &str, text: &str) -> Result<Vec<(Key, Value, Origin)>, ConfigError> {
    let root = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        // Only the first line: what follows it is a drawing of the place.
        let message = error.message().lines().next().unwrap_or("not TOML").to_string();
        ConfigError::new(format!("{path}:{line}"), message)
    })?;
    let mut reader = Reader { path: Arc::from(path), text, out: Vec::new() };
    reader.table("", root.get_ref())?;
    Ok(reader.out)
}

struct Reader<'a> {
    path: Arc<str>,
    text: &'a str,
    out: Vec<(Key, Value, Origin)>,
}

impl Reader<'_> {
    /// One table; `prefix` is its dotted name with a final dot, or empty.
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
