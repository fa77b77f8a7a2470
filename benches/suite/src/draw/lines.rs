//! Curves on two logarithmic axes, each named at its end.

use super::scale::Log;
use super::svg::{Anchor, Look, MARGIN, SMALL, Svg, TEXT, width};
use super::{Colour, Frame};
use crate::results::Spread;

/// One curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What it is of.
    pub label: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, Spread)>,
    /// Its colour.
    pub colour: Colour,
    /// Whether it is the one that is looked for.
    pub is_chosen: bool,
    /// Whether it is drawn dashed, as the other one of two kinds.
    pub is_dashed: bool,
}

/// What the axes say.
pub struct Axes<'a> {
    /// The horizontal axis: what it counts.
    pub across: &'a str,
    /// The places of its ticks and what they say; zero stands by itself, at the left.
    pub across_ticks: &'a [(f64, String)],
    /// What a tick of the vertical axis says.
    pub up_tick: &'a dyn Fn(f64) -> String,
}

/// Size of a plot.
const PLOT: (f64, f64) = (460.0, 340.0);
/// Width of the part of the horizontal axis where zero stands.
const ZERO: f64 = 70.0;
/// Least distance of two labels.
const APART: f64 = 15.0;

/// Draws curves.
pub fn draw(frame: &Frame, curves: &[Curve], axes: &Axes<'_>) -> String {
    let mut svg = Svg::default();
    let top = svg.head(frame) + 8.0;
    let bottom = top + PLOT.1;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let up = Log::around(points().flat_map(|(_, value)| [value.least, value.most]), bottom, top);
    let ticks: Vec<_> = up.ticks().into_iter().map(|tick| (tick, (axes.up_tick)(tick))).collect();
    let widest = ticks.iter().map(|(_, text)| width(text, SMALL)).fold(0.0, f64::max);
    let left = MARGIN + widest + 10.0;
    let right = left + PLOT.0;
    for (value, text) in &ticks {
        let y = up.place(*value);
        svg.grid((left, y), (right, y));
        svg.text(left - 7.0, y + 3.5, text, Look::SOFT.anchored(Anchor::End));
    }
    let has_zero = axes.across_ticks.iter().any(|(value, _)| *value == 0.0);
    let first = if has_zero { left + 20.0 + ZERO } else { left + 20.0 };
    let across =
        Log::around(axes.across_ticks.iter().map(|(value, _)| *value), first, right - 20.0);
    let place = |value: f64| if value > 0.0 { across.place(value) } else { left + 20.0 };
    svg.axis((left, bottom), (right, bottom));
    for (value, text) in axes.across_ticks {
        let x = place(*value);
        svg.axis((x, bottom), (x, bottom + 4.0));
        svg.text(x, bottom + 16.0, text, Look::SOFT.anchored(Anchor::Middle));
    }
    svg.text((left + right) / 2.0, bottom + 33.0, axes.across, Look::SOFT.anchored(Anchor::Middle));
    for curve in curves {
        one(&mut svg, curve, place, |value| up.place(value));
    }
    let labels = labels(curves, |value| up.place(value), (top, bottom));
    let end = place(axes.across_ticks.last().map_or(0.0, |(value, _)| *value));
    for (curve, y) in labels {
        if let Some((x, value)) = curve.points.last() {
            svg.grid((place(*x).max(end) + 6.0, up.place(value.median)), (right + 2.0, y));
        }
        let look = Look { colour: Some(curve.colour), strong: curve.is_chosen, ..Look::TEXT };
        svg.text(right + 5.0, y + 4.0, &curve.label, look);
    }
    let texts = curves.iter().map(|curve| width(&curve.label, TEXT)).fold(0.0, f64::max);
    svg.end(bottom + 33.0, right + 4.0 + texts + MARGIN, frame)
}

/// One curve with its dots and whiskers.
fn one(svg: &mut Svg, curve: &Curve, across: impl Fn(f64) -> f64, up: impl Fn(f64) -> f64) {
    // Zero has no place on a logarithmic axis: no line leads to it.
    let on_axis = curve.points.iter().filter(|(x, _)| *x > 0.0);
    let path: Vec<_> = on_axis.map(|(x, value)| (across(*x), up(value.median))).collect();
    let width = if curve.is_chosen { 2.6 } else { 1.6 };
    svg.curve(&path, curve.colour, width, curve.is_dashed);
    for (x, value) in &curve.points {
        let x = across(*x);
        let (least, most) = (up(value.least), up(value.most));
        if least - most > 6.0 {
            svg.whisker((x, least), (x, most));
        }
        svg.dot(x, up(value.median), if curve.is_chosen { 4.0 } else { 3.0 }, curve.colour);
    }
}

/// Where the curves' labels stand: at their last points, but apart from each other.
fn labels(
    curves: &[Curve],
    up: impl Fn(f64) -> f64,
    (top, bottom): (f64, f64),
) -> Vec<(&Curve, f64)> {
    let end = |curve: &Curve| curve.points.last().map_or(bottom, |(_, value)| up(value.median));
    let mut labels: Vec<_> = curves.iter().map(|curve| (curve, end(curve))).collect();
    labels.sort_by(|a, b| a.1.total_cmp(&b.1));
    // Down from the top, then up again from where the last one would fall off.
    let mut free = top;
    for (_, y) in &mut labels {
        *y = y.max(free);
        free = *y + APART;
    }
    let mut free = bottom;
    for (_, y) in labels.iter_mut().rev() {
        *y = y.min(free);
        free = *y - APART;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_apart_and_inside() {
        let curve = |median| Curve {
            label: String::new(),
            points: vec![(1.0, Spread { least: median, median, most: median })],
            colour: Colour::Other,
            is_chosen: false,
            is_dashed: false,
        };
        let curves = [curve(100.0), curve(101.0), curve(99.0)];
        let labels = labels(&curves, |value| value, (0.0, 110.0));
        let places: Vec<_> = labels.iter().map(|(_, y)| *y).collect();
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= APART - 1e-9), "{places:?}");
        assert!(places.iter().all(|y| (0.0..=110.0).contains(y)), "{places:?}");
    }
}
