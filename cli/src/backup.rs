//! `psa backup`: copies a folder for data, also while a server uses it.

use crate::args::BackupArgs;
use crate::error::{Error, Exit, Result, one_line};
use crate::print;
use crate::progress::Reading;
use crate::topics::print_lines;
use crate::units::{human_count, human_size};
use psa::broker::{BackedUpTopic, BackupError, back_up};
use serde_json::json;
use std::fmt::Write as _;

/// Runs the command.
pub(crate) fn run(args: &BackupArgs) -> Result {
    // All files of a topic are open at a time.
    let _ = psa_load::raise_descriptor_limit();
    let mut reading = Reading::new();
    let backup = back_up(&args.folder, &args.destination, |done, all| reading.update(done, all));
    reading.finish();
    let backup = backup.map_err(|error| match error {
        BackupError::Folder(error) => Error::failed("data", error),
        error => Error::failed("backup", error),
    })?;
    if args.json {
        print_lines(backup.topics.iter().map(|topic| {
            json!({
                "topic": topic.name,
                "folder": topic.folder.display().to_string(),
                "first_offset": topic.first_offset,
                "next_offset": topic.next_offset,
                "files": topic.files,
                "bytes": topic.bytes,
            })
        }))?;
    } else {
        let mut text: String = backup.topics.iter().map(as_text).collect();
        let to = one_line(&args.destination.display().to_string());
        let topics = human_count(backup.topics.len() as u64);
        let _ = writeln!(text, "Topics backed up to {to}: {topics}");
        print(text.as_bytes())?;
    }
    let damaged = backup.damaged.len();
    for (folder, why) in backup.damaged {
        crate::say(&format!("{} is damaged, and not in the backup: {why}", folder.display()));
    }
    if damaged == 0 {
        return Ok(());
    }
    let why = format!("{damaged} damaged, and not in the backup");
    Err(Error::new(Exit::Gap, args.folder.display(), why).hint("see what `psa verify` reports"))
}

fn as_text(topic: &BackedUpTopic) -> String {
    let BackedUpTopic { name, first_offset, next_offset, files, bytes, .. } = topic;
    let plural = if *files == 1 { "" } else { "s" };
    let (name, size) = (one_line(name), human_size(*bytes));
    let records = human_count(next_offset - first_offset);
    format!(
        "{name}: {records} records from offset {first_offset} in {files} file{plural}, {size}\n"
    )
}
