//! The goals for this server compared with the others, and whether it reaches them. A bar is a bound for a
//! figure, or for the ratio of `psa`'s figure to another's. Missing a bar does not fail the run, but the report
//! says so.

use super::contender::MEMORY;
use super::report::CellView;
use psa_load::units::human_size;

/// The quantity that is bounded.
enum Quantity {
    /// `psa`'s figure divided by this contender's.
    Ratio(&'static str),
    /// The smallest ratio of `psa`'s figure to a broker's.
    BestBroker,
    /// The ratio of `psa`'s figure to the best of those who store, in whichever way they do.
    BestStore,
    /// `psa`'s figure itself.
    Own,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

struct Bar {
    cell: &'static str,
    key: &'static str,
    of: Quantity,
    bound: Bound,
}

/// The brokers that [`Quantity::BestBroker`] considers.
const BROKERS: [&str; 3] = ["nats", "redis", "streams"];

/// Those that [`Quantity::BestStore`] considers; one may be there in several ways, with more behind its name.
const STORES: [&str; 2] = ["jetstream", "streams"];

/// How many times as good as the best one who stores.
const TIMES: f64 = 3.0;

/// How far the server's memory may exceed its topic's limit, in bytes.
const ABOVE: u64 = 64 << 20;

/// The cells in which stored topics are published to as fast as they acknowledge.
const PUBLISHING: [&str; 10] = [
    "synced-one",
    "synced-many",
    "synced-pipelined",
    "synced-batches",
    "synced-large",
    "written-one",
    "written-many",
    "written-pipelined",
    "written-batches",
    "written-large",
];

const RATE: &str = "deliveries_per_s";
const CPU: &str = "server_cpu_ns_per_delivery";

fn bars() -> Vec<Bar> {
    let bar = |cell, key, of, bound| Bar { cell, key, of, bound };
    let mut all = Vec::new();
    for cell in ["fanout-100x64", "fanout-1000x64"] {
        all.push(bar(cell, RATE, Quantity::Ratio("ceiling"), AtLeast(0.7)));
        all.push(bar(cell, RATE, Quantity::Ratio("nats"), AtLeast(5.0)));
        all.push(bar(cell, RATE, Quantity::Ratio("redis"), AtLeast(4.0)));
        all.push(bar(cell, CPU, Quantity::Ratio("ceiling"), AtMost(1.5)));
        all.push(bar(cell, CPU, Quantity::Ratio("nats"), AtMost(0.125)));
        all.push(bar(cell, CPU, Quantity::Ratio("redis"), AtMost(0.125)));
    }
    all.push(bar("fanout-100x16", RATE, Quantity::BestBroker, AtLeast(8.0)));
    all.push(bar("fanout-100x1024", RATE, Quantity::BestBroker, AtLeast(2.0)));
    all.push(bar("fanout-5000x64", RATE, Quantity::Ratio("nats"), AtLeast(10.0)));
    for rival in ["nats", "redis"] {
        all.push(bar("burst-500x1000x4", "seconds", Quantity::Ratio(rival), AtMost(0.25)));
    }
    for cell in ["latency-100", "latency-1000"] {
        all.push(bar(cell, "p99_us", Quantity::Ratio("nats"), AtMost(1.0)));
        all.push(bar(cell, "p99_us", Quantity::Ratio("redis"), AtMost(1.0)));
        all.push(bar(cell, "p99_us", Quantity::Ratio("relay"), AtMost(1.3)));
    }
    all.push(bar("replay-1000000x64", RATE, Quantity::Ratio("streams"), AtLeast(5.0)));
    all.push(bar("replay-1000000x64", RATE, Quantity::Ratio("jetstream"), AtLeast(30.0)));
    all.push(bar("idle-10000", "bytes_per_subscriber", Quantity::Own, AtMost(8192.0)));
    all.push(bar("stalled-1of10", "kept", Quantity::Own, AtLeast(0.95)));
    let memory = AtMost((MEMORY + ABOVE) as f64);
    all.push(bar("stalled-1of10", "server_peak_rss_bytes", Quantity::Own, memory));
    let best = |cell, key, bound| bar(cell, key, Quantity::BestStore, bound);
    for cell in PUBLISHING {
        all.push(best(cell, "records_per_s", AtLeast(TIMES)));
        all.push(best(cell, "p50_us", AtMost(1.0 / TIMES)));
        all.push(best(cell, "p99_us", AtMost(1.0 / TIMES)));
    }
    for cell in ["synced-paced", "written-paced"] {
        all.push(best(cell, "p50_us", AtMost(1.0 / TIMES)));
        all.push(best(cell, "p99_us", AtMost(1.0 / TIMES)));
    }
    all.push(best("written-replay", RATE, AtLeast(TIMES)));
    all
}

impl Bar {
    /// The measured value, its text, and the contenders that it is about.
    fn measured(&self, cell: CellView<'_>) -> Option<(f64, String, String)> {
        let of = |rival: &str| {
            let figure = cell.ratio(rival, self.key)?;
            Some((figure.median, figure.show(plain), format!("psa to {rival}")))
        };
        match self.of {
            Quantity::Ratio(rival) => of(rival),
            Quantity::BestBroker => {
                let all = BROKERS.into_iter().filter_map(of);
                all.min_by(|a, b| a.0.total_cmp(&b.0))
                    .map(|(value, text, whom)| (value, text, format!("{whom}, the best")))
            }
            Quantity::BestStore => {
                let stores = |name: &&str| STORES.iter().any(|store| name.starts_with(store));
                let all = cell.contenders().into_iter().filter(stores).filter_map(of);
                let best = match self.bound {
                    AtLeast(_) => all.min_by(|a, b| a.0.total_cmp(&b.0)),
                    AtMost(_) => all.max_by(|a, b| a.0.total_cmp(&b.0)),
                };
                best.map(|(value, text, whom)| (value, text, format!("{whom}, the best")))
            }
            Quantity::Own => {
                let figure = cell.figure("psa", self.key)?;
                Some((figure.median, figure.show(|value| self.unit(value)), "psa".into()))
            }
        }
    }

    fn unit(&self, value: f64) -> String {
        match self.of {
            Quantity::Own if self.key.contains("bytes") => human_size(value as u64),
            _ => plain(value),
        }
    }

    fn row(&self, cell: CellView<'_>) -> Option<String> {
        let (value, text, whom) = self.measured(cell)?;
        let (met, bound) = match self.bound {
            AtLeast(bound) => (value >= bound, format!("at least {}", self.unit(bound))),
            AtMost(bound) => (value <= bound, format!("at most {}", self.unit(bound))),
        };
        let verdict = if met { "met" } else { "**short**" };
        Some(format!("| {} | {} | {whom} | {bound} | {text} | {verdict} |\n", self.cell, self.key))
    }
}

fn plain(value: f64) -> String {
    match value {
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

/// A table of the bars whose cells were measured.
pub(crate) fn table(cells: &[CellView<'_>]) -> String {
    let rows = bars().into_iter().filter_map(|bar| {
        let cell = cells.iter().find(|cell| cell.text("name") == bar.cell)?;
        bar.row(*cell)
    });
    let rows: String = rows.collect();
    if rows.is_empty() {
        return rows;
    }
    format!(
        "| cell | figure | of | bar | measured | |\n| --- | --- | --- | --- | --- | --- |\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::cells;
    use crate::compare::stored;
    use serde_json::json;

    #[test]
    fn the_best_store_is_the_one_nearest_to_the_bar() {
        let spread = |value: f64| json!({ "median": value, "min": value, "max": value });
        let figures =
            |rate: f64, p99: f64| json!({ "records_per_s": spread(rate), "p99_us": spread(p99) });
        let cell = json!({
            "name": "synced-batches",
            "contenders": { "psa": {}, "raw": {}, "jetstream": {}, "streams": {}, "streams-multi": {} },
            "psa_to_others": {
                "raw": figures(0.1, 9.0),
                "jetstream": figures(50.0, 0.02),
                "streams": figures(4.0, 0.2),
                "streams-multi": figures(3.5, 0.5),
            },
        });
        let rows = table(&[CellView(&cell)]);
        let rate = "| psa to streams-multi, the best | at least 3.00 | 3.50 | met |";
        let p99 = "| psa to streams-multi, the best | at most 0.333 | 0.500 | **short** |";
        assert!(rows.contains(rate) && rows.contains(p99), "{rows}");
    }

    #[test]
    fn every_bar_has_its_cell() {
        let mut names: Vec<_> = cells::all(false).iter().map(cells::Cell::name).collect();
        names.extend(stored::cells::all(false).iter().map(stored::cells::Cell::name));
        for bar in bars() {
            assert!(names.iter().any(|name| name == bar.cell), "{}", bar.cell);
        }
    }
}
