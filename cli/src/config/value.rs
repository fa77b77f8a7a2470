//! The kinds of values that settings have, and how each kind is parsed and printed.

use crate::units::{parse_duration, parse_size};
use psa::Retention;
use psa::client::ServerAddress;
use psa::server::Token;
use psa::words::{BadOrigin, BadText, HostName, Origin, Period, Size};
use std::time::Duration;

/// The kind of a setting's values, with its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `HOST:PORT`, an IPv6 host in brackets.
    Address,
    /// The same, or an address with a scheme, which may have a token.
    Server,
    /// A file name.
    Path,
    /// The name of a folder.
    Folder,
    /// A comma-separated list of page origins or `*`.
    Origins,
    /// A comma-separated list of host names.
    Hosts,
    /// A text that is never shown.
    Secret,
    /// Any text on one line.
    Text,
    /// true or false.
    Switch,
    /// A plain number.
    Count { min: u64, max: u64 },
    /// A number of bytes. `none` is the word for no value, or empty if there must be a value.
    Size { min: u64, max: u64, none: &'static str },
    /// A duration; `none` as for `Size`.
    Wait { min: Duration, max: Duration, none: &'static str },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// What a topic keeps; see [`Retention`].
    Retention,
    /// Log levels.
    Filter,
}

/// A value that was parsed and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// No value: an optional setting that is not set.
    Unset,
    /// An address, path, list, choice, filter, secret or other text.
    Text(String),
    /// A switch.
    Switch(bool),
    /// A plain number.
    Count(u64),
    /// A number of bytes.
    Size(u64),
    /// A duration.
    Wait(Duration),
    /// Deliberately no size or duration, with the word for that (`off`, `system`).
    Without(&'static str),
    /// What a topic keeps.
    Retention(Retention),
    /// An address with a scheme. Settings take it apart: see `Config::set`.
    Server(ServerAddress),
}

impl Kind {
    /// Parses the text of a variable, of a flag, or of a string in the file.
    ///
    /// The error is only the reason; the caller knows where the text came from.
    pub(crate) fn parse(self, text: &str) -> Result<Value, String> {
        let value = match self {
            Kind::Address => Value::Text(check_address(text)?),
            Kind::Server if text.contains("://") => {
                let address = text.trim().parse::<ServerAddress>();
                Value::Server(address.map_err(|error| error.to_string())?)
            }
            Kind::Server => Value::Text(check_address(text)?),
            Kind::Path if text.is_empty() => return Err("the file name is empty".into()),
            Kind::Folder if text.is_empty() => return Err("the folder name is empty".into()),
            Kind::Path | Kind::Folder => Value::Text(text.into()),
            Kind::Origins => Value::Text(check_words(text, |word| match word {
                "*" => Ok(word.into()),
                word => word.parse::<Origin>().map(|origin| origin.to_string()),
            })?),
            Kind::Hosts => Value::Text(check_words(text, |word| {
                word.parse::<HostName>().map(|host| host.to_string())
            })?),
            Kind::Secret => Value::Text(check_secret(text)?),
            Kind::Text if text.is_empty() || text.contains(char::is_control) => {
                return Err("expected a text on one line".into());
            }
            Kind::Text => Value::Text(text.into()),
            Kind::Switch => Value::Switch(parse_switch(text)?),
            Kind::Count { .. } => {
                let digits = text.trim().replace('_', "");
                Value::Count(digits.parse().map_err(|_| "expected a whole number".to_string())?)
            }
            Kind::Size { none, .. } | Kind::Wait { none, .. }
                if !none.is_empty() && text == none =>
            {
                return Ok(Value::Without(none));
            }
            Kind::Size { .. } => Value::Size(parse_size(text)?),
            Kind::Wait { .. } => Value::Wait(parse_duration(text)?),
            Kind::Choice(words) if words.contains(&text) => Value::Text(text.into()),
            Kind::Choice(words) => {
                let hint = super::nearest::nearest(text, words.iter().copied())
                    .map_or(String::new(), |word| format!("; did you mean {word}?"));
                return Err(format!("expected {}{hint}", words.join(" or ")));
            }
            Kind::Retention => {
                Value::Retention(text.parse().map_err(|error: BadText| error.to_string())?)
            }
            Kind::Filter => {
                super::level::check(text)?;
                Value::Text(text.into())
            }
        };
        self.check(value)
    }

    /// Converts a plain number of the file.
    pub(crate) fn number(self, number: u64) -> Result<Value, String> {
        match self {
            Kind::Count { .. } => self.check(Value::Count(number)),
            Kind::Size { .. } => self.check(Value::Size(number)),
            Kind::Wait { .. } => {
                Err(format!("a duration needs a unit: write \"{number}s\" or \"{number}ms\""))
            }
            _ => Err(format!("expected {}, not a number", self.noun())),
        }
    }

    /// Converts a boolean of the file.
    pub(crate) fn boolean(self, value: bool) -> Result<Value, String> {
        match self {
            Kind::Switch => Ok(Value::Switch(value)),
            _ => Err(format!("expected {}, not {value}", self.noun())),
        }
    }

    /// A noun for the kind's values, for messages and documentation.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Kind::Address | Kind::Server => "an address such as 127.0.0.1:9853",
            Kind::Path => "a file name",
            Kind::Folder => "a folder name",
            Kind::Origins => "origins with commas between them",
            Kind::Hosts => "names with commas between them",
            Kind::Secret | Kind::Text => "a text",
            Kind::Switch => "true or false",
            Kind::Count { .. } => "a whole number",
            Kind::Size { .. } => "a size such as 64MiB",
            Kind::Wait { .. } => "a duration such as 5s",
            Kind::Choice(_) => "one of a few words",
            Kind::Retention => "a retention such as 1h",
            Kind::Filter => "a level such as info",
        }
    }

    /// The placeholder of the value in help texts.
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Kind::Address | Kind::Server => "HOST:PORT",
            Kind::Path => "FILE",
            Kind::Folder => "FOLDER",
            Kind::Origins => "ORIGIN,…",
            Kind::Hosts => "NAME,…",
            Kind::Secret => "TOKEN",
            Kind::Text => "TEXT",
            Kind::Switch => "BOOL",
            Kind::Count { .. } => "COUNT",
            Kind::Size { .. } => "SIZE",
            Kind::Wait { .. } => "DURATION",
            Kind::Choice(_) => "WORD",
            Kind::Retention => "RETENTION",
            Kind::Filter => "LEVEL",
        }
    }

    /// The allowed values, as `docs/configuration.md` states them.
    #[cfg(test)]
    pub(crate) fn range(self) -> String {
        let or = |none: &str| {
            if none.is_empty() { String::new() } else { format!(", or `{none}`") }
        };
        match self {
            Kind::Count { min, max } => format!("{min} to {max}"),
            Kind::Size { min, max, none } => {
                format!("{} to {}{}", Size(min), Size(max), or(none))
            }
            Kind::Wait { min, max, none } => {
                format!("{} to {}{}", Period(min), Period(max), or(none))
            }
            Kind::Choice(words) => words.join(", "),
            other => other.noun().to_string(),
        }
    }

    fn check(self, value: Value) -> Result<Value, String> {
        let outside =
            |low: String, high: String| Err(format!("the value lies outside {low} to {high}"));
        match (self, &value) {
            (Kind::Count { min, max }, Value::Count(n)) if *n < min || *n > max => {
                outside(min.to_string(), max.to_string())
            }
            (Kind::Size { min, max, .. }, Value::Size(n)) if *n < min || *n > max => {
                outside(Size(min).to_string(), Size(max).to_string())
            }
            (Kind::Wait { min, max, .. }, Value::Wait(d)) if *d < min || *d > max => {
                outside(Period(min).to_string(), Period(max).to_string())
            }
            _ => Ok(value),
        }
    }
}

