//! What the terminal can show, and whether the process has one. A stream that is a terminal cannot necessarily move its
//! cursor, and its user does not necessarily want colours.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;

/// Whether to write colours to `stream`: if it is a terminal that supports them, and the user has not disabled them
/// (<https://no-color.org>).
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !is_dumb() && !says_no(std::env::var_os("NO_COLOR").as_deref())
}

/// Whether the terminal can only print lines one after another, like that of an editor or a build log.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether the process has a controlling terminal.
pub(crate) fn is_there() -> bool {
    open().is_ok()
}

/// Whether the process no longer has a controlling terminal. Other errors do not mean that: descriptors may
/// have run out.
pub(crate) fn is_gone() -> bool {
    open().is_err_and(|error| error == Errno::NXIO)
}

fn open() -> rustix::io::Result<OwnedFd> {
    // Non-blocking, because opening must not wait for a line that is not connected.
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
