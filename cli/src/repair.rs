//! `psa repair`: cuts a topic that is damaged, so that a server opens it again.

use crate::args::RepairArgs;
use crate::error::{Result, one_line};
use crate::print;
use crate::progress::Reading;
use crate::topics::print_lines;
use crate::units::human_count;
use crate::verify::{failure, name, problem_json};
use psa::broker::{Repair, RepairPlan};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Runs the command.
pub(crate) fn run(args: &RepairArgs) -> Result {
    let fail = |error| failure(&args.folder, error);
    let mut reading = Reading::new();
    let repair = Repair::plan(&args.folder, &args.topic, |done, all| reading.update(done, all));
    reading.finish();
    let repair = repair.map_err(fail)?;
    let plan = repair.what().clone();
    // Before anything is changed.
    if !args.json {
        print(as_text(&plan).as_bytes())?;
    }
    let done = if args.dry_run { None } else { Some(repair.carry_out().map_err(fail)?) };
    if args.json {
        return print_lines(std::iter::once(as_json(&plan, done.as_deref())));
    }
    let Some(aside) = done else { return print(b"Nothing was changed (--dry-run).\n") };
    let mut text = "Repaired. What was cut is in\n".to_owned();
    for path in aside {
        let _ = writeln!(text, "  {}", one_line(&path.display().to_string()));
    }
    print(text.as_bytes())
}

fn as_text(plan: &RepairPlan) -> String {
    let RepairPlan { folder, problems, keeps, gives_up, cut, set_aside, .. } = plan;
    let shown = one_line(&folder.display().to_string());
    let mut text = format!("{} is damaged, in {shown}:\n", name(plan.name.as_deref(), folder));
    for problem in problems {
        let _ = writeln!(text, "  {}", one_line(&problem.to_string()));
    }
    let gives_up = human_count(*gives_up);
    let Some(keeps) = keeps else {
        text.push_str("No file says its name and its settings: nothing can be kept.\n");
        let _ = writeln!(text, "The whole folder is set aside, with {gives_up} records.");
        return text;
    };
    let _ = match keeps.end - keeps.start {
        0 => writeln!(text, "No record is kept."),
        _ => writeln!(text, "Kept: records {} to {}.", keeps.start, keeps.end - 1),
    };
    let _ = writeln!(text, "Given up: all after them; {gives_up} records could be read of these.");
    if let Some((file, position)) = cut {
        let _ = writeln!(text, "{file} is copied, and ends at byte {position}.");
    }
    for file in set_aside {
        let _ = writeln!(text, "{file} is set aside.");
    }
    text
}

fn as_json(plan: &RepairPlan, done: Option<&[PathBuf]>) -> Value {
    let paths = |paths: &[PathBuf]| -> Vec<_> {
        paths.iter().map(|path| path.display().to_string()).collect()
    };
    json!({
        "topic": plan.name,
        "folder": plan.folder.display().to_string(),
        "problems": plan.problems.iter().map(problem_json).collect::<Vec<_>>(),
        "kept_from": plan.keeps.as_ref().map(|keeps| keeps.start),
        "kept_to": plan.keeps.as_ref().map(|keeps| keeps.end),
        "given_up": plan.gives_up,
        "repaired": done.is_some(),
        "set_aside": done.map(paths),
    })
}
