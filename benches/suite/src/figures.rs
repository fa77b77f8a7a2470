//! The in-process figures: which results go into which, and what they are called.

use crate::draw::bars::{self, Bar, Group};
use crate::draw::lines::{self, Axes, Curve};
use crate::draw::{Colour, Frame};
use crate::results::{CellResults, Measure, Results, Run, Spread, is_psa};
use crate::text::{grouped, seconds, short};

/// A figure: the name of its file, and what is in it.
pub struct Figure {
    /// The name, without a folder.
    pub file: String,
    /// The SVG.
    pub svg: String,
}

/// The payload of the figures; the tables have all.
const PAYLOAD: &str = "u64";

/// Draws all figures for which there are results.
pub fn all(results: &Results) -> Vec<Figure> {
    let cells = || results.cells.iter().filter(|cell| cell.payload == PAYLOAD);
    let mut figures = Vec::new();
    for cell in cells().filter(|cell| cell.measure == Measure::Deliveries) {
        let title = capitalised(&cell.title);
        let subtitle = format!("million deliveries of a {PAYLOAD} a second, more is better");
        let frame = frame(results, &title, &subtitle);
        figures.push(figure(&cell.name, bars(&frame, &[cell])));
    }
    let append: Vec<_> = cells().filter(|cell| cell.measure == Measure::Records).collect();
    if !append.is_empty() {
        let subtitle = format!("million appends of a {PAYLOAD} a second, more is better");
        let frame = frame(results, "Appending while nobody reads", &subtitle);
        figures.push(figure("append", bars(&frame, &append)));
    }
    let per_publish = [
        (
            "idle",
            "idle",
            "idle subscribers",
            "One publish beside subscribers that do nothing",
            "publisher's time for one record in a burst, less is better",
            (|run| Some(run.seconds)) as fn(&Run) -> Option<f64>,
        ),
        (
            "parked",
            "parked",
            "parked tasks",
            "One publish to parked tasks: the publisher's bill",
            "processor time of the publisher's thread, less is better",
            |run| Some(run.seconds),
        ),
        (
            "parked",
            "parked-last",
            "parked tasks",
            "One publish to parked tasks: until the last has it",
            "time from the beginning of the publish, less is better",
            |run| run.last_seconds,
        ),
        (
            "burst",
            "burst",
            "parked tasks",
            "A burst to parked tasks: the publisher's bill for one record",
            "processor time of the publisher's thread, less is better",
            |run| Some(run.seconds),
        ),
    ];
    for (prefix, name, across, title, subtitle, time) in per_publish {
        let cells: Vec<_> = cells().filter(|cell| is_of(cell, prefix)).collect();
        if cells.len() > 1 {
            figures
                .push(figure(name, curves(&frame(results, title, subtitle), &cells, across, time)));
        }
    }
    figures
}

fn figure(name: &str, svg: String) -> Figure {
    Figure { file: format!("in-process-{name}.svg"), svg }
}

/// Whether a cell is one of a family, such as `idle-100` of `idle`.
pub fn is_of(cell: &CellResults, family: &str) -> bool {
    cell.measure == Measure::Publish && cell.name.split('-').next() == Some(family)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn frame(results: &Results, title: &str, subtitle: &str) -> Frame {
    let runs = results.cells.iter().flat_map(|cell| &cell.rivals).map(|rival| rival.runs.len());
    let runs = runs.max().unwrap_or(0);
    let mut caption = vec![
        format!("Median of {runs} runs with least and most; rivals took turns, run by run."),
        results.machine.caption(),
        results.machine.versions(),
    ];
    if results.quick {
        caption.insert(0, "A quick run: these figures say nothing.".to_owned());
    }
    Frame { title: title.to_owned(), subtitle: subtitle.to_owned(), caption }
}

/// The colour of a rival's bar.
fn colour(cell: &CellResults, rival: &str) -> Colour {
    match rival {
        rival if rival == cell.choice() => Colour::Chosen,
        rival if is_psa(rival) => Colour::Own,
        rival if rival.contains("(bound)") => Colour::Bound,
        _ => Colour::Other,
    }
}

/// A group of bars for each cell, the best on top.
fn bars(frame: &Frame, cells: &[&CellResults]) -> String {
    let group = |cell: &&CellResults| {
        let bar = |rival| {
            let value: Spread = cell.spread(rival)?;
            let [least, median, most] = [value.least, value.median, value.most].map(|v| v / 1e6);
            let value = Spread { least, median, most };
            let (label, text) = (rival.rival.clone(), short(median));
            Some(Bar { label, value, text, colour: colour(cell, &rival.rival) })
        };
        let mut bars: Vec<_> = cell.rivals.iter().filter_map(bar).collect();
        bars.sort_by(|a, b| b.value.median.total_cmp(&a.value.median));
        let title = if cells.len() > 1 { capitalised(&cell.title) } else { String::new() };
        Group { title, bars }
    };
    let groups: Vec<_> = cells.iter().map(group).collect();
    bars::draw(frame, &groups, short_tick)
}

/// A tick without digits that say nothing.
pub(crate) fn short_tick(value: f64) -> String {
    if value >= 1.0 { grouped(value.round() as u64) } else { format!("{value}") }
}

/// Who has a curve, with which colour; dashed where two are of one family.
const CURVES: [(&str, u8, bool); 9] = [
    ("psa, exclusive", 0, false),
    ("psa, one by one", 0, true),
    ("Arc chain, event-listener", 1, false),
    ("tokio broadcast", 2, false),
    ("async-broadcast", 3, false),
    ("asyncband", 4, false),
    ("crossbeam-channel each", 5, false),
    ("disruptor, single producer", 5, true),
    ("RwLock<VecDeque> and Condvar", 1, true),
];

/// A curve for each rival over the number of subscribers.
fn curves(
    frame: &Frame,
    cells: &[&CellResults],
    across: &str,
    time: fn(&Run) -> Option<f64>,
) -> String {
    let curve = |&(name, colour, is_dashed): &(&str, u8, bool)| {
        let point = |cell: &&CellResults| {
            let runs = &cell.rival(name)?.runs;
            let value = Spread::of(runs.iter().filter_map(time))?;
            (value.most > 0.0).then_some((cell.subscribers as f64, value))
        };
        let points: Vec<_> = cells.iter().filter_map(point).collect();
        let is_chosen = name == "psa, exclusive";
        let (label, colour) = (name.to_owned(), Colour::Line(colour));
        (!points.is_empty()).then_some(Curve { label, points, colour, is_chosen, is_dashed })
    };
    let curves: Vec<_> = CURVES.iter().filter_map(curve).collect();
    let tick = |cell: &&CellResults| (cell.subscribers as f64, grouped(cell.subscribers as u64));
    let has_point =
        |value: f64| curves.iter().flat_map(|curve| &curve.points).any(|p| p.0 == value);
    let ticks = cells.iter().map(tick).filter(|(value, _)| has_point(*value)).collect::<Vec<_>>();
    lines::draw(frame, &curves, &Axes { across, across_ticks: &ticks, up_tick: &time_tick })
}

/// A time without digits that say nothing.
pub(crate) fn time_tick(value: f64) -> String {
    seconds(value * 1.000_001).replace(".00", "").replace(".0 ", " ")
}
