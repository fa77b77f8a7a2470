//! Figures as SVG, by hand: small, the same bytes for the same results, legible in light and dark.
//!
//! `svg` is the paper: text, lines and marks in named colours, with a style sheet that follows the
//! reader's `prefers-color-scheme`. `scale` maps values to places. `bars` draws one bar with a whisker for
//! each label, in groups; `lines` draws curves on two logarithmic axes, `course` curves over time, `states` a state diagram. They
//! take their own data types and know nothing of what was measured.

pub mod bars;
pub mod course;
pub mod lines;
pub mod scale;
pub mod states;
pub mod svg;

/// What every figure has around its plot.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The title.
    pub title: String,
    /// A line under it: what is shown, in which unit, and which way is better.
    pub subtitle: String,
    /// Lines under the plot: machine, versions, day.
    pub caption: Vec<String>,
}

/// Colours by meaning; the style sheet in `svg` says which ones in light and in dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// psa's best way: the one that is looked for.
    Chosen,
    /// psa's other ways.
    Own,
    /// Everybody else.
    Other,
    /// What is only there to compare with: a bound.
    Bound,
    /// One of six that can be told apart by those who do not see all colours, for lines.
    Line(u8),
}
