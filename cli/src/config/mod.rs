//! Configuration: defaults, overridden by a TOML file, then by the environment, then by flags. Every value
//! remembers where it came from.
//!
//! # Structure
//!
//! [`settings`] is the table of all settings. [`resolve`] takes the three sources as plain text and lays them
//! over the defaults; it opens no file and reads no environment, so it can be tested and fuzzed with strings
//! alone. [`load`] reads the file and the process's variables, and [`Config::token`] reads the token file.
//! Nothing else here does I/O.
//!
//! # Errors
//!
//! The first problem is reported, on one line that names its place as the user sees it: `psa.toml:3`,
//! `PSA_LIMIT_MEMORY` or `--limit-memory`. An unknown name is an error that suggests the nearest known one: a
//! typo in a limit must not silently leave the default in force.
//!
//! Unknown variables are an error only for `psa serve` and `psa config`; the client commands ignore them.
//! Variables that container platforms set for services whose names begin with `psa` (`PSA_PORT`,
//! `PSA_HEADLESS_SERVICE_HOST` …) are not typos: they are ignored, and the server's log names them.
//!
//! # Secrets
//!
//! A token is never printed, not even in an error: [`show`] only says whether it is set.

pub(crate) mod file;
pub(crate) mod flags;
pub(crate) mod level;
pub(crate) mod nearest;
pub(crate) mod settings;
pub(crate) mod show;
pub(crate) mod value;

#[cfg(test)]
mod tests;

use self::settings::{Key, SETTINGS};
use self::value::{Kind, Value};
use crate::error::Error;
use psa::Retention;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It has its default.
    Default,
    /// A line of the configuration file.
    File {
        /// The file, under the name that the user gave.
        path: Arc<str>,
        /// 1-based.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag, without its dashes.
    Flag(String),
    /// The default was lowered to fit the available memory; this says what limits it.
    Memory(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Env(name) => f.write_str(name),
            Origin::Flag(name) => write!(f, "--{name}"),
            Origin::Memory(why) => write!(f, "default: half of what there is, since {why}"),
        }
    }
}

/// A problem with the configuration: its place, the reason, and sometimes a hint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    place: String,
    why: String,
    hint: Option<String>,
}

impl ConfigError {
    fn new(place: impl fmt::Display, why: impl fmt::Display) -> ConfigError {
        ConfigError { place: place.to_string(), why: why.to_string(), hint: None }
    }

    fn hint(mut self, hint: impl fmt::Display) -> ConfigError {
        self.hint = Some(hint.to_string());
        self
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Error {
        let failure = Error::usage(error.place, error.why);
        match error.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// The three sources, as text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sources<'a> {
    /// The configuration file: the name that the user gave, and its text.
    pub(crate) file: Option<(&'a str, &'a str)>,
    /// Environment variables whose names begin with `PSA_`.
    pub(crate) environment: &'a [(String, String)],
    /// Flags: setting and value.
    pub(crate) flags: &'a [(Key, String)],
    /// Whether all variables are read, and an unknown one is an error. The client commands read their own alone: others
    /// belong to a server that runs with the same environment.
    pub(crate) strict: bool,
}

/// Whether the client commands read the variable of this setting.
fn is_for_clients(key: Key) -> bool {
    use Key::*;
    matches!(
        key,
        Server
            | Token
            | TokenFile
            | ConnectTls
            | ConnectCa
            | ConnectCert
            | ConnectPrivate
            | ConnectServerName
    )
}

/// Every setting with its value and origin.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    // In the order of `SETTINGS`, which is the order of `Key`.
    entries: Vec<(Value, Origin)>,
    /// Ignored variables of a container platform.
    links: Vec<String>,
}

/// Whether a variable is read elsewhere (`PSA_CONFIG`), used by tests, or set by a container platform.
fn is_foreign(variable: &str) -> bool {
    variable == "PSA_CONFIG" || variable.starts_with("PSA_TEST_") || is_service_link(variable)
}

/// Whether Kubernetes or Docker sets such a variable for a service whose name begins with `psa`: `PSA` or
/// `PSA_…`, followed by `_SERVICE_HOST`, `_SERVICE_PORT`, `_SERVICE_PORT_NAME`, `_PORT`, or `_PORT_9853_TCP`
/// and anything after that.
fn is_service_link(variable: &str) -> bool {
    let Some(rest) = variable.strip_prefix("PSA_") else { return false };
    // Keep the separator in front, so that `PSA_PORT` and `PSA_WEB_PORT` are treated alike.
    let rest = format!("_{rest}");
    let of_port = |after: &str| {
        let mut parts = after.split('_').skip(1);
        let number = parts.next().is_some_and(|port| port.parse::<u16>().is_ok());
        number && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.ends_with("_PORT")
        || rest.match_indices("_PORT_").any(|(at, port)| of_port(&rest[at + port.len() - 1..]))
}

/// Lays the sources over the defaults and checks the result.
pub(crate) fn resolve(sources: Sources<'_>) -> Result<Config, ConfigError> {
    let mut config = Config::defaults();
    if let Some((path, text)) = sources.file {
        for (key, value, origin) in file::read(path, text)? {
            config.set(key, value, origin);
        }
        config.one_token(|origin| matches!(origin, Origin::File { .. }))?;
    }
    for (variable, text) in sources.environment {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == *variable) else {
            if sources.strict && !is_foreign(variable) {
                return Err(unknown_variable(variable));
            }
            if is_service_link(variable) {
                config.links.push(variable.clone());
            }
            continue;
        };
        let is_foreign = !sources.strict && !is_for_clients(setting.key);
        // Many tools set a variable to the empty string for "not set".
        if text.is_empty() || is_foreign {
            continue;
        }
        let value = setting.kind.parse(text).map_err(|why| ConfigError::new(variable, why))?;
        config.set(setting.key, value, Origin::Env(variable.clone()));
    }
    config.one_token(|origin| matches!(origin, Origin::Env(_)))?;
    for (key, text) in sources.flags {
        let setting = &SETTINGS[*key as usize];
        let flag = setting.flag();
        let value =
            setting.kind.parse(text).map_err(|why| ConfigError::new(format!("--{flag}"), why))?;
        config.set(*key, value, Origin::Flag(flag));
    }
    config.one_token(|origin| matches!(origin, Origin::Flag(_)))?;
    config.check()?;
    Ok(config)
}

fn unknown_variable(variable: &str) -> ConfigError {
    let names: Vec<String> = SETTINGS.iter().map(settings::Setting::variable).collect();
    let error = ConfigError::new(variable, "no setting has this variable");
    match nearest::nearest(variable, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error
            .hint("`psa config` lists the settings; unset it, or call it PSA_TEST_… to keep it"),
    }
}

impl Config {
    fn defaults() -> Config {
        let entries = SETTINGS
            .iter()
            .map(|setting| {
                let value = match setting.default {
                    "" => Value::Unset,
                    text => setting.kind.parse(text).expect("the defaults are tested"),
                };
                (value, Origin::Default)
            })
            .collect();
        Config { entries, links: Vec::new() }
    }

