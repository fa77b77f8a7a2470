//! Commands that another one starts.

use std::process::{Command, Stdio};

/// `command`, started by `wrapper` with the same arguments and settings, and nothing to read.
pub(crate) fn wrapped(mut wrapper: Command, command: &Command) -> Command {
    wrapper.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapper.env(name, value),
            None => wrapper.env_remove(name),
        };
    }
    wrapper.stdin(Stdio::null());
    wrapper
}
