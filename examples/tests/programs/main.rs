//! Runs every example as a process of its own, as its reader would, and looks at what it says and does.

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
