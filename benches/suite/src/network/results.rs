//! The file that `psa-lab compare --out` and `psa-lab sse --out` write: what of it is drawn.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::machine::short_kernel;
use crate::results::Spread;

/// All of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Results {
    /// Which command wrote it: `network` or `http`.
    pub suite: String,
    /// When it began, in UTC.
    pub date: String,
    /// The profile that psa was built with.
    pub profile: String,
    /// Where it was measured.
    pub machine: Machine,
    /// Everybody's version; `None` where it could not be asked for.
    pub versions: BTreeMap<String, Option<String>>,
    /// How it was measured.
    pub config: Config,
    /// The cells.
    pub cells: Vec<Cell>,
}

/// The machine.
#[derive(Clone, Debug, Deserialize)]
pub struct Machine {
    /// The processor, as the kernel calls it.
    pub cpu: Option<String>,
    /// How many cores there are.
    pub cores: u64,
    /// The kernel's release.
    pub kernel: Option<String>,
}

/// How it was measured.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Whether it only went through everything once, small: such figures say nothing.
    pub quick: bool,
}

/// One cell.
#[derive(Clone, Debug, Deserialize)]
pub struct Cell {
    /// Its name, which carries its numbers, as `burst-500x1000x4`.
    pub name: String,
    /// What is measured in it.
    pub kind: String,
    /// How many subscribe.
    pub subscribers: u64,
    /// Bytes of a record.
    pub record_bytes: u64,
    /// Who took part.
    pub contenders: BTreeMap<String, Contender>,
}

/// One contender in a cell.
#[derive(Clone, Debug, Deserialize)]
pub struct Contender {
    /// Its runs.
    pub runs: u64,
    /// How many of them are marked as drifted.
    pub drifted: u64,
    /// Its figures by name.
    pub figures: BTreeMap<String, Figure>,
}

/// Median, least and most of the runs.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Figure {
    median: f64,
    min: f64,
    max: f64,
}

impl Results {
    /// Reads the file's text.
    ///
    /// # Errors
    ///
    /// If the text is not what the commands write.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            format!("this is not what `psa-lab compare` or `psa-lab sse` writes: {error}")
        })
    }

    /// The cells of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Cell> {
        self.cells.iter().filter(move |cell| cell.kind == kind)
    }

    /// One line for a caption: the machine and the day.
    pub fn place(&self) -> String {
        let Machine { cpu, cores, kernel } = &self.machine;
        let cpu = cpu.as_deref().unwrap_or("unknown processor");
        let kernel = short_kernel(kernel.as_deref().unwrap_or("unknown"));
        let day = self.date.split('T').next().unwrap_or_default();
        format!("{cpu}, {cores} cores, Linux {kernel}, {day}; a {} build", self.profile)
    }

    /// One line for a caption: the versions, each one once.
    pub fn versions(&self) -> String {
        let mut all: Vec<&str> = Vec::new();
        for version in self.versions.values().flatten() {
            // Redis tells its commit and its allocator too.
            let short = version.split(" sha=").next().unwrap_or_default();
            if !all.contains(&short) {
                all.push(short);
            }
        }
        // psa's own first.
        all.sort_by_key(|version| !version.starts_with("psa "));
        all.join(", ")
    }
}

impl Cell {
    /// The numbers in its name, as 500, 1000 and 4 in `burst-500x1000x4`.
    pub fn numbers(&self) -> Vec<u64> {
        let last = self.name.split('-').next_back().unwrap_or_default();
        last.split('x').filter_map(|number| number.parse().ok()).collect()
    }

    /// A figure of a contender; `None` if it has no such figure.
    pub fn figure(&self, contender: &str, key: &str) -> Option<Spread> {
        let Figure { median, min, max } = *self.contenders.get(contender)?.figures.get(key)?;
        (median > 0.0).then_some(Spread { least: min, median, most: max })
    }

    /// Whether a contender lost, repeated or changed a record in one of its runs.
    pub fn has_faults(&self, contender: &str) -> bool {
        let faults = self.contenders.get(contender).and_then(|one| one.figures.get("faults"));
        faults.is_some_and(|faults| faults.max > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cells_numbers_are_those_of_its_name() {
        let cell = |name: &str| Cell {
            name: name.to_owned(),
            kind: String::new(),
            subscribers: 0,
            record_bytes: 0,
            contenders: BTreeMap::new(),
        };
        assert_eq!(cell("burst-500x1000x4").numbers(), [500, 1000, 4]);
        assert_eq!(cell("idle-10000").numbers(), [10000]);
        assert!(cell("stalled-1of10").numbers().is_empty());
    }
}
