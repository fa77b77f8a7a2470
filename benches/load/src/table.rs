//! Plain tables for people: aligned columns without lines or colours. Programs use `--json`.

use unicode_width::UnicodeWidthStr as _;

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Names.
    Left,
    /// Numbers.
    Right,
}

/// Lays out rows under their headings, two spaces between columns. A row has as many cells as there
/// are headings.
pub fn table(headings: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|(name, _)| name.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut out = String::new();
    let names: Vec<String> = headings.iter().map(|(name, _)| name.to_string()).collect();
    for row in std::iter::once(&names).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(headings) {
            let pad = " ".repeat(width - cell.width());
            let (before, after) = if *align == Align::Right { (&*pad, "") } else { ("", &*pad) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Lays out lines of a name and a value, with the values aligned.
pub fn list(entries: &[(&str, String)]) -> String {
    let width = entries.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    entries.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "1".into()], vec!["éé".into(), "1000".into()]];
        let text = table(&[("T", Align::Left), ("N", Align::Right)], &rows);
        assert_eq!(text, "T      N\na      1\néé  1000\n");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let rows = [vec!["日本".into(), "1".into()], vec!["abcd".into(), "2".into()]];
        let text = table(&[("T", Align::Left), ("N", Align::Right)], &rows);
        assert_eq!(text, "T     N\n日本  1\nabcd  2\n");
    }
}
