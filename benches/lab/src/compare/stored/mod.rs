//! `psa-lab compare --stored`: topics that survive, beside JetStream's files and Redis' append-only file.
//!
//! # What is compared with what
//!
//! Two promises, and each is measured among those who make it. *Synced*: what is acknowledged was forced to the disk. This
//! is psa's `synced`, JetStream's `sync_interval: always` and Redis' `appendfsync always`. *Written*: what is acknowledged was
//! handed to the system, and is forced to the disk later: within a second by psa's `written` and Redis' `appendfsync everysec`,
//! within two minutes by JetStream's default.
//!
//! # How a rival publishes
//!
//! In the fastest way that its server offers, and where there are several of them, in each ([`cells::Who`]). All requests are
//! encoded before they are sent, by the thinnest client that works ([`dialogue`]), and the same loop sends them and waits for
//! the acknowledgements ([`publish`]). After each run the server is asked how many records it has: as many as it
//! acknowledged.
//!
//! # The disk
//!
//! Before each run the whole system's buffers are forced to the disk, so that nobody pays for what another one wrote.

pub(crate) mod cells;
mod contender;
mod dialogue;
mod publish;

use super::args::CompareArgs;
use super::rival::Rival;
use super::suite::{Effort, Suite};
use super::{chosen, installed_rivals, list};
use cells::Cell;
use contender::Contender;
use psa_load::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The oldest NATS server that has all ways of publishing that are measured: 2.14.
const NATS: (u32, u32) = (2, 14);

/// Measures.
pub(crate) fn compare(args: &CompareArgs) -> Result {
    let all = cells::all(args.suite.quick);
    let cells = chosen(&all, Cell::name, &args.cells)?;
    if args.list {
        return list(&cells, Cell::name);
    }
    let usual = [Rival::Psa, Rival::Jetstream, Rival::Streams];
    let (mut rivals, mut missing) = installed_rivals(args, &usual)?;
    if let Some(why) = old_nats(&rivals) {
        super::say(&format!("psa-lab: {why}"));
        missing.push(why);
        rivals.retain(|rival| *rival != Rival::Jetstream);
    }
    let place = Place::new(&args.folder)?;
    let versions = rivals.iter().map(|rival| (rival.name().into(), rival.version().into()));
    let effort = Effort::new(&args.suite);
    let mut suite = Suite::new(&args.suite, "rivals-stored", versions.collect(), missing)?;
    for cell in cells {
        let who = cell.contenders().into_iter().filter(|who| rivals.contains(&who.rival()));
        let contenders = who.map(|who| Contender::new(who, cell, effort, &place.0)).collect();
        suite.cell(cell.subject(), contenders, effort.runs)?;
    }
    suite.end()
}

/// Why JetStream is left out, if its server is too old.
fn old_nats(rivals: &[Rival]) -> Option<String> {
    let said = rivals.iter().find(|rival| **rival == Rival::Jetstream)?.version()?;
    if version(&said).is_some_and(|version| version >= NATS) {
        return None;
    }
    let (major, minor) = NATS;
    Some(format!(
        "JetStream is left out: it said `{said}`, and version {major}.{minor} is needed (`.ci/rivals-stored`)"
    ))
}

/// The version in a text such as `nats-server: v2.15.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let numbers = |c: char| !c.is_ascii_digit() && c != '.';
    let version = text.split(numbers).find(|part| part.contains('.'))?;
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// A folder for all that is stored, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(within: &Path) -> Result<Place> {
        let fail = |why: &dyn std::fmt::Display| {
            Error::failed(within.display().to_string(), why.to_string())
        };
        if is_in_memory(within) {
            let why = fail(&"it is in memory, and a disk is to be measured");
            return Err(why.hint("give another one with --folder"));
        }
        let within = within.canonicalize().map_err(|error| fail(&error))?;
        let place = within.join(format!("psa-lab-compare-{}", std::process::id()));
        std::fs::create_dir(&place).map_err(|error| fail(&error))?;
        Ok(Place(place))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a folder's files are only in memory.
#[cfg(target_os = "linux")]
fn is_in_memory(folder: &Path) -> bool {
    /// `tmpfs`, and `ramfs`.
    const MAGICS: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    rustix::fs::statfs(folder).is_ok_and(|found| MAGICS.contains(&(found.f_type as u64)))
}

#[cfg(not(target_os = "linux"))]
fn is_in_memory(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_version_is_read() {
        assert_eq!(version("nats-server: v2.15.1"), Some((2, 15)));
        assert_eq!(version("nats-server: v2.15.0-dev"), Some((2, 15)));
        assert!(version("nats-server: v2.9.10") < Some(NATS));
        assert_eq!(version("nats-server"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_in_memory_is_known() {
        assert!(is_in_memory(Path::new("/dev/shm")));
        assert!(!is_in_memory(Path::new("/proc")));
    }
}