impl Value {
    /// The value as a user would write it, `None` if it is unset.
    pub(crate) fn text(&self) -> Option<String> {
        Some(match self {
            Value::Unset => return None,
            Value::Text(text) => text.clone(),
            Value::Switch(on) => on.to_string(),
            Value::Count(count) => count.to_string(),
            Value::Size(bytes) => Size(*bytes).to_string(),
            Value::Wait(wait) => Period(*wait).to_string(),
            Value::Without(word) => word.to_string(),
            Value::Retention(retention) => retention.to_string(),
            Value::Server(address) => address.place().to_owned(),
        })
    }
}

/// Checks `HOST:PORT` without resolving the host.
pub(crate) fn check_address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong = || "expected HOST:PORT, for example 127.0.0.1:9853 or [::1]:9853".to_string();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty()
        || (host.contains(':') && !bracketed)
        || text.chars().any(char::is_whitespace)
    {
        return Err(wrong());
    }
    if port.parse::<u16>().is_err() || port.starts_with('+') {
        return Err("the port is a number from 0 to 65535".into());
    }
    Ok(text.to_string())
}

/// Checks a comma-separated list. Each word is parsed by `read` and replaced by its result; blanks around words
/// are dropped.
fn check_words(
    text: &str,
    read: impl Fn(&str) -> Result<String, BadOrigin>,
) -> Result<String, String> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    if words.iter().any(|word| word.is_empty() || word.contains(char::is_whitespace)) {
        return Err("expected words with commas between them".into());
    }
    let read: Result<Vec<_>, _> = words.into_iter().map(read).collect();
    Ok(read.map_err(|bad| bad.to_string())?.join(","))
}