    /// The variables that were ignored because a container platform sets them.
    pub(crate) fn ignored_links(&self) -> &[String] {
        &self.links
    }

    fn set(&mut self, key: Key, value: Value, origin: Origin) {
        if key == Key::Server && *self.origin(key) != Origin::Default {
            // What an earlier layer's address said besides is not for this server.
            for other in [Key::Token, Key::ConnectTls] {
                if self.origin(other) == self.origin(key) {
                    self.entries[other as usize] =
                        Config::defaults().entries[other as usize].clone();
                }
            }
        }
        if let Value::Server(address) = value {
            if let Some(token) = address.token() {
                self.set(Key::Token, Value::Text(token.to_owned()), origin.clone());
            }
            if address.is_secure() {
                self.set(Key::ConnectTls, Value::Switch(true), origin.clone());
            }
            self.entries[key as usize] = (Value::Text(address.place().to_owned()), origin);
            return;
        }
        // A later layer's token replaces an earlier layer's token file, and the other way round.
        let rival = match key {
            Key::Token => Some(Key::TokenFile),
            Key::TokenFile => Some(Key::Token),
            _ => None,
        };
        if let Some(rival) = rival
            && std::mem::discriminant(self.origin(rival)) != std::mem::discriminant(&origin)
        {
            self.entries[rival as usize] = (Value::Unset, Origin::Default);
        }
        self.entries[key as usize] = (value, origin);
    }

    fn one_token(&self, layer: impl Fn(&Origin) -> bool) -> Result<(), ConfigError> {
        if layer(self.origin(Key::Token)) && layer(self.origin(Key::TokenFile)) {
            return Err(ConfigError::new(
                self.origin(Key::TokenFile),
                format!("{} already sets the token", self.origin(Key::Token)),
            )
            .hint("give one of the two"));
        }
        Ok(())
    }

