//! The rules for names of topics and leases.

use super::BrokerError;

/// Refuses names that look like patterns: a topic with such a name would stay silent for ever. A `*` counts anywhere,
/// as in access rules; a `>` counts only where other brokers treat it as a wildcard: alone, or as the last part.
pub(super) fn check_topic_name(name: &str) -> Result<(), BrokerError> {
    check_name(name)?;
    let ends_open = name
        .strip_suffix('>')
        .is_some_and(|rest| rest.is_empty() || rest.ends_with(['.', '/', ':']));
    if name.contains('*') || ends_open {
        return Err(BrokerError::BadName {
            what: "`*` and a last part `>` are for patterns, which do not exist yet: give each topic's own name, one \
                   request for each",
        });
    }
    Ok(())
}

/// The rule for names of topics and leases: 1 to 255 bytes without control characters.
pub(super) fn check_name(name: &str) -> Result<(), BrokerError> {
    let what = if name.is_empty() {
        "it is empty"
    } else if name.len() > 255 {
        "it is longer than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(BrokerError::BadName { what })
}
