//! Rounds as figures, and figures as a table.

use psa_load::report::rate;
use serde_json::{Value, json};

/// What a cell must reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bar {
    /// The ratio to the reference.
    Ratio(f64),
    /// Seconds at most; there is no reference.
    Seconds(f64),
    /// Bytes written to bytes published, at most.
    Bytes(f64),
    /// None: another view of the same thing.
    None,
}

/// What the two measurements of a round are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    /// Things a second.
    Rate,
    /// Bytes a second.
    Bytes,
    Seconds,
    /// Bytes written, and bytes published.
    Count,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) what: String,
    pub(super) reference: &'static str,
    pub(super) unit: Unit,
    pub(super) bar: Bar,
    /// The stored topic and its reference, in each round.
    pub(super) rounds: Vec<(f64, f64)>,
}

/// Median, quartiles and ends.
fn spread(values: impl Iterator<Item = f64>) -> Option<[f64; 5]> {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    let last = all.len().checked_sub(1)?;
    // Between two values, as far as the place is between theirs.
    let at = |part: f64| {
        let place = part * last as f64;
        let (low, high) = (all[place.floor() as usize], all[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    Some([0.5, 0.25, 0.75, 0.0, 1.0].map(at))
}

fn value(of: Option<[f64; 5]>) -> Value {
    of.map_or(Value::Null, |[median, low, high, min, max]| {
        json!({ "median": median, "lower_quartile": low, "upper_quartile": high, "min": min, "max": max })
    })
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Rate => rate(value),
            Unit::Bytes => format!("{:.0} MB/s", value / 1e6),
            Unit::Seconds => format!("{:.1} ms", value * 1e3),
            Unit::Count => format!("{:.1} MB", value / 1e6),
        }
    }
}

impl Cell {
    /// What is judged: the ratio, or the seconds.
    fn judged(&self) -> Option<[f64; 5]> {
        match self.bar {
            Bar::Seconds(_) => spread(self.rounds.iter().map(|(ours, _)| *ours)),
            _ => spread(self.rounds.iter().map(|(ours, reference)| ours / reference)),
        }
    }

    fn bar(&self) -> (Option<f64>, Option<bool>) {
        let median = self.judged().map(|[median, ..]| median);
        match self.bar {
            Bar::Ratio(bar) => (Some(bar), median.map(|median| median >= bar)),
            Bar::Seconds(bar) | Bar::Bytes(bar) => (Some(bar), median.map(|median| median <= bar)),
            Bar::None => (None, None),
        }
    }

    /// One row of the table.
    pub(super) fn row(&self) -> String {
        let median = |of: Option<[f64; 5]>| {
            of.map_or_else(|| "-".into(), |[median, ..]| self.unit.show(median))
        };
        let ours = median(spread(self.rounds.iter().map(|(ours, _)| *ours)));
        let reference = match self.bar {
            Bar::Seconds(_) => String::new(),
            _ => {
                let reference = median(spread(self.rounds.iter().map(|(_, other)| *other)));
                format!("{reference}, {}", self.reference)
            }
        };
        let judged = self.judged().map_or_else(String::new, |[median, low, high, min, max]| {
            let show = |value: f64| match self.bar {
                Bar::Seconds(_) => format!("{:.1}", value * 1e3),
                _ if value < 0.1 => format!("{value:.3}"),
                _ if value < 10.0 => format!("{value:.2}"),
                _ => format!("{value:.0}"),
            };
            let [median, low, high, min, max] = [median, low, high, min, max].map(show);
            format!("**{median}** ({low} to {high}; {min} to {max})")
        });
        let (bar, is_met) = self.bar();
        let bar = bar.map_or_else(String::new, |bar| match self.bar {
            Bar::Seconds(_) => format!("{:.0}", bar * 1e3),
            _ => bar.to_string(),
        });
        let met = match is_met {
            Some(true) => "met",
            Some(false) => "short",
            None => "",
        };
        format!("| {} | {ours} | {reference} | {judged} | {bar} | {met} |", self.what)
    }

    /// All figures.
    pub(super) fn describe(
        &self,
        name: &str,
        load: Option<f64>,
        others: Option<f64>,
        took: f64,
    ) -> Value {
        let (bar, is_met) = self.bar();
        let rounds: Vec<_> = self.rounds.iter().map(|(ours, other)| json!([ours, other])).collect();
        json!({
            "name": name,
            "what": self.what,
            "reference": self.reference,
            "stored": value(spread(self.rounds.iter().map(|(ours, _)| *ours))),
            "reference_figure": value(spread(self.rounds.iter().map(|(_, other)| *other))),
            "judged": value(self.judged()),
            "bar": bar,
            "met": is_met,
            "rounds": rounds,
            "load": load,
            // The share of the processors that other programs used meanwhile.
            "others_share": others,
            "seconds": took,
            "row": self.row(),
        })
    }
}

/// Where, when and how it was measured.
pub(super) fn head(figures: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let (machine, config) = (&figures["machine"], &figures["config"]);
    let mut head = format!(
        "{}, {} processors, Linux {}; load {} at the beginning; {}; a {} build. Rounds: {}; {} s for a rate.\n",
        text(&machine["cpu"]),
        machine["cores"],
        text(&machine["kernel"]),
        machine["load"],
        text(&figures["date"]),
        text(&figures["profile"]),
        config["rounds"],
        config["seconds"],
    );
    if config["quick"] == true {
        head.push_str("\nA quick run: it shows that everything works, and measures nothing.\n");
    }
    head
}

/// A line about the cells during which the machine was busy with other things, if there are any.
pub(super) fn busy(figures: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let cells = figures["cells"].as_array().into_iter().flatten();
    let busy = cells.filter(|cell| cell["others_share"].as_f64() > Some(OTHERS));
    let mut busy: Vec<_> = busy.map(|cell| text(&cell["name"])).collect();
    busy.dedup();
    if busy.is_empty() {
        return String::new();
    }
    let names = busy.join("`, `");
    format!(
        "**Other programs used more than a tenth of the processors** while these were measured: `{names}`. They should \
         be taken again.\n\n"
    )
}

/// The share of the processors that other programs may use.
const OTHERS: f64 = 0.1;

/// The cells as a table.
pub(super) fn markdown(cells: &[Value]) -> String {
    let mut text = String::from(
        "| what | stored | reference | ratio, or ms: median (quartiles; least to most) | bar | |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for cell in cells {
        text.push_str(cell["row"].as_str().unwrap_or_default());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_was_measured() {
        let cell = Cell {
            what: "one".into(),
            reference: "raw",
            unit: Unit::Rate,
            bar: Bar::Ratio(0.75),
            rounds: vec![(8e3, 1e4), (9e3, 1e4), (7e3, 1e4)],
        };
        let row = "| one | 8000 /s | 10.0 k/s, raw | **0.80** (0.75 to 0.85; 0.70 to 0.90) | 0.75 | met |";
        assert_eq!(cell.row(), row);
        let all = cell.describe("cell", None, None, 1.0);
        assert_eq!((&all["met"], &all["judged"]["lower_quartile"]), (&json!(true), &json!(0.75)));
        let seconds =
            Cell { bar: Bar::Seconds(0.1), unit: Unit::Seconds, rounds: vec![(0.2, 0.0)], ..cell };
        assert_eq!(
            seconds.row(),
            "| one | 200.0 ms |  | **200.0** (200.0 to 200.0; 200.0 to 200.0) | 100 | short |"
        );
    }
}
