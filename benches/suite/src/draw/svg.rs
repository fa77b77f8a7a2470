//! The paper: text, lines and marks, and the style sheet that colours them.

use std::fmt::Write;

use super::{Colour, Frame};

/// Font size of ordinary text.
pub const TEXT: f64 = 12.0;
/// Font size of captions and ticks.
pub const SMALL: f64 = 10.0;
/// Space around everything.
pub const MARGIN: f64 = 20.0;

/// What does not change with a mark's meaning, in light and in dark.
const GROUND: [&str; 2] = [
    "text{fill:#24292f}.soft{fill:#57606a}.paper{fill:#fff}.grid{stroke:#d8dee4}\
     .axis{stroke:#8c959f}.whisker{stroke:#24292f;stroke-opacity:.7}",
    "text{fill:#e6edf3}.soft{fill:#9da7b3}.paper{fill:#0d1117}.grid{stroke:#262c36}\
     .axis{stroke:#6e7681}.whisker{stroke:#e6edf3;stroke-opacity:.8}",
];

/// Colours of marks: their class, in light, in dark. Those of lines are Okabe's and Ito's, which
/// most people can tell apart whatever their colour vision, lightened or darkened where they would be
/// too pale or too dark for their ground.
const PALETTE: [(&str, [&str; 2]); 10] = [
    ("chosen", ["#d55e00", "#f0813a"]),
    ("own", ["#e9a36f", "#8f5631"]),
    ("other", ["#8fa3b5", "#57697b"]),
    ("bound", ["#c9d1d9", "#333c47"]),
    ("l0", ["#d55e00", "#f0813a"]),
    ("l1", ["#0072b2", "#56b4e9"]),
    ("l2", ["#009e73", "#2fc79b"]),
    ("l3", ["#a67c00", "#e6c229"]),
    ("l4", ["#b5548f", "#e08cc0"]),
    ("l5", ["#57606a", "#9da7b3"]),
];

/// The style sheet. Plain rules without variables, which not every program that shows SVG knows.
fn style() -> String {
    let ground = |dark: usize| {
        let marks = PALETTE.iter().map(|(class, colours)| {
            let colour = colours[dark];
            format!(".{class}.f{{fill:{colour}}}.{class}.s{{stroke:{colour}}}")
        });
        GROUND[dark].to_owned() + &marks.collect::<String>()
    };
    format!(
        "text{{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}}\
         .strong{{font-weight:600}}.s{{fill:none}}{}\n@media(prefers-color-scheme:dark){{{}}}",
        ground(0),
        ground(1)
    )
}

/// Where text stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Begins there.
    Start,
    /// Has its middle there.
    Middle,
    /// Ends there.
    End,
}

/// How text looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Where it stands.
    pub anchor: Anchor,
    /// Font size.
    pub size: f64,
    /// Bold.
    pub strong: bool,
    /// Less conspicuous.
    pub soft: bool,
    /// Coloured as a mark is.
    pub colour: Option<Colour>,
}

impl Look {
    /// Ordinary text.
    pub const TEXT: Look =
        Look { anchor: Anchor::Start, size: TEXT, strong: false, soft: false, colour: None };
    /// Small and less conspicuous.
    pub const SOFT: Look =
        Look { anchor: Anchor::Start, size: SMALL, strong: false, soft: true, colour: None };

    /// The same, standing otherwise.
    pub const fn anchored(self, anchor: Anchor) -> Look {
        Look { anchor, ..self }
    }

    /// The same in bold.
    pub const fn strong(self) -> Look {
        Look { strong: true, ..self }
    }
}

/// About how wide a text is: the paper cannot ask the reader's fonts.
pub fn width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.6
}

/// A figure that is being drawn.
#[derive(Debug, Default)]
pub struct Svg {
    body: String,
}

impl Colour {
    fn class(self) -> String {
        match self {
            Colour::Chosen => "chosen".to_owned(),
            Colour::Own => "own".to_owned(),
            Colour::Other => "other".to_owned(),
            Colour::Bound => "bound".to_owned(),
            Colour::Line(n) => format!("l{}", n % 6),
        }
    }
}

