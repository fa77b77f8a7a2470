//! How much memory the process may use: the machine's memory, the limit of its control group (a container's
//! limit), and the limit of `ulimit -v`.
//!
//! `/proc` is read by hand here: a crate for it parses everything that these two files say, for one number of each.

use crate::units::human_size;
use rustix::process::{Resource, getrlimit};
use std::fmt;
use std::path::{Path, PathBuf};

/// A limit, and what sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) bytes: u64,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Machine,
    ControlGroup,
    AddressSpace,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = human_size(self.bytes);
        match self.source {
            Source::Machine => write!(f, "the machine has {size}"),
            Source::ControlGroup => write!(f, "the control group allows {size}"),
            Source::AddressSpace => write!(f, "the limit of address space (ulimit -v) is {size}"),
        }
    }
}

/// The smallest of these limits; `None` if the system reports none.
pub(crate) fn available() -> Option<Memory> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let address_space = getrlimit(Resource::As).current;
    [
        read(Path::new("/proc/meminfo"))
            .and_then(|text| total(&text))
            .map(|n| (n, Source::Machine)),
        control_group(read).map(|n| (n, Source::ControlGroup)),
        address_space.map(|n| (n, Source::AddressSpace)),
    ]
    .into_iter()
    .flatten()
    .min_by_key(|(bytes, _)| *bytes)
    .map(|(bytes, source)| Memory { bytes, source })
}

/// The machine's memory, from the text of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// The smallest limit of the process's control group and of the groups that contain it.
fn control_group(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let limits = groups.lines().filter_map(|line| {
        // `0::/path`, and in version 1 `4:memory:/path`.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let path = path.trim_start_matches('/');
        // In a container, its own group may be the root that it sees, whatever the path says.
        let folders = Path::new(path).ancestors().map(|folder| PathBuf::from(root).join(folder));
        folders.filter_map(|folder| limit(&read(&folder.join(file))?)).min()
    });
    limits.min()
}

/// Parses the limit in a control group's file; `None` if there is no limit.
fn limit(text: &str) -> Option<u64> {
    // In version 1, the largest number of whole pages means that there is no limit.
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn group(files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<PathBuf, String> =
            files.iter().map(|(path, text)| (path.into(), (*text).into())).collect();
        control_group(|path| files.get(path).cloned())
    }

    #[test]
    fn the_machine() {
        let text = "MemTotal:       16384 kB\nMemFree:        1 kB\n";
        assert_eq!(total(text), Some(16 << 20));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(available().is_some_and(|memory| memory.bytes > 1 << 20), "this one has some");
    }

    #[test]
    fn the_least_of_nested_groups_counts() {
        let own = ("/proc/self/cgroup", "0::/kube/pod/c\n");
        let at = "/sys/fs/cgroup";
        assert_eq!(group(&[]), None);
        assert_eq!(group(&[own, (&format!("{at}/kube/pod/c/memory.max"), "max\n")]), None);
        let pod = format!("{at}/kube/pod/memory.max");
        let inner = format!("{at}/kube/pod/c/memory.max");
        assert_eq!(group(&[own, (&pod, "167772160\n"), (&inner, "max\n")]), Some(160 << 20));
        assert_eq!(group(&[own, (&pod, "max\n"), (&inner, "1048576\n")]), Some(1 << 20));
        // In a cgroup namespace of its own, the group is the root.
        let root = ("/proc/self/cgroup", "0::/\n");
        assert_eq!(group(&[root, (&format!("{at}/memory.max"), "4096\n")]), Some(4096));
    }

    #[test]
    fn the_first_version_of_groups() {
        let own = ("/proc/self/cgroup", "5:cpu,memory:/docker/x\n4:devices:/\n0::/\n");
        let file = "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes";
        assert_eq!(group(&[own, (file, "9223372036854771712\n")]), None);
        assert_eq!(group(&[own, (file, "167772160\n")]), Some(160 << 20));
        // A container sees its own group as the root, and the outer path in its file.
        let seen = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(group(&[own, (seen, "167772160\n")]), Some(160 << 20));
    }
}
