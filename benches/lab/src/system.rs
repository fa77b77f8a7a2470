//! What else the system says, beside [`psa_cli::bench::facts`].

use psa_cli::bench::facts::TICKS_PER_SECOND;
use std::fs;

/// Processor time in seconds, of this process and of the children that have ended and been waited for.
pub(crate) fn own_and_ended() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// Processor time in seconds that all programs of this machine have had, together with what the machine
/// below took for others.
pub(crate) fn busy() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // User, nice, system; stolen.
    let ticks: u64 = fields.get(..3)?.iter().sum::<u64>() + fields.get(7).copied().unwrap_or(0);
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// How many of something a process has: open descriptors (`fd`), threads (`task`). 0 where the system
/// does not say.
pub(crate) fn entries(pid: u32, what: &str) -> u64 {
    fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, |entries| entries.count() as u64)
}
