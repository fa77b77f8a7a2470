//! What the system reports about processes and about the machine. The figures come from `/proc` on Linux and
//! are missing on other systems. It is read by hand: that is some lines for a few numbers, here and in
//! `signals.rs`, and a crate for it parses every file whole.

use serde_json::{Value, json};
use std::fs;

/// The resources that a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub rss: u64,
    /// Peak resident memory in bytes.
    pub peak_rss: u64,
    /// Processor time in seconds, with a resolution of 10 ms unless [`exact_usage`] says otherwise.
    pub cpu: f64,
}

/// The resources that a process has used so far.
pub fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(Usage {
        rss: kib(&status, "VmRSS:")?,
        peak_rss: kib(&status, "VmHWM:")?,
        cpu: ticks(&stat)? as f64 / TICKS_PER_SECOND,
    })
}

/// The processor time that this process has used so far, in seconds.
pub fn own_cpu() -> Option<f64> {
    usage(std::process::id()).map(|usage| usage.cpu)
}

/// The processor time that the calling thread has used so far, in seconds.
pub(crate) fn thread_cpu() -> Option<f64> {
    on_processor("/proc/thread-self/schedstat")
}

/// The resources that a process has used so far, with its processor time in nanosecond resolution if the
/// kernel provides it. The exact figure covers only threads that still exist, which is right for a server,
/// whose threads live as long as it does. If the coarse figure, which includes ended threads, is clearly
/// larger, it is returned instead.
pub fn exact_usage(pid: u32) -> Option<Usage> {
    let usage = usage(pid)?;
    let mut exact = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        exact += task.path().join("schedstat").to_str().and_then(on_processor).unwrap_or(0.0);
    }
    Some(if usage.cpu > exact + 0.1 { usage } else { Usage { cpu: exact, ..usage } })
}

/// The first figure of a `schedstat` file, which is the time on a processor. Returned in seconds.
fn on_processor(path: &str) -> Option<f64> {
    let nanos: u64 = fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()?;
    Some(nanos as f64 / 1e9)
}

/// The unit of `/proc/PID/stat`, whatever the kernel's own tick is.
pub const TICKS_PER_SECOND: f64 = 100.0;

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// User plus system time in ticks. The second field is the program's name and may contain anything, so the
/// other fields are counted from its closing bracket.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A description of the machine for the report.
pub fn machine() -> Value {
    let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let cpu = line("/proc/cpuinfo").and_then(|info| {
        let model = info.lines().find_map(|line| line.strip_prefix("model name"))?;
        Some(model.trim_start_matches([' ', '\t', ':']).to_owned())
    });
    json!({
        "cpu": cpu,
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "kernel": line("/proc/sys/kernel/osrelease"),
        "load": load(),
    })
}

/// The load average of the last minute.
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status = "Name:\tpsa\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((kib(status, "VmRSS:"), kib(status, "VmHWM:")), (Some(1 << 20), Some(2 << 20)));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(300));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_known() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss > 0 && usage.peak_rss >= usage.rss, "{usage:?}");
    }
}
