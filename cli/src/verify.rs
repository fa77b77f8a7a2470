//! `psa verify`: reads all of a folder for data, and names what is damaged.

use crate::args::VerifyArgs;
use crate::error::{Error, Exit, Result, one_line};
use crate::print;
use crate::progress::Reading;
use crate::topics::print_lines;
use crate::units::{human_count, human_size};
use psa::broker::{Problem, RepairError, VerifiedTopic, verify_folder};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs) -> Result {
    let mut reading = Reading::new();
    let topics =
        verify_folder(&args.folder, args.topic.as_deref(), |done, all| reading.update(done, all));
    reading.finish();
    let topics = topics.map_err(|error| failure(&args.folder, error))?;
    if args.json {
        print_lines(topics.iter().map(as_json))?;
    } else {
        print(topics.iter().map(as_text).collect::<String>().as_bytes())?;
    }
    let damaged = topics.iter().filter(|topic| !topic.problems.is_empty()).count();
    if damaged == 0 {
        return Ok(());
    }
    let are = if damaged == 1 { "is" } else { "are" };
    let why = format!("{damaged} of {} topics {are} damaged", topics.len());
    Err(Error::new(Exit::Gap, args.folder.display(), why)
        .hint("restore the folder from a backup, or see what `psa repair --dry-run` would cut"))
}

/// Why a folder cannot be verified, or a topic not be repaired.
pub(crate) fn failure(folder: &Path, error: RepairError) -> Error {
    match error {
        RepairError::UnknownTopic { .. } => Error::usage("--topic", error),
        // It names what it is about.
        RepairError::Folder(_) => Error::failed("data", error),
        error => Error::failed(folder.display(), error),
    }
}

/// The topic, as a user would call it.
pub(crate) fn name(topic: Option<&str>, folder: &Path) -> String {
    match topic {
        Some(name) => one_line(name),
        None => {
            let folder = folder.file_name().unwrap_or_default().to_string_lossy();
            format!("{} (its name cannot be read)", one_line(&folder))
        }
    }
}

fn as_text(topic: &VerifiedTopic) -> String {
    let VerifiedTopic { files, records, bytes, problems, .. } = topic;
    let state = if problems.is_empty() { "sound" } else { "DAMAGED" };
    let name = name(topic.name.as_deref(), &topic.folder);
    let (records, size) = (human_count(*records), human_size(*bytes));
    let plural = if *files == 1 { "" } else { "s" };
    let mut text = format!("{name}: {state}, {records} records in {files} file{plural}, {size}\n");
    if !problems.is_empty() {
        let _ = writeln!(text, "  in {}", one_line(&topic.folder.display().to_string()));
    }
    for problem in problems {
        let _ = writeln!(text, "  {}", one_line(&problem.to_string()));
    }
    text
}

fn as_json(topic: &VerifiedTopic) -> Value {
    json!({
        "topic": topic.name,
        "folder": topic.folder.display().to_string(),
        "files": topic.files,
        "bytes": topic.bytes,
        "records": topic.records,
        "problems": topic.problems.iter().map(problem_json).collect::<Vec<_>>(),
    })
}

/// A problem; the records that cannot be read as their first offset and the one after their last.
pub(crate) fn problem_json(problem: &Problem) -> Value {
    json!({
        "file": problem.file,
        "position": problem.position,
        "what": problem.what,
        "lost_from": problem.lost.map(|lost| lost.first),
        "lost_to": problem.lost.and_then(|lost| lost.end),
    })
}
