//! The cells: what is measured. One module for each benchmark body, and the list of all cells with
//! the rivals that take part in each.

pub mod append;
pub mod delivery;
mod finish;
pub mod idle;
mod list;
pub mod parked;
mod publishing;
pub mod replay;

pub use list::{Cell, Entry, Kind, Measured, all};
