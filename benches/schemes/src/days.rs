//! What another day's run says otherwise than the latest one.

use std::fmt::Write as _;

use psa_suite::results::Spread;

use crate::figures::Churn;
use crate::report::{Results, size, time};

/// A figure of a churn: its name, which one it is, and how it is told.
type Quantity = (&'static str, fn(&Churn) -> f64, fn(f64) -> String);

const QUANTITIES: [Quantity; 7] = [
    ("appends a second", |run| run.rate, |value| format!("{:.1} M", value / 1e6)),
    ("append p99.9", |run| run.append.p999 as f64, |value| time(value as u64)),
    ("back after: p50", |run| run.back.p50 as f64, |value| time(value as u64)),
    ("p99.9", |run| run.back.p999 as f64, |value| time(value as u64)),
    ("most unreclaimed", |run| run.most_unreclaimed as f64, |value| size(value as u64)),
    ("left at the end", |run| run.stranded as f64, |value| size(value as u64)),
    ("read p99.9", |run| run.read.p999 as f64, |value| time(value as u64)),
];

/// Whether no run of one is among the runs of the other.
fn differ(one: Spread, other: Spread) -> bool {
    one.most < other.least || other.most < one.least
}

/// A line for every scheme and number of threads in which something differs: the medians of the earlier day
/// and of the latest one, where the runs of the one and of the other lie apart.
pub(crate) fn table(earlier: &Results, latest: &Results) -> String {
    let (before, after) = (&earlier.machine.date, &latest.machine.date);
    let titles: Vec<_> = QUANTITIES.iter().map(|(name, ..)| *name).collect();
    let mut out = format!(
        "Median of {before}, then of {after}, where the ranges of the runs lie apart; the rest is the same within \
         noise.\n\n| threads | scheme | {} |\n| --- | --- |{}\n",
        titles.join(" | "),
        " --- |".repeat(titles.len())
    );
    let (mut apart, mut all) = (0, 0);
    for (i, (threads, _)) in latest.schemes[0].churns.iter().enumerate() {
        for scheme in &latest.schemes {
            let old = earlier.schemes.iter().find(|old| old.name == scheme.name);
            let old = old.and_then(|old| old.churns.iter().find(|(count, _)| count == threads));
            let Some((_, old)) = old else { continue };
            let new = &scheme.churns[i].1;
            let cells = QUANTITIES.map(|(_, pick, tell)| {
                let (old, new) =
                    (Spread::of(old.iter().map(pick))?, Spread::of(new.iter().map(pick))?);
                all += 1;
                let medians = (tell(old.median), tell(new.median));
                // What is told in the same digits is the same.
                (differ(old, new) && medians.0 != medians.1)
                    .then(|| format!("{}, {}", medians.0, medians.1))
            });
            let told = cells.iter().flatten().count();
            apart += told;
            if told > 0 {
                let cells = cells.map(Option::unwrap_or_default);
                let _ = writeln!(out, "| {threads} | {} | {} |", scheme.name, cells.join(" | "));
            }
        }
    }
    let _ = writeln!(out, "\n{apart} of {all} figures lie apart.");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_do_not_differ() {
        let spread = |least, most| Spread { least, median: least, most };
        assert!(differ(spread(1.0, 2.0), spread(2.5, 3.0)));
        assert!(differ(spread(2.5, 3.0), spread(1.0, 2.0)));
        assert!(!differ(spread(1.0, 2.0), spread(2.0, 3.0)));
        assert!(!differ(spread(1.0, 4.0), spread(2.0, 3.0)));
    }
}
