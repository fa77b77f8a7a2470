//! What is published: real log files, which are kept in `tests/data`, and files that a seed makes.

use std::path::{Path, PathBuf};

/// One topic's input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Names its topic.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The real log files, sorted by name.
fn log_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/loghub");
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    files
}

/// The real log files, and one with the lines that are hard to keep.
pub(crate) fn logs() -> Vec<Input> {
    with_hard_lines(log_files().iter().map(|path| Input::read(path)).collect())
}

/// The largest of the real log files.
pub(crate) fn largest_log() -> Input {
    let inputs = log_files().into_iter().map(|path| Input::read(&path));
    inputs.max_by_key(|input| input.bytes.len()).expect("there are some")
}

/// Files that `random` makes. Unlike the logs, their lines are of every length up to some 40 KiB, many are
/// empty, and text is not ASCII alone. The last line of every other file has no end.
pub(crate) fn made(random: &mut fastrand::Rng) -> Vec<Input> {
    const FILES: usize = 11;
    const LETTERS: [char; 12] = ['a', 'b', 'z', '0', ' ', '\t', '"', 'ö', 'ß', '∞', '録', '🦀'];
    let mut inputs = Vec::new();
    for number in 0..FILES {
        // The first file is the largest one, a megabyte; the others are small.
        let size = if number == 0 { 1 << 20 } else { random.usize(10 << 10..120 << 10) };
        let mut text = String::with_capacity(size + (1 << 16));
        while text.len() < size {
            // As many short lines as there are long ones: lengths are uniform in their logarithm.
            let length = (10_000_f64.powf(random.f64()) - 1.0) as usize;
            text.extend((0..length).map(|_| LETTERS[random.usize(..LETTERS.len())]));
            text.push('\n');
        }
        if number % 2 == 1 {
            text.push_str("no line end");
        }
        inputs.push(Input { name: format!("made {number}"), bytes: text.into_bytes() });
    }
    with_hard_lines(inputs)
}

impl Input {
    fn read(path: &Path) -> Input {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let bytes =
            std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Input { name, bytes }
    }

    /// Where each line ends, in order; the last one perhaps without a line end.
    pub(crate) fn line_ends(&self) -> Vec<usize> {
        let newlines = self.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let mut ends: Vec<_> = newlines.map(|(at, _)| at + 1).collect();
        if ends.last().copied().unwrap_or(0) < self.bytes.len() {
            ends.push(self.bytes.len());
        }
        ends
    }
}

/// Adds the lines that are hard to keep: every kind of line end, empty lines, bytes that are no text,
/// and no line end at the end.
fn with_hard_lines(mut inputs: Vec<Input>) -> Vec<Input> {
    let mut bytes = Vec::new();
    for number in 0..2000_u32 {
        match number % 8 {
            0 => bytes.extend(b"\n"),
            1 => bytes.extend(b"\r\n"),
            2 => bytes.extend("größer als ∞, 記録 🦀\r\n".as_bytes()),
            3 => bytes.extend(b"\0\xff\xfe not UTF-8 \xc3\x28\n"),
            4 => bytes.extend(b"a carriage return \r in the middle\n"),
            5 => bytes.extend(std::iter::repeat_n(b'x', 700)),
            6 => bytes.extend(format!(" number {number}\r\r\n").as_bytes()),
            _ => bytes.extend(format!("{number}\n").as_bytes()),
        }
    }
    bytes.extend("no end, and half a letter: \u{e9}".as_bytes());
    bytes.pop();
    inputs.push(Input { name: "hard lines".into(), bytes });
    inputs
}

/// What the other tests rely on, and what git or an editor could have changed in these files.
#[test]
fn the_logs_are_those_of_twelve_systems_byte_for_byte() {
    let inputs: Vec<_> = log_files().iter().map(|path| Input::read(path)).collect();
    assert_eq!(inputs.len(), 12);
    for Input { name, bytes } in &inputs {
        assert!(bytes.len() > 64 << 10, "{name} is too short to be killed in the middle of");
        let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let (last, others) = lines.split_last().expect("a line");
        assert!(others.iter().all(|line| line.ends_with(b"\r\n")), "line ends of {name}");
        // A record of `leases` has 12 KiB at most.
        assert!(lines.iter().all(|line| line.len() < 12 << 10), "lines of {name}");
        assert!(!last.is_empty());
    }
    let open = inputs.iter().filter(|input| !input.bytes.ends_with(b"\n")).count();
    assert_eq!(open, 9, "files without a line end at their end");
}

#[test]
fn made_files_are_made_again_by_their_seed_and_have_lines_of_every_length() {
    let [one, same, other] =
        [1, 1, 2].map(|seed| made(&mut fastrand::Rng::with_seed(seed)).swap_remove(0).bytes);
    assert!(one == same && one != other);
    let lengths: Vec<_> = one.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
    let longest = lengths.iter().max().copied();
    assert!(lengths.contains(&0) && longest > Some(12 << 10), "{longest:?}");
}
