//! A run of a whole comparison: every contender of a cell is measured once in each round, in turns.

use super::args::SuiteArgs;
use super::probe::{self, Probe, Reading};
use super::summary::{self, Subject};
use super::{OtherLoad, Turn, say};
use psa_load::error::{Error, Result};
use psa_load::facts;
use serde_json::{Map, Value, json};
use std::time::{Instant, SystemTime};

/// One contender of a cell, as the suite sees it.
pub(crate) trait Contend {
    /// Its name in the figures.
    fn name(&self) -> String;

    /// Whether it is one of our own programs: if that fails, the comparison ends.
    fn is_own(&self) -> bool;

    /// Prepares it. `chunk` is how many records were in one of `psa`'s chunks, as soon as that is known.
    fn warm_up(&mut self, chunk: &mut Option<u32>) -> Result;

    /// Measures once.
    fn run(&mut self, title: &str) -> Result<Map<String, Value>>;

    /// The processor time that its server has used so far, in seconds.
    fn server_cpu(&self) -> f64;

    /// Drops its server after a failure: the next run starts a new one.
    fn restart(&mut self);
}

/// How many runs there are, and how long each one should take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) runs: u32,
    pub(crate) seconds: f64,
    pub(crate) threads: usize,
}

impl Effort {
    pub(crate) fn new(args: &SuiteArgs) -> Effort {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let usual = if args.quick { 0.1 } else { 1.0 };
        Effort {
            runs: args.runs.unwrap_or(if args.quick { 1 } else { 5 }),
            seconds: args.seconds.unwrap_or(usual).clamp(0.01, 60.0),
            threads: args.threads.map_or(cores, |threads| threads as usize),
        }
    }
}

/// A run of the whole comparison.
pub(crate) struct Suite<'a> {
    args: &'a SuiteArgs,
    probe: Probe,
    readings: Vec<Reading>,
    cells: Vec<(Subject, Vec<Turn>)>,
    head: Map<String, Value>,
    /// Failures of rivals.
    errors: Vec<String>,
    began: Instant,
}

impl<'a> Suite<'a> {
    /// `suite` is the name in the figures; `versions` are everybody's; `missing` says who is not installed.
    pub(crate) fn new(
        args: &'a SuiteArgs,
        suite: &str,
        versions: Map<String, Value>,
        missing: Vec<String>,
    ) -> Result<Suite<'a>> {
        let effort = Effort::new(args);
        let head = json!({
            "suite": suite,
            "version": env!("CARGO_PKG_VERSION"),
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
            "date": psa::words::Time(SystemTime::now()).to_string(),
            "machine": facts::machine(),
            "versions": versions,
            "missing": missing,
            "config": {
                "quick": args.quick, "runs": effort.runs, "seconds": effort.seconds,
                "threads": effort.threads,
            },
        });
        let Value::Object(head) = head else { return Err(Error::failed("compare", "no head")) };
        Ok(Suite {
            args,
            probe: Probe::new()?,
            readings: Vec::new(),
            cells: Vec::new(),
            head,
            errors: Vec::new(),
            began: Instant::now(),
        })
    }

    /// Runs all rounds of one cell.
    pub(crate) fn cell<C: Contend>(
        &mut self,
        subject: Subject,
        contenders: Vec<C>,
        runs: u32,
    ) -> Result {
        let name = subject.name.clone();
        say(&format!("[{:>4.0} s] {name}", self.began.elapsed().as_secs_f64()));
        let mut chunk = None;
        let mut ready = Vec::new();
        for mut contender in contenders {
            match contender.warm_up(&mut chunk) {
                Ok(()) => ready.push(contender),
                Err(error) => self.fail(&name, &contender, &error)?,
            }
        }
        let mut turns = Vec::new();
        for round in 0..runs {
            let count = ready.len();
            for i in 0..count {
                let contender = &mut ready[(i + round as usize) % count];
                let title = format!("{name}, round {} of {runs}, {}", round + 1, contender.name());
                let before = self.probe.read()?;
                let others = OtherLoad::start(contender.server_cpu());
                let run = contender.run(&title);
                let others = others.and_then(|others| others.share(contender.server_cpu()));
                let after = self.probe.read()?;
                self.readings.extend([before, after]);
                match run {
                    Ok(mut figures) => {
                        figures.insert("load".into(), facts::load().into());
                        let name = contender.name();
                        turns.push(Turn { name, round, figures, before, after, others });
                    }
                    Err(error) => {
                        contender.restart();
                        self.fail(&name, contender, &error)?;
                    }
                }
            }
        }
        say(&summary::line(&subject, &turns));
        self.cells.push((subject, turns));
        // After each cell, so that a failure in a later one loses nothing.
        self.write(false)
    }

    /// Reports a rival that failed and leaves it out. If one of our own programs failed, the comparison ends.
    fn fail(&mut self, cell: &str, contender: &impl Contend, error: &Error) -> Result {
        let line = format!("{cell}, {}: {error}", contender.name());
        say(&format!("psa-lab: {line}"));
        if contender.is_own() {
            return Err(Error::failed("compare", line));
        }
        self.errors.push(line);
        Ok(())
    }

    /// All figures so far as one object.
    fn figures(&self) -> Value {
        let mut all = self.head.clone();
        let usual = probe::usual(&self.readings);
        all.insert("probe_usual".into(), json!(usual.map(Reading::describe)));
        all.insert("seconds".into(), self.began.elapsed().as_secs_f64().into());
        all.insert("errors".into(), json!(self.errors));
        let cells = self.cells.iter();
        let cells = cells.map(|(subject, turns)| summary::describe(subject, turns, usual));
        all.insert("cells".into(), cells.collect());
        Value::Object(all)
    }

    /// Writes the figures to the file, or at the end to standard output.
    fn write(&self, last: bool) -> Result {
        let text = format!("{:#}\n", self.figures());
        match &self.args.out {
            Some(file) => {
                std::fs::write(file, text).map_err(|error| Error::file(file.display(), &error))
            }
            None if last => psa_load::print(text.as_bytes()),
            None => Ok(()),
        }
    }

    /// Writes all figures. Fails if any contender lost, repeated or corrupted a record.
    pub(crate) fn end(&self) -> Result {
        self.write(true)?;
        let turns = self.cells.iter().flat_map(|(_, turns)| turns);
        let faults: u64 = turns.filter_map(|turn| turn.figures.get("faults")?.as_u64()).sum();
        match faults {
            0 => Ok(()),
            faults => {
                let why = format!("{faults} records were lost, duplicated or corrupt");
                Err(Error::failed("the benchmark failed", why))
            }
        }
    }
}
