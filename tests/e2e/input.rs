//! What is published: real log files, or what a clone of the repository has.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One topic's input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Names its topic.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Topics in one run with the repository's own files.
const OWN_FILES: usize = 11;

/// As much of the repository's history as is published. It grows; the tests' time should not.
const HISTORY: usize = 1 << 20;

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of real log files beside the repository, if it is there.
fn log_files() -> Option<Vec<PathBuf>> {
    let folder = repository().join("../shared/data/loghub");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .ok()?
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    (!files.is_empty()).then_some(files)
}

/// The real log files if they are there, and otherwise the repository's own files.
pub(crate) fn found() -> Vec<Input> {
    match log_files() {
        Some(files) => with_hard_lines(files.iter().map(|path| Input::read(path)).collect()),
        None => own(repository()),
    }
}

/// The files of the repository at `root`, its largest ones, and its history if it has one.
pub(crate) fn own(root: &Path) -> Vec<Input> {
    let mut files = Vec::new();
    collect(root, &mut files);
    // By size, then by name, so that a run can be repeated.
    files.sort_by_key(|(size, path)| (u64::MAX - size, path.clone()));
    files.truncate(OWN_FILES);
    let mut inputs: Vec<_> = files.iter().map(|(_, path)| Input::read(path)).collect();
    for (number, input) in inputs.iter_mut().enumerate() {
        // `mod.rs` is no rare name.
        input.name = format!("{number} {}", input.name);
    }
    inputs.extend(history(root));
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

/// Folders of what was built or installed: theirs are no files of the repository.
const MADE: [&str; 2] = ["target", "node_modules"];

/// All files below `folder` that belong to the repository.
fn collect(folder: &Path, files: &mut Vec<(u64, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if hidden || MADE.iter().any(|made| name == *made) {
            continue;
        } else if metadata.is_dir() {
            collect(&path, files);
        } else if metadata.is_file() && metadata.len() > 0 {
            files.push((metadata.len(), path));
        }
    }
}

/// What `git log -p` says, as far as there is a repository with a history, and a git to read it.
fn history(root: &Path) -> Option<Input> {
    // A source archive inside somebody else's repository would tell that one's history.
    if !root.join(".git").exists() {
        return None;
    }
    let log =
        Command::new("git").arg("-C").arg(root).args(["log", "-p", "--max-count=50"]).output();
    let mut bytes = log.ok().filter(|output| output.status.success())?.stdout;
    bytes.truncate(HISTORY);
    (!bytes.is_empty()).then_some(Input { name: "git log -p".into(), bytes })
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

#[test]
fn a_repository_without_a_history_has_files() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["src/lib.rs", ".hidden", "target/big", "tests/node_modules/big"] {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "one\ntwo\r\nthree").unwrap();
    }
    let inputs = own(folder.path());
    let names: Vec<_> = inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["0 lib.rs", "hard lines"]);
    assert_eq!(inputs[0].line_ends(), [4, 9, 14]);
}
