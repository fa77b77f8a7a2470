//! A state diagram: boxes on a grid, and what leads from one to another.

use super::svg::{Anchor, Look, MARGIN, SMALL, Svg, TEXT, width};
use super::{Colour, Frame};

/// A state.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// What it is called; arrows name it so.
    pub name: &'a str,
    /// A few words under its name.
    pub what: &'a str,
    /// Its column and row.
    pub place: (usize, usize),
    /// Its colour.
    pub colour: Colour,
}

/// How an arrow goes, and where its words stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// From above into the state that it leads to, out of nothing.
    In,
    /// Straight to a neighbour in the same row, words above and below it.
    Across,
    /// Straight along the same column, so far right of its middle, words on the left of it.
    LeftOf(f64),
    /// The same, words on the right of it.
    RightOf(f64),
    /// Under the boxes of the row, words below it.
    Under,
}

/// An arrow.
#[derive(Clone, Copy, Debug)]
pub struct Arrow<'a> {
    /// The state that it leaves; none if it comes out of nothing.
    pub from: Option<&'a str>,
    /// The state that it leads to.
    pub to: &'a str,
    /// How it goes.
    pub way: Way,
    /// When: words, one line each.
    pub when: &'a [&'a str],
    /// Which code does it.
    pub code: &'a str,
    /// Whether it is drawn dashed, as the rare and violent one.
    pub is_forced: bool,
}

/// Size of a box.
const BOX: (f64, f64) = (156.0, 60.0);
/// Space between two boxes.
const BETWEEN: (f64, f64) = (172.0, 112.0);
/// Space beside the boxes for words.
const BESIDE: f64 = 128.0;
/// Height of a line of words.
const LINE: f64 = 16.0;
/// How far below its boxes an arrow under them goes.
const UNDER: f64 = 28.0;
/// Length of an arrow that comes out of nothing.
const IN: f64 = 34.0;
/// Colour of arrows.
const INK: Colour = Colour::Line(5);
/// Colour of those that are forced.
const FORCED: Colour = Colour::Line(0);

