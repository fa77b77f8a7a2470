//! The cells: what is measured for every server.

/// What a cell measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Measure {
    /// Deliveries per second, with `batch` records in each append. The mean number of appends on their way to a
    /// client is at most `ahead`, which bounds how late their records are.
    Fanout { batch: usize, ahead: u64 },
    /// How late records are that are appended one by one at a fixed rate.
    Latency { rate: f64, seconds: f64 },
}

/// One cell of the comparison: a measure at one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) measure: Measure,
    pub(crate) clients: usize,
    /// The size of a record in bytes.
    pub(crate) size: usize,
}

/// The two values of `ahead`: enough appends on their way that no client waits for the publisher; and few, to
/// measure a server while every record must arrive soon.
const FAR: u64 = 64;
const CLOSE: u64 = 8;

/// Records per second in the latency cell: 20,000 deliveries per second to 1,000 clients.
const RATE: f64 = 20.0;

/// All cells; those of a quick run are small.
pub(crate) fn all(quick: bool) -> Vec<Cell> {
    let (clients, seconds) = if quick { (20, 0.3) } else { (1000, 2.5) };
    let cell = |measure, size| Cell { measure, clients, size };
    vec![
        cell(Measure::Fanout { batch: 1, ahead: FAR }, 64),
        cell(Measure::Fanout { batch: 1, ahead: CLOSE }, 64),
        cell(Measure::Fanout { batch: 64, ahead: CLOSE }, 64),
        cell(Measure::Fanout { batch: 16, ahead: CLOSE }, 1024),
        cell(Measure::Latency { rate: RATE, seconds }, 64),
    ]
}

impl Cell {
    /// The cell's name on the command line and in the figures.
    pub(crate) fn name(&self) -> String {
        let Cell { measure, clients, size } = self;
        match measure {
            Measure::Fanout { batch: 1, ahead: FAR } => format!("single-{clients}x{size}"),
            Measure::Fanout { batch: 1, .. } => format!("close-{clients}x{size}"),
            Measure::Fanout { batch, .. } => format!("batches-{clients}x{size}x{batch}"),
            Measure::Latency { .. } => format!("latency-{clients}"),
        }
    }

    /// The name of the measure, as reports know it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.measure {
            Measure::Fanout { .. } => "sse",
            Measure::Latency { .. } => "sse-latency",
        }
    }

    /// The number of records in an append.
    pub(crate) fn batch(&self) -> usize {
        match self.measure {
            Measure::Fanout { batch, .. } => batch,
            Measure::Latency { .. } => 1,
        }
    }
}
