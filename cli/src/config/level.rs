//! Checks what is to be logged, as users write it: a level, or a list such as `info,psa::server=debug`.
//!
//! The grammar is that of `tracing-subscriber`, which treats any word that is not a level as the name of a
//! target, so `warning` would turn off the whole log. Here a word alone must be a level, or a target of psa.

use super::nearest::nearest;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// The names that other programs use for levels.
const ELSEWHERE: [(&str, &str); 10] = [
    ("warning", "warn"),
    ("err", "error"),
    ("fatal", "error"),
    ("critical", "error"),
    ("notice", "info"),
    ("information", "info"),
    ("verbose", "debug"),
    ("all", "trace"),
    ("none", "off"),
    ("quiet", "off"),
];

/// Checks what is to be logged. The error says what is wrong and how to write it.
pub(crate) fn check(text: &str) -> Result<(), String> {
    directives(text).into_iter().try_for_each(|directive| check_one(directive.trim()))
}

/// Splits at commas, except at those within brackets.
fn directives(text: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut parts) = (0u32, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn check_one(directive: &str) -> Result<(), String> {
    let (target, level) = match directive.rsplit_once('=') {
        // `[span{field=value}]` has no level.
        Some((target, level)) if !level.contains(['}', ']']) => (target, Some(level.trim())),
        _ => (directive, None),
    };
    match level {
        Some(level) if is_level(level) => Ok(()),
        Some(level) => Err(no_level(level)),
        None if is_level(target) || is_ours(target) || target.contains('[') => Ok(()),
        None => Err(no_level(target)),
    }
}

fn is_level(word: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix("psa").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn no_level(word: &str) -> String {
    let lower = word.to_lowercase();
    let meant = ELSEWHERE.iter().find(|(name, _)| *name == lower).map(|(_, level)| *level);
    let hint = meant
        .or_else(|| nearest(&lower, LEVELS.into_iter()))
        .map_or(String::new(), |level| format!("; did you mean {level}?"));
    format!(
        "`{word}` is no level: write error, warn, info, debug, trace, off or target=level{hint}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,psa::server=debug",
            "psa",
            "psa::server",
            "hyper=off",
            "warn, psa::http = trace",
            "psa[request{topic=a}]=debug",
            "info,[request]",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_typo_is_no_target() {
        for (bad, part) in [
            ("warning", "did you mean warn?"),
            ("inof", "did you mean info?"),
            ("fatal", "did you mean error?"),
            ("info;debug", "`info;debug` is no level"),
            ("info,psa::server=debugg", "did you mean debug?"),
            ("info,server", "`server` is no level"),
            ("psaserver", "is no level"),
            ("info,", "is no level"),
            ("psa=", "is no level"),
            ("=,=", "is no level"),
        ] {
            let why = check(bad).unwrap_err();
            assert!(why.contains(part), "{bad}: {why}");
        }
    }
}
