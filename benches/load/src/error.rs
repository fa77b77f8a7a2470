//! How a command fails: one line on standard error, and an exit code that a script can use.
//!
//! The line reads `psa: what: why; what to do`. *What* is the thing that failed, in the user's words
//! (a file, a topic, a flag). *Why* is the cause. *What to do* is present if the user can do something.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | success; also when the reader of the output closed it (a broken pipe) |
//! | 1 | failure: a file, a disk, an internal error |
//! | 2 | wrong usage: a flag, a variable, the configuration file |
//! | 3 | no connection: nothing listens there, the network failed, the peer speaks another protocol, or the connection ended for good |
//! | 4 | the server refused; the line ends with its code in brackets, for example `[record-too-large]` |
//! | 5 | records are lost: in a gap, and `--on-gap fail` was given; or `psa verify` found damage |
//! | 128+n | ended by signal n: 130 for Ctrl-C, 143 for SIGTERM, 129 for a closed terminal |

use std::fmt;
use std::io;
use std::os::fd::AsFd;

/// How the process exits. See the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A failure that is none of the following.
    Failed,
    /// Wrong flags, variables or configuration.
    Usage,
    /// No connection to the server, or the connection was lost.
    Unreachable,
    /// The server answered with an error.
    Refused,
    /// Records are lost: a gap was reported and the user asked to fail on one, or files are damaged.
    Gap,
    /// The reader of the output is gone, which is not a failure.
    OutputClosed,
    /// Ended by a signal with this number.
    Signal(u8),
}

impl Exit {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::OutputClosed => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Refused => 4,
            Exit::Gap => 5,
            Exit::Signal(number) => 128 + number,
        }
    }
}

/// A failure of the command: one line and an exit code.
#[derive(Debug)]
pub struct Error {
    exit: Exit,
    what: String,
    why: String,
    hint: Option<String>,
}

/// What every command returns.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure: its exit code, what failed, and why.
    pub fn new(exit: Exit, what: impl fmt::Display, why: impl fmt::Display) -> Error {
        Error { exit, what: what.to_string(), why: why.to_string(), hint: None }
    }

    /// A failure of the machine, not of the user or the server.
    pub fn failed(what: impl fmt::Display, why: impl fmt::Display) -> Error {
        Error::new(Exit::Failed, what, why)
    }

    /// A wrong flag, variable or setting.
    pub fn usage(what: impl fmt::Display, why: impl fmt::Display) -> Error {
        Error::new(Exit::Usage, what, why)
    }

    /// An exit without a message.
    pub fn quiet(exit: Exit) -> Error {
        Error::new(exit, "", "")
    }

    /// A failure of a file or stream; `path` is the user's name for it.
    pub fn file(path: impl fmt::Display, error: &io::Error) -> Error {
        let failure = Error::failed(path, describe_io(error));
        match error.kind() {
            io::ErrorKind::PermissionDenied => failure.hint("check its owner and mode"),
            io::ErrorKind::StorageFull => failure.hint("free some space"),
            _ => failure,
        }
    }

    /// A failed write to standard output. A reader that went away is not a failure, and a closed terminal
    /// produces no message either.
    pub fn stdout(error: &io::Error) -> Error {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Error::quiet(Exit::OutputClosed)
        } else if is_hang_up(error, io::stdout()) {
            Error::quiet(HANG_UP)
        } else {
            Error::file("standard output", error)
        }
    }

    /// The same failure with advice.
    pub fn hint(mut self, hint: impl fmt::Display) -> Error {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same failure with `more` after its reason, for example how far a publisher got.
    pub fn and(mut self, more: impl fmt::Display) -> Error {
        self.why = format!("{}; {more}", self.why);
        self
    }

    /// Whether the process ends without a message.
    pub fn is_quiet(&self) -> bool {
        self.what.is_empty() && self.why.is_empty()
    }

    /// Whether the name of what failed is still missing.
    pub fn is_unnamed(&self) -> bool {
        self.what.is_empty()
    }

    /// The same failure, with `what` as the name of what failed.
    pub fn named(mut self, what: impl fmt::Display) -> Error {
        self.what = what.to_string();
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{}: {}", self.what, self.why);
        if let Some(hint) = &self.hint {
            line.push_str("; ");
            line.push_str(hint);
        }
        f.write_str(&one_line(&line))
    }
}

impl std::error::Error for Error {}

/// The exit of a process whose terminal was closed: the same as for the hang-up signal. A failed read or write
/// can be noticed before the signal, and must have the same effect.
pub const HANG_UP: Exit = Exit::Signal(1);

/// Whether a read or a write failed because its terminal was closed. A closed terminal returns EIO, which for
/// a file would mean a broken disk.
pub fn is_hang_up(error: &io::Error, stream: impl AsFd) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        // Not `is_terminal`, because a closed terminal no longer counts as one.
        && rustix::fs::fstat(stream).is_ok_and(|stat| {
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            kind == rustix::fs::FileType::CharacterDevice
        })
}

/// The text of an I/O error, without the `(os error 2)` that means nothing to a user, starting in lower case.
pub fn describe_io(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match (chars.next(), text.chars().nth(1)) {
        // "No such file" becomes "no such file"; "I/O error" stays.
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_string(),
    }
}

/// Replaces line endings and control characters, which a file name or a server's message can contain, so
/// that an error is one line and cannot control the terminal. So with characters that change the direction of what
/// comes after them: a name could hide the rest of its line, or pretend to be another one.
pub fn one_line(text: &str) -> String {
    let is_unfit = |c: char| {
        let separates = matches!(c, '\u{2028}' | '\u{2029}');
        // Unicode Standard Annex #9, 2: explicit directional embeddings, overrides, isolates and marks.
        let directs = matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || separates || directs
    };
    text.chars().map(|c| if is_unfit(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let error = Error::failed("a\nb\x1b[31m", "why").hint("do\r\nthis");
        let text = error.to_string();
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        assert!(text.ends_with("why; do\u{fffd}\u{fffd}this"), "{text:?}");
    }

    #[test]
    fn a_name_changes_no_direction() {
        for c in ['\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}', '\u{2028}'] {
            assert_eq!(one_line(&format!("a{c}b")), "a\u{fffd}b");
        }
        // Letters that are written from right to left are no marks, and joiners belong to their words.
        for name in ["שלום", "नमस्\u{200d}ते"] {
            assert_eq!(one_line(name), name);
        }
    }

    #[test]
    fn system_errors_lose_their_number() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(describe_io(&error), "no such file or directory");
        assert_eq!(describe_io(&io::Error::other("I/O broke")), "I/O broke");
    }

    #[test]
    fn a_gone_reader_is_quiet_success() {
        let error = Error::stdout(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(error.is_quiet());
        assert_eq!(error.exit().code(), 0);
        assert_eq!(Error::stdout(&io::Error::other("x")).exit().code(), 1);
    }
}
