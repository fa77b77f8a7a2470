//! What the terminal can show, and whether it is there. That a stream is a terminal does not say that it can move its cursor, nor that
//! its user wants colours.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;

/// Whether to write colours to `stream`: a terminal that knows them, whose user has not said no
/// (<https://no-color.org>).
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !is_dumb() && !says_no(std::env::var_os("NO_COLOR").as_deref())
}

/// Whether the terminal only writes line after line, as an editor's or a build log's does.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether the process has a terminal that controls it.
pub(crate) fn is_there() -> bool {
    open().is_ok()
}

/// Whether the process has no such terminal any more. An error of another kind says nothing: descriptors may
/// have run out.
pub(crate) fn is_gone() -> bool {
    open().is_err_and(|error| error == Errno::NXIO)
}

fn open() -> rustix::io::Result<OwnedFd> {
    // It must not wait for a line that is not connected.
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty())
}

fn says_no(no_color: Option<&OsStr>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_counts_unless_it_is_empty() {
        assert!(says_no(Some(OsStr::new("1"))) && says_no(Some(OsStr::new("0"))));
        assert!(!says_no(Some(OsStr::new(""))) && !says_no(None));
    }
}
