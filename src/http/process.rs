//! What the process itself takes, under the names that all exporters have for it.
//!
//! Read from `/proc` where there is one; elsewhere these figures are left out.

use std::fs;

/// Name, description, value.
pub(super) type Figure = (&'static str, &'static str, u64);

/// The figures that can be had.
pub(super) fn figures() -> Vec<Figure> {
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as u64);
    [
        ("process_resident_memory_bytes", "Resident memory size in bytes", resident()),
        ("process_open_fds", "Number of open file descriptors", descriptors),
        ("process_max_fds", "Maximum number of open file descriptors", most_descriptors()),
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

/// The soft limit; `None` also if there is none.
fn most_descriptors() -> Option<u64> {
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
