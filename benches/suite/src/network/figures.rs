//! Which results go into which figure, and what they are called.

use super::results::{Cell, Results};
use crate::draw::bars::{self, Bar, Group};
use crate::draw::lines::{self, Axes, Curve};
use crate::draw::{Colour, Frame};
use crate::figures::{Figure, short_tick, time_tick};
use crate::results::Spread;
use crate::text::{grouped, seconds, short};

/// Who has which name and which colour as a line; whoever is not here goes by the name in the file.
const WHO: [(&str, &str, u8); 17] = [
    ("psa", "psa", 0),
    ("psa-topics", "psa, its own topics", 3),
    ("ceiling", "ceiling", 5),
    ("relay", "bare relay", 5),
    ("nats", "NATS", 1),
    ("nats-default", "NATS, its defaults", 1),
    ("redis", "Redis pub/sub", 2),
    ("redis-default", "Redis pub/sub, its defaults", 2),
    ("streams", "Redis streams", 4),
    ("jetstream", "NATS JetStream", 3),
    ("jetstream-batch", "JetStream, atomic batch", 3),
    ("jetstream-fast", "JetStream, fast ingest", 3),
    ("streams-multi", "Redis streams, MULTI", 4),
    ("raw", "the disk, by hand", 5),
    ("ds-rust", "official Rust server", 1),
    ("ds-axum", "independent Rust server", 2),
    ("ds-node", "reference server, Node.js", 4),
];

/// A figure that is looked for: its key in the file, by how much it is multiplied, how it is told.
#[derive(Clone, Copy)]
struct Quantity {
    key: &'static str,
    times: f64,
    tell: fn(f64) -> String,
    tick: fn(f64) -> String,
    more_is_better: bool,
}

/// Deliveries, in millions a second.
const RATE: Quantity = Quantity {
    key: "deliveries_per_s",
    times: 1e-6,
    tell: short,
    tick: short_tick,
    more_is_better: true,
};
/// The server's processor time of a delivery.
const PROCESSOR: Quantity = time("server_cpu_ns_per_delivery", 1e-9);

/// A time that the file has in another unit.
const fn time(key: &'static str, times: f64) -> Quantity {
    Quantity { key, times, tell: seconds, tick: time_tick, more_is_better: false }
}

/// A count or a size that is told as a number.
const fn number(key: &'static str, times: f64, more_is_better: bool) -> Quantity {
    Quantity { key, times, tell: short, tick: short_tick, more_is_better }
}

const MIB: f64 = 1.0 / 1_048_576.0;

/// Draws all figures for which there are results.
pub fn all(results: &Results) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut draw = |name: &str, svg: String| {
        figures.push(Figure { file: format!("{}-{name}.svg", results.suite), svg });
    };
    let fanout: Vec<_> = results.of_kind("fanout").collect();
    let by_subscribers: Vec<_> =
        fanout.iter().copied().filter(|cell| cell.record_bytes == 64).collect();
    if by_subscribers.len() > 1 {
        let title = "Deliveries by the number of subscribers";
        let what =
            "million a second, all subscribers together; records of 64 bytes; more is better";
        draw("fanout", lines(&frame(results, title, what, &by_subscribers), &by_subscribers, RATE));
        let title = "The server's processor time of a delivery";
        let what = "records of 64 bytes, all subscribers together; less is better";
        let frame = frame(results, title, what, &by_subscribers);
        draw("processor", lines(&frame, &by_subscribers, PROCESSOR));
    }
    let mut by_size: Vec<_> =
        fanout.iter().copied().filter(|cell| cell.subscribers == 100).collect();
    by_size.sort_by_key(|cell| cell.record_bytes);
    if by_size.len() > 1 {
        let frame = frame(
            results,
            "Deliveries by the size of a record, to 100 subscribers",
            "million a second, all subscribers together; more is better",
            &by_size,
        );
        let title = |cell: &Cell| format!("{} bytes", grouped(cell.record_bytes));
        draw("sizes", bars(&frame, by_size.iter().map(|cell| (title(cell), *cell, RATE))));
    }
    for cell in &results.cells {
        if let Some((title, subtitle, groups)) = alone(cell) {
            let frame = frame(results, &title, &subtitle, &[cell]);
            let groups = groups.into_iter().map(|(title, quantity)| (title, cell, quantity));
            draw(&cell.name, bars(&frame, groups));
        }
        if cell.kind == "stalled" {
            let title = "The server's memory while one subscriber of ten stands still";
            let subtitle = "MiB at the most; records of 1 KiB; less is better";
            let groups = [
                ("nobody stands still", "server_peak_rss_without_bytes"),
                ("one stands still", "server_peak_rss_bytes"),
            ];
            let groups =
                groups.map(|(title, key)| (title.to_owned(), cell, number(key, MIB, false)));
            let name = format!("{}-memory", cell.name);
            draw(&name, bars(&frame(results, title, subtitle, &[cell]), groups.into_iter()));
        }
    }
    for (promise, subtitle) in [
        ("synced", "an acknowledged record was forced to the disk"),
        ("written", "an acknowledged record is in a file, and not forced to the disk yet"),
    ] {
        let of_promise = |cell: &&Cell| cell.name.split('-').next() == Some(promise);
        let cells: Vec<_> = results.of_kind("stored").filter(of_promise).collect();
        if cells.is_empty() {
            continue;
        }
        let title = format!("Publishing to topics that survive: {promise}");
        let subtitle = format!("{subtitle}; thousand records a second; more is better");
        let groups = cells
            .iter()
            .map(|cell| (of_publishers(cell), *cell, number("records_per_s", 1e-3, true)));
        draw(promise, bars(&frame(results, &title, &subtitle, &cells), groups));
        let paced = results.of_kind("stored-paced").filter(of_promise);
        let waiting: Vec<_> = cells.into_iter().chain(paced).collect();
        let title = format!("Time until a record is acknowledged: {promise}");
        let groups = waiting.iter().flat_map(|cell| {
            [("median", "p50_us"), ("p99", "p99_us")].map(|(name, key)| {
                (format!("{}: {name}", of_publishers(cell)), *cell, time(key, 1e-6))
            })
        });
        let frame = frame(results, &title, "less is better", &waiting);
        draw(&format!("{promise}-latency"), bars(&frame, groups));
    }
    let streams: Vec<_> = results.of_kind("sse").collect();
    if !streams.is_empty() {
        let figures = [
            (
                RATE,
                "rate",
                "Events to many clients: deliveries",
                "million a second; more is better",
            ),
            (
                PROCESSOR,
                "processor",
                "Events to many clients: the server's processor time of a delivery",
                "less is better",
            ),
        ];
        for (quantity, name, title, subtitle) in figures {
            let groups = streams.iter().map(|cell| (of_streams(cell), *cell, quantity));
            draw(name, bars(&frame(results, title, subtitle, &streams), groups));
        }
    }
    figures
}