    /// Checks the values against each other.
    fn check(&self) -> Result<(), ConfigError> {
        let frame = self.size(Key::LimitFrame).unwrap_or(u64::MAX);
        let record = self.size(Key::LimitRecord).unwrap_or(0);
        if record.saturating_add(FRAME_ROOM) > frame {
            return Err(self.clash(Key::LimitRecord, Key::LimitFrame));
        }
        let ends = self.count(Key::LimitChunkRecords).saturating_mul(4).saturating_add(64);
        if ends > frame {
            return Err(self.clash(Key::LimitChunkRecords, Key::LimitFrame));
        }
        if self.size(Key::LimitChunk).unwrap_or(0).saturating_add(ends) > frame {
            return Err(self.clash(Key::LimitChunk, Key::LimitFrame));
        }
        if frame > self.size(Key::LimitInput).unwrap_or(u64::MAX) {
            return Err(self.clash(Key::LimitFrame, Key::LimitInput));
        }
        let memory = self.size(Key::TopicMemory).unwrap_or(0);
        if memory > self.size(Key::LimitTopicMemory).unwrap_or(u64::MAX) {
            return Err(self.clash(Key::TopicMemory, Key::LimitTopicMemory));
        }
        // The default segment shrinks to fit a small memory limit; one that the user set does not.
        if *self.origin(Key::TopicSegment) != Origin::Default
            && self.size(Key::TopicSegment).unwrap_or(0) > memory
        {
            return Err(self.clash(Key::TopicSegment, Key::TopicMemory));
        }
        if self.size(Key::TopicDisk) > self.size(Key::LimitTopicDisk) {
            return Err(self.clash(Key::TopicDisk, Key::LimitTopicDisk));
        }
        let durability = self.text(Key::TopicDurability);
        if ["written", "synced"].contains(&durability.as_str()) && self.data().is_none() {
            return Err(ConfigError::new(
                self.origin(Key::TopicDurability),
                format!("topic.durability is {durability}, and there is no folder for data"),
            )
            .hint("give one with --data FOLDER, or leave the durability out"));
        }
        for (one, other) in
            [(Key::TlsCertificate, Key::TlsPrivate), (Key::ConnectCert, Key::ConnectPrivate)]
        {
            self.needs(one, other)?;
            self.needs(other, one)?;
        }
        self.needs(Key::TlsClientCa, Key::TlsCertificate)?;
        self.check_public()
    }

    /// Lowers the default memory limit of all topics to half of the available memory if that is less. A limit
    /// that the user set stays as it is.
    pub(crate) fn fit_memory(&mut self, available: u64, why: impl fmt::Display) {
        let limit = self.size(Key::LimitMemory).unwrap_or(0);
        // Whole MiB, and enough for one topic of the default size.
        let half = (available / 2) & !((1 << 20) - 1);
        let half = half.max(self.size(Key::TopicMemory).unwrap_or(0));
        if *self.origin(Key::LimitMemory) == Origin::Default && half < limit {
            self.set(Key::LimitMemory, Value::Size(half), Origin::Memory(why.to_string()));
        }
    }

    /// Checks that `other` is set if `one` is.
    fn needs(&self, one: Key, other: Key) -> Result<(), ConfigError> {
        if *self.value(one) == Value::Unset || *self.value(other) != Value::Unset {
            return Ok(());
        }
        let name = |key: Key| SETTINGS[key as usize].name;
        let why = format!("{} is set and {} is not", name(one), name(other));
        Err(ConfigError::new(self.origin(one), why).hint("give both"))
    }

    /// The error for two values that do not fit together. Its place is that of the value that the user set.
    fn clash(&self, small: Key, large: Key) -> ConfigError {
        let place = match self.origin(small) {
            Origin::Default => self.origin(large),
            set => set,
        };
        let name = |key: Key| SETTINGS[key as usize].name;
        ConfigError::new(
            place,
            format!(
                "{} of {} ({}) has no room in {} of {} ({})",
                name(small),
                self.text(small),
                self.origin(small),
                name(large),
                self.text(large),
                self.origin(large)
            ),
        )
        .hint("lower the one or raise the other")
    }

    /// Checks that addresses reachable from other machines need a token, unless the user allows them without.
    /// A host name is checked later by the server, which resolves it.
    fn check_public(&self) -> Result<(), ConfigError> {
        for listen in [Key::Listen, Key::HttpListen] {
            let public = match self.text(listen).parse::<SocketAddr>() {
                Ok(address) => !is_loopback(address.ip()),
                Err(_) => false,
            };
            if public && !self.asks_for_token() && !self.switch(Key::AllowPublic) {
                return Err(ConfigError::new(
                    self.origin(listen),
                    format!(
                        "{} can be reached from other machines and no token is set",
                        self.text(listen)
                    ),
                )
                .hint(
                    "set PSA_TOKEN, --token-file or --access-file, or say --allow-public-without-token",
                ));
            }
        }
        Ok(())
    }

    /// The source of a value.
    pub(crate) fn origin(&self, key: Key) -> &Origin {
        &self.entries[key as usize].1
    }

    /// The value itself.
    pub(crate) fn value(&self, key: Key) -> &Value {
        &self.entries[key as usize].0
    }

    /// The value as a user would write it; empty if unset.
    pub(crate) fn text(&self, key: Key) -> String {
        self.value(key).text().unwrap_or_default()
    }

    /// The value of a switch.
    pub(crate) fn switch(&self, key: Key) -> bool {
        matches!(self.value(key), Value::Switch(true))
    }

