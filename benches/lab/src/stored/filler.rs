//! The process that publishes, and is killed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use psa::broker::Durability;
use psa_load::error::Result;

use super::{fail, fill, keeping, open};

/// The arguments of that process.
#[derive(Debug, Args)]
pub(crate) struct FillerArgs {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    bytes: u64,
}

/// Publishes, says so, and waits for its end.
pub(crate) fn filler(args: &FillerArgs) -> Result {
    let broker = open(&args.folder)?;
    let topic = match broker.topic(&Durability::Synced.to_string()) {
        Some(topic) => topic,
        None => keeping(&broker, Durability::Synced, 8 << 20)?,
    };
    fill(&topic, args.bytes)?;
    psa_load::print(b"published\n")?;
    // Until the other process ends, if it does not kill this one.
    let _ = std::io::stdin().read(&mut [0]);
    Ok(())
}

/// Lets another process publish this many bytes, and kills it: nothing is marked as its end.
pub(super) fn fill_and_kill(folder: &Path, bytes: u64) -> Result {
    let own = std::env::current_exe().map_err(|error| fail("this program", error))?;
    let mut child = Command::new(own)
        .args(["stored-filler", "--bytes", &bytes.to_string(), "--folder"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| fail("stored-filler", error))?;
    let mut said = [0; 1];
    let read = child.stdout.take().map(|mut stdout| stdout.read(&mut said));
    let killed = child.kill().and_then(|()| child.wait());
    match (read, killed) {
        (Some(Ok(1)), Ok(_)) => Ok(()),
        _ => Err(fail("stored-filler", "it did not publish everything")),
    }
}
