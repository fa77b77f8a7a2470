//! What a subscriber got, and what it was told that it missed.

/// Checks that the records that `psa sub --format json` wrote and the gaps that it told of are together all
/// the records from 0 to `all`, in order, each once. Each record begins with its number and a space. Returns
/// how many gaps were told.
#[track_caller]
pub(crate) fn runs_and_gaps(out: &str, stderr: &str, all: u64) -> usize {
    let mut next = 0;
    let mut gaps = stderr.lines().map(|line| {
        let parts =
            line.split_once(" from offset ").and_then(|(_, rest)| rest.split_once(" were "));
        let (range, why) = parts.unwrap_or_else(|| panic!("{line:?}"));
        // Who is evicted in the middle of a delivery is cut off, and finds when it comes back that the
        // records were collected.
        assert!(why.contains("evicted") || why.contains("collected before"), "{line:?}");
        let (from, to) = range.split_once(" to ").expect("a range");
        (from.parse::<u64>().expect("a number"), to.parse::<u64>().expect("a number"))
    });
    let mut told = 0;
    for line in out.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        while record["offset"] != next {
            let (from, to) = gaps.next().unwrap_or_else(|| panic!("silence before {line}"));
            assert_eq!(from, next, "the gap begins where the records end");
            next = to + 1;
            told += 1;
        }
        let number = record["data"].as_str().and_then(|data| data.split(' ').next());
        assert_eq!(number, Some(next.to_string().as_str()), "{line}");
        next += 1;
    }
    for (from, to) in gaps {
        assert_eq!(from, next);
        next = to + 1;
        told += 1;
    }
    assert_eq!(next, all);
    told
}
