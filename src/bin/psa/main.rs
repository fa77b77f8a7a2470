//! The `psa` command.
fn main() {}
