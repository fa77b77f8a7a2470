//! Curves over time, in panels one under the other, each with an axis of its own that begins at zero.

use super::scale::Linear;
use super::svg::{Anchor, Look, MARGIN, SMALL, Svg, TEXT, width};
use super::{Colour, Frame};

/// One curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What it is of.
    pub label: String,
    /// A value for each point in time.
    pub values: Vec<f64>,
    /// Its colour.
    pub colour: Colour,
}

/// Curves on one axis.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What the axis counts.
    pub title: String,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// The common axis.
#[derive(Clone, Debug)]
pub struct Time<'a> {
    /// The points in time.
    pub points: &'a [f64],
    /// From one tick to the next.
    pub step: f64,
    /// What the axis counts.
    pub title: &'a str,
}

/// Size of a panel.
const PLOT: (f64, f64) = (560.0, 110.0);
/// Height of a panel's title.
const TITLE: f64 = 22.0;
/// Space under a panel.
const UNDER: f64 = 14.0;
/// Least distance of two labels.
const APART: f64 = 14.0;

/// Draws panels; ticks are told with as many digits as they need.
pub fn draw(frame: &Frame, time: &Time<'_>, panels: &[Panel]) -> String {
    let mut svg = Svg::default();
    let mut y = svg.head(frame);
    let left = MARGIN + 46.0;
    let right = left + PLOT.0;
    let most = time.points.iter().copied().fold(time.step, f64::max);
    let across = Linear::until(most, time.step, left, right);
    for panel in panels {
        svg.text(left, y + 12.0, &panel.title, Look::TEXT.strong());
        let (top, bottom) = (y + TITLE, y + TITLE + PLOT.1);
        let values = panel.curves.iter().flat_map(|curve| curve.values.iter().copied());
        let up = Linear::around(values, 4, bottom, top);
        for tick in up.ticks() {
            let place = up.place(tick);
            svg.grid((left, place), (right, place));
            svg.text(left - 7.0, place + 3.5, &told(tick), Look::SOFT.anchored(Anchor::End));
        }
        for tick in across.ticks() {
            svg.grid((across.place(tick), top), (across.place(tick), bottom));
        }
        svg.axis((left, bottom), (right, bottom));
        for curve in &panel.curves {
            let points = time.points.iter().zip(&curve.values);
            let path: Vec<_> =
                points.map(|(at, value)| (across.place(*at), up.place(*value))).collect();
            svg.curve(&path, curve.colour, 1.4, false);
        }
        label(&mut svg, panel, &up, right + 6.0);
        y = bottom + UNDER;
    }
    for tick in across.ticks() {
        let look = Look::SOFT.anchored(Anchor::Middle);
        svg.text(across.place(tick), y, &told(tick), look);
    }
    svg.text((left + right) / 2.0, y + 16.0, time.title, Look::SOFT.anchored(Anchor::Middle));
    let labels = panels.iter().flat_map(|panel| &panel.curves);
    let texts = labels.map(|curve| width(&curve.label, TEXT)).fold(0.0, f64::max);
    svg.end(y + 16.0, right + 6.0 + texts + MARGIN, frame)
}

/// Names each curve beside its end, one under the other where they end close together.
fn label(svg: &mut Svg, panel: &Panel, up: &Linear, x: f64) {
    let end = |curve: &Curve| up.place(middle(&curve.values));
    let mut curves: Vec<_> = panel.curves.iter().collect();
    curves.sort_by(|a, b| end(a).total_cmp(&end(b)));
    let mut free = f64::NEG_INFINITY;
    for curve in curves {
        let y = end(curve).max(free);
        free = y + APART;
        let look = Look { colour: Some(curve.colour), size: SMALL + 1.0, ..Look::TEXT };
        svg.text(x, y + 4.0, &curve.label, look);
    }
}

/// The median: where a curve is most of the time.
fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn told(tick: f64) -> String {
    let text = format!("{tick:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_have_as_many_digits_as_they_need() {
        assert_eq!([0.0, 10.0, 0.5, 2.25].map(told), ["0", "10", "0.5", "2.25"]);
    }
}
