//! Bars with whiskers, in groups, on a common logarithmic axis.
//!
//! A logarithmic axis has no zero, so a bar's length says nothing by itself: its end is marked by a
//! dot, and the value stands beside it.

use super::scale::Log;
use super::svg::{Anchor, Look, MARGIN, SMALL, Svg, TEXT, width};
use super::{Colour, Frame};
use crate::results::Spread;

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it is of.
    pub label: String,
    /// Where it ends, and how far the whisker reaches.
    pub value: Spread,
    /// What stands beside it.
    pub text: String,
    /// Its colour.
    pub colour: Colour,
}

/// Bars under one heading.
#[derive(Clone, Debug)]
pub struct Group {
    /// The heading; none for a single group.
    pub title: String,
    /// The bars, from the top.
    pub bars: Vec<Bar>,
}

/// Height of one bar with the space around it.
const ROW: f64 = 19.0;
/// Height of a bar.
const THICK: f64 = 11.0;
/// Height of the ticks over a group.
const TICKS: f64 = 18.0;
/// Height of a group's title.
const TITLE: f64 = 24.0;
/// Width of a plot.
const PLOT: f64 = 380.0;

/// Draws groups of bars, one under the other; `tick` says what an axis' tick says.
pub fn draw(frame: &Frame, groups: &[Group], tick: impl Fn(f64) -> String) -> String {
    let mut svg = Svg::default();
    let mut y = svg.head(frame);
    let bars = || groups.iter().flat_map(|group| &group.bars);
    let widest = |texts: &mut dyn Iterator<Item = &str>, size| {
        texts.map(|text| width(text, size)).fold(0.0, f64::max)
    };
    let labels = widest(&mut bars().map(|bar| bar.label.as_str()), TEXT);
    let texts = widest(&mut bars().map(|bar| bar.text.as_str()), TEXT);
    let left = MARGIN + labels + 10.0;
    let right = left + PLOT;
    let ends = bars().flat_map(|bar| [bar.value.least, bar.value.most]);
    let scale = Log::around(ends, left, right);
    for group in groups {
        if !group.title.is_empty() {
            svg.text(MARGIN, y + 12.0, &group.title, Look::TEXT.strong());
            y += TITLE;
        }
        let top = y + TICKS;
        let first = top + 4.0;
        let bottom = first + group.bars.len() as f64 * ROW;
        for value in scale.ticks() {
            let x = scale.place(value);
            svg.grid((x, top), (x, bottom));
            svg.text(x, top - 4.0, &tick(value), Look::SOFT.anchored(Anchor::Middle));
        }
        svg.axis((left, top), (left, bottom));
        for (row, bar) in group.bars.iter().enumerate() {
            let middle = first + (row as f64 + 0.5) * ROW;
            one(&mut svg, bar, &scale, left, middle);
        }
        y = bottom + 18.0;
    }
    svg.end(y - 18.0, right + 12.0 + texts + MARGIN, frame)
}

/// One bar with its label, whisker and value.
fn one(svg: &mut Svg, bar: &Bar, scale: &Log, left: f64, middle: f64) {
    let is_chosen = bar.colour == Colour::Chosen;
    let look = Look { strong: is_chosen, ..Look::TEXT };
    let base = middle + TEXT * 0.35;
    svg.text(left - 8.0, base, &bar.label, look.anchored(Anchor::End));
    let end = scale.place(bar.value.median);
    svg.bar(left, middle - THICK / 2.0, end - left, THICK, bar.colour);
    let (least, most) = (scale.place(bar.value.least), scale.place(bar.value.most));
    if most - least > 1.0 {
        svg.whisker((least, middle), (most, middle));
        for x in [least, most] {
            svg.whisker((x, middle - 3.0), (x, middle + 3.0));
        }
    }
    let look = Look { size: SMALL + 1.0, ..look };
    svg.text(most.max(end) + 7.0, base - 0.5, &bar.text, look);
}