/// Text as it may stand in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Svg {
    /// Text at a place; `y` is its base line.
    pub fn text(&mut self, x: f64, y: f64, text: &str, look: Look) {
        let mut class = String::new();
        for (is, name) in [(look.strong, "strong"), (look.soft, "soft")] {
            if is {
                class = class + " " + name;
            }
        }
        if let Some(colour) = look.colour {
            class = class + " " + &colour.class() + " f";
        }
        let anchor = match look.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (size, text, class) = (look.size, escaped(text), class.trim());
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" \
             class=\"{class}\">{text}</text>"
        );
    }

    /// A thin line of the background.
    pub fn grid(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.thin(from, to, "grid", 1.0);
    }

    /// An axis.
    pub fn axis(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.thin(from, to, "axis", 1.0);
    }

    /// A line that shows a spread.
    pub fn whisker(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.thin(from, to, "whisker", 1.2);
    }

    fn thin(&mut self, from: (f64, f64), to: (f64, f64), class: &str, width: f64) {
        let _ = writeln!(
            self.body,
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" class=\"{class}\" stroke-width=\"{width}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A filled rectangle with rounded corners.
    pub fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Colour) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" rx=\"2\" \
             class=\"{} f\"/>",
            width.max(1.0),
            colour.class()
        );
    }

    /// A rectangle with an edge, and a breath of the edge's colour in it.
    pub fn tinted(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Colour) {
        let (place, class) = (
            format!(
                "x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\""
            ),
            colour.class(),
        );
        let _ = writeln!(self.body, "<rect {place} class=\"{class} f\" fill-opacity=\".14\"/>");
        let _ = writeln!(self.body, "<rect {place} class=\"{class} s\" stroke-width=\"1.5\"/>");
    }

    /// An arrow along these points, at least two of them.
    pub fn arrow(&mut self, points: &[(f64, f64)], colour: Colour, dashed: bool) {
        let &[.., before, (x, y)] = points else { return };
        // A tip as long as it is wide, pointing as the last part does.
        let (dx, dy) = (x - before.0, y - before.1);
        let length = dx.hypot(dy).max(f64::MIN_POSITIVE);
        let (dx, dy) = (dx / length * 8.0, dy / length * 8.0);
        let mut line = points.to_vec();
        if let Some(last) = line.last_mut() {
            *last = (x - dx * 0.8, y - dy * 0.8);
        }
        self.curve(&line, colour, 1.5, dashed);
        let (left, right) =
            ((x - dx - dy / 2.0, y - dy + dx / 2.0), (x - dx + dy / 2.0, y - dy - dx / 2.0));
        let class = colour.class();
        let _ = writeln!(
            self.body,
            "<path d=\"M{x:.1} {y:.1}L{:.1} {:.1}L{:.1} {:.1}z\" class=\"{class} f\"/>",
            left.0, left.1, right.0, right.1
        );
    }

    /// A filled circle.
    pub fn dot(&mut self, x: f64, y: f64, radius: f64, colour: Colour) {
        let class = colour.class();
        let _ = writeln!(
            self.body,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{class} f\"/>"
        );
    }

    /// A curve through these points; `dashed` for what is derived or only there to compare.
    pub fn curve(&mut self, points: &[(f64, f64)], colour: Colour, width: f64, dashed: bool) {
        let mut path = String::new();
        for (i, (x, y)) in points.iter().enumerate() {
            // Many points in lines of a length that tools can live with.
            let break_before = if i > 0 && i.is_multiple_of(50) { "\n" } else { "" };
            let _ = write!(path, "{break_before}{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" });
        }
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let class = colour.class();
        let _ = writeln!(
            self.body,
            "<path d=\"{path}\" class=\"{class} s\" stroke-width=\"{width}\" \
             stroke-linejoin=\"round\" stroke-linecap=\"round\"{dash}/>"
        );
    }

    /// Writes title and subtitle; where the plot may begin.
    pub fn head(&mut self, frame: &Frame) -> f64 {
        let title = Look { size: 16.0, ..Look::TEXT.strong() };
        self.text(MARGIN, MARGIN + 12.0, &frame.title, title);
        let subtitle = Look { size: TEXT, ..Look::SOFT };
        self.text(MARGIN, MARGIN + 31.0, &frame.subtitle, subtitle);
        MARGIN + 48.0
    }

    /// Writes the caption under a plot that ends at `y`, and ends the figure.
    pub fn end(mut self, y: f64, width: f64, frame: &Frame) -> String {
        let mut y = y + 14.0;
        let fit = ((width - 2.0 * MARGIN) / (SMALL * 0.53)) as usize;
        for line in frame.caption.iter().flat_map(|line| wrapped(line, fit)) {
            y += 14.0;
            self.text(MARGIN, y, &line, Look::SOFT);
        }
        let height = y + MARGIN;
        let label = escaped(&format!("{}: {}", frame.title, frame.subtitle));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{label}\">\n\
             <style>{}</style>\n\
             <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n{}</svg>\n",
            style(),
            self.body
        )
    }
}

/// Cuts a line at spaces into lines of at most `fit` characters.
fn wrapped(line: &str, fit: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.last_mut().expect("never empty");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= fit {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_cut_at_spaces() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("", 7), [""]);
    }

    #[test]
    fn text_is_escaped() {
        let mut svg = Svg::default();
        svg.text(0.0, 0.0, "RwLock<VecDeque> & Condvar", Look::TEXT);
        let figure = svg.end(0.0, 100.0, &Frame::default());
        assert!(figure.contains("RwLock&lt;VecDeque&gt; &amp; Condvar"));
    }
}
