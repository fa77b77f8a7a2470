//! The figures of `docs/study/reclamation.md`.

use psa_suite::draw::lines::{self, Axes, Curve};
use psa_suite::draw::scale::Log;
use psa_suite::draw::svg::{Anchor, Look, MARGIN, Svg};
use psa_suite::draw::{Colour, Frame};
use psa_suite::results::Spread;

use crate::figures::{Churn, Sample};
use crate::plan;
use crate::report::{Results, Scheme};

/// File names and what is in them.
pub(crate) fn all(results: &Results) -> [(&'static str, String); 4] {
    let back = "From the last cursor's passing to the memory being back";
    let held = "Segments that were passed and not back, at the most";
    let longest = "The unlucky one: the longest read of a run";
    [
        ("schemes-back.svg", by_threads(results, back, "median of a run", &nanos, |c| c.back.p50)),
        (
            "schemes-unreclaimed.svg",
            by_threads(results, held, "segments", &count, |c| c.most_unreclaimed),
        ),
        (
            "schemes-reader.svg",
            by_threads(results, longest, "which may be the one that frees", &nanos, |c| {
                c.read.most
            }),
        ),
        ("schemes-memory.svg", over_time(results)),
    ]
}

fn caption(results: &Results) -> Vec<String> {
    let psa =
        format!("{}, cargo run --manifest-path benches/schemes/Cargo.toml", results.machine.psa);
    vec![results.machine.caption(), psa]
}

fn nanos(value: f64) -> String {
    match value {
        ..1e3 => format!("{value:.0} ns"),
        ..1e6 => format!("{:.0} us", value / 1e3),
        ..1e9 => format!("{:.0} ms", value / 1e6),
        _ => format!("{:.0} s", value / 1e9),
    }
}

fn bytes(value: f64) -> String {
    match value {
        ..1e3 => format!("{value:.0} B"),
        ..1e6 => format!("{:.0} kB", value / 1e3),
        ..1e9 => format!("{:.0} MB", value / 1e6),
        _ => format!("{:.0} GB", value / 1e9),
    }
}

fn count(value: f64) -> String {
    format!("{value:.0}")
}

/// The last one frees nothing: it is only there to compare with.
fn colour(results: &Results, n: usize) -> Colour {
    if n + 1 == results.schemes.len() { Colour::Bound } else { Colour::Line(n as u8) }
}

/// One figure of a churn against the number of threads.
fn by_threads(
    results: &Results,
    title: &str,
    what: &str,
    tick: &dyn Fn(f64) -> String,
    pick: fn(&Churn) -> u64,
) -> String {
    let curve = |(n, scheme): (usize, &Scheme)| {
        let points = scheme.churns.iter().filter_map(|(threads, runs)| {
            let spread = Spread::of(runs.iter().map(|run| pick(run) as f64))?;
            (spread.least > 0.0).then_some((*threads as f64, spread))
        });
        Curve {
            label: scheme.name.clone(),
            points: points.collect(),
            colour: colour(results, n),
            is_chosen: n == 0,
            is_dashed: false,
        }
    };
    let curves: Vec<Curve> = results.schemes.iter().enumerate().map(curve).collect();
    let curves: Vec<Curve> = curves.into_iter().filter(|curve| !curve.points.is_empty()).collect();
    let threads = results.schemes[0].churns.iter().map(|(n, _)| (*n as f64, n.to_string()));
    let threads: Vec<_> = threads.collect();
    let frame = Frame {
        title: title.to_owned(),
        subtitle: format!("{what}; median and spread of the rounds; lower is better"),
        caption: caption(results),
    };
    let across = "threads, half of them publishers, on two processors";
    lines::draw(&frame, &curves, &Axes { across, across_ticks: &threads, up_tick: tick })
}

/// Size of one small picture, and the space between two.
const PANEL: (f64, f64) = (230.0, 190.0);
const BETWEEN: (f64, f64) = (66.0, 60.0);

/// A log's memory while somebody stalls: one small picture for each kind of stall, all on the same axes.
fn over_time(results: &Results) -> String {
    let frame = Frame {
        title: "A log's memory while somebody stalls".to_owned(),
        subtitle: format!(
            "in the chain, and passed but not back; they stall from {:.1} to {:.1} s; {} M records a second",
            plan::STALL_FROM.as_secs_f64(),
            plan::STALL_TO.as_secs_f64(),
            plan::RATE / 1e6,
        ),
        caption: caption(results),
    };
    let mut svg = Svg::default();
    let top = svg.head(&frame) + 20.0;
    let held = |s: &Sample| (s.live + s.unreclaimed) as f64;
    let samples = || results.schemes.iter().flat_map(|s| &s.curves).flat_map(|c| &c.samples);
    let (low, high) = samples().map(held).fold((f64::MAX, 0f64), |(l, h), v| (l.min(v), h.max(v)));
    let columns = 3;
    for (i, stalls) in plan::STALLS.iter().enumerate() {
        let left = MARGIN + 54.0 + (i % columns) as f64 * (PANEL.0 + BETWEEN.0);
        let top = top + (i / columns) as f64 * (PANEL.1 + BETWEEN.1);
        let (right, bottom) = (left + PANEL.0, top + PANEL.1);
        let up = Log::around([low, high], bottom, top + 10.0);
        let name = match (stalls.subscribers, stalls.guards) {
            (0, 0) => "nobody stalls".to_owned(),
            (n, 0) => format!("{n} stalled subscriber{}", if n == 1 { "" } else { "s" }),
            (0, n) => format!("{n} stalled guard"),
            (n, m) => format!("{n} stalled subscriber, {m} guard"),
        };
        svg.text(left, top - 4.0, &name, Look::TEXT.strong());
        for tick in up.ticks() {
            svg.grid((left, up.place(tick)), (right, up.place(tick)));
            let look = Look::SOFT.anchored(Anchor::End);
            svg.text(left - 6.0, up.place(tick) + 3.5, &bytes(tick), look);
        }
        let end = plan::TIME.as_secs_f64() * 1e3;
        let place = |ms: f64| left + (ms / end).min(1.0) * PANEL.0;
        svg.axis((left, bottom), (right, bottom));
        for ms in [0.0, 500.0, 1000.0, 1500.0] {
            let look = Look::SOFT.anchored(Anchor::Middle);
            svg.text(place(ms), bottom + 15.0, &format!("{:.1} s", ms / 1e3), look);
        }
        // The one that ships last, on top of the others.
        for (n, scheme) in results.schemes.iter().enumerate().rev() {
            let Some(curve) = scheme.curves.iter().find(|curve| curve.stalls == *stalls) else {
                continue;
            };
            let points: Vec<_> =
                curve.samples.iter().map(|s| (place(s.ms), up.place(held(s)))).collect();
            svg.curve(&points, colour(results, n), if n == 0 { 2.4 } else { 1.5 }, false);
        }
    }
    // The names stand in the place of a sixth picture.
    let left = MARGIN + 54.0 + 2.0 * (PANEL.0 + BETWEEN.0);
    let key = top + PANEL.1 + BETWEEN.1 + 20.0;
    for (n, scheme) in results.schemes.iter().enumerate() {
        let y = key + n as f64 * 24.0;
        svg.curve(&[(left, y - 4.0), (left + 24.0, y - 4.0)], colour(results, n), 2.4, false);
        svg.text(left + 32.0, y, &scheme.name, Look::TEXT);
    }
    let width = left + PANEL.0 + MARGIN;
    svg.end(top + 2.0 * PANEL.1 + BETWEEN.1 + 20.0, width, &frame)
}
