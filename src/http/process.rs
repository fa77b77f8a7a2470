//! Metrics of the process itself, under the names that all exporters use.
//!
//! They are read from `/proc` where it exists; elsewhere they are left out. No crate is used for this: it reads three
//! numbers, and a dependency for them would cost more than it saves.

use std::fs;

/// The name, description and value of a metric.
pub(super) type Figure = (&'static str, &'static str, u64);

/// The metrics that are available.
pub(super) fn figures() -> Vec<Figure> {
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as u64);
    [
        ("process_resident_memory_bytes", "Resident memory size in bytes", resident()),
        ("process_open_fds", "Number of open file descriptors", descriptors),
        ("process_max_fds", "Maximum number of open file descriptors", descriptor_limit()),
    ]
    .into_iter()
    .filter_map(|(name, help, value)| Some((name, help, value?)))
    .collect()
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The soft limit; `None` also if it is unlimited.
fn descriptor_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_this_process() {
        let all = figures();
        let value = |wanted: &str| all.iter().find(|(name, ..)| *name == wanted).unwrap().2;
        assert!(value("process_resident_memory_bytes") > 1 << 20, "{all:?}");
        let before = value("process_open_fds");
        assert!(before >= 3 && value("process_max_fds") >= before, "{all:?}");
    }
}
