//! "Did you mean": the known name that is nearest to a mistyped one.

/// The candidate with the smallest edit distance to `name` (insert, delete, replace, swap of neighbours), if it is
/// near enough to be what the user meant.
///
/// Near enough is a third of the name's length, but at least 2 edits. A candidate whose last part equals
/// the name (`limit.memory` for `memory`) counts as one edit away. The cost is the product of the two lengths
/// for each candidate; names longer than 64 bytes are not compared.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    if name.len() > 64 || name.is_empty() {
        return None;
    }
    let name = name.to_lowercase();
    let allowed = (name.chars().count() / 3).max(2);
    candidates
        .map(|candidate| {
            let lower = candidate.to_lowercase();
            let whole = strsim::osa_distance(&name, &lower);
            let last = lower.rsplit(['.', '_']).next().unwrap_or(&lower);
            let part = if last == name && last != lower { 1 } else { usize::MAX };
            (whole.min(part), candidate)
        })
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["limit.memory", "limit.frame", "topic.memory", "listen"];
        assert_eq!(nearest("limits.memroy", names.into_iter()), Some("limit.memory"));
        assert_eq!(nearest("Listen", names.into_iter()), Some("listen"));
        assert_eq!(nearest("frame", names.into_iter()), Some("limit.frame"));
        assert_eq!(nearest("certificate", names.into_iter()), None);
        assert_eq!(nearest("", names.into_iter()), None);
    }
}