    /// A plain number.
    pub(crate) fn count(&self, key: Key) -> u64 {
        match self.value(key) {
            Value::Count(count) => *count,
            _ => unreachable!("{key:?} is not a count"),
        }
    }

    /// A number of bytes, `None` for `off` or `system`.
    pub(crate) fn size(&self, key: Key) -> Option<u64> {
        match self.value(key) {
            Value::Size(bytes) => Some(*bytes),
            Value::Without(_) => None,
            _ => unreachable!("{key:?} is not a size"),
        }
    }

    /// A duration, `None` for `off` or `system`.
    pub(crate) fn wait(&self, key: Key) -> Option<Duration> {
        match self.value(key) {
            Value::Wait(wait) => Some(*wait),
            Value::Without(_) => None,
            _ => unreachable!("{key:?} is not a duration"),
        }
    }

    /// The words of a comma-separated list; none if unset.
    pub(crate) fn words(&self, key: Key) -> Vec<String> {
        let text = self.text(key);
        text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// A retention.
    pub(crate) fn retention(&self, key: Key) -> Retention {
        match self.value(key) {
            Value::Retention(retention) => *retention,
            _ => unreachable!("{key:?} is not a retention"),
        }
    }

    /// The folder for data, if there is one.
    pub(crate) fn data(&self) -> Option<PathBuf> {
        Some(self.value(Key::Data).text()?.into())
    }

    /// Checks that the folder for data, if it exists, is a folder. Only `psa serve` knows whether it can write there: it
    /// may run as another user.
    pub(crate) fn check_folder(&self) -> Result<(), Error> {
        match self.data() {
            Some(data) if data.exists() && !data.is_dir() => {
                let why = format!("{} is no folder", data.display());
                Err(Error::usage(self.origin(Key::Data), why).hint("name a folder, or a new one"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a token or a token file is set.
    pub(crate) fn has_token(&self) -> bool {
        *self.value(Key::Token) != Value::Unset || *self.value(Key::TokenFile) != Value::Unset
    }

    /// Whether a server with this configuration requires a token.
    pub(crate) fn asks_for_token(&self) -> bool {
        self.has_token() || *self.value(Key::AccessFile) != Value::Unset
    }

    /// The token, read from its file if there is one.
    pub(crate) fn token(&self) -> Result<Option<String>, Error> {
        if let Value::Text(token) = self.value(Key::Token) {
            return Ok(Some(token.clone()));
        }
        let Value::Text(path) = self.value(Key::TokenFile) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::usage(path, crate::error::describe_io(&e)).hint("it should hold the token")
        })?;
        let line = text.lines().next().unwrap_or_default().trim_end();
        value::check_secret(line).map(Some).map_err(|why| Error::usage(path, why))
    }
}

/// The bytes that the protocol reserves in a frame for everything but one record.
const FRAME_ROOM: u64 = 4 << 10;

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(v6.is_loopback(), |v4| v4.is_loopback()),
        IpAddr::V4(v4) => v4.is_loopback(),
    }
}

/// Reads the sources and resolves them.
///
/// `path` is the value of `--config`. Without it, `PSA_CONFIG` is used if it is set.
pub(crate) fn load(
    path: Option<&str>,
    flags: &[(Key, String)],
    strict: bool,
) -> Result<Config, Error> {
    let from_env = || std::env::var("PSA_CONFIG").ok().filter(|path| !path.is_empty());
    let path = path.map(str::to_owned).or_else(from_env);
    let read = |path: &String| {
        std::fs::read_to_string(path).map_err(|error| {
            Error::usage(path, crate::error::describe_io(&error))
                .hint("--config names the configuration file")
        })
    };
    let text = path.as_ref().map(read).transpose()?;
    let environment = environment(strict)?;
    let sources = Sources {
        file: path.as_deref().zip(text.as_deref()),
        environment: &environment,
        flags,
        strict,
    };
    Ok(resolve(sources)?)
}

fn environment(strict: bool) -> Result<Vec<(String, String)>, Error> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("PSA_")) else {
            continue;
        };
        let is_read = |setting: &settings::Setting| strict || is_for_clients(setting.key);
        let known = SETTINGS.iter().any(|setting| setting.variable() == name && is_read(setting));
        match value.into_string() {
            Ok(value) => variables.push((name.to_string(), value)),
            Err(_) if known || (strict && !is_foreign(name)) => {
                return Err(Error::usage(name, "the value is not UTF-8"));
            }
            Err(_) => {}
        }
    }
    // The environment has no order. Sorted, every run reports the same problem first.
    variables.sort();
    Ok(variables)
}

/// Whether the kind is a secret, whose value is never printed.
pub(crate) fn is_secret(kind: Kind) -> bool {
    matches!(kind, Kind::Secret)
}
