//! Draws the picture: time runs to the right, segments upwards.
//!
//! A segment is a bar at the height of its number, from its linking to its reclamation. Cursors are lines
//! that climb through the bars as they read. The log's end climbs ahead of them, and the segments between
//! the slowest cursor and the end are the ones that are kept. The memory is drawn below, on the same time
//! axis.
//!
//! The picture is plain SVG with its colours in a style sheet, so that one file serves light and dark pages.

use super::TraceArgs;
use super::history::History;
use super::record::{LineKind, Recording, Track};
use psa_load::units::{human_count, human_size};
use std::fmt::Write as _;
use std::time::Duration;

const WIDTH: f64 = 1200.0;
/// The upper panel: left, top, right, bottom.
const CHAIN: (f64, f64, f64, f64) = (86.0, 96.0, 1060.0, 640.0);
/// The lower panel, on the same time axis.
const MEMORY: (f64, f64, f64, f64) = (86.0, 700.0, 1060.0, 830.0);
const HEIGHT: f64 = 900.0;

/// Everything that has a colour: its class, the property that is coloured, and the colour on a light and on a
/// dark page.
const COLOURS: [(&str, &str, &str, &str); 16] = [
    ("page", "fill", "#ffffff", "#0d1117"),
    ("grid", "stroke", "#e2e7ec", "#232a33"),
    ("open", "fill", "#2f6fde", "#6ca4f8"),
    ("held", "fill", "#bac6d2", "#47535f"),
    ("pending", "fill", "#e0791b", "#f0a14a"),
    ("limit", "stroke", "#cf222e", "#ff7b72"),
    ("line.end", "stroke", "#2f6fde", "#6ca4f8"),
    ("line.prompt", "stroke", "#1a7f37", "#4ac26b"),
    ("line.lazy", "stroke", "#8250df", "#be8fff"),
    ("line.stalled", "stroke", "#cf222e", "#ff7b72"),
    ("line.late", "stroke", "#9a6700", "#d4a72c"),
    ("name.end", "fill", "#2f6fde", "#6ca4f8"),
    ("name.prompt", "fill", "#1a7f37", "#4ac26b"),
    ("name.lazy", "fill", "#8250df", "#be8fff"),
    ("name.stalled", "fill", "#cf222e", "#ff7b72"),
    ("name.late", "fill", "#9a6700", "#d4a72c"),
];

/// The style sheet. It uses no CSS variables, which not every viewer supports.
fn style() -> String {
    let mut style = String::from(
        "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:20px;font-weight:600}\
         .soft{fill:#59636e}.line{fill:none;stroke-width:2;stroke-linejoin:round}\
         .gap{stroke-dasharray:3 4}.limit{stroke-dasharray:6 4}",
    );
    let mut dark = String::from("text{fill:#e6edf3}.soft{fill:#9198a1}");
    for (class, property, on_light, on_dark) in COLOURS {
        let _ = write!(style, ".{class}{{{property}:{on_light}}}");
        let _ = write!(dark, ".{class}{{{property}:{on_dark}}}");
    }
    let _ = write!(style, "@media (prefers-color-scheme:dark){{{dark}}}");
    style
}

impl LineKind {
    fn class(self) -> &'static str {
        match self {
            LineKind::End => "end",
            LineKind::Prompt => "prompt",
            LineKind::Lazy => "lazy",
            LineKind::Stalled => "stalled",
            LineKind::Late => "late",
        }
    }
}

/// Draws the picture as SVG.
pub(super) fn draw(recording: &Recording, history: &History, args: &TraceArgs) -> String {
    let mut picture = Picture { out: String::new(), recording, history };
    picture.frame(args);
    picture.bars();
    picture.lines();
    picture.memory(args.limit);
    picture.out.push_str("</svg>\n");
    picture.out
}

struct Picture<'a> {
    out: String,
    recording: &'a Recording,
    history: &'a History,
}