/// Title and subtitle of a figure, and the groups of bars in it.
type Alone = (String, String, Vec<(String, Quantity)>);

/// What is drawn of a cell that has a figure of its own; `None` for one that has not.
fn alone(cell: &Cell) -> Option<Alone> {
    let percentiles = || {
        let all = [("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p99_9_us")];
        all.map(|(name, key)| (name.to_owned(), time(key, 1e-6))).into()
    };
    let one = |quantity| vec![(String::new(), quantity)];
    let (subscribers, bytes) = (grouped(cell.subscribers), grouped(cell.record_bytes));
    // A burst's name tells records behind subscribers, a replay's records first.
    let records = |at: usize| cell.numbers().get(at).copied().map_or("all".to_owned(), grouped);
    Some(match cell.kind.as_str() {
        "burst" => (
            format!("{} messages at once to {subscribers} subscribers", records(1)),
            format!("{bytes} bytes each; time until the last one has them all; less is better"),
            one(time("seconds", 1.0)),
        ),
        "latency" => (
            format!("Latency with {subscribers} subscribers"),
            "1,000 messages a second, from each one's scheduled time; less is better".to_owned(),
            percentiles(),
        ),
        "sse-latency" => (
            format!("Latency of events to {subscribers} clients"),
            "appended one by one, from each one's scheduled time; less is better".to_owned(),
            percentiles(),
        ),
        "stalled" => (
            "Publishing while one subscriber of ten stands still".to_owned(),
            "thousand records of 1 KiB a second; more is better".to_owned(),
            vec![
                ("nobody stands still".to_owned(), number("records_per_s_without", 1e-3, true)),
                ("one stands still".to_owned(), number("records_per_s_with", 1e-3, true)),
            ],
        ),
        "stored-replay" => (
            "Reading a million stored records".to_owned(),
            format!("{bytes} bytes each, one subscriber from the first on; less is better"),
            one(time("seconds", 1.0)),
        ),
        "replay" => (
            format!("Catching up with {} stored records", records(0)),
            format!("{bytes} bytes each, one subscriber from the first on; less is better"),
            one(time("seconds", 1.0)),
        ),
        "idle" => (
            "Memory of an idle subscriber".to_owned(),
            format!("bytes in the server for each of {subscribers}; less is better"),
            one(number("bytes_per_subscriber", 1.0, false)),
        ),
        _ => return None,
    })
}

/// What a cell of event streams asks, from its name: `single-1000x64`, `close-1000x64`, `batches-1000x64x16`.
fn of_streams(cell: &Cell) -> String {
    let (clients, bytes) = (grouped(cell.subscribers), grouped(cell.record_bytes));
    match cell.numbers().get(2) {
        Some(batch) => format!("{bytes} bytes, {batch} in an append, {clients} clients"),
        None if cell.name.starts_with("close") => {
            format!("{bytes} bytes, one by one and at most 8 ahead, {clients} clients")
        }
        None => format!("{bytes} bytes, appended one by one, {clients} clients"),
    }
}