/// Checks a token: it must fit on a line of a file, and every client must be able to send it.
pub(crate) fn check_secret(text: &str) -> Result<String, String> {
    Token::check(text)?;
    Ok(text.to_string())
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn retentions_read_back() {
        for text in ["nothing", "everything", "1 record", "1000 records", "64MiB", "1h30m"] {
            let retention: Retention = text.parse().unwrap();
            assert_eq!(retention.to_string(), text);
        }
        assert_eq!("64MiB".parse(), Ok(Retention::Bytes(64 << 20)));
        assert_eq!("1m".parse(), Ok(Retention::Age(Duration::from_secs(60))));
        for text in ["", "1000", "some records", "0s", "1us", "64M"] {
            assert!(text.parse::<Retention>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:9853", "[::1]:0", "localhost:1", "example.org:9853"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost", "::1:9853", ":9853", "localhost:65536", "a b:1", "x:+1"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_have_commas_between_them() {
        let check_words = |text| check_words(text, |word| Ok(word.into()));
        assert_eq!(check_words("a"), Ok("a".into()));
        assert_eq!(check_words(" http://a:1 , *"), Ok("http://a:1,*".into()));
        for bad in ["", ",", "a,", "a b", "a,,b"] {
            assert!(check_words(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_and_hosts_are_written_as_clients_send_them() {
        let text = |kind: Kind, text| kind.parse(text).map(|value| value.text().unwrap());
        let origins = text(Kind::Origins, "HTTPS://App.Example:443, *,http://x:3000");
        assert_eq!(origins, Ok("https://app.example,*,http://x:3000".into()));
        assert_eq!(text(Kind::Hosts, "PSA.example.,b"), Ok("psa.example,b".into()));
        for bad in ["https://x/", "bare.example", "null", "https://*.wild", "https://u@x"] {
            assert!(Kind::Origins.parse(bad).is_err(), "{bad}");
        }
        for bad in ["https://x/", "*", "a:9854"] {
            assert!(Kind::Hosts.parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_one_printable_line() {
        assert!(check_secret("hunter2").is_ok());
        for bad in ["", "a\nb", " a", "pässwört", &"x".repeat(1025)] {
            assert!(check_secret(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text: String) {
            for setting in super::super::settings::SETTINGS {
                if let Ok(value) = setting.kind.parse(&text) {
                    // An accepted value prints as text that parses to the same value.
                    let printed = value.text().unwrap();
                    prop_assert_eq!(setting.kind.parse(&printed), Ok(value));
                }
            }
        }
    }
}