/// Draws states and arrows, and under them what each colour of a box means.
///
/// # Errors
///
/// If an arrow names a state that is not there.
pub fn draw(
    frame: &Frame,
    states: &[State<'_>],
    arrows: &[Arrow<'_>],
    key: &[(Colour, &str)],
) -> Result<String, String> {
    let mut svg = Svg::default();
    let top = svg.head(frame) + IN + 6.0;
    let corner = |(column, row): (usize, usize)| {
        let x = MARGIN + BESIDE + column as f64 * (BOX.0 + BETWEEN.0);
        (x, top + row as f64 * (BOX.1 + BETWEEN.1))
    };
    let find = |name: &str| {
        let state = states.iter().find(|state| state.name == name);
        state.map(|state| corner(state.place)).ok_or_else(|| format!("there is no state `{name}`"))
    };
    for arrow in arrows {
        let from = arrow.from.map(find).transpose()?;
        one(&mut svg, arrow, from, find(arrow.to)?);
    }
    for state in states {
        let (x, y) = corner(state.place);
        svg.tinted(x, y, BOX.0, BOX.1, state.colour);
        let middle = x + BOX.0 / 2.0;
        let look = Look { size: 15.0, ..Look::TEXT.strong() };
        svg.text(middle, y + 27.0, state.name, look.anchored(Anchor::Middle));
        let look = Look { size: SMALL + 1.0, ..Look::SOFT };
        svg.text(middle, y + 46.0, state.what, look.anchored(Anchor::Middle));
    }
    let last = |pick: fn((usize, usize)) -> usize| {
        states.iter().map(|state| pick(state.place)).max().unwrap_or(0)
    };
    let (x, y) = corner((last(|place| place.0), last(|place| place.1)));
    let has_under = arrows.iter().any(|arrow| arrow.way == Way::Under);
    let mut y = y + BOX.1 + if has_under { UNDER + 2.0 * LINE + 8.0 } else { 0.0 };
    for (colour, means) in key {
        y += LINE + 8.0;
        svg.tinted(MARGIN, y - 11.0, 22.0, 14.0, *colour);
        svg.text(MARGIN + 32.0, y, means, Look::TEXT);
    }
    let keys = key.iter().map(|(_, means)| MARGIN + 32.0 + width(means, TEXT));
    let right = keys.fold(x + BOX.0 + BESIDE, f64::max);
    Ok(svg.end(y, right + MARGIN, frame))
}

/// One arrow between two boxes, whose upper left corners these are.
fn one(svg: &mut Svg, arrow: &Arrow<'_>, from: Option<(f64, f64)>, to: (f64, f64)) {
    let colour = if arrow.is_forced { FORCED } else { INK };
    let from = from.unwrap_or(to);
    let half = (BOX.0 / 2.0, BOX.1 / 2.0);
    let mut go = |points: &[(f64, f64)]| svg.arrow(points, colour, arrow.is_forced);
    let ((x, y), anchor) = match arrow.way {
        Way::In => {
            let x = to.0 + half.0;
            go(&[(x, to.1 - IN), (x, to.1)]);
            ((x + 10.0, to.1 - IN + 10.0), Anchor::Start)
        }
        Way::Across => {
            let y = to.1 + half.1;
            let (begin, end) =
                if from.0 < to.0 { (from.0 + BOX.0, to.0) } else { (from.0, to.0 + BOX.0) };
            go(&[(begin, y), (end, y)]);
            let middle = (begin + end) / 2.0;
            let above = y - 10.0 - LINE * (arrow.when.len().saturating_sub(1)) as f64;
            for (line, text) in arrow.when.iter().enumerate() {
                let y = above + LINE * line as f64;
                svg.text(middle, y, text, Look::TEXT.anchored(Anchor::Middle));
            }
            svg.text(middle, y + 20.0, arrow.code, Look::SOFT.anchored(Anchor::Middle));
            return;
        }
        Way::LeftOf(shift) | Way::RightOf(shift) => {
            let x = to.0 + half.0 + shift;
            let (begin, end) =
                if from.1 < to.1 { (from.1 + BOX.1, to.1) } else { (from.1, to.1 + BOX.1) };
            go(&[(x, begin), (x, end)]);
            // In the middle of the gap that is next to where the arrow begins.
            let gap = BETWEEN.1.min((end - begin).abs()) / 2.0;
            let middle = if from.1 < to.1 { begin + gap } else { begin - gap };
            let lines = arrow.when.len() as f64;
            let y = middle - LINE * lines / 2.0 + 4.0;
            match arrow.way {
                Way::LeftOf(_) => ((x - 10.0, y), Anchor::End),
                _ => ((x + 10.0, y), Anchor::Start),
            }
        }
        Way::Under => {
            let (begin, end) = (from.0 + half.0, to.0 + half.0);
            let (bottom, under) = (to.1 + BOX.1, to.1 + BOX.1 + UNDER);
            go(&[(begin, bottom), (begin, under), (end, under), (end, bottom)]);
            (((begin + end) / 2.0, under + 18.0), Anchor::Middle)
        }
    };
    for (line, text) in arrow.when.iter().enumerate() {
        svg.text(x, y + LINE * line as f64, text, Look::TEXT.anchored(anchor));
    }
    let y = y + LINE * arrow.when.len() as f64;
    svg.text(x, y, arrow.code, Look::SOFT.anchored(anchor));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_lead_to_states_that_are_there() {
        let state = |name, place| State { name, what: "", place, colour: INK };
        let states = [state("a", (0, 0)), state("b", (1, 0))];
        let arrow = |from, to| Arrow {
            from,
            to,
            way: Way::Across,
            when: &["it happens"],
            code: "f",
            is_forced: false,
        };
        let drawn = |arrow| draw(&Frame::default(), &states, &[arrow], &[]);
        assert!(drawn(arrow(Some("a"), "b")).unwrap().contains("it happens"));
        assert_eq!(drawn(arrow(Some("a"), "c")), Err("there is no state `c`".to_owned()));
        assert_eq!(drawn(arrow(Some("d"), "b")), Err("there is no state `d`".to_owned()));
    }
}
