//! The cells: what is asked of every server.

/// What a cell asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Deliveries a second, so many records in each append. So many appends may be on their way to the
    /// clients, all of these together: it bounds how late their records are.
    Fanout { batch: usize, ahead: u64 },
    /// How late records are that are appended one by one at a fixed rate.
    Latency { rate: f64, seconds: f64 },
}

/// One line of the comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) clients: usize,
    /// Bytes of a record.
    pub(crate) size: usize,
}

/// Appends on their way: enough that nobody waits for the publisher, and few, so that a server is asked what
/// it does while every record is late already.
const FAR: u64 = 64;
const CLOSE: u64 = 8;

/// Records a second of the latency cell: 20,000 deliveries a second to 1,000 clients.
const RATE: f64 = 20.0;

/// All cells; those of a quick run are small.
pub(crate) fn all(quick: bool) -> Vec<Cell> {
    let (clients, seconds) = if quick { (20, 0.3) } else { (1000, 2.5) };
    let cell = |kind, size| Cell { kind, clients, size };
    vec![
        cell(Kind::Fanout { batch: 1, ahead: FAR }, 64),
        cell(Kind::Fanout { batch: 1, ahead: CLOSE }, 64),
        cell(Kind::Fanout { batch: 64, ahead: CLOSE }, 64),
        cell(Kind::Fanout { batch: 16, ahead: CLOSE }, 1024),
        cell(Kind::Latency { rate: RATE, seconds }, 64),
    ]
}

impl Cell {
    /// As on the command line and in the figures.
    pub(crate) fn name(&self) -> String {
        let Cell { kind, clients, size } = self;
        match kind {
            Kind::Fanout { batch: 1, ahead: FAR } => format!("single-{clients}x{size}"),
            Kind::Fanout { batch: 1, .. } => format!("close-{clients}x{size}"),
            Kind::Fanout { batch, .. } => format!("batches-{clients}x{size}x{batch}"),
            Kind::Latency { .. } => format!("latency-{clients}"),
        }
    }

    /// The kind's name, as reports know it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Fanout { .. } => "sse",
            Kind::Latency { .. } => "sse-latency",
        }
    }

    /// Records of an append.
    pub(crate) fn batch(&self) -> usize {
        match self.kind {
            Kind::Fanout { batch, .. } => batch,
            Kind::Latency { .. } => 1,
        }
    }
}
