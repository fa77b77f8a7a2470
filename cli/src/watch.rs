//! The live view of `psa stats --watch`.
//!
//! Drawing is a pure function of a [`View`], tested on a terminal in memory. Snapshots and keys only change the
//! view.

use crate::error::one_line;
use crate::snapshot::{durability_text, lease_text, memory, setting_text, state_text, stored_text};
use crate::units::{human_count, human_size};
use psa::client::{TopicDetails, TopicInfo};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Row, Sparkline, Table, TableState};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many rates the small diagram keeps.
const HISTORY: usize = 240;

/// Snapshots that are closer together than this are not used for rates.
const MIN_ELAPSED: Duration = Duration::from_millis(40);

/// The state of the server at one time.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// When the answer came.
    pub(crate) at: Instant,
    /// All topics, by name.
    pub(crate) topics: Vec<TopicInfo>,
    /// The selected topic.
    pub(crate) detail: Option<TopicDetails>,
}

/// Epoch and next offset of each topic.
type Offsets = HashMap<String, (u64, u64)>;

/// The contents of the screen.
#[derive(Debug, Default)]
pub(crate) struct View {
    server: String,
    topics: Vec<TopicRow>,
    detail: Option<TopicDetails>,
    /// Records per second of all topics together, newest first.
    history: Vec<u64>,
    /// Epoch and next offset of each topic at the last measurement, for the rates.
    last: Option<(Instant, Offsets)>,
    selected: usize,
    /// The error of the last attempt to get a snapshot, if there was one.
    trouble: Option<String>,
    /// By how many seconds an answer is late; 0 if it is not.
    late: u64,
}

/// One row of the table.
#[derive(Clone, Debug)]
struct TopicRow {
    topic: TopicInfo,
    /// Records per second.
    rate: u64,
}

/// What a key, or a new size of the terminal, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Quit.
    Quit,
    /// Quit as for Ctrl-C.
    Interrupt,
    /// Stop until the shell continues the process.
    Suspend,
    /// Move the selection by this many lines.
    Move(isize),
    /// Ask the server again immediately.
    Refresh,
    /// Redraw, because the terminal has another size.
    Redraw,
}

impl View {
    pub(crate) fn new(server: &str) -> View {
        View { server: one_line(server), ..View::default() }
    }

    /// The topic that the detail pane shows.
    pub(crate) fn selected(&self) -> Option<&str> {
        self.topics.get(self.selected).map(|line| line.topic.name.as_str())
    }

    /// Whether the details of the selected topic are missing.
    pub(crate) fn wants_detail(&self) -> bool {
        self.selected().is_some() && self.detail.is_none()
    }

    /// Moves the selection.
    pub(crate) fn select(&mut self, by: isize) {
        let last = self.topics.len().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(by).min(last);
        if self.detail.as_ref().map(|detail| detail.name.as_str()) != self.selected() {
            self.detail = None;
        }
    }

    /// Takes a new snapshot.
    pub(crate) fn update(&mut self, snapshot: Snapshot) {
        let Snapshot { at, topics, detail } = snapshot;
        let selected = self.selected().map(str::to_string);
        let elapsed = self.last.as_ref().map(|(last, _)| at.saturating_duration_since(*last));
        // Two snapshots in quick succession say nothing about a rate.
        let measured = elapsed.is_none_or(|elapsed| elapsed >= MIN_ELAPSED);
        let lines: Vec<TopicRow> = topics
            .into_iter()
            .map(|topic| {
                let rate = if measured {
                    self.rate(&topic, elapsed)
                } else {
                    self.topics
                        .iter()
                        .find(|entry| entry.topic.name == topic.name)
                        .map_or(0, |e| e.rate)
                };
                TopicRow { topic, rate }
            })
            .collect();
        if measured {
            if elapsed.is_some() {
                self.history.insert(0, lines.iter().map(|entry| entry.rate).sum());
                self.history.truncate(HISTORY);
            }
            let offsets =
                lines.iter().map(|e| (e.topic.name.clone(), (e.topic.epoch, e.topic.next)));
            self.last = Some((at, offsets.collect()));
        }
        self.topics = lines;
        self.trouble = None;
        self.late = 0;
        // The selection stays on its topic while others come and go.
        if let Some(at) =
            self.topics.iter().position(|line| Some(&line.topic.name) == selected.as_ref())
        {
            self.selected = at;
        }
        self.select(0);
        if detail.as_ref().map(|detail| detail.name.as_str()) == self.selected() {
            self.detail = detail;
        }
    }