/// What publishers do in a cell of stored topics.
fn of_publishers(cell: &Cell) -> String {
    let (publishers, bytes) = (grouped(cell.subscribers), grouped(cell.record_bytes));
    let what = cell.name.split_once('-').map_or("", |(_, what)| what);
    match what {
        "one" => format!("one publisher, one record of {bytes} bytes after another"),
        "many" => format!("{publishers} publishers, each one record after another"),
        "pipelined" => "one publisher, 1,024 records at a time".to_owned(),
        "batches" => format!("{publishers} publishers, each one batch of 64 after another"),
        "large" => {
            format!("{publishers} publishers, each one record of {bytes} bytes after another")
        }
        "paced" => "one publisher, 1,000 records a second".to_owned(),
        _ => cell.name.clone(),
    }
}

fn frame(results: &Results, title: &str, subtitle: &str, cells: &[&Cell]) -> Frame {
    let contenders = || cells.iter().flat_map(|cell| cell.contenders.values());
    let rounds = contenders().map(|contender| contender.runs).max().unwrap_or(0);
    let (runs, drifted) = contenders().fold((0, 0), |(runs, drifted), contender| {
        (runs + contender.runs, drifted + contender.drifted)
    });
    let mut caption = vec![
        format!(
            "Median of {rounds} {} with least and most; all took turns, run by run. \
             {drifted} of {runs} runs drifted.",
            if rounds == 1 { "run" } else { "runs" }
        ),
        results.place(),
        results.versions(),
    ];
    if cells.iter().any(|cell| cell.contenders.keys().any(|one| cell.has_faults(one))) {
        caption.insert(1, "† Records were lost, repeated or corrupt.".to_owned());
    }
    if results.config.quick {
        caption.insert(0, "A quick run: these figures say nothing.".to_owned());
    }
    Frame { title: title.to_owned(), subtitle: subtitle.to_owned(), caption }
}

/// How a contender is called.
fn name(contender: &str) -> String {
    let known = WHO.iter().find(|(key, ..)| *key == contender);
    known.map_or(contender, |(_, name, _)| name).to_owned()
}

/// The colour of a contender's bar.
fn colour(contender: &str) -> Colour {
    match contender {
        "psa" => Colour::Chosen,
        own if own.starts_with("psa-") => Colour::Own,
        "ceiling" | "relay" | "raw" => Colour::Bound,
        _ => Colour::Other,
    }
}

fn scaled(value: Spread, times: f64) -> Spread {
    let [least, median, most] = [value.least, value.median, value.most].map(|v| v * times);
    Spread { least, median, most }
}

/// Groups of bars, each with a title, a cell and what of it is drawn; the best on top.
fn bars<'a>(frame: &Frame, groups: impl Iterator<Item = (String, &'a Cell, Quantity)>) -> String {
    let mut tick: fn(f64) -> String = short_tick;
    let group = |(title, cell, quantity): (String, &Cell, Quantity)| {
        tick = quantity.tick;
        let bar = |contender: &String| {
            let value = scaled(cell.figure(contender, quantity.key)?, quantity.times);
            let text = (quantity.tell)(value.median);
            let dagger = if cell.has_faults(contender) { " †" } else { "" };
            let label = name(contender) + dagger;
            Some(Bar { label, value, text, colour: colour(contender) })
        };
        let mut bars: Vec<_> = cell.contenders.keys().filter_map(bar).collect();
        bars.sort_by(|a, b| {
            let order = a.value.median.total_cmp(&b.value.median);
            if quantity.more_is_better { order.reverse() } else { order }
        });
        Group { title, bars }
    };
    let groups: Vec<_> = groups.map(group).collect();
    bars::draw(frame, &groups, tick)
}

/// A curve for each contender over the number of subscribers.
fn lines(frame: &Frame, cells: &[&Cell], quantity: Quantity) -> String {
    let curve = |&(contender, name, colour): &(&str, &str, u8)| {
        let point = |cell: &&Cell| {
            let value = scaled(cell.figure(contender, quantity.key)?, quantity.times);
            Some((cell.subscribers as f64, value))
        };
        let points: Vec<_> = cells.iter().filter_map(point).collect();
        (!points.is_empty()).then(|| Curve {
            label: name.to_owned(),
            points,
            colour: Colour::Line(colour),
            is_chosen: contender == "psa",
            is_dashed: self::colour(contender) == Colour::Bound,
        })
    };
    let curves: Vec<_> = WHO.iter().filter_map(curve).collect();
    let tick = |cell: &&Cell| (cell.subscribers as f64, grouped(cell.subscribers));
    let ticks: Vec<_> = cells.iter().map(tick).collect();
    let axes = Axes { across: "subscribers", across_ticks: &ticks, up_tick: &quantity.tick };
    lines::draw(frame, &curves, &axes)
}
