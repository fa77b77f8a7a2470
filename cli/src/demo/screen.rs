//! The output of the demo: a story, line by line, and below it one status line that is redrawn while
//! segments come and go. If standard output is not a terminal, the status line is instead written once with
//! each step of the story.

use crate::error::Result;
use crate::print;
use crate::terminal;
use crate::units::{human_count, human_size};
use psa::protocol::TopicStats;
use std::io::{self, IsTerminal};

/// The most segments that are drawn as blocks.
const BLOCKS: u64 = 40;

/// Characters reserved for the number of segments that are not drawn as blocks.
const SOME_BLOCKS: usize = 8;

/// Standard output, as the demo uses it.
#[derive(Debug)]
pub(super) struct Screen {
    live: bool,
    drawn: bool,
}

impl Screen {
    pub(super) fn new() -> Screen {
        let live = io::stdout().is_terminal() && !terminal::is_dumb();
        Screen { live, drawn: false }
    }

    /// Prints one line of the story.
    pub(super) fn say(&mut self, text: &str) -> Result {
        let clear = if std::mem::take(&mut self.drawn) { "\r\x1b[2K" } else { "" };
        print(format!("{clear}{text}\n").as_bytes())
    }

    /// Redraws the status line, if the terminal can do that.
    pub(super) fn draw(&mut self, view: &View<'_>) -> Result {
        if !self.live {
            return Ok(());
        }
        self.drawn = true;
        let (width, _) = ratatui::crossterm::terminal::size().unwrap_or((80, 24));
        print(format!("\r\x1b[2K{}", view.line(width.into())).as_bytes())
    }

    /// Prints the status line, if it cannot be redrawn.
    pub(super) fn note(&mut self, view: &View<'_>) -> Result {
        if self.live { Ok(()) } else { print(format!("  {}\n", view.line(usize::MAX)).as_bytes()) }
    }
}

/// The contents of the status line.
pub(super) struct View<'a> {
    pub(super) stats: &'a TopicStats,
    /// How many records each subscriber is behind.
    pub(super) behind: &'a [(&'static str, u64)],
}

impl View<'_> {
    /// The status line in fewer characters than the terminal is wide: a line that wraps would scroll the
    /// terminal with each redraw. Blocks are left out first, then names; no number is ever cut.
    fn line(&self, width: usize) -> String {
        let live = self.stats.live_segments;
        let noun = if live == 1 { "segment" } else { "segments" };
        let memory = human_size(self.stats.live_bytes);
        let mut line = format!("{live} {noun}, {memory}");
        let mut between = "; behind: ";
        for (name, behind) in self.behind.iter().filter(|(_, behind)| *behind > 0) {
            let late = format!("{between}{name} {}", human_count(*behind));
            if line.len() + late.len() + SOME_BLOCKS >= width {
                break;
            }
            line.push_str(&late);
            between = ", ";
        }
        let room = width.saturating_sub(line.len() + SOME_BLOCKS) as u64;
        let drawn = live.min(BLOCKS).min(room);
        if drawn == 0 {
            return if line.len() < width { line } else { String::new() };
        }
        let more = if live > drawn { format!(" +{}", live - drawn) } else { String::new() };
        // The last block is open: its segment is still being written.
        let blocks = "\u{25a0}".repeat(drawn.saturating_sub(1) as usize);
        format!("{blocks}\u{25a1}{more} {line}")
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
        let line = View { stats: &stats, behind: &behind }.line(200);
        assert_eq!(line, "\u{25a0}\u{25a0}\u{25a1} 3 segments, 48.0 KiB; behind: bob 1,200");
        stats.live_segments = 50;
        let line = View { stats: &stats, behind: &[] }.line(200);
        assert!(line.contains("\u{25a1} +10 50 segments"), "{line}");
        let behind = [("ann", 12_345), ("bob", 1_234_567), ("cid", 9)];
        for width in 0..160 {
            let line = View { stats: &stats, behind: &behind }.line(width);
            assert!(width == 0 || line.chars().count() < width, "{width}: {line}");
            for (name, late) in [("ann", "ann 12,345"), ("bob", "bob 1,234,567"), ("cid", "cid 9")]
            {
                assert_eq!(line.contains(name), line.contains(late), "{width}: {line}");
            }
        }
    }
}