    /// Records per second since the last measurement. A topic that is new or was recreated counts from 0.
    fn rate(&self, topic: &TopicInfo, elapsed: Option<Duration>) -> u64 {
        let (Some((_, offsets)), Some(elapsed)) = (&self.last, elapsed) else { return 0 };
        let from = match offsets.get(&topic.name) {
            Some((epoch, next)) if *epoch == topic.epoch => *next,
            _ => 0,
        };
        (topic.next.saturating_sub(from) as f64 / elapsed.as_secs_f64()).round() as u64
    }

    /// Keeps what is shown, and shows why it is not up to date.
    pub(crate) fn fail(&mut self, why: String) {
        self.trouble = Some(one_line(&why));
        self.late = 0;
    }

    /// Keeps what is shown, and shows for how long the server has not answered.
    pub(crate) fn wait(&mut self, late: Duration) {
        self.late = late.as_secs();
    }

    /// Draws the view into a frame of any size.
    pub(crate) fn draw(&self, frame: &mut Frame<'_>) {
        let tall = frame.area().height >= 20;
        let [head, table, detail, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Min(4),
            Constraint::Length(if tall { 11 } else { 0 }),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.draw_head(frame, head);
        self.draw_table(frame, table);
        if tall {
            self.draw_detail(frame, detail);
        }
        let foot_text = match &self.trouble {
            _ if self.late > 0 => {
                let waits = format!(" {} has not answered for {} s", self.server, self.late);
                Line::styled(waits, Style::new().fg(Color::Yellow))
            }
            Some(why) => Line::styled(format!(" {why}; trying again"), Style::new().fg(Color::Red)),
            None => {
                Line::styled(" q quit   ↑ ↓ select   r refresh", Style::new().fg(Color::DarkGray))
            }
        };
        frame.render_widget(foot_text, foot);
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect) {
        let [text, diagram] =
            Layout::horizontal([Constraint::Min(20), Constraint::Percentage(40)]).areas(area);
        let bytes: u64 = self.topics.iter().map(|line| line.topic.bytes).sum();
        let disk: u64 = self.topics.iter().map(|line| line.topic.disk_bytes).sum();
        let disk =
            if disk > 0 { format!("   {} on the disk", human_size(disk)) } else { String::new() };
        let cursors: u64 = self.topics.iter().map(|line| u64::from(line.topic.cursors)).sum();
        let lines = vec![
            Line::styled(
                format!(" psa {}", self.server),
                Style::new().add_modifier(Modifier::BOLD),
            ),
            Line::from(format!(
                " {} topics   {} cursors   {} live{disk}",
                human_count(self.topics.len() as u64),
                human_count(cursors),
                human_size(bytes)
            )),
            Line::from(format!(
                " {} records/s",
                human_count(self.history.first().copied().unwrap_or(0))
            )),
        ];
        frame.render_widget(Paragraph::new(lines), text);
        let newest_last: Vec<u64> =
            self.history.iter().take(diagram.width.into()).rev().copied().collect();
        frame.render_widget(
            Sparkline::default().data(newest_last).style(Style::new().fg(Color::Cyan)),
            diagram,
        );
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = columns(&self.topics, Block::bordered().inner(area).width);
        let header = Row::new(columns.iter().map(|column| column.heading))
            .style(Style::new().add_modifier(Modifier::BOLD));
        let rows = self
            .topics
            .iter()
            .map(|entry| Row::new(columns.iter().map(|column| (column.cell)(entry))));
        let widths = columns.iter().map(|column| Constraint::Length(column.width));
        let table = Table::new(rows, widths)
            .header(header)
            .block(Block::bordered())
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state =
            TableState::default().with_selected((!self.topics.is_empty()).then_some(self.selected));
        frame.render_stateful_widget(table, area, &mut state);
        if self.topics.is_empty() && self.last.is_some() {
            let inside = Block::bordered().inner(area);
            let hint = Line::from(" no topics yet: `echo hello | psa pub greetings` makes one");
            frame.render_widget(Paragraph::new(vec![Line::default(), hint]), inside);
        }
    }

    fn draw_detail(&self, frame: &mut Frame<'_>, area: Rect) {
        let title = self.selected().map_or(String::new(), |name| format!(" {} ", one_line(name)));
        let block = Block::bordered().title(title);
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let Some(TopicDetails { settings, stats, stored, leases, .. }) = &self.detail else {
            return;
        };
        let [gauge, segments, rest] =
            Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(0)])
                .areas(inside);
        let used = memory(stats);
        let (ratio, of) = match stats.memory_limit {
            Some(limit) if limit > 0 => {
                ((used as f64 / limit as f64).clamp(0.0, 1.0), human_size(limit))
            }
            _ => (0.0, "no limit".into()),
        };
        let colour = if ratio < 0.8 { Color::Green } else { Color::Yellow };
        let label = format!("memory {} of {of}", human_size(used));
        frame.render_widget(
            Gauge::default().ratio(ratio).label(label).gauge_style(Style::new().fg(colour)),
            gauge,
        );
        frame.render_widget(segment_line(stats, inside.width), segments);

