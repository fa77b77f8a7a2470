//! The figures of what `psa-lab compare` and `psa-lab sse` measured over sockets.
//!
//! Those commands belong to psa itself, for they measure its server; they write all figures of every run as
//! JSON and make the tables. `results` reads that file, `figures` draws it.

pub mod figures;
pub mod results;
