//! Runs every example as a process of its own, as a reader of it would, and checks its output and its effects.

mod alone;
mod at_least_once;
#[cfg(unix)]
mod embedded_server;
#[cfg(unix)]
mod event_bus;
#[cfg(unix)]
mod http;
mod position_in_database;
mod program;
