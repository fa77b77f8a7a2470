//! psa beside what people pick today, in one process: the same benchmark bodies over all of them.
//!
//! `rival` says what a rival has to be able to do, `rivals` holds them, `payload` what they carry and
//! `check` how every subscriber's records are verified. `cells` are the benchmark bodies; `rounds`
//! runs a cell with the rivals taking turns, `probe` watches the cores meanwhile. `results` is the
//! file of all measurements, `table` and `figures` make of it what the documentation shows, with the
//! drawing primitives of `draw`. `network` draws what `psa-lab compare` and `psa-lab sse` measured, `soak`
//! what `psa-lab soak` sampled, `stored` what `psa-lab stored` measured over the number of publishers and over time. `outputs` writes all that, or compares it with what is there.
//! `docs/rivals-in-process.md` tells how it measures.

pub mod cells;
pub mod check;
pub mod draw;
pub mod figures;
pub mod goals;
pub mod machine;
pub mod network;
pub mod outputs;
pub mod payload;
pub mod probe;
pub mod results;
pub mod rival;
pub mod rivals;
pub mod rounds;
pub mod soak;
pub mod stored;
pub mod table;
pub mod text;