        let mut lines = vec![Line::from(format!(
            "{}, retention {}, overflow {}, {} evictions, waits: {} readers, {} publishers",
            state_text(stats, stored.as_ref()),
            setting_text(settings.retention),
            setting_text(settings.overflow),
            human_count(stats.evictions),
            human_count(stats.reader_waits),
            human_count(stats.publisher_waits)
        ))];
        let durability = durability_text(settings.durability);
        lines.push(match stored {
            Some(stored) => match &stored.failed {
                Some(why) => Line::styled(
                    format!("{durability}, the disk has failed: {}", one_line(why)),
                    Style::new().fg(Color::Red),
                ),
                None => Line::from(format!("{durability}, on the disk {}", stored_text(stored))),
            },
            None => Line::from(format!("durability {durability}")),
        });
        lines.push(Line::from(match stats.slowest {
            Some(slowest) => format!(
                "slowest ({}): {} records behind, holds back {} segments, {}",
                human_count(slowest.cursors),
                human_count(slowest.records),
                human_count(slowest.segments),
                human_size(slowest.bytes)
            ),
            None => "no cursors: only the retention keeps records".into(),
        }));
        lines.extend(leases.iter().map(|lease| Line::from(format!("lease {}", lease_text(lease)))));
        frame.render_widget(Paragraph::new(lines), rest);
    }
}

/// One column of the table.
struct Column {
    heading: &'static str,
    cell: fn(&TopicRow) -> String,
    /// In cells of the terminal.
    width: u16,
}

