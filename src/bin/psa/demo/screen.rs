//! What the demo shows: a story, line by line, and under it one line that is redrawn while the segments
//! come and go. Where standard output is no terminal, that line is written once with each step of the
//! story instead.

use crate::error::Result;
use crate::print;
use crate::units::{human_count, human_size};
use psa::protocol::TopicStats;
use std::io::{self, IsTerminal};

/// Segments that are drawn one by one.
const BLOCKS: u64 = 40;

/// Where the story is told.
#[derive(Debug)]
pub(super) struct Screen {
    live: bool,
    drawn: bool,
}

impl Screen {
    pub(super) fn new() -> Screen {
        Screen { live: io::stdout().is_terminal(), drawn: false }
    }

    /// One line of the story.
    pub(super) fn say(&mut self, text: &str) -> Result {
        let clear = if std::mem::take(&mut self.drawn) { "\r\x1b[2K" } else { "" };
        print(format!("{clear}{text}\n").as_bytes())
    }

    /// The line under the story, where lines can be redrawn.
    pub(super) fn draw(&mut self, view: &View<'_>) -> Result {
        if !self.live {
            return Ok(());
        }
        self.drawn = true;
        print(format!("\r\x1b[2K{}", view.line()).as_bytes())
    }

    /// The same line, where they cannot.
    pub(super) fn note(&mut self, view: &View<'_>) -> Result {
        if self.live { Ok(()) } else { print(format!("  {}\n", view.line()).as_bytes()) }
    }
}

/// What the line shows.
pub(super) struct View<'a> {
    pub(super) stats: &'a TopicStats,
    /// Who is how many records behind.
    pub(super) behind: &'a [(&'static str, u64)],
}

impl View<'_> {
    fn line(&self) -> String {
        let live = self.stats.live_segments;
        let drawn = live.min(BLOCKS);
        // The last one is being written.
        let mut blocks = "\u{25a0}".repeat(drawn.saturating_sub(1) as usize);
        blocks.push('\u{25a1}');
        let more = if live > drawn { format!(" +{}", live - drawn) } else { String::new() };
        let noun = if live == 1 { "segment" } else { "segments" };
        let memory = human_size(self.stats.live_bytes);
        let mut line = format!("{blocks}{more} {live} {noun}, {memory}");
        let late: Vec<String> = self
            .behind
            .iter()
            .filter(|(_, behind)| *behind > 0)
            .map(|(name, behind)| format!("{name} {}", human_count(*behind)))
            .collect();
        if !late.is_empty() {
            line.push_str(&format!("; behind: {}", late.join(", ")));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_blocks_and_the_late_are_named() {
        let mut stats =
            TopicStats { live_segments: 3, live_bytes: 3 << 14, ..TopicStats::default() };
        let behind = [("ann", 0), ("bob", 1200)];
        let line = View { stats: &stats, behind: &behind }.line();
        assert_eq!(line, "\u{25a0}\u{25a0}\u{25a1} 3 segments, 48.0 KiB; behind: bob 1,200");
        stats.live_segments = 50;
        let line = View { stats: &stats, behind: &[] }.line();
        assert!(line.contains("\u{25a1} +10 50 segments"), "{line}");
    }
}