impl Picture<'_> {
    fn put(&mut self, svg: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(svg);
        self.out.push('\n');
    }

    fn x(&self, at: Duration) -> f64 {
        let part = at.as_secs_f64() / self.recording.time.as_secs_f64();
        CHAIN.0 + part.min(1.0) * (CHAIN.2 - CHAIN.0)
    }

    /// The vertical position of a height in segments, which grows from bottom to top.
    fn y(&self, height: f64) -> f64 {
        CHAIN.3 - height / self.segments() * (CHAIN.3 - CHAIN.1)
    }

    fn segments(&self) -> f64 {
        self.history.segments().len().max(1) as f64
    }

    fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.put(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    fn rect(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (width, height) = ((to.0 - from.0).max(0.6), (to.1 - from.1).max(0.4));
        self.put(format_args!(
            r#"<rect x="{:.2}" y="{:.2}" width="{width:.2}" height="{height:.2}" class="{class}"/>"#,
            from.0, from.1
        ));
    }

    fn stroke(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.put(format_args!(
            r#"<line x1="{:.2}" y1="{:.2}" x2="{:.2}" y2="{:.2}" class="{class}"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    fn frame(&mut self, args: &TraceArgs) {
        self.put(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Segments of a log over time, and the cursors that read them">"#
        ));
        self.put(format_args!("<style>{}</style>", style()));
        self.put(format_args!(r#"<rect width="{WIDTH}" height="{HEIGHT}" class="page"/>"#));
        self.text((CHAIN.0, 34.0), "title", "start", "How a log's segments live and die");
        let limit = args.limit.map_or("no memory limit".to_owned(), |limit| {
            format!("memory limit {}, the slowest are evicted", human_size(limit))
        });
        let facts = format!(
            "{} records a second, segments of {}, {limit}; psa {} trace",
            human_count(args.rate),
            human_size(args.segment),
            env!("CARGO_PKG_VERSION"),
        );
        self.text((CHAIN.0, 56.0), "soft", "start", &facts);
        let mut x = CHAIN.0;
        for (class, meaning, width) in [
            ("open", "open: written to", 145.0),
            ("held", "sealed: somebody may still ask for it", 275.0),
            ("pending", "unlinked: somebody still looks at it", 260.0),
        ] {
            self.rect(class, (x, 70.0), (x + 14.0, 80.0));
            self.text((x + 20.0, 80.0), "soft", "start", meaning);
            x += width;
        }
        self.text((x, 80.0), "soft", "start", "empty: its memory is back");

        for part in 0..=6 {
            let at = self.recording.time.mul_f64(f64::from(part) / 6.0);
            let x = self.x(at);
            self.stroke("grid", (x, CHAIN.1), (x, CHAIN.3));
            self.stroke("grid", (x, MEMORY.1), (x, MEMORY.3));
            let label = format!("{:.1} s", at.as_secs_f64());
            self.text((x, MEMORY.3 + 18.0), "soft", "middle", &label);
        }
        let step = step(self.segments());
        let mut number = 0.0;
        while number <= self.segments() {
            let y = self.y(number);
            self.stroke("grid", (CHAIN.0, y), (CHAIN.2, y));
            self.text((CHAIN.0 - 8.0, y + 4.0), "soft", "end", &format!("{number}"));
            number += step;
        }
        self.text((CHAIN.0 - 8.0, CHAIN.1 - 8.0), "soft", "end", "segment");
    }

    fn bars(&mut self) {
        for life in self.history.segments() {
            let end = self.recording.time;
            let sealed = life.sealed.unwrap_or(end);
            let closed = life.closed.unwrap_or(end);
            let reclaimed = life.reclaimed.unwrap_or(end);
            let (top, bottom) = (self.y(life.number as f64 + 0.92), self.y(life.number as f64));
            let [linked, sealed, closed, reclaimed] =
                [life.linked, sealed, closed.max(sealed), reclaimed].map(|at| self.x(at));
            self.rect("open", (linked, top), (sealed, bottom));
            if closed > sealed {
                self.rect("held", (sealed, top), (closed, bottom));
            }
            // For most segments this bar would be less than a pixel wide.
            if reclaimed - closed > 0.5 {
                self.rect("pending", (closed, top), (reclaimed, bottom));
            }
        }
    }

    fn lines(&mut self) {
        let recording = self.recording;
        let mut labels = Vec::new();
        for track in &recording.tracks {
            self.line(track);
            if let Some((at, offset)) = track.positions.last() {
                labels.push((self.y(self.history.height(*offset)), self.x(*at), track));
            }
        }
        // Move labels down so that they do not overlap where lines end close together.
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = CHAIN.1;
        for (y, x, track) in labels {
            let y = y.max(free);
            free = y + 16.0;
            self.text(
                (x.max(CHAIN.2) + 8.0, y + 4.0),
                &format!("name {}", track.kind.class()),
                "start",
                &track.name,
            );
        }
    }

    fn line(&mut self, track: &Track) {
        let class = track.kind.class();
        let mut path = String::new();
        let mut last: Option<(f64, f64)> = None;
        let mut gaps = track.gaps.iter().peekable();
        for (at, offset) in &track.positions {
            let point = (self.x(*at), self.y(self.history.height(*offset)));
            let evicted = gaps.next_if(|(gap, ..)| gap <= at).is_some();
            if evicted && let Some(last) = last {
                self.stroke(&format!("line gap {class}"), last, point);
            }
            // Steps of less than a pixel are invisible, and there are thousands of them.
            let near = last.is_some_and(|(x, y)| (point.0 - x).abs() + (point.1 - y).abs() < 1.0);
            if near && !evicted {
                continue;
            }
            let command = if evicted || last.is_none() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", point.0, point.1);
            last = Some(point);
        }
        self.put(format_args!(r#"<path d="{path}" class="line {class}"/>"#));
    }

    fn memory(&mut self, limit: Option<u64>) {
        let most = self.history.peak().max(limit.unwrap_or(0)).max(1) as f64 * 1.08;
        let y = |bytes: f64| MEMORY.3 - bytes / most * (MEMORY.3 - MEMORY.1);
        let (mut live, mut all) = (String::new(), String::new());
        let mut before = (MEMORY.3, MEMORY.3);
        for (at, memory) in self.history.memory() {
            let x = self.x(*at);
            let now = (y(memory.live as f64), y((memory.live + memory.pending) as f64));
            let _ = write!(live, "L{x:.2} {:.2}L{x:.2} {:.2}", before.0, now.0);
            let _ = write!(all, "L{x:.2} {:.2}L{x:.2} {:.2}", before.1, now.1);
            before = now;
        }
        let (left, bottom, right) = (MEMORY.0, MEMORY.3, MEMORY.2);
        for (class, path, last) in [("pending", all, before.1), ("held", live, before.0)] {
            self.put(format_args!(
                r#"<path d="M{left} {bottom}{path}L{right} {last:.2}L{right} {bottom}Z" class="{class}"/>"#
            ));
        }
        self.text((MEMORY.0 - 8.0, MEMORY.1 - 8.0), "soft", "end", "memory");
        let peak = self.history.peak();
        let peak_y = y(peak as f64);
        self.stroke("grid", (left, peak_y), (right, peak_y));
        self.text((left - 8.0, peak_y + 4.0), "soft", "end", &human_size(peak));
        self.text((left - 8.0, bottom + 4.0), "soft", "end", "0");
        if let Some(limit) = limit {
            let at = y(limit as f64);
            self.stroke("limit", (left, at), (right, at));
            self.text(
                (right + 8.0, at + 4.0),
                "stalled",
                "start",
                &format!("limit {}", human_size(limit)),
            );
        }
        let pending = self.history.pending_peak();
        let text = format!(
            "at the most {} in the chain and unlinked, of that {} unlinked and still looked at",
            human_size(peak),
            human_size(pending)
        );
        self.text((left, bottom + 44.0), "soft", "start", &text);
    }
}

/// The distance between two lines of the grid: a round number of segments.
fn step(segments: f64) -> f64 {
    let rough = segments / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough);
    (factor.unwrap_or(10.0) * power).max(1.0)
}