/// The columns that fit. A number is shown whole or not at all, so columns are left out from the right; the name gets the
/// remaining width.
fn columns(topics: &[TopicRow], room: u16) -> Vec<Column> {
    const NAME: u16 = 12;
    type Number = (&'static str, fn(&TopicRow) -> String);
    let numbers: [Number; 8] = [
        ("RECORDS/S", |entry| human_count(entry.rate)),
        ("NEXT", |entry| human_count(entry.topic.next)),
        ("KEPT", |entry| human_count(entry.topic.next.saturating_sub(entry.topic.first))),
        ("LIVE", |entry| human_size(entry.topic.bytes)),
        ("CURSORS", |entry| human_count(entry.topic.cursors.into())),
        ("LEASES", |entry| human_count(entry.topic.leases.into())),
        ("DURABILITY", |entry| durability_text(entry.topic.durability).into()),
        ("DISK", |entry| human_size(entry.topic.disk_bytes)),
    ];
    let mut left = room;
    let mut columns =
        vec![Column { heading: "TOPIC", cell: |entry| one_line(&entry.topic.name), width: 0 }];
    for (heading, cell) in numbers {
        let cells = topics.iter().map(|entry| cell(entry).len());
        let width = cells.chain([heading.len()]).max().unwrap_or(0);
        let width = u16::try_from(width).unwrap_or(u16::MAX);
        let Some(rest) = left.checked_sub(width.saturating_add(1)).filter(|rest| *rest >= NAME)
        else {
            break;
        };
        left = rest;
        columns.push(Column { heading, cell, width });
    }
    columns[0].width = left;
    columns
}

/// The segments as a row of blocks: live, pooled, unlinked. Cut off at the end of the line.
fn segment_line(stats: &psa::protocol::TopicStats, width: u16) -> Line<'static> {
    let kinds = [
        ("live", stats.live_segments, "■", Color::Green),
        ("pooled", stats.pooled_segments, "□", Color::DarkGray),
        ("unlinked", stats.unlinked_segments, "▣", Color::Yellow),
    ];
    let each = u64::from(width / 3).saturating_sub(16);
    let mut spans = vec![Span::raw("segments ")];
    for (name, count, sign, colour) in kinds {
        let blocks = sign.repeat(count.min(each) as usize);
        let more = if count > each { "…" } else { "" };
        spans.push(Span::styled(format!("{blocks}{more}"), Style::new().fg(colour)));
        spans.push(Span::raw(format!(" {} {name}  ", human_count(count))));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use psa::protocol::{Slowest, TopicStats};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn summary(name: &str, next: u64) -> TopicInfo {
        let mut topic = TopicInfo::default();
        (topic.name, topic.epoch, topic.next) = (name.into(), 1, next);
        (topic.bytes, topic.cursors) = (1 << 20, 2);
        topic
    }

    fn screen(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        cells.chunks(width.into()).map(|row| row.concat() + "\n").collect()
    }

    fn view() -> View {
        let mut view = View::new("127.0.0.1:9853");
        let at = Instant::now();
        view.update(Snapshot {
            at,
            topics: vec![summary("a", 0), summary("b", 100)],
            detail: None,
        });
        let mut detail = TopicDetails::default();
        detail.name = "a".into();
        detail.stats = TopicStats {
            live_segments: 3,
            live_bytes: 3 << 20,
            memory_limit: Some(4 << 20),
            slowest: Some(Slowest { cursors: 1, records: 4321, ..Slowest::default() }),
            ..TopicStats::default()
        };
        view.update(Snapshot {
            at: at + Duration::from_secs(2),
            topics: vec![summary("a", 4000), summary("b", 100)],
            detail: Some(detail),
        });
        view
    }

    #[test]
    fn it_shows_rates_memory_and_who_holds_back() {
        let text = screen(&view(), 120, 30);
        for part in [
            "127.0.0.1:9853",
            "2,000 records/s",
            "3.0 MiB of 4.0 MiB",
            "■■■ 3 live",
            "4,321 records behind",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn it_shows_what_is_on_the_disk() {
        let mut view = view();
        let mut topic = summary("a", 1);
        (topic.durability, topic.disk_bytes) = (Some(psa::Durability::Synced), 7 << 20);
        let mut detail = view.detail.clone().unwrap();
        detail.settings.durability = Some(psa::Durability::Synced);
        let mut stored = psa::client::StoredDetails::default();
        (stored.bytes, stored.limit, stored.files, stored.durable) = (7 << 20, 1 << 30, 1, 4);
        detail.stored = Some(stored);
        let snapshot = |detail| Snapshot {
            at: Instant::now(),
            topics: vec![topic.clone()],
            detail: Some(detail),
        };
        view.update(snapshot(detail.clone()));
        let text = screen(&view, 120, 30);
        for part in [
            "7.0 MiB on the disk",
            "DURABILITY",
            "synced, on the disk 7.0 MiB of 1.0 GiB in 1 file, from offset 0; forced to it before 4",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        detail.stored.as_mut().unwrap().failed = Some("no space".into());
        view.update(snapshot(detail));
        assert!(screen(&view, 120, 30).contains("the disk has failed: no space"));
    }

    #[test]
    fn a_number_is_shown_whole_or_not_at_all() {
        let mut view = view();
        let topics = vec![summary("a", 1_234_567), summary("b", 100)];
        view.update(Snapshot { at: Instant::now(), topics, detail: None });
        for width in 1..120 {
            let text = screen(&view, width, 8);
            let rows = text.lines().filter(|line| line.contains(" 1,23") || line.contains("TOPIC"));
            let rows: Vec<_> = rows.collect();
            for part in rows.iter().filter(|row| row.contains("1,2")) {
                assert!(
                    part.contains("1,234,567 ") || part.contains("1,234,567│"),
                    "{width}: {part}"
                );
            }
        }
        assert!(screen(&view, 50, 8).contains("1,234,567"));
        assert!(screen(&view, 120, 8).contains("LEASES"));
    }

    #[test]
    fn a_server_that_does_not_answer_is_told_of() {
        let mut view = view();
        view.wait(Duration::from_millis(900));
        assert!(!screen(&view, 100, 30).contains("not answered"));
        view.wait(Duration::from_secs(4));
        assert!(screen(&view, 100, 30).contains("127.0.0.1:9853 has not answered for 4 s"));
        view.update(Snapshot { at: Instant::now(), topics: vec![], detail: None });
        assert!(!screen(&view, 100, 30).contains("not answered"));
    }

    #[test]
    fn any_size_of_terminal_is_drawn() {
        let view = view();
        for (width, height) in [(1, 1), (5, 3), (20, 8), (80, 19), (80, 24), (300, 100)] {
            screen(&view, width, height);
        }
        screen(&View::new("x"), 40, 10);
    }

    #[test]
    fn the_selection_follows_its_topic_and_stays_in_range() {
        let mut view = view();
        view.select(1);
        assert_eq!(view.selected(), Some("b"));
        assert!(view.detail.is_none(), "another topic's detail is not shown under this name");
        let topics = ["0", "a", "b"].map(|name| summary(name, 1)).to_vec();
        view.update(Snapshot { at: Instant::now(), topics, detail: None });
        assert_eq!(view.selected(), Some("b"));
        view.select(100);
        assert_eq!(view.selected(), Some("b"));
        view.update(Snapshot { at: Instant::now(), topics: vec![], detail: None });
        assert_eq!(view.selected(), None);
        view.select(-5);
    }

    #[test]
    fn a_topic_that_was_made_anew_has_no_negative_rate() {
        let mut view = view();
        let mut again = summary("a", 10);
        again.epoch = 2;
        view.update(Snapshot {
            at: Instant::now() + Duration::from_secs(12),
            topics: vec![again],
            detail: None,
        });
        assert!(view.topics[0].rate <= 10);
    }

    #[test]
    fn trouble_is_shown_and_forgotten() {
        let mut view = view();
        view.fail("cannot connect\nat all".into());
        assert!(screen(&view, 100, 30).contains("cannot connect"));
        view.update(Snapshot { at: Instant::now(), topics: vec![], detail: None });
        assert!(!screen(&view, 100, 30).contains("cannot connect"));
    }
}
