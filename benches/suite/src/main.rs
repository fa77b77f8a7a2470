//! The command of the bench suite. `docs/rivals-in-process.md` tells what it measures and how.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use psa_suite::cells;
use psa_suite::machine::{Machine, repository};
use psa_suite::outputs::{Outputs, read};
use psa_suite::results::Results;
use psa_suite::rounds::{Effort, run_cell};
use psa_suite::{figures, network, soak, stored, table};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// psa beside its rivals: measures, and draws what was measured.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures psa and its rivals in one process.
    InProcess(InProcess),
    /// Draws the figures and writes the tables of the documentation, from the results of `in-process`, and
    /// draws those of `psa-lab compare`, `psa-lab sse`, `psa-lab stored` and `psa-lab soak`.
    Draw(Draw),
}

#[derive(clap::Args)]
struct Draw {
    /// The results of one suite, whichever wrote them [default: all that lie in docs/figures].
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The folder of the figures [default: docs/figures].
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// The document whose tables are rewritten, from results of `in-process`
    /// [default: docs/rivals-in-process.md].
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Writes nothing; fails if anything is not there as it would be drawn.
    #[arg(long)]
    check: bool,
}

#[derive(clap::Args)]
struct InProcess {
    /// Small sizes and one run: shows that everything works; its figures say nothing.
    #[arg(long)]
    quick: bool,
    /// Runs only the cells whose name begins so, such as `1x8`, `parked` or `1x1:u64`; may be given
    /// several times.
    #[arg(long, value_name = "CELL")]
    only: Vec<String>,
    /// Runs only the rivals whose name contains this; may be given several times.
    #[arg(long, value_name = "NAME")]
    rival: Vec<String>,
    /// Runs of every rival in every cell [default: 7, 1 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
    /// Where to write the results [default: docs/figures/in-process.json, nowhere with --quick].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Shows the names of the cells and ends.
    #[arg(long)]
    list: bool,
}

/// Where the results of the documentation lie.
const RESULTS: &str = "docs/figures/in-process.json";
/// Records that are stored for the replay.
const REPLAYED: usize = 10_000_000;
/// The same with `--quick`.
const REPLAYED_QUICK: usize = 100_000;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::InProcess(arguments) => in_process(&arguments),
        Command::Draw(arguments) => draw(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("psa-suite: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is going on, on the terminal's last line; where there is no terminal, a line for each cell.
struct Progress {
    cell: String,
    is_terminal: bool,
}

impl Progress {
    fn new(cell: String) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        if !is_terminal {
            eprintln!("{cell}");
        }
        Progress { cell, is_terminal }
    }

    fn show(&mut self, round: usize, rival: &str) {
        if self.is_terminal {
            let round = if round == 0 { "sizing".to_owned() } else { format!("run {round}") };
            eprint!("\r\x1b[K{}: {round}, {rival}", self.cell);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn in_process(arguments: &InProcess) -> Result<(), String> {
    let InProcess { quick, only, rival, runs, out, list } = arguments;
    let mut cells = cells::all(if *quick { REPLAYED_QUICK } else { REPLAYED });
    let full_name = |cell: &cells::Cell| format!("{}:{}", cell.name, cell.payload);
    cells.retain(|cell| {
        let name = full_name(cell);
        let begins = |only: &String| name == *only || cell.name == *only || name.starts_with(only);
        only.is_empty() || only.iter().any(begins)
    });
    for cell in &mut cells {
        let is_named =
            |name: &str| rival.is_empty() || rival.iter().any(|part| name.contains(part));
        cell.entries.retain(|entry| is_named(entry.rival));
    }
    cells.retain(|cell| !cell.entries.is_empty());
    if cells.is_empty() {
        return Err("no cell matches --only and --rival: see --list".to_owned());
    }
    if *list {
        cells.iter().for_each(|cell| println!("{}", full_name(cell)));
        return Ok(());
    }
    let effort = match (quick, runs.map(usize::from)) {
        (true, runs) => Effort::quick(runs.unwrap_or(1)),
        (false, runs) => Effort::full(runs.unwrap_or(7)),
    };
    let mut results = Results { quick: *quick, machine: Machine::facts(), cells: Vec::new() };
    for (number, cell) in cells.iter().enumerate() {
        let measured = {
            let mut progress =
                Progress::new(format!("[{}/{}] {}", number + 1, cells.len(), full_name(cell)));
            run_cell(cell, &effort, |round, rival| progress.show(round, rival))?
        };
        print!("{}", table::terminal(&measured));
        results.cells.push(measured);
    }
    let default = (!quick).then(|| repository().join(RESULTS));
    if let Some(file) = out.clone().or(default) {
        results.write(&file)?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

/// The files that `draw` looks for in docs/figures; those of a suite that was not run are not there.
const ALL: [&str; 6] = [
    "in-process.json",
    "network.json",
    "http.json",
    "soak.json",
    "rivals-stored.json",
    "stored.json",
];

fn draw(arguments: Draw) -> Result<(), String> {
    let in_repository =
        |file: Option<PathBuf>, usual: &str| file.unwrap_or_else(|| repository().join(usual));
    let folder = in_repository(arguments.to, "docs/figures");
    let document = in_repository(arguments.document, "docs/rivals-in-process.md");
    let files = match arguments.from {
        Some(file) => vec![file],
        None => {
            let all = ALL.map(|name| repository().join("docs/figures").join(name));
            all.into_iter().filter(|file| file.exists()).collect()
        }
    };
    if files.is_empty() {
        return Err("there are no results in docs/figures: run `in-process` first".to_owned());
    }
    let mut outputs = Outputs::default();
    for file in files {
        draw_one(&file, &folder, &document, &mut outputs)
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if arguments.check { outputs.compare() } else { outputs.write() }
}

/// What tells one suite's file from another's.
#[derive(Deserialize)]
struct Mark {
    /// Of `psa-lab compare` and `psa-lab sse`.
    suite: Option<String>,
    /// Of `psa-lab soak`.
    samples: Option<IgnoredAny>,
    /// Of `psa-lab stored`: `stored`.
    mode: Option<String>,
}

fn draw_one(
    file: &Path,
    folder: &Path,
    document: &Path,
    outputs: &mut Outputs,
) -> Result<(), String> {
    let text = read(file)?;
    let mark: Mark =
        serde_json::from_str(&text).map_err(|error| format!("this is no results file: {error}"))?;
    let figures = match mark {
        Mark { suite: Some(_), .. } => {
            network::figures::all(&network::results::Results::read(&text)?)
        }
        Mark { samples: Some(_), .. } => {
            vec![figures::Figure { file: "soak.svg".to_owned(), svg: soak::draw(&text)? }]
        }
        Mark { mode: Some(mode), .. } if mode == "stored" => stored::draw(&text)?,
        Mark { .. } => {
            let results = Results::read(&text)?;
            outputs.place(document, "results", &table::markdown(&results))?;
            figures::all(&results)
        }
    };
    for figure in figures {
        outputs.put(folder.join(figure.file), figure.svg);
    }
    Ok(())
}
