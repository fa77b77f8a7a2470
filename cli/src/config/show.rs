//! `psa config`: the settings in effect, as TOML with a comment that says where each value came from, or as
//! JSON. The TOML is itself a configuration file with the same settings, except for secrets.

use super::settings::{Key, SETTINGS};
use super::value::Value;
use super::{Config, is_secret};
use crate::units::human_size;
use std::fmt::Write as _;

/// The configuration as TOML.
pub(crate) fn toml(config: &Config) -> String {
    let lines: Vec<(&str, String, String)> = SETTINGS
        .iter()
        .map(|setting| {
            let name = setting.name.rsplit('.').next().unwrap_or(setting.name);
            let origin = config.origin(setting.key).to_string();
            let line = match config.value(setting.key) {
                Value::Unset => format!("# {name} is not set"),
                _ if is_secret(setting.kind) => format!("# {name} is set"),
                value => format!("{name} = {}", literal(value)),
            };
            (setting.section(), line, origin)
        })
        .collect();
    let width = lines.iter().map(|(_, line, _)| line.chars().count()).max().unwrap_or(0).min(48);
    let mut out = String::new();
    let mut current = "";
    for (section, line, origin) in lines {
        if section != current {
            let _ = writeln!(out, "\n[{section}]");
            current = section;
        }
        let _ = writeln!(out, "{line:width$}  # {}", crate::error::one_line(&origin));
    }
    let size = |key| config.size(key).unwrap_or(0);
    let fixed = size(Key::LimitMemory) + 2 * size(Key::LimitInput) + size(Key::HttpCache) + OTHER;
    let _ = writeln!(
        out,
        "\n# In all, the server takes up to about {}, and {} for each connection that does not read.",
        human_size(fixed),
        human_size(size(Key::LimitReplies) + BUSY_CONNECTION)
    );
    out
}

/// What else the server takes, in bytes: itself, and HTTP responses that nobody reads (`HttpLimits::output_bytes`).
const OTHER: u64 = (30 << 20) + (64 << 20);
/// What a connection takes that is busy, besides what waits to be read.
const BUSY_CONNECTION: u64 = 24 << 10;

fn literal(value: &Value) -> String {
    match value {
        Value::Switch(on) => on.to_string(),
        Value::Count(count) => count.to_string(),
        // The TOML library can quote any text.
        value => toml::Value::String(value.text().unwrap_or_default()).to_string(),
    }
}

/// The configuration as one JSON object: `{"limit.memory": {"value": …, "origin": …}, …}`.
///
/// Sizes are in bytes and durations in nanoseconds; `off`, `system` and unset values are `null`. A secret has
/// `"set"` instead of a value.
pub(crate) fn json(config: &Config) -> serde_json::Value {
    let entries = SETTINGS.iter().map(|setting| {
        let value = config.value(setting.key);
        let origin = config.origin(setting.key).to_string();
        let entry = if is_secret(setting.kind) {
            serde_json::json!({ "set": *value != Value::Unset, "origin": origin })
        } else {
            serde_json::json!({ "value": json_value(value), "origin": origin })
        };
        (setting.name.to_string(), entry)
    });
    serde_json::Value::Object(entries.collect())
}

fn json_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Unset | Value::Without(_) => serde_json::Value::Null,
        Value::Switch(on) => (*on).into(),
        Value::Count(count) => (*count).into(),
        Value::Size(bytes) => (*bytes).into(),
        Value::Wait(wait) => (wait.as_nanos() as u64).into(),
        Value::Text(_) | Value::Server(_) | Value::Retention(_) => value.text().into(),
    }
}
