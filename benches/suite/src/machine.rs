//! Where and with what the figures were measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The lock file that this program was built with.
const LOCK: &str = include_str!("../Cargo.lock");

/// Packages whose versions are told with the figures.
const RIVALS: [&str; 7] = [
    "async-broadcast",
    "asyncband",
    "chute",
    "crossbeam-channel",
    "disruptor",
    "event-listener",
    "tokio",
];

/// The facts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor, as the kernel calls it.
    pub cpu: String,
    /// How many cores there are.
    pub cores: usize,
    /// Memory in bytes; 0 if unknown.
    pub memory: u64,
    /// The kernel.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// The version of psa, with the commit if it is known.
    pub psa: String,
    /// Names and versions of the rivals.
    pub rivals: Vec<(String, String)>,
    /// The day, UTC.
    pub date: String,
    /// The one-minute load average when the run began; negative if unknown.
    pub load: f64,
}

/// The repository that this suite is part of.
pub fn repository() -> PathBuf {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR"));
    suite.ancestors().nth(2).unwrap_or(suite).to_owned()
}

/// A kernel's release without what follows the version, which is the distribution's business.
pub fn short_kernel(release: &str) -> &str {
    release.split('-').next().unwrap_or_default()
}

/// The version of a package in the lock file.
fn locked(package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != name);
    let version = lines.nth(1)?.strip_prefix("version = \"")?;
    Some(version.trim_end_matches('"').to_owned())
}

/// The value of the first line of a `/proc` file that begins with `key`.
fn proc_value(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Machine {
    /// The facts about this machine, now.
    pub fn facts() -> Self {
        let unknown = || "unknown".to_owned();
        let cpu = proc_value("/proc/cpuinfo", "model name").unwrap_or_else(unknown);
        let model = proc_value("/proc/cpuinfo", "model\t").map(|model| format!(", model {model}"));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| unknown());
        let kernel = short_kernel(kernel.trim());
        let load = fs::read_to_string("/proc/loadavg").ok();
        let load = load.and_then(|load| load.split(' ').next()?.parse().ok());
        let memory = proc_value("/proc/meminfo", "MemTotal");
        let memory = memory.and_then(|memory| memory.trim_end_matches(" kB").parse::<u64>().ok());
        let rivals = RIVALS.iter().filter_map(|name| Some(((*name).to_owned(), locked(name)?)));
        Machine {
            cpu: cpu + &model.unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.unwrap_or(0) * 1024,
            kernel: format!("{} {}", capitalised_os(), kernel),
            rustc: env!("SUITE_RUSTC").to_owned(),
            psa: psa_version(),
            rivals: rivals.collect(),
            date: date(SystemTime::now()),
            load: load.unwrap_or(-1.0),
        }
    }

    /// One line for a caption: the machine and the day.
    pub fn caption(&self) -> String {
        let rustc = self.rustc.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let Machine { cpu, cores, kernel, date, .. } = self;
        format!("{cpu}, {cores} cores, {kernel}, {rustc}, {date}")
    }

    /// One line for a caption: the versions.
    pub fn versions(&self) -> String {
        let rivals = self.rivals.iter().map(|(name, version)| format!("{name} {version}"));
        std::iter::once(self.psa.clone()).chain(rivals).collect::<Vec<_>>().join(", ")
    }
}

/// The system's name as people write it.
fn capitalised_os() -> &'static str {
    match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "macOS",
        other => other,
    }
}

/// The version of psa that is measured.
fn psa_version() -> String {
    let version = locked("psa-log").unwrap_or_default();
    match commit(&repository()) {
        Some(commit) => format!("psa {version} ({commit})"),
        None => format!("psa {version}"),
    }
}

/// The commit that is checked out in `repository`, if that is one, and git is installed.
fn commit(repository: &Path) -> Option<String> {
    // A source archive inside another repository has no commit: git would name that one's.
    if !repository.join(".git").exists() {
        return None;
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(repository).args(["rev-parse", "--short=10", "HEAD"]);
    let output = git.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The day of a moment, UTC, as `2026-01-31`.
fn date(moment: SystemTime) -> String {
    let mut days = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    let is_leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        let day = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_400), "2000-02-29");
        assert_eq!(day(1_709_251_199), "2024-02-29");
        assert_eq!(day(1_709_251_200), "2024-03-01");
    }

    #[test]
    fn a_folder_inside_a_repository_has_no_commit_of_its_own() {
        let suite = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(commit(suite), None);
    }

    #[test]
    fn every_rival_has_a_version() {
        assert_eq!(Machine::facts().rivals.len(), RIVALS.len());
    }
}
