//! Figures of the system, in addition to [`psa_load::facts`].

use psa_load::facts::TICKS_PER_SECOND;
use std::fs;

/// The processor time in seconds of this process and of its children that have exited and been waited for.
pub(crate) fn own_and_ended() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// The processor time in seconds that all programs of this machine have used, plus the time that the
/// hypervisor gave to other machines.
pub(crate) fn busy() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // User, nice and system time, and stolen time.
    let ticks: u64 = fields.get(..3)?.iter().sum::<u64>() + fields.get(7).copied().unwrap_or(0);
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// How many open descriptors (`fd`) or threads (`task`) a process has; 0 where the system does not report it.
pub(crate) fn entries(pid: u32, what: &str) -> u64 {
    fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, |entries| entries.count() as u64)
}

/// The bytes that a process has let the system write to a disk, or marked to be written there.
pub(crate) fn written(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}
